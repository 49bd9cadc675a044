"""The HTTP door (WIRE.md sections 1 and 2). No rule of the domain lives here."""
