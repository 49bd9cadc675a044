"""The ledger: immutable events, the catalog of settings, and the databases that store them."""
