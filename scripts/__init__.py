"""The one `inforce` command: parse, call, print, exit. No rule of the domain lives here."""
