"""Timelines made anew from the whole ledger: read once in the order of events, folded in the order of subjects.

`sorting` brings the events of some subjects together, `folding` makes rows of them, `workers` has several processes do
so, and `rebuild` writes the rows beside the live ones, compares the two and swaps them.
"""
