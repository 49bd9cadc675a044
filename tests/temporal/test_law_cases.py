"""The 400 histories of shared/data/law come out as they were computed point by point, in every form of the answer.

Each history is one organization's `training.opt_in`. Everything is recorded before the first instant, so what is in
force from there on is what is known.
"""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledger.clock import ManualClock
from ledger.store import Ledger
from ledger.times import BEGINNING, DAY, END, SECOND, format_time, parse_time
from projections.audit.index.compile import compile_index
from projections.audit.index.fold_columns import ColumnFold
from projections.audit.index.open import open_index
from projections.audit.index.reference import compile_by_fold
from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.batch_decider import RowByRow
from projections.audit.kernel.kernel import Kernel
from projections.query.query import Query
from projections.temporal.changes import Change
from projections.temporal.fold import Step, Timeline, decides, fold_changes
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.audit.index.canonical import canonical
from tests.audit.strategies import batch_of
from tests.support.ledgers import change, open_with_clock, submit
from tests.support.reference import Reference

SETTING = "training.opt_in"
UNIT = 60 * SECOND
FIRST = parse_time("2026-01-01T00:00:00Z")
LAST = 24
"""Every history has ended its last period by then."""

Case = dict[str, Any]


def instant(unit: int | None) -> int | None:
    return None if unit is None else FIRST + unit * UNIT


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    from tests.support.real_data import real_data_file

    return [json.loads(line) for line in real_data_file("law/cases.jsonl").read_text().splitlines()]


def expected_steps(case: Case) -> list[tuple[int, int, int | None]]:
    """(from, until, the number of the deciding change): by the file, from the beginning to the end of time."""
    return [
        (
            BEGINNING if start is None else FIRST + start * UNIT,
            END if until is None else FIRST + until * UNIT,
            position,
        )
        for start, until, position in case["steps"]
    ]


def changes_of(case: Case) -> list[Change]:
    """Those that are not retracted."""
    return [
        Change(
            position=one["position"],
            version=one["position"],
            event_id=str(one["position"]),
            recorded_at=FIRST - DAY,
            actor="ops",
            setting=SETTING,
            value=True,
            effective_from=FIRST + one["from"] * UNIT,
            effective_until=instant(one["until"]),
        )
        for one in case["changes"]
        if not one["retracted"]
    ]


def numbered(steps: Iterator[Step]) -> list[tuple[int, int, int | None]]:
    return [(step.start, step.until, None if step.change is None else step.change.position) for step in steps]


def test_the_fold_gives_the_steps_of_every_case(cases: list[Case]) -> None:
    assert len(cases) == 400
    for case in cases:
        changes = changes_of(case)
        assert numbered(fold_changes(changes).steps()) == expected_steps(case), case["case"]
        for start, until, position in expected_steps(case):
            for at in (start, start + 1, until - 1):
                deciding = decides(changes, at)
                assert (None if deciding is None else deciding.position) == position, (case["case"], at)


def test_one_change_after_the_other_gives_the_steps_of_every_case(cases: list[Case]) -> None:
    for case in cases:
        timeline, known = Timeline(), list[Change]()
        for one in changes_of(case):
            if not timeline.apply(one):
                later = [other for other in known if other.effective_from > one.effective_from]
                timeline.restart(one, later)
            known.append(one)
        assert numbered(timeline.steps()) == expected_steps(case), case["case"]


class Recorded(NamedTuple):
    """A ledger of all cases. `numbers`: subject → position in the ledger → number in the case."""

    ledger: Ledger
    clock: ManualClock
    numbers: dict[str, dict[int, int]]


def subject_of(case: Case) -> str:
    return f"org:case-{case['case']}"


def value_of(number: int) -> bool:
    return number % 2 == 0


def recorded(url: str, cases: list[Case], after_each: Callable[[Ledger], object]) -> Recorded:
    """Records the n-th changes of all cases together, then all retractions."""
    ledger, clock = open_with_clock(url, FIRST - DAY)
    numbers: dict[str, dict[int, int]] = {subject_of(case): {} for case in cases}
    ids: dict[tuple[str, int], str] = {}
    for turn in range(max(len(case["changes"]) for case in cases)):
        having = [case for case in cases if turn < len(case["changes"])]
        receipts = submit(
            ledger,
            *(
                change(
                    subject_of(case),
                    value_of(one["position"]),
                    effective_from=format_time(FIRST + one["from"] * UNIT),
                    effective_until=None if one["until"] is None else format_time(FIRST + one["until"] * UNIT),
                )
                for case in having
                for one in [case["changes"][turn]]
            ),
        )
        for case, receipt in zip(having, receipts, strict=True):
            number = case["changes"][turn]["position"]
            numbers[subject_of(case)][receipt.position] = number
            ids[subject_of(case), number] = receipt.event_id
        clock.now_us += SECOND
        after_each(ledger)
    gone = [(subject_of(case), one["position"]) for case in cases for one in case["changes"] if one["retracted"]]
    submit(ledger, *({"type": "change.retracted", "event_id": ids[pair]} for pair in gone))
    clock.now_us += SECOND
    after_each(ledger)
    return Recorded(ledger, clock, numbers)


