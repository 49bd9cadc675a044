"""The time model (projections/README.md): the fold and the in-force timeline against the slow reference."""

from itertools import pairwise
from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import example, given

from ledger.drafts import Draft
from ledger.times import BEGINNING, END, parse_time
from projections.temporal.changes import Assertion, Change
from projections.temporal.fold import Timeline, _painted, decides, fold, fold_changes
from projections.temporal.in_force import Timelines, extend, fold_both
from projections.temporal.known_changes import HistoryMissing, KnownChanges
from tests.support.memory_ledger import MemoryLedger, batches, changed, cleared, event_id_of, retracted
from tests.support.reference import Reference

ORG = "org:acme"
SETTING = "training.opt_in"
OTHER = "storage.inputs_outputs"
DAY_ONE = parse_time("2026-01-01T00:00:00Z")
SPAN = 12
"""Instants are a microsecond apart, so that nearly all periods touch, tie or overlap."""


class PlannedEvent(NamedTuple):
    """A planned event: a change, a clear (value None) or, with `retracts`, the retraction of the n-th event."""

    setting: str
    value: int | None
    start: int | None
    length: int | None
    retracts: int | None


class Plan(NamedTuple):
    """The events, how they are cut into submissions, and how many µs pass before each."""

    planned: list[PlannedEvent]
    sizes: list[int]
    waits: list[int]


PLANNED = st.builds(
    PlannedEvent,
    setting=st.sampled_from([SETTING, SETTING, SETTING, OTHER]),
    value=st.none() | st.integers(0, 3),
    start=st.none() | st.integers(-2, SPAN),
    length=st.none() | st.integers(1, 6),
    retracts=st.none() | st.none() | st.none() | st.integers(0, 20),
)
PLANS = st.builds(
    Plan,
    planned=st.lists(PLANNED, max_size=14),
    sizes=st.lists(st.integers(1, 4), max_size=14),
    waits=st.lists(st.integers(1, 3), min_size=15, max_size=15),
)
INSTANTS = st.integers(-3, SPAN + 8).map(lambda offset: DAY_ONE + offset)


def written(plan: Plan) -> MemoryLedger:
    """The ledger of a plan, without the retractions that could not be recorded."""
    book = MemoryLedger()
    now = DAY_ONE
    gone: set[int] = set()
    runs = batches([Draft("", "", 0, {"planned": index}, "", "") for index in range(len(plan.planned))], plan.sizes)
    for run, wait in zip(runs, plan.waits, strict=False):
        now += wait
        drafts: list[Draft] = []
        for placeholder in run:
            planned = plan.planned[placeholder.body["planned"]]
            start = None if planned.start is None else DAY_ONE + planned.start
            until = None if planned.length is None else (now if start is None else start) + planned.length
            if planned.retracts is not None:
                target = planned.retracts + 1
                if target > len(book.entries) or target in gone:
                    continue
                entry = book.entries[target - 1]
                if entry.topic == "change.retracted":
                    continue
                gone.add(target)
                setting = SETTING if f'"setting":"{SETTING}"'.encode() in entry.leaf else OTHER
                drafts.append(retracted(ORG, setting, event_id_of(target)))
            elif planned.value is None:
                drafts.append(cleared(ORG, planned.setting, start, until))
            else:
                drafts.append(changed(ORG, planned.setting, planned.value, start, until))
        if drafts:
            book.record(now, *drafts)
    return book


def position(change: Change | None) -> int | None:
    return None if change is None else change.position


def assert_equals_reference(timeline: Timeline, reference: Reference, setting: str, known_at: int | None) -> None:
    instants = {BEGINNING, END - 1, *timeline.starts, *reference.boundaries(ORG, setting, known_at)}
    for instant in sorted({near for i in instants for near in (i - 1, i, i + 1) if BEGINNING <= near < END}):
        event = reference.deciding(ORG, setting, instant, known_at)
        assert position(timeline.at(instant)) == (None if event is None else event["data"]["position"]), instant


