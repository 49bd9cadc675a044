"""`bench append`: appending events, beside the bare eventsourcing library on the same kind of database.

One event per commit compares the library's `Application.save` of an aggregate that has one new event with
`Ledger.submit` of one submission, from one thread.

Batches compare three cases. The library's recorder gets a thousand stored events that are ready. Our recorder gets a
thousand events that are already decided and encoded; it numbers, timestamps and hashes them, and verifies that nothing
they depend on has changed. `Ledger.submit` starts from a thousand JSON values; it also parses, decides and encodes them
and returns receipts. Each batch has a hundred new subjects with ten events each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Final

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent

from ledger.append.decide import SubmissionContext, decide
from ledger.append.submissions import parse_submissions
from ledger.codec import leaf_template
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.recorders.contract import AppendRequest, Placement
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from scripts.bench.marks import judge
from scripts.bench.measure import Case, by_case, case_table, measure
from scripts.bench.population import ACTOR, setting_change
from scripts.bench.report import SuiteResult
from scripts.bench.suite import SuiteContext

BATCH: Final = 1000
EVENTS_EACH: Final = 10
SUBJECTS: Final = 200
SETTING: Final = "training.opt_in"

LIBRARY_ONE: Final = "library: Application.save"
INFORCE_ONE: Final = "inforce: submit"
LIBRARY_BATCH: Final = "library: recorder, stored events ready"
RECORDER_BATCH: Final = "inforce: recorder, events decided"
SUBMIT_BATCH: Final = "inforce: submit, from JSON values"


class Switched(Aggregate):
    """An aggregate with the same facts as our change."""

    def __init__(self) -> None:
        self.settings: dict[str, bool] = {}

    @event("Changed")
    def change(self, setting: str, value: bool, actor: str) -> None:
        self.settings[setting] = value


def run(context: SuiteContext) -> SuiteResult:
    commits, batches = (20, 1) if context.quick else (300, 10)
    library = Application[Any](env=context.databases.library_environment(context.databases.url()))
    context.stack.callback(library.close)
    ledger = context.stack.enter_context(open_ledger(context.databases.url(), create=True))
    subjects = count()
    cases = [
        Case(LIBRARY_ONE, None, _library_saves(library, commits)),
        Case(INFORCE_ONE, LIBRARY_ONE, _submits(ledger, commits)),
        Case(
            LIBRARY_BATCH,
            None,
            _each_batch(library.recorder.insert_events),
            lambda: [_stored_events(library) for _ in range(batches)],
        ),
        Case(
            RECORDER_BATCH,
            LIBRARY_BATCH,
            _each_batch(partial(_append, ledger)),
            lambda: [_request(ledger, _json_batch(subjects)) for _ in range(batches)],
        ),
        Case(
            SUBMIT_BATCH,
            LIBRARY_BATCH,
            _each_batch(lambda batch: ledger.submit(parse_submissions(batch), actor=ACTOR)),
            lambda: [_json_batch(subjects) for _ in range(batches)],
        ),
    ]
    measurements = measure("bench append", cases, context.turns)
    speed = {name: measurement.speed or 0.0 for name, measurement in by_case(measurements).items()}
    return SuiteResult(
        [
            case_table("one event per commit, one thread", "event", measurements[:2]),
            case_table(f"batches of {BATCH}", "event", measurements[2:]),
        ],
        [
            judge("append.one", speed[INFORCE_ONE]),
            judge("append.recorder", speed[RECORDER_BATCH]),
            judge("append.road", speed[SUBMIT_BATCH]),
        ],
        ["speed: the median time of the table's baseline, divided by that of the row; 0.5 is half as fast"],
    )


def _library_saves(library: Application[Any], commits: int) -> Callable[[object], int]:
    aggregates = [Switched() for _ in range(SUBJECTS)]
    for aggregate in aggregates:
        library.save(aggregate)
    numbers = count()

    def save(_prepared: object) -> int:
        for _ in range(commits):
            number = next(numbers)
            aggregate = aggregates[number % SUBJECTS]
            aggregate.change(SETTING, number % 2 == 0, ACTOR)
            library.save(aggregate)
        return commits

    return save


def _submits(ledger: Ledger, commits: int) -> Callable[[object], int]:
    numbers = count()

    def submit(_prepared: object) -> int:
        for _ in range(commits):
            number = next(numbers)
            change = setting_change(f"org:o{number % SUBJECTS}", SETTING, number % 2 == 0)
            ledger.submit(parse_submissions(change), actor=ACTOR)
        return commits

    return submit


def _json_batch(subjects: count[int]) -> dict[str, Any]:
    new = [f"org:b{next(subjects)}" for _ in range(BATCH // EVENTS_EACH)]
    changes = [setting_change(subject, SETTING, number % 2 == 0) for subject in new for number in range(EVENTS_EACH)]
    return {"events": changes}


def _each_batch(write: Callable[[Any], object]) -> Callable[[list[Any]], int]:
    def write_all(batches: list[Any]) -> int:
        for batch in batches:
            write(batch)
        return len(batches) * BATCH

    return write_all


def _request(ledger: Ledger, batch: dict[str, Any]) -> AppendRequest:
    subjects = {change["subject"] for change in batch["events"]}
    versions = ledger.recorder.versions([CATALOG_SUBJECT, *subjects])
    context = SubmissionContext(ledger.catalog(versions[CATALOG_SUBJECT]), versions)
    submissions = tuple(parse_submissions(batch))
    plan = decide(submissions, context, now=ledger.clock.now(), actor=ACTOR, entropy=ledger.committer.entropy)
    return AppendRequest(plan, [leaf_template(draft, ledger.source) for draft in plan.drafts], None)


def _append(ledger: Ledger, request: AppendRequest) -> None:
    (outcome,) = ledger.recorder.append([request], ledger.clock)
    if not isinstance(outcome, Placement):
        raise LedgerUnavailable("the recorder refused the bench's events; another process writes to its ledger")


def _stored_events(library: Application[Any]) -> list[StoredEvent]:
    """The stored events of as many new aggregates and changes, from the library's own mapper."""
    batch: list[StoredEvent] = []
    while len(batch) < BATCH:
        aggregate = Switched()
        for number in range(EVENTS_EACH - 1):
            aggregate.change(SETTING, number % 2 == 0, ACTOR)
        batch += map(library.mapper.to_stored_event, aggregate.collect_events())
    return batch
