"""The SQL that finds a subject's version at a position, for both databases.

A subject's versions are dense and rise with positions, so a binary search finds the last version at or before a
position: each step is one look-up by (subject, version). An index by (subject, position) would cost every append.
"""

from __future__ import annotations


def version_at_statement(table: str, subject: str, position: str) -> str:
    """Selects one row with one column: the version, 0 if the subject has no event at or before the position.

    `subject` and `position` are the database's own placeholders.
    """
    return (
        "WITH RECURSIVE search(low, high) AS ("
        f" SELECT CAST(0 AS bigint), coalesce((SELECT max(originator_version) FROM {table}"
        f"  WHERE originator_id = {subject}), 0)"
        " UNION ALL"
        f" SELECT CASE WHEN position <= {position} THEN originator_version ELSE low END,"
        f"  CASE WHEN position <= {position} THEN high ELSE originator_version - 1 END"
        # CROSS makes SQLite keep this join order, so that each step looks up one event.
        f" FROM search CROSS JOIN {table}"
        f" WHERE low < high AND originator_id = {subject} AND originator_version = (low + high + 1) / 2)"
        " SELECT low FROM search WHERE low = high"
    )
