"""Which subjects are asked for, as a range of keys."""

from __future__ import annotations

from typing import Final

# No code point sorts above it, in SQLite's order of bytes and in PostgreSQL's collation "C" alike.
_LAST: Final = "\U0010ffff"


def subject_range(kind: str | None, prefix: str | None, after: str | None = None) -> tuple[str, str, str] | None:
    """(low, high, after): the subjects wanted have low <= subject <= high and subject > after. None: there are none."""
    asked = [text for text in (kind, prefix, after) if text]
    if not all(text.isascii() and text.isprintable() for text in asked):
        return None
    lows = [f"{kind}:" if kind else "", prefix or ""]
    highs = [low + _LAST for low in lows]
    return max(lows), min(highs), after or ""
