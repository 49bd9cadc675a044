"""The ledger as a transparency log: a Merkle tree over the exact bytes of all events, and its signed checkpoints."""
