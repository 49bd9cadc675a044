"""Export of events, and import of events and submissions."""
