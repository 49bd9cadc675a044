"""The worked bitemporal examples of the literature come out exactly: through a real ledger and `Query`.

Each case is replayed at its published recorded times. Published tables may or may not coalesce neighbouring periods of
one value, so ours are coalesced before they are compared, and so are the published ones.
"""

import json
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.times import BEGINNING, DAY, END, parse_time
from projections.query.query import Query
from projections.temporal.changes import read_entries
from projections.temporal.fold import Timeline, fold

SETTING = "case.value"
DEFINITION = {
    "type": "setting.defined",
    "setting": SETTING,
    "definition": {
        "kinds": ["org"],
        "value_type": "text",
        "default": None,
        "protective": None,
        "writable_by": "operator",
        "title": "The value of a published example",
        "description": "Held by the case's key over valid time.",
        "source": "data/bitemporal/cases.json",
    },
    "effective_from": "1900-01-01T00:00:00Z",
    "reason": "before the first example",
}
CASES = ("snodgrass-prop-owner", "wikipedia-john-doe")

Case = dict[str, Any]
Row = tuple[str, int | None, int | None]
"""(value as JSON text, from, until), half-open; None: without end."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, real_data: Callable[[str], Path]) -> Case:
    cases = {case["id"]: case for case in json.loads(real_data("bitemporal/cases.json").read_text())}
    return dict(cases[request.param])


@pytest.fixture
def query(case: Case, database_url: str) -> Iterable[Query]:
    clock = ManualClock(parse_time("1970-01-01T00:00:00Z"))
    with open_ledger(database_url, create=True, clock=clock) as ledger:
        ledger.submit(parse_submissions(DEFINITION), actor="test")
        for recorded, events in groupby(case["events"], key=lambda event: str(event["recorded"])):
            clock.now_us = day(recorded)
            submitted = ledger.submit(parse_submissions({"events": [submission(e) for e in events]}), actor="test")
            assert submitted[0].recorded_at == day(recorded)
        clock.now_us += DAY
        yield Query(ledger)


def day(text: str) -> int:
    return parse_time(f"{text}T00:00:00Z")


def submission(event: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"subject": f"org:{event['key']}", "setting": SETTING, "reason": "as published"}
    for name, date in (("effective_from", event["valid_from"]), ("effective_until", event["valid_to"])):
        body[name] = None if date is None else f"{date}T00:00:00Z"
    if event["op"] == "delete":
        return {**body, "type": "setting.cleared"}
    return {**body, "type": "setting.changed", "value": json.dumps(event["value"])}


def coalesced(rows: Iterable[Row]) -> list[Row]:
    """Merges neighbours with one value into one row."""
    merged: list[Row] = []
    for value, start, until in rows:
        if merged and merged[-1][0] == value and merged[-1][2] == start:
            merged[-1] = (value, merged[-1][1], until)
        else:
            merged.append((value, start, until))
    return merged


def published(rows: list[list[Any]]) -> list[Row]:
    return coalesced(
        (json.dumps(value), day(start), None if until is None else day(until)) for value, start, until in rows
    )


def test_every_published_case_is_run(real_data: Callable[[str], Path]) -> None:
    assert [case["id"] for case in json.loads(real_data("bitemporal/cases.json").read_text())] == list(CASES)


def test_the_table_as_it_was_known_at_each_published_moment(case: Case, query: Query) -> None:
    for table in case["as_of_recorded"]:
        answer = query.timeline(f"org:{table['key']}", setting=SETTING, known_at=day(table["at"]))
        rows = [
            (
                str(interval.value),
                None if interval.start == BEGINNING else interval.start,
                None if interval.until == END else interval.until,
            )
            for interval in answer.intervals
            if interval.source == "explicit"
        ]
        assert coalesced(rows) == published(table["rows"]), (table["at"], table["source"])


def test_the_knowledge_over_time_of_each_published_moment(case: Case, query: Query) -> None:
    for table in case["at_valid"]:
        subject, at = f"org:{table['key']}", day(table["at"])
        instants = sorted({day(event["recorded"]) for event in case["events"]})
        states = [query.state(subject, at=at, known_at=instant).settings[SETTING] for instant in instants]
        rows = [
            (str(state.value), instant, until)
            for state, instant, until in zip(states, instants, [*instants[1:], None], strict=True)
            if state.source == "explicit"
        ]
        assert coalesced(rows) == published(table["rows"]), (table["at"], table["source"])


def test_each_published_point(case: Case, query: Query) -> None:
    for point in case["points"]:
        answer = query.state(f"org:{point['key']}", at=day(point["valid"]), known_at=day(point["recorded"]))
        state = answer.settings[SETTING]
        if point["value"] is None:
            assert (state.source, state.value) == ("default", None)
        else:
            assert (state.source, state.value) == ("explicit", json.dumps(point["value"]))


def test_the_fold_alone_gives_the_same_tables(case: Case, query: Query) -> None:
    for table in case["as_of_recorded"]:
        entries = query.ledger.stream(f"org:{table['key']}")
        known = read_entries(entry for entry in entries if entry.recorded_at <= day(table["at"]))
        rows = [
            (str(step.change.value), step.start, None if step.until == END else step.until)
            for step in fold(known).get(SETTING, Timeline()).steps()
            if step.change is not None and step.change.value is not None
        ]
        assert coalesced(rows) == published(table["rows"])
