"""Stored timelines: the projector, one module per database, and the rebuild."""
