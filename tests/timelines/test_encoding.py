"""Stored timelines decode to what was stored, and equal timelines are equal bytes however they grew."""

from collections.abc import Callable, Iterable

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from ledger.times import BEGINNING
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.in_force import Timelines, empty_timelines, extend, fold_both
from projections.temporal.known_changes import KnownChanges
from projections.timelines.contract import Axis, BlockRow
from projections.timelines.encoding import (
    BLOCK_STEPS,
    StoredSetting,
    TimelineSuffix,
    change_at,
    decode_settings,
    decode_stored,
    decode_timelines,
    encode_setting,
    encode_settings,
    load_suffix,
)
from projections.timelines.rebuild.external_sort import Sorter, SubjectRange
from projections.timelines.rebuild.fold_range import fold_bucket

SUBJECT, SETTING = "org:acme", "training.opt_in"
SPAN = 400


def change(position: int, recorded_at: int, start: int, until: int | None = None, value: bool | None = True) -> Change:
    return Change(position, position, f"id-{position}", recorded_at, "alice", SETTING, value, start, until)


class StoredOne:
    """One setting as a database stores it: its member of the row, and its blocks. Counts the blocks read."""

    def __init__(self) -> None:
        self.settings = encode_settings({})
        self.blocks: dict[tuple[str, int], BlockRow] = {}
        self.blocks_read = 0
        self.known = KnownChanges(())

    def load(self, first: int) -> list[BlockRow]:
        rows = [row for (_, number), row in sorted(self.blocks.items()) if number >= first]
        self.blocks_read += len(rows)
        return rows

    def apply(self, *news: Assertion) -> None:
        held = decode_settings(SUBJECT, self.settings)
        reach = min(
            min(change.effective_from, change.recorded_at) if isinstance(change, Change) else BEGINNING
            for change in news
        )
        old = load_suffix(SUBJECT, held.pop(SETTING, None), reach, self.load)
        grown = extend(old.timelines, self.known, news)
        stored, blocks = encode_setting(SUBJECT, SETTING, old._replace(timelines=grown))
        if stored is not None:
            held[SETTING] = stored
        self.settings = encode_settings(held)
        self.blocks = {key: row for key, row in self.blocks.items() if key[1] < old.first}
        self.blocks |= {(row.axis, row.number): row for row in blocks}

    def everything(self) -> tuple[bytes, list[BlockRow]]:
        return self.settings, sorted(self.blocks.values())

    def timelines(self) -> dict[str, Timelines]:
        return decode_timelines(SUBJECT, self.settings, self.blocks.values())


def stored_at_once(assertions: Iterable[Assertion]) -> tuple[bytes, list[BlockRow]]:
    folded = fold_both(assertions).get(SETTING)
    if folded is None:
        return encode_settings({}), []
    stored, blocks = encode_setting(SUBJECT, SETTING, TimelineSuffix(0, folded, ()))
    return encode_settings({} if stored is None else {SETTING: stored}), sorted(blocks)


def rebuilt(assertions: list[Assertion], held_events: int) -> tuple[bytes, list[BlockRow]]:
    with Sorter([SubjectRange("", None)], held_events) as sorter:
        for assertion in assertions:
            assert sorter.add([(SUBJECT, assertion)]) == 1
        (folded,) = map(fold_bucket, sorter.buckets())
    assert folded.events == len(assertions)
    if not assertions:
        return encode_settings({}), []
    (row,) = folded.rows
    assert (row.subject, row.version, row.position) == (SUBJECT, assertions[-1].version, assertions[-1].position)
    return row.settings, folded.blocks


def ordinary(count: int) -> list[Assertion]:
    return [change(n, 10 * n, 10 * n, value=n % 2 == 0) for n in range(1, count + 1)]


SAID = st.tuples(
    st.sampled_from(
        ["now", "now", "now", "now", "schedule", "backdate", "far", "bounded", "bounded", "clear", "pause", "retract"]
    ),
    st.integers(0, SPAN),
    st.integers(1, 30),
)
HISTORIES = st.tuples(
    # The history before: long enough to be about the edges of blocks.
    st.sampled_from([0, 1, 62, 63, 64, 65, 127, 128, 129, 200]),
    st.lists(SAID, max_size=30),
    st.lists(st.integers(1, 40), min_size=1),
)


def history_with(before: int, more: list[tuple[str, int, int]]) -> list[Assertion]:
    assertions = ordinary(before)
    gone: set[int] = set()
    for how, offset, length in more:
        position = len(assertions) + 1
        now = 10 * position
        match how:
            case "retract":
                target = assertions[offset % len(assertions)] if assertions else None
                if isinstance(target, Change) and target.position not in gone:
                    gone.add(target.position)
                    assertions.append(
                        Retraction(position, position, f"id-{position}", now, "bob", SETTING, target.event_id)
                    )
            case "schedule":
                assertions.append(change(position, now, now + offset))
            case "backdate":
                assertions.append(change(position, now, now - length))
            case "far":
                assertions.append(
                    change(position, now, now - 10 * offset, None if length % 2 else now - 10 * offset + length)
                )
            case "pause":
                # From now on, over whatever is scheduled.
                assertions.append(change(position, now, now, now + 10 * length))
            case "bounded":
                assertions.append(change(position, now, now + offset % 7, now + 7 + length))
            case _:
                assertions.append(change(position, now, now, value=None if how == "clear" else length % 2 == 0))
    return assertions


