"""Acknowledgements are events of `ledger:self`, which nobody can submit from outside."""

import pytest

from ledger.acknowledgements import AcknowledgedClock, Acknowledgements
from ledger.append.acknowledge import clock_acknowledgement, generation_acknowledgement
from ledger.append.submissions import parse_submissions
from ledger.errors import BadSubmission
from ledger.opening import open_ledger
from ledger.recorders.writability import acknowledgements
from tests.support.ledgers import NOW, OPERATOR, open_with_clock, submit


@pytest.mark.parametrize(
    ("position", "recorded_at", "covered"),
    [(10, 1000, True), (11, 1001, True), (11, 1002, False), (15, 1005, True), (15, 1006, False), (9, 1000, False)],
)
def test_an_acknowledged_clock_covers_one_microsecond_a_position(
    position: int, recorded_at: int, covered: bool
) -> None:
    assert AcknowledgedClock(10, 1000).covers(position, recorded_at) is covered


def test_acknowledgements_are_read_back_and_a_clocks_can_be_retracted(database_url: str) -> None:
    ledger, _ = open_with_clock(database_url)
    with ledger:
        assert acknowledgements(ledger.recorder) == Acknowledgements(None, 1)
        for generation in (2, 3):
            ledger.submit(generation_acknowledgement(ledger.catalog(), generation, "lost"), actor=OPERATOR)
        made = clock_acknowledgement(ledger.catalog(), NOW, NOW + 5, "ahead")
        receipt = ledger.submit(made, actor=OPERATOR)[-1]
        expected = AcknowledgedClock(receipt.position, receipt.recorded_at)
        with open_ledger(database_url) as other:
            assert acknowledgements(other.recorder) == Acknowledgements(expected, 3)
        submit(ledger, {"type": "change.retracted", "event_id": receipt.event_id, "reason": "the clock was right"})
        assert acknowledgements(ledger.recorder) == Acknowledgements(None, 3)


def test_nobody_submits_an_acknowledgement_from_outside() -> None:
    body = {"type": "setting.changed", "subject": "ledger:self", "setting": "ledger.generation", "value": 9}
    with pytest.raises(BadSubmission, match="kind"):
        parse_submissions(body)
