"""The faults of refused submissions, of which a ledger records nothing."""

from typing import Any

import pytest

from ledger.append.submissions import parse_submissions
from ledger.errors import BadSubmission, Fault
from ledger.store import Ledger


def faults(ledger: Ledger, *bodies: Any) -> tuple[Fault, ...]:
    """The faults of the bodies, after a check that nothing was recorded."""
    before = ledger.head()
    with pytest.raises(BadSubmission) as refused:
        ledger.submit(
            parse_submissions(bodies[0] if len(bodies) == 1 else {"events": list(bodies)}), actor="operator:test"
        )
    assert ledger.head() == before
    assert "SECRET" not in str(refused.value)
    assert "\n" not in str(refused.value)
    return refused.value.faults
