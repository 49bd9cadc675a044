"""`--explain REQUEST_ID` or `FILE:LINE`: prints which events decided a row, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.errors import BadInput
from ledger.opening import open_ledger
from projections.audit.explain import Explanation, WeighedEvent, explain, explanation_json
from projections.audit.reading.batches import LogBatch
from projections.audit.reference import records
from projections.decisions.causes import observed_words
from projections.decisions.model import RequestRecord
from projections.query.query import KnownAt, PinnedQuery, Query
from projections.temporal.changes import Retraction
from scripts.audit.request import AuditRequest, with_progress
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format
from scripts.cli.output import (
    Columns,
    human_bound,
    human_time,
    json_text,
    print_line,
    print_table,
    show,
    show_clock_notices,
)
from scripts.cli.show_decision import notices_of, print_decision

ROWS_MAX: Final = 20
"""How many rows to explain if several have the id."""
_FIELDS: Final = (
    "source",
    "line",
    "position",
    "needed",
    "subject",
    "setting",
    "value",
    "retracts",
    "recorded_at",
    "effective_from",
    "effective_until",
    "actor",
    "event_id",
    "without.verdict",
    "without.reasons",
)


ExplainedRow = tuple[str, int, Explanation]
"""Source and line of a row, and what decided it."""


class Place(NamedTuple):
    """A row by its log and its first line."""

    source: str
    line: int


class MatchingRows(NamedTuple):
    """The first `ROWS_MAX` rows that were asked for, and how many there are."""

    rows: list[tuple[str, int, RequestRecord]]
    total: int


def explain_request(db: str, request: AuditRequest, what: str, format_: Format) -> int:
    """`what`: the id of a request, or FILE:LINE with a log's name."""
    logs = request.logs()
    place = named_row(what, [file.name for file in request.files])
    with open_ledger(db) as ledger:
        with progress("looking for the request", logs.size) as report:
            batches = with_progress(logs, report)
            matching = find_rows(batches, what) if place is None else find_row(batches, place)
        rows = explain_rows(PinnedQuery(Query(ledger)), matching, request.known_at)
    for warning in logs.warnings:
        exits.print_note(warning)
    show_explained(format_, rows, matching.total)
    return exits.OK


def named_row(what: str, logs: Sequence[str]) -> Place | None:
    """The place that FILE:LINE names, where FILE is a log as it was named, or the last part of one log's name. None: it
    is the id of a request."""
    name, colon, line = what.rpartition(":")
    if not colon or not (line.isascii() and line.isdigit() and len(line) < 19):
        return None
    named = [log for log in logs if log == name] or [log for log in logs if Path(log).name == name]
    if len(named) > 1:
        raise BadInput(f"--explain {what}: several logs have that name; name one with its folder")
    return Place(named[0], int(line)) if named else None


def find_row(batches: Iterable[LogBatch], place: Place) -> MatchingRows:
    """Reads the log up to the row at the place. Raises `BadInput` if no row begins there or it cannot be read."""
    where = f"{place.source} line {place.line}"
    for batch in batches:
        if batch.source != place.source:
            continue
        fault = next((row.fault for row in batch.faults if row.line == place.line), None)
        if fault is not None:
            raise BadInput(f"{where} cannot be read: {fault}")
        indexes = np.flatnonzero(batch.lines == place.line)
        if len(indexes):
            (record,) = records(batch.requests.take(pa.array(indexes)))
            return MatchingRows([(batch.source, place.line, record)], 1)
    raise BadInput(f"{where}: no row begins there; lines count from 1, in CSV the header too, in Parquet rows")


