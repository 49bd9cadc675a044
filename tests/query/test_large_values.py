"""Large values, which timelines leave in their events, are in every answer."""

from itertools import pairwise

import pytest

from ledger.errors import LedgerCorrupt
from projections.decisions.model import RequestRecord
from projections.query import large_values
from projections.query.large_values import LargeValues
from projections.query.query import IN_FORCE
from projections.temporal.changes import LARGE_BYTES, Change, LargeValue, value_bytes
from projections.temporal.coordinates import KnownAt
from tests.support.questions import HOUR, NOON, QueryLedger, changed, retracted

REGIONS = "residency.regions"
FIRST = [f"eu-{number:03}" for number in range(200)]
SECOND = [f"us-{number:03}" for number in range(200)]


def _record(at: int) -> RequestRecord:
    return RequestRecord(at, org_id="acme")


@pytest.fixture
def filled(bench: QueryLedger) -> QueryLedger:
    """Two values in force one after the other, and one retracted."""
    bench.submit(NOON, changed("org:acme", REGIONS, FIRST))
    (mistake,) = bench.submit(NOON + HOUR, changed("org:acme", REGIONS, ["xx-" + "9" * LARGE_BYTES]))
    bench.submit(NOON + HOUR + 1, retracted(mistake.event_id))
    bench.submit(NOON + 2 * HOUR, changed("org:acme", REGIONS, SECOND))
    return bench


@pytest.mark.parametrize("known_at", [IN_FORCE, None, NOON + 4 * HOUR])
def test_states_differences_and_timelines_have_the_values(filled: QueryLedger, known_at: KnownAt) -> None:
    query = filled.query
    for at, value in ((NOON, FIRST), (NOON + 2 * HOUR - 1, FIRST), (NOON + 2 * HOUR, SECOND)):
        state = query.state("org:acme", at=at, known_at=known_at).settings[REGIONS]
        assert (state.value, state.change and state.change.value) == (value, value)
    (difference,) = query.diff("org:acme", start=NOON, end=NOON + 2 * HOUR, known_at=known_at).differences
    assert (difference.before.value, difference.after.value) == (FIRST, SECOND)
    assert SECOND in [one.value for one in difference.changed_by if isinstance(one, Change)]
    values = [interval.value for interval in query.timeline("org:acme", known_at=known_at).intervals]
    # In force, the first value was back once the mistake was retracted.
    again = [FIRST] if known_at == IN_FORCE else []
    assert [value for value in values if value in (FIRST, SECOND)] == [FIRST, *again, SECOND]
    assert not any(isinstance(value, LargeValue) for value in values)


def test_a_listing_of_all_subjects_has_the_values(filled: QueryLedger) -> None:
    for known_at in (IN_FORCE, None, NOON + HOUR - 1):
        changes = filled.query.snapshot(at=NOON, known_at=known_at, kind="org").changes
        assert [row.change.value for row in changes] == [FIRST]


def test_the_next_value_is_in_a_state(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", REGIONS, SECOND, NOON + 9 * HOUR))
    answer = bench.query.state("org:acme", at=NOON)
    assert answer.next[REGIONS].state.value == SECOND
    later = bench.query.state("org:acme", at=NOON, large_values=False).next[REGIONS].state.value
    assert bench.query.large_values.value(later) == SECOND


def test_a_caller_may_read_the_values_itself(filled: QueryLedger) -> None:
    query = filled.query
    state = query.state("org:acme", at=NOON, large_values=False).settings[REGIONS]
    assert isinstance(state.value, LargeValue)
    assert query.large_values.read(state.value) == FIRST
    (difference,) = query.diff("org:acme", start=NOON, end=NOON + 2 * HOUR, large_values=False).differences
    assert isinstance(difference.before.value, LargeValue)
    assert query.large_values.value(difference.after.value) == SECOND
    intervals = query.timeline("org:acme", large_values=False).intervals
    assert sum(isinstance(interval.value, LargeValue) for interval in intervals) == 2


def test_equal_values_in_different_events_are_no_difference(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", REGIONS, FIRST))
    bench.submit(NOON + HOUR, changed("org:acme", REGIONS, FIRST))
    assert not bench.query.diff("org:acme", start=NOON, end=NOON + HOUR, large_values=False).differences


@pytest.mark.parametrize("known_at", [IN_FORCE, None, NOON + 4 * HOUR])
def test_decisions_rest_on_the_values(filled: QueryLedger, known_at: KnownAt) -> None:
    for at, value in ((NOON, FIRST), (NOON + 3 * HOUR, SECOND)):
        decision = filled.query.check(_record(at), known_at)
        assert decision.outcome.handling.allowed_regions == tuple(sorted(value))
        (residency,) = [state for state in decision.outcome.evidence if state.setting == REGIONS]
        assert residency.value == value


def test_decisions_about_one_value_share_it(filled: QueryLedger) -> None:
    one, other = (filled.query.check(_record(NOON + 3 * HOUR + more)) for more in (0, HOUR))
    states = [state for each in (one, other) for state in each.outcome.evidence if state.setting == REGIONS]
    assert states[0].value is states[1].value


def test_timelines_hold_no_large_value(filled: QueryLedger) -> None:
    filled.query.context()
    _, timelines = filled.query.store.subject("org:acme")
    for timeline, large in zip(timelines[REGIONS], (2, 4), strict=True):
        assert all(change is None or value_bytes(change.value) <= LARGE_BYTES for change in timeline.changes)
        assert sum(change is not None and isinstance(change.value, LargeValue) for change in timeline.changes) == large


def test_the_states_read_last_stay_in_memory_up_to_a_bound(bench: QueryLedger) -> None:
    for number in range(10):
        bench.submit(NOON + number, changed(f"org:o{number}", REGIONS, FIRST))
    size = value_bytes(FIRST)
    kept = LargeValues(bench.ledger, 3 * size)
    states = [
        bench.query.state(f"org:o{number}", at=NOON + HOUR, large_values=False).settings[REGIONS]
        for number in range(10)
    ]
    whole = [kept.state(state) for state in states]
    assert all(state.value == FIRST for state in whole)
    assert [kept.state(state) is before for state, before in zip(states[7:], whole[7:], strict=True)] == [True] * 3
    assert kept.state(states[0]) is not whole[0]
    assert all(one is not other for one, other in pairwise(whole))
    assert size < large_values.KEPT_BYTES_MAX


def test_a_value_whose_event_has_none_is_corrupt(filled: QueryLedger) -> None:
    position = filled.ledger.recorder.stream("org:acme")[2].position
    lost = LargeValue(1, position.to_bytes(8, "big") + (9).to_bytes(8, "big"))
    with pytest.raises(LedgerCorrupt, match=f"the event at position {position} has no value"):
        filled.query.large_values.read(lost)
    with pytest.raises(LedgerCorrupt):
        filled.query.large_values.read(LargeValue(1, (10**9).to_bytes(8, "big") + bytes(8)))
    with pytest.raises(TypeError, match="object has no JSON"):
        filled.query.large_values.read(object())
