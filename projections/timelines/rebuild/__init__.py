"""Rebuilds the stored timelines from the whole ledger: reads events by position, folds them by subject.

`external_sort` brings each subject's events together, `fold_range` folds them into rows, `workers` does so in several
processes, and `rebuild` writes the rows beside the live ones, compares the two and swaps them.
"""
