"""Effective state: own values, defaults, sources, and intervals without gaps."""

from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given

from ledger.built_in_catalog import BUILT_IN
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING, END, parse_time
from projections.temporal.changes import Change
from projections.temporal.effective_state import Interval, SettingState, effective, intervals
from projections.temporal.fold import Timeline, fold
from tests.decisions.test_check import books
from tests.support.memory_ledger import FoldedStates, MemoryLedger, changed, cleared, defined

BEGUN = parse_time("2026-01-01T00:00:00Z")
STORAGE = "storage.inputs_outputs"


def state(book: MemoryLedger, subject: str, setting: str, after: int = 100) -> SettingState:
    return FoldedStates(book, BEGUN + after, "at").setting(subject, setting)


def test_the_subjects_own_value_is_explicit_and_decided_by_its_change() -> None:
    book = MemoryLedger(BEGUN)
    (event_id,) = book.record(BEGUN + 1, changed("org:acme", STORAGE, True))
    result = state(book, "org:acme", STORAGE)
    assert (result.value, result.source) == (True, "explicit")
    assert result.change is not None
    assert result.change.event_id == event_id
    assert result.newest == result.change


def test_without_an_own_value_the_default_shows_and_the_definition_decides() -> None:
    result = state(MemoryLedger(BEGUN), "org:acme", STORAGE)
    assert (result.value, result.source) == (False, "default")
    assert result.change is not None
    assert result.change.setting == STORAGE
    assert isinstance(result.change.value, dict)
    assert result.newest == result.change


def test_unset_and_explicitly_set_to_the_default_stay_different() -> None:
    book = MemoryLedger(BEGUN)
    book.record(BEGUN + 1, changed("org:acme", STORAGE, False))
    assert state(book, "org:acme", STORAGE).source == "explicit"
    assert state(book, "org:beta", STORAGE).source == "default"


def test_a_cleared_setting_is_at_its_default_and_remembers_the_clear() -> None:
    book = MemoryLedger(BEGUN)
    book.record(BEGUN + 1, changed("org:acme", STORAGE, True))
    (event_id,) = book.record(BEGUN + 2, cleared("org:acme", STORAGE))
    result = state(book, "org:acme", STORAGE)
    assert (result.value, result.source) == (False, "default")
    assert result.cleared_by is not None
    assert result.cleared_by.event_id == event_id
    assert result.newest == result.cleared_by


def test_a_definition_later_than_the_clear_is_the_newest_deciding_event() -> None:
    book = MemoryLedger(BEGUN)
    book.record(BEGUN + 1, cleared("org:acme", STORAGE))
    book.record(BEGUN + 2, defined(STORAGE, {**BUILT_IN[STORAGE].as_json(), "default": True}))
    result = state(book, "org:acme", STORAGE)
    assert result.value is True
    assert result.newest == result.change


def test_a_setting_that_is_not_for_the_kind_of_subject_counts_at_its_default() -> None:
    result = state(MemoryLedger(BEGUN), "account:u1", "passthrough.allowed")
    assert (result.value, result.source) == (False, "not_applicable")


def test_a_setting_that_stops_being_for_a_kind_does_not_show_the_values_it_had() -> None:
    book = MemoryLedger(BEGUN)
    book.record(BEGUN + 1, changed("account:u1", STORAGE, True))
    book.record(BEGUN + 5, defined(STORAGE, {**BUILT_IN[STORAGE].as_json(), "kinds": ["org"]}))
    assert state(book, "account:u1", STORAGE, 4).source == "explicit"
    assert state(book, "account:u1", STORAGE, 5)[2:4] == (False, "not_applicable")


def test_a_setting_that_the_catalog_did_not_hold_then_is_undefined() -> None:
    book = MemoryLedger(BEGUN)
    assert state(book, "org:acme", "no.such.setting") == SettingState(
        "org:acme", "no.such.setting", None, "undefined", None
    )
    assert state(book, "org:acme", STORAGE, -1).source == "undefined"


def test_a_value_outlives_its_definition_but_shows_only_with_one() -> None:
    own = Change(1, 1, "e", BEGUN, "ops", STORAGE, True, BEGUN, None)
    assert effective("org:acme", STORAGE, own, None).source == "undefined"


def shown(book: MemoryLedger, subject: str, setting: str) -> list[Interval]:
    own = fold(book.assertions(subject)).get(setting, Timeline())
    definition = fold(book.assertions(CATALOG_SUBJECT)).get(setting, Timeline())
    return list(intervals(subject, setting, own, definition))


def test_intervals_change_with_the_value_and_with_the_default() -> None:
    book = MemoryLedger(BEGUN)
    book.record(BEGUN + 1, changed("org:acme", STORAGE, True, BEGUN + 10, BEGUN + 20))
    book.record(BEGUN + 2, defined(STORAGE, {**BUILT_IN[STORAGE].as_json(), "default": True}, BEGUN + 15))
    assert [(i.start, i.until, i.value, i.source) for i in shown(book, "org:acme", STORAGE)] == [
        (BEGINNING, BEGUN + 10, False, "default"),
        (BEGUN + 10, BEGUN + 20, True, "explicit"),
        (BEGUN + 20, END, True, "default"),
    ]


def test_neighbouring_steps_decided_by_one_event_are_one_interval() -> None:
    book = MemoryLedger(BEGUN)
    book.record(BEGUN + 1, cleared("org:acme", STORAGE, BEGUN + 10))
    assert [(i.start, i.until, i.source) for i in shown(book, "org:acme", STORAGE)] == [(BEGINNING, END, "default")]


@given(books(), st.sampled_from(["training.opt_in", STORAGE, "residency.regions"]))
def test_intervals_are_gapless_half_open_and_equal_the_state_at_every_instant(book: MemoryLedger, setting: str) -> None:
    for subject in ("org:acme", "account:u1"):
        result = shown(book, subject, setting)
        assert result[0].start == BEGINNING
        assert result[-1].until == END
        for one, two in pairwise(result):
            assert one.start < one.until == two.start
            assert (one.source, one.change) != (two.source, two.change)
        for interval in result:
            for instant in (interval.start, interval.until - 1):
                there = FoldedStates(book, instant, None).setting(subject, setting)
                assert (there.value, there.source, there.change) == (interval.value, interval.source, interval.change)
