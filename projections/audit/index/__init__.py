"""The policy index: all subjects' timelines as arrays, compiled from the ledger and extended."""
