"""The columns of all logs of an audit: those that were named and are nowhere, and those that were ignored.

A column that was named for a field and that no row has is an error: without its values the log would seem to hold
nothing against anybody. Proved by tests/audit/io/test_logs.py.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger.errors import BadRecord
from projections.audit.reading.columns import shown
from projections.audit.reading.shape import LogForm
from projections.audit.reading.strict import RowParser


class ColumnNotes:
    def __init__(self) -> None:
        self._absent: dict[str, list[RowParser]] = {}
        """Field → the logs without its column."""
        self._present: set[str] = set()
        self._ignored: dict[str, list[str]] = {}
        self._unused: dict[str, dict[LogForm, list[str]]] = {}
        """Option about the shape of a log → the logs for which it has no meaning, by their form."""
        self._used: set[str] = set()

    def add(self, parser: RowParser, has_record: Callable[[str], bool]) -> None:
        """`has_record`: whether a row of this log gave a record.

        Raises `BadRecord` for a log in which no row could name a subject, or none a time.
        """
        if parser.form is not None:
            unused = parser.shape.unused(parser.form)
            for option in unused:
                self._unused.setdefault(option, {}).setdefault(parser.form, []).append(parser.source)
            self._used |= parser.shape.named() - set(unused)
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
        """Raises `BadRecord` for a column that was named and that no row of any log has, and for an option about the
        shape that has no meaning for any log."""
        unused = {
            f"this is {form}, for which {option} means nothing": sources
            for option, by_form in self._unused.items()
            for form, sources in by_form.items()
        }
        for option, by_form in self._unused.items():
            if option not in self._used:
                form, sources = next(iter(by_form.items()))
                where = _all(sources[0], len(sources))
                raise BadRecord(f"{where}: this is {form}, for which {option} means nothing; leave {option} out")
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
        logs_by_text = texts | self._ignored | unused
        return [f"{_all(sources[0], len(sources))}: {text}" for text, sources in logs_by_text.items()]


def _all(first: str, count: int) -> str:
    return f"{first} and {count - 1:,} more" if count > 1 else first
