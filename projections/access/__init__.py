"""Access: principals, roles and tokens, read from the ledger like every other setting."""
