"""`bench append`: recording, beside the bare eventsourcing library on the same kind of database.

One per commit: the library's `Application.save` of an aggregate with one new event, against `Ledger.submit` of one
submission. In batches: the library's recorder given a thousand stored events that were made before, against
`Ledger.submit` of a thousand submissions as one. Ours begins with the submission as JSON value, and decides, numbers
and hashes it; the library's does not.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from typing import Any, Final

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent

from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.submissions import parse_submissions
from scripts.bench.measuring import Bench, Case
from scripts.bench.scratch import Scratch

BATCH: Final = 1000
SUBJECTS: Final = 200
ACTOR: Final = "bench"

LIBRARY_ONE: Final = "library, Application.save"
INFORCE_ONE: Final = "submit, one per commit"
LIBRARY_BATCH: Final = f"library, recorder, {BATCH} made"
INFORCE_BATCH: Final = f"submit, {BATCH} as one"


class Switched(Aggregate):
    """An aggregate that takes the same facts as our change."""

    def __init__(self) -> None:
        self.settings: dict[str, bool] = {}

    @event("Changed")
    def change(self, setting: str, value: bool, actor: str) -> None:
        self.settings[setting] = value


def cases(scratch: Scratch, stack: ExitStack, quick: bool) -> list[Case]:
    """`stack` closes what is opened here."""
    commits, batches = (20, 1) if quick else (300, 10)
    library_url = scratch.url()
    library = Application[Any](env=scratch.library_environment(library_url))
    stack.callback(library.close)
    ledger = stack.enter_context(open_ledger(scratch.url(), create=True))
    aggregates = [Switched() for _ in range(SUBJECTS)]
    for aggregate in aggregates:
        library.save(aggregate)
    return [
        Case(LIBRARY_ONE, None, _Saves(library, aggregates, commits)),
        Case(INFORCE_ONE, LIBRARY_ONE, _Submits(ledger, commits, 1)),
        Case(LIBRARY_BATCH, None, lambda made: _insert(library, made), lambda: _stored(library, batches)),
        Case(INFORCE_BATCH, LIBRARY_BATCH, _Submits(ledger, batches, BATCH)),
    ]


class _Saves:
    def __init__(self, library: Application[Any], aggregates: list[Switched], commits: int) -> None:
        self.library = library
        self.aggregates = aggregates
        self.commits = commits
        self.numbers = count()

    def __call__(self, _prepared: object) -> int:
        for _ in range(self.commits):
            number = next(self.numbers)
            aggregate = self.aggregates[number % SUBJECTS]
            aggregate.change("training.opt_in", number % 2 == 0, ACTOR)
            self.library.save(aggregate)
        return self.commits


class _Submits:
    def __init__(self, ledger: Ledger, commits: int, size: int) -> None:
        self.ledger = ledger
        self.commits = commits
        self.size = size
        self.numbers = count()

    def __call__(self, _prepared: object) -> int:
        for _ in range(self.commits):
            events = [
                {
                    "type": "setting.changed",
                    "subject": f"org:o{number % SUBJECTS}",
                    "setting": "training.opt_in",
                    "value": number % 2 == 0,
                }
                for number in (next(self.numbers) for _ in range(self.size))
            ]
            self.ledger.submit(parse_submissions({"events": events}), actor=ACTOR)
        return self.commits * self.size


def _stored(library: Application[Any], batches: int) -> list[list[StoredEvent]]:
    """What the library would store for as many new aggregates with their changes, made by its own mapper."""
    ready = []
    for _ in range(batches):
        batch: list[StoredEvent] = []
        while len(batch) < BATCH:
            aggregate = Switched()
            for number in range(9):
                aggregate.change("training.opt_in", number % 2 == 0, ACTOR)
            batch += [library.mapper.to_stored_event(pending) for pending in aggregate.collect_events()]
        ready.append(batch[:BATCH])
    return ready


def _insert(library: Application[Any], batches: list[list[StoredEvent]]) -> int:
    for batch in batches:
        library.recorder.insert_events(batch)
    return len(batches) * BATCH


BENCH: Final = Bench("append", "recording, one event per commit and a thousand", "event", cases)
