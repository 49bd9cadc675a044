"""Finding a subject's events by position without reading them all, and without an index that every append pays for.

Within a subject versions are dense and rise with positions, so the last version at or before a position is found by
halving, each step one look-up by (subject, version). Said once for both databases.
"""

from __future__ import annotations


def version_at_statement(table: str, subject: str, position: str) -> str:
    """One row with one column: the version; 0 where the subject has no event at or before it. `subject` and `position`
    are the database's own placeholders."""
    return (
        "WITH RECURSIVE search(low, high) AS ("
        f" SELECT CAST(0 AS bigint), coalesce((SELECT max(originator_version) FROM {table}"
        f"  WHERE originator_id = {subject}), 0)"
        " UNION ALL"
        f" SELECT CASE WHEN position <= {position} THEN originator_version ELSE low END,"
        f"  CASE WHEN position <= {position} THEN high ELSE originator_version - 1 END"
        # CROSS: SQLite then keeps to this order, and looks one event up for each step.
        f" FROM search CROSS JOIN {table}"
        f" WHERE low < high AND originator_id = {subject} AND originator_version = (low + high + 1) / 2)"
        " SELECT low FROM search WHERE low = high"
    )