@settings(max_examples=60)
@given(HISTORIES)
@example((64, [("far", 400, 3)], [1]))
# A block of the same steps that ends earlier on one axis.
@example((128, [("backdate", 0, 11)], [1]))
@example((130, [("backdate", 0, 5), ("retract", 0, 1)], [130, 1, 1]))
def test_any_way_of_growing_gives_the_same_bytes(history: tuple[int, list[tuple[str, int, int]], list[int]]) -> None:
    before, more, sizes = history
    assertions = history_with(before, more)
    grown = StoredOne()
    at, turn = 0, 0
    while at < len(assertions):
        size = sizes[turn % len(sizes)]
        grown.apply(*assertions[at : at + size])
        at, turn = at + size, turn + 1
    assert grown.everything() == stored_at_once(assertions)
    folded = {setting: both for setting, both in fold_both(assertions).items() if any(any(t.changes) for t in both)}
    assert grown.timelines() == folded
    for axis in ("current", "in_force"):
        assert_held(grown, axis, folded.get(SETTING, empty_timelines()))


@settings(max_examples=60)
@given(HISTORIES, st.integers(1, 300))
@example((64, [("now", 0, 1), ("schedule", 5, 1), ("now", 0, 1), ("now", 0, 1)], [1]), 7)
# Two changes at one instant: the later one is the step.
@example((1, [("schedule", 10, 1), ("now", 0, 1)], [1]), 1)
@example((63, [("retract", 62, 1), ("now", 0, 1)], [1]), 300)
def test_a_rebuild_that_decodes_few_changes_gives_the_same_bytes(
    history: tuple[int, list[tuple[str, int, int]], list[int]], held_events: int
) -> None:
    before, more, _ = history
    assertions = history_with(before, more)
    assert rebuilt(assertions, held_events) == stored_at_once(assertions)


def assert_held(stored: StoredOne, axis: Axis, both: Timelines) -> None:
    timeline = both.current if axis == "current" else both.in_force
    raw = decode_settings(SUBJECT, stored.settings).get(SETTING)
    if raw is None:
        assert timeline.changes == [None]
        return
    member: StoredSetting = decode_stored(SUBJECT, stored.settings)[SETTING]
    for instant in {near for start in timeline.starts for near in (start - 1, start, start + 1) if near >= BEGINNING}:
        covering = {row.axis: row.steps for row in stored.blocks.values() if row.start <= instant < row.until}
        assert change_at(SUBJECT, member, axis, instant, covering) == timeline.at(instant)


@pytest.mark.parametrize(
    ("changes", "blocks"), [(0, 0), (1, 0), (62, 0), (63, 0), (64, 1), (65, 1), (127, 1), (128, 2), (129, 2)]
)
def test_a_block_is_cut_off_when_a_step_remains(changes: int, blocks: int) -> None:
    """The first step is the time before the first change."""
    _, rows = stored_at_once(ordinary(changes))
    assert len(rows) == blocks
    for row, number in zip(rows, range(blocks), strict=True):
        assert (row.axis, row.number) == ("current", number)


def test_one_more_event_reads_no_block_however_long_the_history_is() -> None:
    grown = StoredOne()
    sizes = []
    for assertion in ordinary(20 * BLOCK_STEPS):
        grown.apply(assertion)
        sizes.append(len(grown.settings))
    assert len(grown.blocks) == 20
    assert grown.blocks_read <= 1
    assert max(sizes) < 6000


def test_an_update_reads_as_far_back_as_it_reaches() -> None:
    grown = StoredOne()
    grown.apply(*ordinary(20 * BLOCK_STEPS))
    now = 10 * (20 * BLOCK_STEPS + 1)
    grown.blocks_read = 0
    grown.apply(change(20 * BLOCK_STEPS + 1, now, now - 10 * BLOCK_STEPS))
    assert 1 <= grown.blocks_read <= 4
    # In force stays as it was: only the blocks that differ from the current ones are stored for it.
    assert len([row for row in grown.blocks.values() if row.axis == "in_force"]) <= 2


def test_both_axes_are_one_object_if_nothing_was_backdated() -> None:
    grown = StoredOne()
    grown.apply(*ordinary(150))
    ((_, both),) = grown.timelines().items()
    assert both.current is both.in_force


def never(_: int) -> list[BlockRow]:
    raise AssertionError("no block is to be read")


def test_the_first_change_of_a_setting_reads_no_block() -> None:
    loads: Callable[[int], list[BlockRow]] = never
    assert load_suffix(SUBJECT, None, BEGINNING, loads).timelines == empty_timelines()