def assert_well_formed(timeline: Timeline) -> None:
    steps = list(timeline.steps())
    assert steps[0].start == BEGINNING
    assert steps[-1].until == END
    for earlier, later in pairwise(steps):
        assert earlier.start < earlier.until == later.start
        assert position(earlier.change) != position(later.change), "neighbours of one change are one step"


@given(PLANS)
@example(
    # Retracting a bounded change lets an open one, recorded before the question, reach further than it did.
    Plan(
        [
            PlannedEvent(SETTING, 1, -2, None, None),
            PlannedEvent(SETTING, 2, 4, 5, None),
            PlannedEvent(SETTING, 3, 6, None, None),
            PlannedEvent(SETTING, None, None, None, 1),
        ],
        [1, 1, 1, 1],
        [1] * 15,
    )
)
def test_the_fold_equals_the_reference_for_any_history(plan: Plan) -> None:
    book = written(plan)
    reference = Reference(book.leaves)
    timelines = fold(book.assertions(ORG))
    for setting in (SETTING, OTHER):
        timeline = timelines.get(setting, Timeline())
        assert_well_formed(timeline)
        assert_equals_reference(timeline, reference, setting, None)


@given(PLANS, INSTANTS)
def test_the_fold_at_any_known_at_equals_the_reference(plan: Plan, known_at: int) -> None:
    book = written(plan)
    reference = Reference(book.leaves)
    timelines = fold(book.assertions(ORG, known_at))
    for setting in (SETTING, OTHER):
        assert_equals_reference(timelines.get(setting, Timeline()), reference, setting, known_at)


@given(PLANS)
def test_events_recorded_later_never_alter_an_answer_with_an_earlier_known_at(plan: Plan) -> None:
    book = written(plan)
    in_force = fold_both(book.assertions(ORG))
    for known_at in sorted({entry.recorded_at for entry in book.entries}):
        earlier = MemoryLedger()
        earlier.entries = [entry for entry in book.entries if entry.recorded_at <= known_at]
        assert fold(earlier.assertions(ORG)) == fold(book.assertions(ORG, known_at))
        for setting, timelines in fold_both(earlier.assertions(ORG)).items():
            # The policy in force by then never changes.
            for instant in (*timelines.in_force.starts, known_at):
                if instant <= known_at:
                    assert timelines.in_force.at(instant) == in_force[setting].in_force.at(instant)


