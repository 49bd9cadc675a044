"""The bytes of a decision are those of its JSON value."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ledger.times import BEGINNING, END
from projections.decisions.encoding import decision_bytes, decisions_bytes
from projections.decisions.model import (
    REASONS,
    AsOf,
    DataPolicy,
    Decision,
    EnforcementLag,
    Evidence,
    GovernedBy,
    Handling,
    Hindsight,
    Outcome,
    decision_json,
)
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
INSTANT = st.integers(BEGINNING, END - 1)
NUMBER = st.integers(0, 2**53)
VALUE = st.none() | st.booleans() | NUMBER | TEXT | st.lists(TEXT, max_size=3) | st.dictionaries(TEXT, TEXT, max_size=2)
CHANGES = st.builds(
    Change,
    position=NUMBER,
    version=NUMBER,
    event_id=TEXT,
    recorded_at=INSTANT,
    actor=TEXT,
    setting=TEXT,
    value=VALUE,
    effective_from=INSTANT,
    effective_until=st.none() | INSTANT,
)
RETRACTIONS = st.builds(Retraction, NUMBER, NUMBER, TEXT, INSTANT, TEXT, TEXT, TEXT)
STATES = st.builds(
    SettingState,
    TEXT,
    TEXT,
    VALUE,
    st.sampled_from(["explicit", "default", "not_applicable", "undefined"]),
    st.none() | CHANGES,
    st.none() | CHANGES,
)
POLICIES = st.just(DataPolicy("platform")) | st.builds(
    DataPolicy, st.just("provider"), st.none() | TEXT, st.none() | TEXT
)
FLAG = st.booleans()
HANDLINGS = st.builds(Handling, FLAG, FLAG, FLAG, FLAG, st.none() | st.tuples() | st.tuples(TEXT, TEXT), FLAG, POLICIES)
OUTCOMES = st.builds(
    Outcome,
    st.sampled_from(["allowed", "denied", "compliant", "violation", "indeterminate"]),
    st.builds(GovernedBy, st.none() | TEXT, st.lists(TEXT, max_size=3).map(tuple)),
    HANDLINGS,
    st.lists(st.sampled_from(list(REASONS)), max_size=3).map(tuple),
    st.lists(STATES, max_size=3).map(Evidence),
    st.none() | st.builds(EnforcementLag, NUMBER, NUMBER, NUMBER),
    st.lists(TEXT, max_size=2).map(tuple),
)
HINDSIGHTS = st.builds(Hindsight, OUTCOMES, st.lists(STATES | RETRACTIONS, max_size=2).map(tuple))
DECISIONS = st.builds(
    Decision, st.none() | TEXT, OUTCOMES, st.builds(AsOf, INSTANT, INSTANT, NUMBER), st.none() | HINDSIGHTS
)


@given(DECISIONS)
def test_the_bytes_are_those_of_the_json_value(decision: Decision) -> None:
    expected = msgspec.json.encode(decision_json(decision))
    # The second time from the cache.
    assert decision_bytes(decision) == expected
    assert decision_bytes(decision) == expected


@given(st.lists(DECISIONS, min_size=1, max_size=3))
def test_several_decisions_are_in_order_with_their_position(decisions: list[Decision]) -> None:
    expected = {"decisions": [decision_json(one) for one in decisions], "position": decisions[0].as_of.position}
    assert decisions_bytes(decisions, decisions[0].as_of.position) == msgspec.json.encode(expected)