def find_rows(batches: Iterable[LogBatch], request_id: str) -> MatchingRows:
    """Reads the log for the rows with this id. Raises `BadInput` if there are none."""
    matches: list[tuple[str, int, RequestRecord]] = []
    total = rows = rejects = 0
    for batch in batches:
        rows += batch.rows
        rejects += len(batch.faults)
        indexes = pc.indices_nonzero(pc.equal(batch.requests.column("request_id"), pa.scalar(request_id, pa.string())))
        total += len(indexes)
        if len(indexes) and len(matches) < ROWS_MAX:
            indexes = indexes[: ROWS_MAX - len(matches)]
            lines = [int(batch.lines[index]) for index in indexes.to_pylist()]
            requests = records(batch.requests.take(indexes))
            matches += [(batch.source, line, record) for line, record in zip(lines, requests, strict=True)]
    if not total:
        unread = f", and {rejects} of them could not be read" if rejects else ""
        raise BadInput(
            f"none of the {rows} rows has that request_id{unread}; --map request_id= names its column, and "
            "--explain FILE:LINE names a row without an id"
        )
    return MatchingRows(matches, total)


def explain_rows(query: PinnedQuery, matching: MatchingRows, known_at: KnownAt) -> list[ExplainedRow]:
    return [(source, line, explain(query, record, known_at)) for source, line, record in matching.rows]


def show_explained(format_: Format, rows: list[ExplainedRow], total: int) -> None:
    """`total`: how many rows have the id; of those beyond `rows` only the number is shown."""
    if format_ != "table":
        documents: list[dict[str, Any]] = [
            {"source": source, "line": line} | explanation_json(explanation) for source, line, explanation in rows
        ]
        events = [
            {"source": document["source"], "line": document["line"]} | event
            for document in documents
            for event in document["events"]
        ]
        show(format_, {"rows": documents, "row_count": total}, events, _FIELDS, {})
        # The rows are events, and only a decision has the notice as a member.
        show_clock_notices(format_, notices_of(explanation.decision for _, _, explanation in rows))
        return
    for index, (source, line, explanation) in enumerate(rows):
        if index:
            print_line()
        print_row(source, line, explanation)
        print_line()
        _print_events(explanation)
    if total > len(rows):
        print_line()
        print_line(f"and {total - len(rows):,} more rows have this id")


def _print_events(explanation: Explanation) -> None:
    if explanation.needed:
        print_line(f"Decided by {', '.join(f'#{event.position}' for event in explanation.needed)}.", "bold")
    else:
        print_line("No event decided this.", "bold")
    if explanation.events:
        print_line()
        print_table(_COLUMNS, explanation.events)


def print_row(source: str, line: int, explanation: Explanation) -> None:
    """Prints where a row is, its id, model and observed handling, and its decision with the causes first."""
    record = explanation.record
    heading = [f"{source} line {line}"]
    heading += [f"{what} {name}" for what, name in (("request", record.request_id), ("model", record.model_id)) if name]
    print_line(", ".join(heading), "bold underline")
    if record.handling is not None:
        members = ((name, value) for name, value in record.handling._asdict().items() if value is not None)
        print_line(f"observed     {observed_words(members) or 'nothing but that it happened'}")
    print_decision(explanation.decision, explanation.causes)


def _change(weighed: WeighedEvent) -> str:
    event = weighed.source.event
    if isinstance(event, Retraction):
        return f"retracts {event.retracts}"
    if isinstance(event.value, dict):
        return f"default {json_text(event.value['default'])}"
    return "cleared" if event.value is None else json_text(event.value)


def _start(weighed: WeighedEvent) -> str:
    event = weighed.source.event
    return "" if isinstance(event, Retraction) else human_bound(event.effective_from)


def _without(weighed: WeighedEvent) -> str:
    without = weighed.without
    return "" if without is None else f"{without.verdict} {', '.join(without.reasons)}".rstrip()


_COLUMNS: Final[Columns] = {
    "decides": lambda weighed: "yes" if weighed.needed else "",
    "#": lambda weighed: weighed.source.position,
    "subject": lambda weighed: weighed.source.subject,
    "setting": lambda weighed: weighed.source.event.setting,
    "change": _change,
    "recorded at": lambda weighed: human_time(weighed.source.event.recorded_at),
    "effective from": _start,
    "actor": lambda weighed: weighed.source.event.actor,
    "without it": _without,
}
