"""`--explain REQUEST_ID`: which events decided a row, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ledger.errors import BadInput
from projections.audit.explain import Explanation, WeighedEvent, explain, explanation_json
from projections.audit.reading.batches import LogBatch
from projections.audit.reference import records
from projections.decisions.model import RequestRecord
from projections.query.pinned import PinnedQuery
from projections.query.query import KnownAt
from projections.temporal.changes import Retraction
from scripts.cli.options import Format
from scripts.cli.output import Columns, encode, human_time, print_line, print_table, show
from scripts.cli.show_decision import print_decision

ROWS_MAX: Final = 20
"""Rows that are explained where several have the id."""
FIELDS: Final = (
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


class Explained(NamedTuple):
    """A row of a log, explained."""

    source: str
    line: int
    explanation: Explanation


class Found(NamedTuple):
    """The first rows that have the id, and how many have it."""

    rows: list[tuple[str, int, RequestRecord]]
    total: int


def find(parts: Iterable[LogBatch], request_id: str) -> Found:
    """The rows of this id, read and not decided. Raises `BadInput` where there is none."""
    found: list[tuple[str, int, RequestRecord]] = []
    total = rows = rejects = 0
    for part in parts:
        rows += part.rows
        rejects += len(part.faults)
        places = pc.indices_nonzero(pc.equal(part.requests.column("request_id"), pa.scalar(request_id, pa.string())))
        total += len(places)
        if len(places) and len(found) < ROWS_MAX:
            places = places[: ROWS_MAX - len(found)]
            lines = [int(part.lines[place]) for place in places.to_pylist()]
            taken = records(part.requests.take(places))
            found += [(part.source, line, record) for line, record in zip(lines, taken, strict=True)]
    if not total:
        unread = f", and {rejects} of them could not be read" if rejects else ""
        raise BadInput(f"none of the {rows} rows has that request_id{unread}; --map request_id= names its column")
    return Found(found, total)


def explain_rows(query: PinnedQuery, found: Found, known_at: KnownAt) -> list[Explained]:
    return [Explained(source, line, explain(query, record, known_at)) for source, line, record in found.rows]


def show_explained(format_: Format, explained: list[Explained], total: int) -> None:
    """`total`: the rows that have the id; those beyond `explained` are only counted."""
    if format_ != "table":
        written: list[dict[str, Any]] = [
            {"source": one.source, "line": one.line} | explanation_json(one.explanation) for one in explained
        ]
        events = [{"source": row["source"], "line": row["line"]} | event for row in written for event in row["events"]]
        show(format_, {"rows": written, "row_count": total}, events, FIELDS, {})
        return
    for place, one in enumerate(explained):
        if place:
            print_line()
        print_line(f"{one.source} line {one.line}", "bold underline")
        print_decision(one.explanation.decision)
        print_line()
        _print_events(one.explanation)
    if total > len(explained):
        print_line()
        print_line(f"and {total - len(explained):,} more rows have this id")


def _print_events(explanation: Explanation) -> None:
    needed = explanation.needed
    if not explanation.events:
        print_line("No event decided it: what the catalog first said, and silence, come to this.", "bold")
        return
    if needed:
        named = ", ".join(f"#{told.position}" for told in needed)
        print_line(f"Decided by {named}: with these alone, and every default, it comes to the same.", "bold")
    else:
        print_line("Needs none of these events: by the defaults alone it comes to the same.", "bold")
    if explanation.others:
        print_line(f"So it does with {explanation.others:,} other sets of as many.")
    print_line()
    print_table(_COLUMNS, explanation.events)


def _said(weighed: WeighedEvent) -> str:
    event = weighed.source.event
    if isinstance(event, Retraction):
        return f"takes back {event.retracts}"
    if isinstance(event.value, dict):
        return f"default {encode(event.value['default']).decode()}"
    return "cleared" if event.value is None else encode(event.value).decode()


def _start(weighed: WeighedEvent) -> str:
    event = weighed.source.event
    return "" if isinstance(event, Retraction) else human_time(event.effective_from)


def _without(weighed: WeighedEvent) -> Any:
    return f"{weighed.verdict} {', '.join(weighed.reasons)}".rstrip()


_COLUMNS: Final[Columns] = {
    "decides": lambda weighed: "yes" if weighed.needed else "",
    "#": lambda weighed: weighed.source.position,
    "subject": lambda weighed: weighed.source.subject,
    "setting": lambda weighed: weighed.source.event.setting,
    "said": _said,
    "recorded at": lambda weighed: human_time(weighed.source.event.recorded_at),
    "effective from": _start,
    "actor": lambda weighed: weighed.source.event.actor,
    "without it": _without,
}
