"""Counts are exact, by subject too, when they no longer fit in memory."""

import random
from collections import Counter

import pyarrow as pa
import pytest

from projections.audit.columns import VERDICTS
from projections.audit.counting import Counting
from projections.audit.summary import AGAINST, Summary
from projections.pinned import Pin
from projections.query import IN_FORCE
from tests.audit.io.test_writing import rows


@pytest.mark.parametrize("subjects_max", [10, 100, 10_000])
def test_subjects_are_counted_and_ranked(subjects_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.audit.counting.ROWS_MAX", 50)
    chance = random.Random(5)
    made = rows(3000)
    for row in made:
        number = min(chance.randrange(400), chance.randrange(400))
        row["governed_by"] = chance.choice([None, f"org:o{number}", f"account:ü{number}"])
        row["verdict"] = chance.choice(["violation", "denied", "indeterminate", "compliant", "allowed"])
    summary = Summary(Pin("o", 1, 1, "h"), IN_FORCE)
    with Counting(summary, subjects_max) as counting:
        for start in range(0, len(made), 70):
            counting.take(pa.RecordBatch.from_pylist(made[start : start + 70], schema=VERDICTS))
        counting.finish()
    assert summary.verdicts == Counter(row["verdict"] for row in made)
    assert summary.reasons == Counter(reason for row in made for reason in row["reasons"])
    assert summary.hindsight == sum(row["hindsight"] is not None for row in made)
    assert (summary.first_at, summary.last_at) == (made[0]["at"], made[-1]["at"])
    by_subject: dict[str | None, Counter[str]] = {}
    for row in made:
        by_subject.setdefault(row["governed_by"], Counter())[row["verdict"]] += 1
    order = sorted(
        by_subject,
        key=lambda one: (-sum(by_subject[one][v] for v in AGAINST), -by_subject[one].total(), one or ""),
    )
    assert [(one.subject, one.verdicts) for one in summary.subjects] == [(one, by_subject[one]) for one in order]
    assert summary.subject_count == len(by_subject)
