"""Names that resemble a name that does not exist, for errors: a caller who mistyped one sees the right one.

Only names that exist are shown, never the caller's text. Pure. Proved by tests/test_near_names.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

SHOWN_MAX: Final = 3
COMPARED_MAX: Final = 1000
"""A comparison costs some 10 µs, and callers choose how many names a catalog has."""
_PART_LENGTH_MIN: Final = 3


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Up to `SHOWN_MAX` of `names` that resemble `name`, the nearest first; upper and lower case are the same."""
    by_folded = {one.casefold(): one for one in islice(names, COMPARED_MAX)}
    wanted = name.casefold()
    # Of `opt_in` and `training.opt_in` too much differs for a comparison of letters.
    parts = [one for one in by_folded if len(wanted) >= _PART_LENGTH_MIN and wanted in one]
    close = get_close_matches(wanted, by_folded, SHOWN_MAX)
    return [by_folded[one] for one in dict.fromkeys((*close, *sorted(parts)))][:SHOWN_MAX]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` (did you mean A, B or C?)`, or nothing if no name resembles it: for the middle of an error's sentence."""
    near = near_names(name, names)
    if not near:
        return ""
    return f" (did you mean {' or '.join(filter(None, (', '.join(near[:-1]), near[-1])))}?)"