def test_stored_timelines_give_the_steps_of_every_case(cases: list[Case], database_url: str) -> None:
    """Caught up after each submission, in one go, and rebuilt: the same rows, on both databases."""

    def catch_up(ledger: Ledger) -> None:
        Projector(ledger, open_timelines(ledger), page_events=150).catch_up()

    ledger, clock, numbers = recorded(database_url, cases, catch_up)
    with ledger:
        store = open_timelines(ledger)
        _, stored = store.timelines(map(subject_of, cases))
        clock.now_us = FIRST + DAY
        query = Query(ledger)
        for case in cases:
            subject = subject_of(case)
            number = numbers[subject]
            expected = expected_steps(case)
            if subject in stored and SETTING in stored[subject]:
                for timeline in stored[subject][SETTING]:
                    steps = [
                        (start, until, position and number[position])
                        for start, until, position in numbered(timeline.steps())
                    ]
                    assert without_the_past(steps) == without_the_past(expected), subject
            else:
                assert expected == [(BEGINNING, END, None)]
        for case in cases[:40]:
            answer = query.timeline(subject_of(case), setting=SETTING, known_at=None)
            number = numbers[subject_of(case)]
            intervals = [
                # The change of a default is its definition.
                (one.start, one.until, None if one.change is None else number.get(one.change.position))
                for one in answer.intervals
            ]
            assert without_the_past(intervals) == without_the_past(expected_steps(case))
        assert rebuild(Projector(ledger, store)).live_equal


def without_the_past(steps: list[tuple[int, int, int | None]]) -> list[tuple[int, int, int | None]]:
    """From just before the first instant on: what was in force before may be a retracted change's."""
    return [(max(start, FIRST - 1), until, position) for start, until, position in steps if until > FIRST - 1]


@pytest.fixture(scope="module")
def of_cases(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recorded, PolicyIndex]]:
    """The cases in a ledger, and the index that was extended after every submission."""
    folder: Path = tmp_path_factory.mktemp("law")
    made = recorded(f"sqlite:///{folder}/ledger.db", cases, lambda ledger: open_index(ledger, folder=folder / "index"))
    with made.ledger:
        yield made, open_index(made.ledger, folder=folder / "index")


def test_every_way_to_an_index_gives_the_same(
    of_cases: tuple[Recorded, PolicyIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, extended = of_cases
    expected = canonical(compile_by_fold(made.ledger))
    assert canonical(extended) == expected
    assert canonical(compile_index(made.ledger)) == expected
    # Every setting by the fold, one by one.
    unusual = ColumnFold._unusual
    monkeypatch.setattr(
        ColumnFold, "_unusual", lambda self, places, *, in_force: unusual(self, places, in_force=in_force) | True
    )
    assert canonical(compile_index(made.ledger)) == expected


@pytest.mark.parametrize("way", [Kernel, RowByRow])
def test_every_boundary_of_every_case_is_decided_by_it(
    cases: list[Case], of_cases: tuple[Recorded, PolicyIndex], way: type[Kernel | RowByRow]
) -> None:
    made, index = of_cases
    chosen = cases if way is Kernel else cases[:60]
    requests: list[dict[str, Any]] = []
    expected: list[tuple[str, int | None]] = []
    for case in chosen:
        steps = expected_steps(case)
        instants = {at + near for at in (FIRST, *(start for start, _, _ in steps)) for near in (-1, 0, 1)}
        for at in sorted(one for one in instants if FIRST <= one < FIRST + LAST * UNIT):
            ((_, _, number),) = [step for step in steps if step[0] <= at < step[1]]
            requests.append({"at": at, "org_id": subject_of(case).partition(":")[2], "trained": True})
            allowed = number is not None and value_of(number)
            expected.append(("compliant" if allowed else "violation", number))
    verdicts = way(index).decide(batch_of(requests)).verdicts
    assert verdicts.column("verdict").to_pylist() == [verdict for verdict, _ in expected]
    evidence = verdicts.column("deciding_positions").to_pylist()
    for request, (_, number), positions in zip(requests, expected, evidence, strict=True):
        its = made.numbers[f"org:{request['org_id']}"]
        assert [its[position] for position in positions if position in its] == ([] if number is None else [number])


def test_the_reference_of_the_tests_gives_the_steps_of_every_case(
    cases: list[Case], of_cases: tuple[Recorded, PolicyIndex]
) -> None:
    made, _ = of_cases
    for case in cases:
        subject = subject_of(case)
        reference = Reference(entry.leaf for entry in made.ledger.stream(subject))
        steps = reference.steps(subject, SETTING, None)
        for (start, event), (until, _) in pairwise([*steps, (END, None)]):
            ((_, _, number),) = [step for step in expected_steps(case) if step[0] <= start and until <= step[1]]
            assert (None if event is None else made.numbers[subject][event["data"]["position"]]) == number, subject
