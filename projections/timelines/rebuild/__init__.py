"""Timelines made anew from the whole ledger: read once in the order of events, folded in the order of subjects.

`external_sort` brings the events of some subjects together, `fold_range` makes rows of them, `workers` has several
processes do
so, and `rebuild` writes the rows beside the live ones, compares the two and swaps them.
"""
