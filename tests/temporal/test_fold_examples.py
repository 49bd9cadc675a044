"""The law of time in examples: what a change does to those before and after it, in a few steps each."""

import pytest

from ledger.drafts import Draft
from ledger.times import BEGINNING, END
from projections.temporal.changes import JsonValue
from projections.temporal.fold import Step, Timeline, fold
from projections.temporal.in_force import fold_both
from tests.support.memory_ledger import MemoryLedger, changed, cleared, retracted
from tests.temporal.test_fold import DAY_ONE, ORG, SETTING


def values(timeline: Timeline) -> list[tuple[int, JsonValue]]:
    """(µs since day one, value) of each step; "unset" if there never was a change."""
    return [(step.start - DAY_ONE, "unset" if step.change is None else step.change.value) for step in timeline.steps()][
        1:
    ]


def folded(*drafts: Draft) -> Timeline:
    book = MemoryLedger()
    for second, draft in enumerate(drafts):
        book.record(DAY_ONE + second, draft)
    return fold(book.assertions(ORG))[SETTING]


def on(start: int, until: int | None = None, value: object = True) -> Draft:
    return changed(ORG, SETTING, value, DAY_ONE + start, None if until is None else DAY_ONE + until)


def test_a_temporary_change_covers_its_whole_period() -> None:
    assert values(folded(on(0, value=1), on(10, value=2), on(5, 15, value=3))) == [(0, 1), (5, 3), (15, 2)]


def test_a_standing_change_leaves_what_is_already_scheduled_after_it() -> None:
    assert values(folded(on(0, value=1), on(10, value=2), on(5, value=3))) == [(0, 1), (5, 3), (10, 2)]


def test_a_standing_change_within_a_temporary_one_ends_it() -> None:
    assert values(folded(on(0, value=1), on(5, 15, value=2), on(10, value=3))) == [(0, 1), (5, 2), (10, 3)]


def test_a_standing_change_before_a_temporary_one_goes_on_after_it() -> None:
    assert values(folded(on(0, value=1), on(10, 15, value=2), on(5, value=3))) == [(0, 1), (5, 3), (10, 2), (15, 3)]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (9, [(0, 1), (9, 3), (10, 2), (15, 3)]),
        (10, [(0, 1), (10, 3)]),
        (11, [(0, 1), (10, 2), (11, 3)]),
        (14, [(0, 1), (10, 2), (14, 3)]),
        (15, [(0, 1), (10, 2), (15, 3)]),
        (16, [(0, 1), (10, 2), (15, 1), (16, 3)]),
    ],
)
def test_a_standing_change_ends_an_exception_that_has_begun_by_then(start: int, expected: list[object]) -> None:
    assert values(folded(on(0, value=1), on(10, 15, value=2), on(start, value=3))) == expected


def test_an_exception_recorded_later_covers_standing_changes_in_its_period() -> None:
    assert values(folded(on(0, value=1), on(10, value=2), on(5, 15, value=3), on(0, value=4))) == [
        (0, 4),
        (5, 3),
        (15, 2),
    ]


def test_a_standing_change_brings_to_light_what_an_exception_hid() -> None:
    """The exception of 0 to 20 hides a regime from 10 and an exception from 12 to 14 until it ends."""
    before = [on(0, value=1), on(10, value=2), on(12, 14, value=3), on(0, 20, value=4)]
    assert values(folded(*before)) == [(0, 4), (20, 2)]
    assert values(folded(*before, on(5, value=5))) == [(0, 4), (5, 5), (10, 2), (12, 3), (14, 2)]
    assert values(folded(*before, on(11, value=5))) == [(0, 4), (11, 5), (12, 3), (14, 5)]


def test_of_two_exceptions_the_later_recorded_counts_and_the_earlier_goes_on_after_it() -> None:
    assert values(folded(on(0, 20, value=1), on(5, 10, value=2))) == [(0, 1), (5, 2), (10, 1), (20, "unset")]


def test_a_change_at_the_very_start_of_another_replaces_it() -> None:
    assert values(folded(on(0, value=1), on(10, value=2), on(10, value=3))) == [(0, 1), (10, 3)]


def test_a_clear_is_a_change_to_no_value_and_not_the_same_as_never_set() -> None:
    timeline = folded(on(5, value=1), cleared(ORG, SETTING, DAY_ONE + 10))
    assert values(timeline) == [(5, 1), (10, None)]
    assert timeline.at(DAY_ONE + 4) is None
    assert timeline.at(DAY_ONE + 10) is not None


def test_a_period_is_half_open() -> None:
    timeline = folded(on(5, 10))
    covered = [timeline.at(DAY_ONE + instant) is not None for instant in (4, 5, 9, 10)]
    assert covered == [False, True, True, False]


def test_a_retraction_folds_the_timeline_again_without_the_change() -> None:
    book = MemoryLedger()
    book.record(DAY_ONE, on(0, value=1))
    (second,) = book.record(DAY_ONE + 1, on(5, 8, value=2))
    book.record(DAY_ONE + 2, on(6, value=3))
    book.record(DAY_ONE + 3, retracted(ORG, SETTING, second))
    assert values(fold(book.assertions(ORG))[SETTING]) == [(0, 1), (6, 3)]


def test_a_setting_whose_changes_were_all_retracted_is_still_listed() -> None:
    book = MemoryLedger()
    (only,) = book.record(DAY_ONE, on(0))
    book.record(DAY_ONE + 1, retracted(ORG, SETTING, only))
    assert list(fold(book.assertions(ORG))[SETTING].steps()) == [Step(BEGINNING, END, None)]


def test_order_is_position_and_never_the_timestamp() -> None:
    book = MemoryLedger()
    book.record(DAY_ONE, on(5, value=1), on(5, value=2))
    assert values(fold(book.assertions(ORG))[SETTING]) == [(5, 2)]


def test_a_backdated_change_never_alters_what_was_in_force() -> None:
    book = MemoryLedger()
    book.record(DAY_ONE, on(0, value=1))
    book.record(DAY_ONE + 10, on(5, value=2))
    current, in_force = fold_both(book.assertions(ORG))[SETTING]
    assert values(current) == [(0, 1), (5, 2)]
    assert values(in_force) == [(0, 1), (10, 2)]


def test_a_timeline_grows_and_so_has_no_hash() -> None:
    with pytest.raises(TypeError, match="no hash"):
        hash(Timeline())
    assert repr(Timeline()) == f"Timeline([Step(start={BEGINNING}, until={END}, change=None)])"
    assert Timeline() != "a timeline"


def test_a_copy_of_a_timeline_grows_alone() -> None:
    timeline = folded(on(5))
    copy = timeline.copy()
    change = timeline.at(DAY_ONE + 5)
    assert change is not None
    copy.apply(change)
    assert copy == timeline
    copy.splice(DAY_ONE + 5, Timeline())
    assert values(copy) == []
    assert values(timeline) == [(5, True)]
