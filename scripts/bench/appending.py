"""`bench append`: recording, beside the bare eventsourcing library on the same kind of database.

One per commit: the library's `Application.save` of an aggregate with one new event, against `Ledger.submit` of one
submission, from one thread.

In batches: the library's recorder is given a thousand stored events that were made before. Our recorder is given a
thousand events that were decided and written before; it numbers, times and hashes them, and sees that nothing they
rest on has moved. Our whole road begins with a thousand JSON values: it also checks and decides them, writes their
bytes, and gives receipts. All of them are a hundred new subjects with ten events each.
"""

from __future__ import annotations

from itertools import count
from typing import Any, Final

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent

from ledger.append.decide import Streams, decide
from ledger.append.submissions import parse_submissions
from ledger.codec import SOURCE_PREFIX, draft_bytes
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.recorders.contract import Proposal, Recorded
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from scripts.bench import measuring
from scripts.bench.marks import judge
from scripts.bench.measuring import Case
from scripts.bench.reporting import Result
from scripts.bench.suites import Setting
from scripts.cli.files import progress

BATCH: Final = 1000
EVENTS_EACH: Final = 10
SUBJECTS: Final = 200
ACTOR: Final = "bench"

LIBRARY_ONE: Final = "library: Application.save"
INFORCE_ONE: Final = "inforce: submit"
LIBRARY_BATCH: Final = "library: recorder, stored events ready"
RECORDER_BATCH: Final = "inforce: recorder, everything decided"
ROAD_BATCH: Final = "inforce: whole road, from JSON values"


class Switched(Aggregate):
    """An aggregate that takes the same facts as our change."""

    def __init__(self) -> None:
        self.settings: dict[str, bool] = {}

    @event("Changed")
    def change(self, setting: str, value: bool, actor: str) -> None:
        self.settings[setting] = value


def run(setting: Setting) -> Result:
    commits, batches = (20, 1) if setting.quick else (300, 10)
    library = Application[Any](env=setting.databases.library_environment(setting.databases.url()))
    setting.stack.callback(library.close)
    ledger = setting.stack.enter_context(open_ledger(setting.databases.url(), create=True))
    aggregates = [Switched() for _ in range(SUBJECTS)]
    for aggregate in aggregates:
        library.save(aggregate)
    subjects = count()
    cases = [
        Case(LIBRARY_ONE, None, _Saves(library, aggregates, commits)),
        Case(INFORCE_ONE, LIBRARY_ONE, _Submits(ledger, commits)),
        Case(LIBRARY_BATCH, None, lambda made: _insert(library, made), lambda: _stored(library, batches)),
        Case(
            RECORDER_BATCH,
            LIBRARY_BATCH,
            lambda made: _append(ledger, made),
            lambda: [_decided(ledger, _values(subjects)) for _ in range(batches)],
        ),
        Case(
            ROAD_BATCH,
            LIBRARY_BATCH,
            lambda made: _submit(ledger, made),
            lambda: [_values(subjects) for _ in range(batches)],
        ),
    ]
    with progress("bench append", setting.turns + 1) as tell:
        measured = measuring.measure(cases, setting.turns, lambda done: tell(done, ""))
    speed = {one.case: one.speed or 0.0 for one in measured}
    return Result(
        [
            measuring.table("one event per commit, one thread", "event", measured[:2]),
            measuring.table(f"batches of {BATCH}", "event", measured[2:]),
        ],
        [
            judge("append.one", speed[INFORCE_ONE]),
            judge("append.recorder", speed[RECORDER_BATCH]),
            judge("append.road", speed[ROAD_BATCH]),
        ],
        ["speed: the median time of the table's baseline over that of the row, so 0.5 is half as fast"],
    )


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
    def __init__(self, ledger: Ledger, commits: int) -> None:
        self.ledger = ledger
        self.commits = commits
        self.numbers = count()

    def __call__(self, _prepared: object) -> int:
        for _ in range(self.commits):
            number = next(self.numbers)
            self.ledger.submit(parse_submissions(_change(f"org:o{number % SUBJECTS}", number)), actor=ACTOR)
        return self.commits


def _change(subject: str, number: int) -> dict[str, Any]:
    return {
        "type": "setting.changed",
        "subject": subject,
        "setting": "training.opt_in",
        "value": number % 2 == 0,
    }


def _values(subjects: count[int]) -> dict[str, Any]:
    """A batch as JSON value."""
    new = [f"org:b{next(subjects)}" for _ in range(BATCH // EVENTS_EACH)]
    return {"events": [_change(subject, number) for subject in new for number in range(EVENTS_EACH)]}


def _submit(ledger: Ledger, batches: list[dict[str, Any]]) -> int:
    for batch in batches:
        ledger.submit(parse_submissions(batch), actor=ACTOR)
    return len(batches) * BATCH


def _decided(ledger: Ledger, values: dict[str, Any]) -> Proposal:
    submissions = parse_submissions(values)
    subjects = {change["subject"] for change in values["events"]}
    versions = ledger.recorder.versions([CATALOG_SUBJECT, *subjects])
    streams = Streams(ledger.catalog(versions[CATALOG_SUBJECT]), versions)
    decided = decide(tuple(submissions), streams, now=ledger.clock.now(), actor=ACTOR, entropy=ledger.entropy)
    return Proposal(decided, [draft_bytes(draft, SOURCE_PREFIX + ledger.origin) for draft in decided.drafts], None)


def _append(ledger: Ledger, proposals: list[Proposal]) -> int:
    for proposal in proposals:
        (outcome,) = ledger.recorder.append([proposal], ledger.clock)
        if not isinstance(outcome, Recorded):
            raise LedgerUnavailable("what the bench had decided was not recorded; somebody else writes to its ledger")
    return len(proposals) * BATCH


def _stored(library: Application[Any], batches: int) -> list[list[StoredEvent]]:
    """What the library would store for as many new aggregates with their changes, made by its own mapper."""
    ready = []
    for _ in range(batches):
        batch: list[StoredEvent] = []
        while len(batch) < BATCH:
            aggregate = Switched()
            for number in range(EVENTS_EACH - 1):
                aggregate.change("training.opt_in", number % 2 == 0, ACTOR)
            batch += [library.mapper.to_stored_event(pending) for pending in aggregate.collect_events()]
        ready.append(batch)
    return ready


def _insert(library: Application[Any], batches: list[list[StoredEvent]]) -> int:
    for batch in batches:
        library.recorder.insert_events(batch)
    return len(batches) * BATCH
