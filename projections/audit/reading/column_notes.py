"""The columns of all logs of an audit: those that were named and are nowhere, and those that were ignored.

A column that was named for a field and that no row has is an error: without its values the log would seem to hold
nothing against anybody. Proved by tests/audit/io/test_logs.py.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger.errors import BadRecord
from projections.audit.reading.columns import shown
from projections.audit.reading.strict import RowParser


class ColumnNotes:
    def __init__(self) -> None:
        self._absent: dict[str, list[RowParser]] = {}
        """Field → the logs without its column."""
        self._present: set[str] = set()
        self._ignored: dict[str, list[str]] = {}

    def add(self, parser: RowParser, has_record: Callable[[str], bool]) -> None:
        """`has_record`: whether a row of this log gave a record.

        Raises `BadRecord` for a log in which no row could name a subject, or none a time.
        """
        if parser.survey.names:
            fault = parser.survey.require_subject_and_time(parser.source)
            if fault is not None and not has_record(parser.source):
                raise BadRecord(fault)
            for field in parser.absent_fields:
                self._absent.setdefault(field, []).append(parser)
        self._present |= parser.present_fields
        text = parser.survey.ignored_text()
        if text is not None:
            self._ignored.setdefault(text, []).append(parser.source)

    def warnings(self) -> list[str]:
        """Raises `BadRecord` for a column that was named and that no row of any log has."""
        for field, logs in self._absent.items():
            if field not in self._present:
                log = logs[0]
                column, columns = shown([log.mapped_columns[field]]), shown(log.survey.names)
                where = _all(log.source, len(logs))
                raise BadRecord(f"{where}: no row has {column}, which was named for {field}; the columns are {columns}")
        by_log: dict[str, list[str]] = {}
        for field, logs in self._absent.items():
            for log in logs:
                by_log.setdefault(log.source, []).append(f"{shown([log.mapped_columns[field]])} for {field}")
        texts: dict[str, list[str]] = {}
        for source, missing in by_log.items():
            count = (
                f"{len(missing)} column{'s' if len(missing) > 1 else ''} that {'were' if len(missing) > 1 else 'was'}"
            )
            texts.setdefault(f"no row has {count} named: {', '.join(missing)}", []).append(source)
        logs_by_text = texts | self._ignored
        return [f"{_all(sources[0], len(sources))}: {text}" for text, sources in logs_by_text.items()]


def _all(first: str, count: int) -> str:
    return f"{first} and {count - 1:,} more" if count > 1 else first
