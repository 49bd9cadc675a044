"""Regions within regions, up to the number that is followed and beyond: `check`, the kernel and the reference."""

from itertools import pairwise

import pytest

from projections.decisions.model import Observed, RequestRecord
from projections.query.query import IN_FORCE
from tests.audit.kernel.test_against_reference import assert_alike
from tests.audit.strategies import HistoryStep, batch_of, grown
from tests.support.questions import NOON, changed
from tests.support.reference import Reference


def _nested(count: int, outermost: str) -> HistoryStep:
    """Region `r0` within `r1` within … : `count` regions lie around `r0`, and the last has the id `outermost`."""
    names = [f"r{number}" for number in range(count)] + [outermost]
    within = [changed(f"region:{inner}", "region.within", f"region:{outer}") for inner, outer in pairwise(names)]
    residency = changed("org:acme", "residency.regions", ["top"])
    model = [changed("model:m", "model.hosting", "hosted"), changed("model:m", "model.regions", ["r0"])]
    return HistoryStep(1, [*within, residency, *model], None)


@pytest.mark.parametrize(
    ("count", "outermost", "of_record", "of_question"),
    [
        (8, "top", "compliant", "allowed"),
        (8, "other", "violation", "denied"),
        # Whether the ninth region is an allowed one is not looked at, so nothing is said of it.
        (9, "top", "indeterminate", "indeterminate"),
        (9, "other", "indeterminate", "indeterminate"),
        # A circle has no further region.
        (9, "r3", "violation", "denied"),
    ],
)
def test_a_region_deeper_than_is_followed_is_neither_allowed_nor_a_violation(
    count: int, outermost: str, of_record: str, of_question: str
) -> None:
    with grown([_nested(count, outermost)]) as bench:
        at = NOON + 5
        records = [
            {"org_id": "acme", "model_id": "m", "at": at, "region": "r0"},
            {"org_id": "acme", "model_id": "m", "at": at},
        ]
        verdicts = assert_alike(bench, batch_of(records), IN_FORCE)
        assert verdicts.column("verdict").to_pylist() == [of_record, of_question]
        reference = Reference(entry.leaf for entry in bench.ledger.page(0))
        for handling, expected in ((Observed(region="r0"), of_record), (None, of_question)):
            record = RequestRecord(at, org_id="acme", model_id="m", handling=handling)
            outcome = bench.query.check(record).outcome
            raw = {"org_id": "acme", "model_id": "m"} | ({"handling": {"region": "r0"}} if handling else {})
            answer = reference.check(raw, at, at)
            assert (outcome.verdict, list(outcome.reasons)) == (answer["verdict"], answer["reasons"])
            assert outcome.verdict == expected
            assert ("unknown_region" in outcome.reasons) == (expected == "indeterminate")
