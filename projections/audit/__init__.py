"""Request logs against the ledger: every line gets a verdict, or is rejected with its line number and why."""
