"""Compares two answers: where they differ, and which members the comparison skips."""

from itertools import zip_longest
from typing import Any

from tests.simulation.oracle import Outcome
from tests.support.reference import Json

OUTLOOK = ("holds_until", "still_scheduled", "still_scheduled_left_out", "retracts", "warnings")


class Mismatch(AssertionError):
    """The ledger and the oracle differ."""


def first_difference(expected: Any, actual: Any, place: str = "") -> tuple[str, Any, Any]:
    """(where, the expected value there, the actual value there)."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in [*expected, *actual]:
            if name not in expected or name not in actual or expected[name] != actual[name]:
                missing = "(nothing)"
                return first_difference(expected.get(name, missing), actual.get(name, missing), f"{place}/{name}")
    if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        for index, (one, other) in enumerate(zip_longest(expected, actual, fillvalue="(nothing)")):
            if one != other:
                return first_difference(one, other, f"{place}/{index}")
    return place, expected, actual


def without_event_ids(outcome: Outcome, expected: Outcome) -> Outcome:
    """Drops the event ids that the ledger chooses, and the outlooks, which need the events."""
    if any(receipt["event_id"] is not None for receipt in expected.receipts):
        return outcome
    return outcome._replace(receipts=tuple({**without_outlook(one), "event_id": None} for one in outcome.receipts))


def without_outlook(receipt: Json) -> Json:
    return {name: value for name, value in receipt.items() if name not in OUTLOOK}


def without_salt(answer: Any) -> Any:
    """Drops the commitments, which depend on a random salt. The ledger itself verifies reasons against them."""
    if isinstance(answer, dict):
        return {name: without_salt(value) for name, value in answer.items() if name != "personal"}
    if isinstance(answer, list):
        return [without_salt(value) for value in answer]
    return answer
