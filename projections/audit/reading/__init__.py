"""Request logs of any kind and size to batches of request records, and faults for the rest, in order."""
