"""The bytes of a decision are those of its JSON value."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.times import BEGINNING, END
from projections.decisions import encoding
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
from projections.temporal.coordinates import ClockNotice
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
    VALUE,
)
POLICIES = st.just(DataPolicy("platform")) | st.builds(
    DataPolicy,
    st.just("provider"),
    *[st.none() | TEXT] * 4,
    *[st.none() | st.booleans()] * 2,
    st.none() | NUMBER,
    st.none() | st.tuples(TEXT, TEXT),
)
FLAG = st.booleans()
HANDLINGS = st.builds(Handling, FLAG, FLAG, FLAG, FLAG, st.none() | st.tuples() | st.tuples(TEXT, TEXT), FLAG, POLICIES)
OUTCOMES = st.builds(
    Outcome,
    st.sampled_from(["allowed", "denied", "compliant", "violation", "indeterminate"]),
    st.builds(GovernedBy, st.none() | TEXT, st.lists(TEXT, max_size=3).map(tuple), st.booleans()),
    HANDLINGS,
    st.lists(st.sampled_from(list(REASONS)), max_size=3).map(tuple),
    st.lists(STATES, max_size=3).map(Evidence),
    st.none() | st.builds(EnforcementLag, NUMBER, NUMBER, NUMBER),
    st.lists(TEXT, max_size=2).map(tuple),
)
HINDSIGHTS = st.builds(Hindsight, OUTCOMES, st.lists(STATES | RETRACTIONS, max_size=2).map(tuple))
NOTICES = st.builds(ClockNotice, INSTANT, INSTANT, NUMBER)
DECISIONS = st.builds(
    Decision,
    st.none() | TEXT,
    OUTCOMES,
    st.builds(AsOf, INSTANT, INSTANT, NUMBER, st.none() | NOTICES),
    st.none() | HINDSIGHTS,
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


def resolved(answer: Any) -> Any:
    """The answer's decisions, with each piece of evidence in place of its index."""
    pieces = answer["evidence"]

    def put(outcome: Any, members: tuple[str, ...]) -> None:
        for member in members:
            outcome[member] = [pieces[one] if isinstance(one, int) else one for one in outcome[member]]

    for decision in answer["decisions"]:
        put(decision, ("evidence",))
        if "hindsight" in decision:
            put(decision["hindsight"], ("evidence", "changed_by"))
    return answer["decisions"]


@given(st.lists(DECISIONS, min_size=1, max_size=6), st.integers(1, 3))
def test_a_large_batch_gives_each_piece_of_evidence_once(decisions: list[Decision], times: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "INLINE_BYTES", 0)
        patch.setattr(encoding, "_BLOCK", 2)
        answer = msgspec.json.decode(decisions_bytes(decisions * times, 7))
    assert list(answer) == ["decisions", "evidence", "position"]
    texts = [msgspec.json.encode(piece) for piece in answer["evidence"]]
    assert len(set(texts)) == len(texts)
    assert resolved(answer) == [msgspec.json.decode(decision_bytes(one)) for one in decisions * times]


def watched(decisions: list[Decision], passed: list[Decision]) -> Iterator[Decision]:
    for decision in decisions:
        passed.append(decision)
        yield decision


@given(st.lists(DECISIONS, min_size=1, max_size=6), st.integers(1, 3000))
def test_a_batch_that_reaches_its_size_ends_early_and_says_where(decisions: list[Decision], size: int) -> None:
    passed: list[Decision] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "INLINE_BYTES", 0)
        patch.setattr(encoding, "ANSWER_BYTES", size)
        patch.setattr(encoding, "_BLOCK", 1)
        answers = []
        rest = decisions
        while rest:
            passed.clear()
            answer = msgspec.json.decode(decisions_bytes(watched(rest, passed), 7))
            answers.append(answer)
            count = len(answer["decisions"])
            assert count >= 1
            assert answer.get("next_after", len(rest)) == count
            assert ("next_after" in answer) == (count < len(rest))
            assert len(passed) <= count + 1
            if count > 1:
                # Without its last decision the answer had not reached the size.
                without = decisions_bytes(rest[: count - 1], 7)
                shell = b'{"decisions":[],"evidence":[],"position":7}'
                commas = max(0, len(msgspec.json.decode(without)["evidence"]) - 1)
                assert len(without) - len(shell) - commas < size
            rest = rest[count:]
        whole = [one for answer in answers for one in resolved(answer)]
    assert whole == [msgspec.json.decode(decision_bytes(one)) for one in decisions]


def test_no_cache_holds_a_large_set_of_regions_for_each_outcome() -> None:
    regions = tuple(f"r{number}" for number in range(encoding.SMALL_SET + 1))
    handling = Handling(False, False, False, False, regions, False, DataPolicy("platform"))
    outcome = Outcome("allowed", GovernedBy("org:a", ()), handling, (), Evidence(()), None)
    decision = Decision(None, outcome, AsOf(0, 0, 1), None)
    before = encoding._middle.cache_info()
    assert decision_bytes(decision) == msgspec.json.encode(decision_json(decision))
    assert outcome.encoded is None
    assert encoding._middle.cache_info() == before


@given(st.lists(DECISIONS, min_size=1, max_size=8), st.integers(1, 4000), st.integers(1, 20))
def test_a_known_number_of_decisions_changes_no_answer(decisions: list[Decision], inline: int, count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "INLINE_BYTES", inline)
        patch.setattr(encoding, "_BLOCK", 1)
        plain = msgspec.json.decode(decisions_bytes(decisions, 7))
        early = msgspec.json.decode(decisions_bytes(decisions, 7, count))
    whole = [msgspec.json.decode(decision_bytes(one)) for one in decisions]
    for answer in (plain, early):
        assert (resolved(answer) if "evidence" in answer else answer["decisions"]) == whole
    # The size is estimated then, never too low.
    assert "evidence" in early or "evidence" not in plain
