"""Shared by tests of queries: a ledger with its clock and Query, submissions as JSON, instants and settings."""

from typing import Any, NamedTuple

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.times import format_time, parse_time
from projections.query.query import Query
from tests.support.ledgers import define, definition
from tests.support.reference import Json

START = parse_time("2026-01-01T00:00:00Z")
NOON = parse_time("2026-03-01T12:00:00Z")
HOUR = 3_600_000_000
STORAGE, CACHING, TRAINING = "storage.inputs_outputs", "caching.temporary", "training.opt_in"


class QueryLedger(NamedTuple):
    ledger: Ledger
    clock: ManualClock
    query: Query

    def submit(self, recorded_at: int, *events: Json) -> list[Receipt]:
        self.clock.now_us = recorded_at
        return list(self.ledger.submit(parse_submissions({"events": list(events)}), actor="ops"))


def changed(subject: str, setting: str, value: Any, start: int | None = None, until: int | None = None) -> Json:
    event = {"type": "setting.changed", "subject": subject, "setting": setting, "value": value, "reason": "a test"}
    return event | _period(start, until)


def cleared(subject: str, setting: str, start: int | None = None, until: int | None = None) -> Json:
    event = {"type": "setting.cleared", "subject": subject, "setting": setting, "reason": "a test"}
    return event | _period(start, until)


def _period(start: int | None, until: int | None) -> Json:
    return {
        "effective_from": None if start is None else format_time(start),
        "effective_until": None if until is None else format_time(until),
    }


def retracted(event_id: str) -> Json:
    return {"type": "change.retracted", "event_id": event_id, "reason": "a test"}


def defined(setting: str, start: int | None = None, **members: Any) -> Json:
    members = {"kinds": ["account", "org"], **members}
    event = define(setting, definition=definition(**members), reason="a test")
    return event | ({} if start is None else {"effective_from": format_time(start)})
