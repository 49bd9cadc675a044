"""SQL and key ranges that both databases share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from projections.timelines.contract import LIVE, REBUILD, Side

# No code point sorts above it, neither in SQLite's order of bytes nor in PostgreSQL's collation "C".
_LAST: Final = "\U0010ffff"
_KEY: Final = "b.subject = a.subject AND b.setting = a.setting AND b.axis = a.axis AND b.number = a.number"


def subject_range(kind: str | None, prefix: str | None, after: str | None = None) -> tuple[str, str, str] | None:
    """(low, high, above): the subjects asked for have low <= subject <= high and subject > above. None: no subject can
    match."""
    texts = [text for text in (kind, prefix, after) if text]
    if not all(text.isascii() and text.isprintable() for text in texts):
        return None
    lows = [f"{kind}:" if kind else "", prefix or ""]
    highs = [low + _LAST for low in lows]
    return max(lows), min(highs), after or ""


def differing(table: Callable[[Side, str], str], unlike: str) -> tuple[str, ...]:
    """SELECTs of the subjects `a.subject` with rows that differ between the live and the rebuilt side.

    Each ends in a condition, so that the caller can append more. `table`: the name of a side's table. `unlike`: the
    operator that tells values apart, NULL included.
    """
    subjects, blocks = ((table(LIVE, name), table(REBUILD, name)) for name in ("subjects", "blocks"))
    return (
        f"SELECT a.subject FROM {subjects[0]} a LEFT JOIN {subjects[1]} b ON b.subject = a.subject"
        f" WHERE ({_unlike(unlike, 'version', 'position', 'settings')})",
        f"SELECT a.subject FROM {subjects[1]} a WHERE NOT EXISTS"
        f" (SELECT 1 FROM {subjects[0]} b WHERE b.subject = a.subject)",
        f"SELECT DISTINCT a.subject FROM {blocks[0]} a LEFT JOIN {blocks[1]} b ON {_KEY}"
        f" WHERE ({_unlike(unlike, 'start_us', 'until_us', 'steps')})",
        f"SELECT DISTINCT a.subject FROM {blocks[1]} a WHERE NOT EXISTS (SELECT 1 FROM {blocks[0]} b WHERE {_KEY})",
    )


def _unlike(operator: str, *columns: str) -> str:
    return " OR ".join(f"b.{column} {operator} a.{column}" for column in columns)
