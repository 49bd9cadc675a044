"""Every question at (at, known_at), pinned to a ledger position."""
