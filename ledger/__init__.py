"""What was said, when, unaltered: events, the catalog, and the ledger that keeps them."""
