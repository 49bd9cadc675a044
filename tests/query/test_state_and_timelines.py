"""State and timelines at (at, known_at), through a real ledger on both databases."""

from collections.abc import Callable

import pytest

from ledger.errors import NotFound
from ledger.subjects import MUST_BE_KNOWN
from ledger.times import BEGINNING, END
from projections.query.history import history
from projections.query.query import IN_FORCE
from tests.support.questions import (
    CACHING,
    HOUR,
    NOON,
    START,
    STORAGE,
    TRAINING,
    QueryLedger,
    changed,
    cleared,
    retracted,
)

# State.


def test_state_holds_every_setting_of_the_kind_with_its_source(bench: QueryLedger) -> None:
    (on,) = bench.submit(NOON, changed("org:acme", STORAGE, True))
    answer = bench.query.state("org:acme", at=NOON)
    assert list(answer.settings) == sorted(
        [TRAINING, STORAGE, CACHING, "passthrough.allowed", "residency.regions", "network.private_only"]
    )
    assert {setting: state.source for setting, state in answer.settings.items() if state.source != "default"} == {
        STORAGE: "explicit"
    }
    change = answer.settings[STORAGE].change
    assert change is not None
    assert (change.event_id, change.position, change.version) == (on.event_id, on.position, 1)
    definition = answer.settings[CACHING].change
    assert definition is not None
    assert isinstance(definition.value, dict)
    assert (definition.recorded_at, definition.effective_from) == (START, BEGINNING)


def test_state_leaves_out_settings_that_are_not_for_the_kind_of_subject(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("account:u1", STORAGE, True), changed("key:k1", "owner", "account:u1"))
    assert list(bench.query.state("account:u1", at=NOON).settings) == sorted(
        [TRAINING, STORAGE, CACHING, "attached_to"]
    )
    assert list(bench.query.state("key:k1", at=NOON).settings) == ["owner"]


def test_state_shows_the_demand_that_a_kind_be_known_only_by_name(bench: QueryLedger) -> None:
    """It is no setting of the subject, and nothing could set it there."""
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    assert MUST_BE_KNOWN not in bench.query.state("org:acme", at=NOON).settings
    (state,) = bench.query.state("org:acme", at=NOON, settings=[MUST_BE_KNOWN]).settings.values()
    assert (state.value, state.source) == ([], "default")


