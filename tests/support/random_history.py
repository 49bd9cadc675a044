"""Random histories from a seed, and their timelines: as stored, and as folded from the events."""

from random import Random
from typing import Any

from ledger.clock import ManualClock
from ledger.recorders.postgres import PostgresLedgerRecorder
from ledger.store import Ledger
from ledger.times import format_time
from projections.temporal.changes import read_entries
from projections.temporal.in_force import Timelines, fold_both
from projections.timelines.contract import LIVE, BlockRow, Side, StoredRow
from projections.timelines.store import TimelineStore
from tests.support.ledgers import define, definition, submit

SUBJECTS = ("account:u1", "account:u2", "account:U3", "account:_", "org:acme", "org:beta", "model:a/b")
ACCOUNT_SETTINGS = ("training.opt_in", "storage.inputs_outputs", "caching.temporary")
REASON = {"reason": "the form was filed late"}


class RandomHistory:
    """Submits random changes, schedules, corrections, bounded changes, clears, retractions and definitions, some of
    them together in one submission. The same seed gives the same history."""

    def __init__(self, ledger: Ledger, clock: ManualClock, seed: int) -> None:
        self.ledger = ledger
        self.clock = clock
        self.random = Random(seed)
        self.retractable: list[str] = []

    def extend(self, submissions: int) -> None:
        for _ in range(submissions):
            self.clock.now_us += self.random.choice((1, 2, 1000, 5_000_000))
            self._submit()

    def _submit(self) -> None:
        bodies = [self._body() for _ in range(self.random.choice((1, 1, 1, 2, 5)))]
        for body, receipt in zip(bodies, submit(self.ledger, *bodies), strict=True):
            if body["type"] in ("setting.changed", "setting.cleared"):
                self.retractable.append(receipt.event_id)

    def _body(self) -> dict[str, Any]:
        kind = self.random.randrange(10)
        if kind == 0:
            return define(definition=definition(default=self.random.random() < 0.5))
        if kind <= 2 and self.retractable:
            event_id = self.retractable.pop(self.random.randrange(len(self.retractable)))
            return {"type": "change.retracted", "event_id": event_id, **REASON}
        subject, setting, value = self._setting_value()
        change = {"subject": subject, "setting": setting, **self._period()}
        if kind == 3:
            return {"type": "setting.cleared", **change}
        return {"type": "setting.changed", "value": value, **change}

    def _setting_value(self) -> tuple[str, str, Any]:
        subject = self.random.choice(SUBJECTS)
        if subject.startswith("model:"):
            return subject, "model.hosting", self.random.choice(("hosted", "passthrough"))
        if subject.startswith("org:") and self.random.random() < 0.3:
            return subject, "residency.regions", self.random.choice(([], ["eu"], ["eu", "us"]))
        return subject, self.random.choice(ACCOUNT_SETTINGS), self.random.random() < 0.5

    def _period(self) -> dict[str, Any]:
        """Instants are close together, so that periods meet and overlap."""
        now, period = self.clock.now_us, dict[str, Any]()
        start = now
        if self.random.random() < 0.6:
            start = now + self.random.randrange(-20, 20) * self.random.choice((1, 500))
            period |= {"effective_from": format_time(start), **REASON}
        if self.random.random() < 0.4:
            period["effective_until"] = format_time(max(start, now) + 1 + self.random.randrange(20))
        return period


def expected_timelines(ledger: Ledger) -> dict[str, dict[str, Timelines]]:
    """Subject → setting → timelines, folded from the streams, without timelines that have no step."""
    folded: dict[str, dict[str, Timelines]] = {}
    for subject in sorted({entry.subject for entry in ledger.page(0, 1_000_000)}):
        settings = fold_both(read_entries(ledger.stream(subject)))
        stepped = {setting: both for setting, both in settings.items() if any(any(one.changes) for one in both)}
        if stepped:
            folded[subject] = stepped
    return folded


def stored_timelines(store: TimelineStore, side: Side = LIVE) -> tuple[int, list[StoredRow], list[BlockRow]]:
    """The tracked position, and all rows and blocks."""
    with store.reading(side) as tables:
        return tables.tracked(side), list(tables.rows(side)), list(tables.blocks(side))


def assert_timelines(ledger: Ledger, store: TimelineStore) -> None:
    folded = expected_timelines(ledger)
    position, timelines = store.timelines(folded)
    assert position == ledger.head().position
    assert timelines == folded
    with store.reading() as tables:
        assert {row.subject for row in tables.rows()} >= set(folded)


def recreate_tables(store: TimelineStore) -> None:
    with store.writing(LIVE) as tables:
        tables.drop(LIVE)
        tables.create(LIVE)


def alter(ledger: Ledger, statement: str, *parameters: object) -> None:
    """Runs SQL that bypasses our code. `statement` names tables as `{timelines_blocks}` and parameters as `?`."""
    postgres = isinstance(ledger.recorder, PostgresLedgerRecorder)
    tables = ("timelines_subjects", "timelines_blocks", "timelines_tracking", "timelines_steps", "events")
    text = statement.format(**{table: f"inforce.{table}" if postgres else table for table in tables})
    with ledger.recorder.transaction(commit=True) as cursor:
        cursor.execute(text.replace("?", "%s") if postgres else text, parameters)
