"""The way into the ledger: submissions, deciding, group commit."""
