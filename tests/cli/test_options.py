"""Options that verbs share: --at-least waits for a position of the ledger."""

import time

import pytest

from ledger.follower import AT_LEAST_SECONDS_MAX
from tests.support.command import Inforce
from tests.support.waiting import GIVE_UP_S

QUESTIONS = (("state", "org:acme"), ("history", "org:acme"), ("catalog",), ("check", "--org", "acme"))


@pytest.mark.parametrize("question", QUESTIONS, ids=[question[0] for question in QUESTIONS])
def test_a_question_is_answered_from_a_position_or_later(ledger: Inforce, question: tuple[str, ...]) -> None:
    head = ledger("history", "model:m2", "--format", "json").json()["position"]
    for position in (0, 1, head):
        assert ledger(*question, "--at-least", str(position)).code == 0
    for wrong in ("-1", "x", "1.5", str(10**18)):
        refused = ledger(*question, "--at-least", wrong)
        assert (refused.code, refused.out) == (2, "")


def test_a_position_that_is_not_reached_in_time_is_reported_in_one_line(ledger: Inforce) -> None:
    head = ledger("history", "model:m2", "--format", "json").json()["position"]
    began = time.monotonic()
    late = ledger("state", "org:acme", "--at-least", str(head + 1))
    assert AT_LEAST_SECONDS_MAX <= time.monotonic() - began < GIVE_UP_S
    assert (late.code, late.out, late.err.count("\n")) == (3, "", 1)
    assert f"position {head} " in late.err
    assert f" {head + 1} " in late.err
