"""Two answers side by side: where they part, and what is left out of the comparison."""

from itertools import zip_longest
from typing import Any

from tests.simulation.oracle import Outcome


class Mismatch(AssertionError):
    """The ledger and its auditor say different things."""


def first_difference(expected: Any, found: Any, place: str = "") -> tuple[str, Any, Any]:
    """(where, what was expected there, what was found there)."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in [*expected, *found]:
            if name not in expected or name not in found or expected[name] != found[name]:
                missing = "(nothing)"
                return first_difference(expected.get(name, missing), found.get(name, missing), f"{place}/{name}")
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        for index, (one, other) in enumerate(zip_longest(expected, found, fillvalue="(nothing)")):
            if one != other:
                return first_difference(one, other, f"{place}/{index}")
    return place, expected, found


def without_event_ids(outcome: Outcome, expected: Outcome) -> Outcome:
    """Without the event ids that the auditor leaves to the ledger."""
    if any(receipt["event_id"] is not None for receipt in expected.receipts):
        return outcome
    return outcome._replace(receipts=tuple({**receipt, "event_id": None} for receipt in outcome.receipts))


def without_salt(answer: Any) -> Any:
    """Without the commitments, which hide a random salt; that a reason is the one committed to, the ledger checks."""
    if isinstance(answer, dict):
        return {name: without_salt(value) for name, value in answer.items() if name != "personal"}
    if isinstance(answer, list):
        return [without_salt(value) for value in answer]
    return answer
