"""The databases of a ledger: one family of modules each, one contract (`contract`), one suite (tests/contracts)."""