@given(PLANS)
def test_the_in_force_timeline_equals_known_at_at_every_boundary_and_between(plan: Plan) -> None:
    book = written(plan)
    reference = Reference(book.leaves)
    for setting, (current, in_force) in fold_both(book.assertions(ORG)).items():
        assert_well_formed(current)
        assert_well_formed(in_force)
        boundaries = {BEGINNING + 1, END - 2, *in_force.starts, *current.starts, *reference.boundaries(ORG, setting)}
        boundaries |= {entry.recorded_at for entry in book.entries}
        ordered = sorted(boundaries)
        between = [(one + two) // 2 for one, two in pairwise(ordered)]
        for instant in sorted({i + step for i in (*ordered, *between) for step in (-1, 0, 1)}):
            if not BEGINNING <= instant < END:
                continue
            event = reference.deciding(ORG, setting, instant, instant)
            assert position(in_force.at(instant)) == (None if event is None else event["data"]["position"]), instant


@given(PLANS)
def test_the_current_half_of_both_timelines_is_the_fold(plan: Plan) -> None:
    assertions = written(plan).assertions(ORG)
    both = fold_both(assertions)
    assert {setting: timelines.current for setting, timelines in both.items()} == fold(assertions)


@given(PLANS, st.lists(st.integers(0, 14), max_size=4))
def test_any_split_of_the_events_extends_to_the_same_timelines(plan: Plan, cuts: list[int]) -> None:
    """Also with a cut through the middle of a submission."""
    assertions = written(plan).assertions(ORG)
    for setting, at_once in fold_both(assertions).items():
        of_setting = [assertion for assertion in assertions if assertion.setting == setting]
        bounds = [0, *sorted(min(cut, len(of_setting)) for cut in cuts), len(of_setting)]
        timelines = Timelines(Timeline(), Timeline())
        known = KnownChanges(())
        for start, until in pairwise(bounds):
            timelines = extend(timelines, known, of_setting[start:until])
        assert timelines == at_once
        assert [change.event_id for change in known.in_order()] == unretracted(of_setting)


@given(PLANS, st.integers(0, 14))
def test_what_is_seen_suffices_or_the_history_is_asked_for(plan: Plan, cut: int) -> None:
    """As the caches do it: without the history, news give the same timelines, or `HistoryMissing`."""
    assertions = written(plan).assertions(ORG)
    for setting, at_once in fold_both(assertions).items():
        of_setting = [assertion for assertion in assertions if assertion.setting == setting]
        before = fold_both(of_setting[:cut]).get(setting, Timelines(Timeline(), Timeline()))
        try:
            after = extend(before, KnownChanges(None), of_setting[cut:])
        except HistoryMissing:
            with_history = fold_both(of_setting[:cut]).get(setting, Timelines(Timeline(), Timeline()))
            after = extend(with_history, KnownChanges(of_setting[:cut]), of_setting[cut:])
        assert after == at_once


@given(PLANS, INSTANTS)
def test_the_change_that_decides_at_one_instant_is_that_of_the_timeline(plan: Plan, instant: int) -> None:
    assertions = written(plan).assertions(ORG)
    for setting, timeline in fold(assertions).items():
        gone = {one.retracts for one in assertions if not isinstance(one, Change)}
        known = [one for one in assertions if isinstance(one, Change) and one.setting == setting]
        assert decides([one for one in known if one.event_id not in gone], instant) == timeline.at(instant)


def unretracted(assertions: list[Assertion]) -> list[str]:
    gone = {assertion.retracts for assertion in assertions if not isinstance(assertion, Change)}
    return [a.event_id for a in assertions if isinstance(a, Change) and a.event_id not in gone]


PERIODS = st.lists(st.tuples(st.integers(0, SPAN), st.none() | st.integers(1, 6)), max_size=16)


@given(PERIODS)
def test_one_by_one_or_all_at_once_gives_the_same_steps(periods: list[tuple[int, int | None]]) -> None:
    one_by_one = Timeline()
    known: list[Change] = []
    for position, (offset, length) in enumerate(periods, 1):
        start = DAY_ONE + offset
        until = None if length is None else start + length
        planned = Change(position, position, f"id-{position}", DAY_ONE, "alice", SETTING, True, start, until)
        if not one_by_one.apply(planned):
            one_by_one.restart(planned, [change for change in known if change.effective_from > start])
        known.append(planned)
        assert one_by_one == fold_changes(known) == _painted(known)
        assert_well_formed(one_by_one)


def test_many_exceptions_and_standing_changes_in_turn_are_folded_in_reasonable_steps() -> None:
    """10,000 pauses, each over a scheduled change and ended by a standing one: each looks only at what begins later."""
    looked_at = 0

    class Counting(KnownChanges):
        def beginning_after(self, instant: int) -> list[Change]:
            nonlocal looked_at
            later = super().beginning_after(instant)
            looked_at += len(later)
            return later

    news: list[Assertion] = []
    for turn in range(10_000):
        for start, until in ((turn * 10 + 5, None), (turn * 10, turn * 10 + 9), (turn * 10 + 1, None)):
            position = len(news) + 1
            news.append(Change(position, position, f"id-{position}", 0, "alice", SETTING, turn, start, until))
    timelines = extend(Timelines(*[Timeline()] * 2), Counting(()), news)
    assert timelines.current == fold_changes([one for one in news if isinstance(one, Change)])
    assert looked_at == 10_000
