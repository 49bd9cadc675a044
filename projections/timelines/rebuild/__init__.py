"""Rebuilds the stored timelines from the whole ledger: reads events by position, folds them by subject."""
