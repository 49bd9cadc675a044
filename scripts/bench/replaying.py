"""`bench replay`: reading the whole ledger, beside a raw cursor over the same rows.

The feed gives entries; parsing gives what they say; a rebuild folds it all, writes every timeline beside the live
ones, compares the two and takes their place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from ledger.codec import parse_leaf
from ledger.opening import open_ledger
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import PAGE_MAX, Ledger
from ledger.submissions import parse_submissions
from projections.changes import read_assertion
from projections.runner import Runner
from projections.timelines import open_timelines
from scripts.bench.measuring import Bench, Case
from scripts.bench.scratch import Scratch

CURSOR: Final = "raw cursor, same rows"
_COLUMNS: Final = "position, originator_id, originator_version, topic, state, recorded_at, leaf_hash"
_CHANGES: Final = 1000


def cases(scratch: Scratch, stack: ExitStack, quick: bool) -> list[Case]:
    url = scratch.url()
    ledger = stack.enter_context(open_ledger(url, create=True))
    _fill(ledger, 2 if quick else 50)
    runner = Runner(ledger, open_timelines(ledger))
    runner.catch_up()
    return [
        Case(CURSOR, None, lambda _: _raw(ledger)),
        Case(f"feed, pages of {PAGE_MAX}", CURSOR, lambda _: _feed(ledger, lambda entry: entry)),
        Case("feed, and parse_leaf", CURSOR, lambda _: _feed(ledger, lambda entry: parse_leaf(entry.leaf))),
        Case("feed, and read_assertion", CURSOR, lambda _: _feed(ledger, lambda entry: read_assertion(entry.leaf))),
        Case("rebuild, compare, swap", CURSOR, lambda _: runner.rebuild().events),
    ]


def _fill(ledger: Ledger, batches: int) -> None:
    """A tenth as many subjects as events, each with a few switches that change."""
    settings = ("training.opt_in", "storage.inputs_outputs", "caching.temporary")
    subjects = batches * _CHANGES // 10
    for batch in range(batches):
        events = [
            {
                "type": "setting.changed",
                "subject": f"account:u{(number * 7919) % subjects}",
                "setting": settings[number % len(settings)],
                "value": number % 2 == 0,
            }
            for number in range(batch * _CHANGES, (batch + 1) * _CHANGES)
        ]
        ledger.submit(parse_submissions({"events": events}), actor="bench")


def _raw(ledger: Ledger) -> int:
    embedded = isinstance(ledger.recorder, SQLiteLedgerRecorder)
    table = "events" if embedded else "inforce.events"
    rows = 0
    with ledger.recorder.transaction(commit=False) as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM {table} ORDER BY position")  # noqa: S608 - a name of our own
        for _row in cursor:
            rows += 1
    return rows


def _feed(ledger: Ledger, read: Callable[[Any], object]) -> int:
    after = 0
    while page := ledger.page(after, PAGE_MAX):
        for entry in page:
            read(entry)
        after = page[-1].position
    return after


BENCH: Final = Bench("replay", "reading every event of a ledger", "event", cases)