def test_state_of_chosen_settings_only(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    assert list(bench.query.state("org:acme", at=NOON, settings=[STORAGE, "owner"]).settings) == [STORAGE]


def test_state_of_a_setting_that_is_not_defined_is_not_found(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    with pytest.raises(NotFound):
        bench.query.state("org:acme", at=NOON, settings=["no.such.setting"])


def test_state_knows_the_clear_behind_a_default(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    (clear,) = bench.submit(NOON + HOUR, cleared("org:acme", STORAGE))
    state = bench.query.state("org:acme", at=NOON + HOUR).settings[STORAGE]
    assert (state.value, state.source) == (False, "default")
    assert state.cleared_by is not None
    assert state.cleared_by.event_id == clear.event_id


@pytest.mark.parametrize("question", ["state", "timeline", "diff", "history"])
def test_a_subject_without_a_history_is_not_found(bench: QueryLedger, question: str) -> None:
    ask: dict[str, Callable[[], object]] = {
        "state": lambda: bench.query.state("org:nobody", at=NOON),
        "timeline": lambda: bench.query.timeline("org:nobody"),
        "diff": lambda: bench.query.diff("org:nobody", start=START, end=NOON),
        "history": lambda: history(bench.ledger, "org:nobody"),
    }
    with pytest.raises(NotFound):
        ask[question]()


def test_a_subject_whose_changes_were_all_retracted_is_still_found(bench: QueryLedger) -> None:
    (only,) = bench.submit(NOON, changed("org:acme", STORAGE, True, NOON + HOUR))
    bench.submit(NOON + 1, retracted(only.event_id))
    assert bench.query.state("org:acme", at=NOON + HOUR).settings[STORAGE].source == "default"


def test_known_at_counts_what_was_recorded_by_then_to_the_microsecond(bench: QueryLedger) -> None:
    """Also with later events, so that the stored timelines cannot answer."""
    (backdated,) = bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    for later in (False, True):
        if later:
            bench.submit(NOON + HOUR, changed("org:acme", STORAGE, False, NOON - HOUR))
        states = {
            step: bench.query.state("org:acme", at=NOON - 1, known_at=backdated.recorded_at + step).settings[STORAGE]
            for step in (-1, 0, 1)
        }
        assert [states[step].value for step in (-1, 0, 1)] == [False, True, True]
        assert [states[step].source for step in (-1, 0, 1)] == ["default", "explicit", "explicit"]


def test_without_known_at_everything_recorded_counts_and_the_answer_names_its_known_at(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.clock.now_us = NOON + HOUR
    answer = bench.query.state("org:acme", at=NOON)
    assert (answer.at, answer.known_at, answer.position) == (NOON, NOON + HOUR, bench.ledger.head().position)


def test_the_known_at_of_an_answer_is_never_before_the_events_it_rests_on(bench: QueryLedger) -> None:
    """A clock that stepped back does not make the coordinates of an answer irreproducible."""
    (on,) = bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    bench.clock.now_us = NOON - HOUR
    answer = bench.query.state("org:acme", at=NOON - HOUR)
    assert answer.known_at == on.recorded_at
    again = bench.query.state("org:acme", at=answer.at, known_at=answer.known_at)
    assert again.settings == answer.settings


def test_in_force_is_known_at_at(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    bench.submit(NOON + HOUR, changed("org:acme", CACHING, False))
    for at in (NOON - HOUR, NOON - 1, NOON, NOON + 1, NOON + HOUR - 1, NOON + HOUR):
        in_force = bench.query.state("org:acme", at=at, known_at=IN_FORCE)
        spelled_out = bench.query.state("org:acme", at=at, known_at=at)
        assert in_force == spelled_out
        assert in_force.known_at == at
        assert in_force.settings[STORAGE].value is (at >= NOON)


# Timelines.


def test_a_timeline_is_gapless_half_open_and_unbounded(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True, NOON + HOUR, NOON + 2 * HOUR))
    answer = bench.query.timeline("org:acme", setting=STORAGE)
    assert [(i.start, i.until, i.value, i.source) for i in answer.intervals] == [
        (BEGINNING, NOON + HOUR, False, "default"),
        (NOON + HOUR, NOON + 2 * HOUR, True, "explicit"),
        (NOON + 2 * HOUR, END, False, "default"),
    ]


def test_a_timeline_in_force_begins_before_anything_was_known(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    answer = bench.query.timeline("org:acme", setting=STORAGE, known_at=IN_FORCE)
    assert answer.known_at is None
    assert [(i.start, i.until, i.source) for i in answer.intervals] == [
        (BEGINNING, START, "undefined"),
        (START, NOON, "default"),
        (NOON, END, "explicit"),
    ]


def test_a_timeline_at_an_earlier_known_at(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    bench.submit(NOON + HOUR, changed("org:acme", STORAGE, False, NOON - HOUR))
    states = {
        known_at: [i.value for i in bench.query.timeline("org:acme", setting=STORAGE, known_at=known_at).intervals]
        for known_at in (NOON - 1, NOON, NOON + HOUR)
    }
    assert states == {NOON - 1: [False], NOON: [False, True], NOON + HOUR: [False, False]}


def test_a_timeline_known_at_the_beginning_of_time_is_not_the_one_in_force(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    assert bench.query.timeline("org:acme", known_at=BEGINNING).intervals == ()
    with pytest.raises(NotFound):
        bench.query.timeline("org:acme", setting=STORAGE, known_at=BEGINNING)


def test_without_a_setting_a_timeline_has_every_setting_that_ever_had_a_change(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True), cleared("org:acme", CACHING))
    answer = bench.query.timeline("org:acme")
    assert [(i.setting, i.source) for i in answer.intervals] == [
        (CACHING, "default"),
        (STORAGE, "default"),
        (STORAGE, "explicit"),
    ]


def test_a_timeline_of_a_setting_that_the_subject_cannot_have_is_not_found(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    for setting in ("no.such.setting", "owner"):
        with pytest.raises(NotFound):
            bench.query.timeline("org:acme", setting=setting)
