"""Counts are exact, also by subject when they exceed the memory."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from projections.audit.counting import VerdictCounter
from projections.audit.numba_support import AVAILABLE
from projections.audit.schemas import VERDICTS, DecidedBatch
from projections.audit.summary import AGAINST, UNKNOWN_LISTED, NoticeRows, Summary, summary_json
from projections.query.query import IN_FORCE, KnownAt
from projections.temporal.coordinates import ClockNotice, Pin
from tests.audit.io.test_verdict_files import rows


@pytest.mark.parametrize("code_count", [0, 250, 1000], ids="{} have a code".format)
@pytest.mark.parametrize("subjects_max", [10, 100, 10_000])
@pytest.mark.parametrize("listed", [7, 100_000])
@pytest.mark.parametrize("compiled", [False, AVAILABLE], ids="compiled {}".format)
def test_subjects_are_counted_and_ranked(
    code_count: int, subjects_max: int, listed: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.audit.counting.worth_compiling", lambda _count, *_functions: compiled)
    monkeypatch.setattr("projections.audit.counting.SUBJECTS_LISTED", listed)
    monkeypatch.setattr("projections.audit.counting.ROWS_MAX", 50)
    monkeypatch.setattr("projections.audit.counting._FEW_MAX", 1500)
    chance = random.Random(5)
    drawn = rows(3000)
    for row in drawn:
        number = min(chance.randrange(400), chance.randrange(400))
        row["governed_by"] = chance.choice([None, f"org:o{number}", f"account:ü{number}"])
        row["verdict"] = chance.choice(["violation", "denied", "indeterminate", "compliant", "allowed"])
    summary = Summary(Pin("o", 1, 1, "h"), IN_FORCE)
    with VerdictCounter(summary, subjects_max) as counting:
        for start in range(0, len(drawn), 70):
            counting.take(decided(drawn[start : start + 70], code_count))
        counting.finish()
    assert summary.verdicts == Counter(row["verdict"] for row in drawn)
    assert summary.reasons == Counter(reason for row in drawn for reason in row["reasons"])
    assert summary.hindsight == sum(row["hindsight"] is not None for row in drawn)
    assert (summary.first_at, summary.last_at) == (drawn[0]["at"], drawn[-1]["at"])
    by_subject: dict[str | None, Counter[str]] = {}
    for row in drawn:
        by_subject.setdefault(row["governed_by"], Counter())[row["verdict"]] += 1
    order = sorted(
        by_subject,
        key=lambda one: (-sum(by_subject[one][v] for v in AGAINST), -by_subject[one].total(), one or ""),
    )
    assert [(one.subject, one.verdicts) for one in summary.subjects] == [
        (one, by_subject[one]) for one in order[:listed]
    ]
    assert summary.subject_count == len(by_subject)
    unknown = [row for row in drawn if row["governed_by"] is not None and not row["subject_known"]]
    named = Counter(row["governed_by"] for row in unknown)
    assert (summary.unknown_rows, summary.unknown_count) == (len(unknown), len(named))
    assert len(summary.unknown) == min(UNKNOWN_LISTED, listed, len(named))
    assert all(one.total == named[one.subject] for one in summary.unknown)
    listed = min(listed, len(by_subject))
    assert len(summary.subjects) == listed
    assert summary.subjects[listed // 2 : 400] == list(summary.subjects)[listed // 2 : 400]
    assert summary.subjects[-1] == list(summary.subjects)[-1]
    with pytest.raises(IndexError):
        summary.subjects[listed]


def decided(drawn: list[dict[str, Any]], code_count: int) -> DecidedBatch:
    """The first `code_count` subjects have codes, in an order of their own; with 0 the batch has no codes at all."""
    verdicts = pa.RecordBatch.from_pylist(drawn, schema=VERDICTS)
    if not code_count:
        return DecidedBatch(verdicts)
    names = [
        name.format(number) for number in reversed(range(min(code_count, 400))) for name in ("account:ü{}", "org:o{}")
    ]
    places = {name: place for place, name in enumerate(names)}
    governing = [places.get(row["governed_by"], -1 - number % 3) for number, row in enumerate(drawn)]
    return DecidedBatch(verdicts, np.array(governing, np.int32), pa.array(names, pa.large_string()))


def test_rows_in_a_stretch_of_a_clock_that_was_ahead_are_counted_to_the_microsecond() -> None:
    drawn = rows(100)
    instants = [row["at"] for row in drawn]
    assert instants == sorted(set(instants))
    inside = ClockNotice(instants[10], instants[20], 7)
    touching = ClockNotice(instants[99], instants[99] + 1, 8)
    beyond = ClockNotice(instants[99] + 1, instants[99] + 9, 9)
    between = ClockNotice(instants[50] + 1, instants[51], 10)
    notices = (inside, touching, beyond, between)
    cases: list[tuple[KnownAt, list[NoticeRows]]] = [
        (IN_FORCE, [NoticeRows(inside, 10), NoticeRows(touching, 1)]),
        (beyond.start - 1, [NoticeRows(inside, 10), NoticeRows(touching, 100)]),
        (beyond.start, [NoticeRows(inside, 10), NoticeRows(touching, 1), NoticeRows(beyond, 100)]),
        (beyond.until, [NoticeRows(inside, 10), NoticeRows(touching, 1)]),
    ]
    for known_at, expected in cases:
        summary = Summary(Pin("o", 1, 1, "h"), known_at, clock_notices=notices)
        with VerdictCounter(summary) as counting:
            for start in range(0, len(drawn), 7):
                counting.take(decided(drawn[start : start + 7], 0))
            counting.finish()
        assert summary.notices == expected
        shown = summary_json(summary)["clock_notices"]
        assert [(one["acknowledged_at_position"], one["rows"]) for one in shown] == [
            (notice.position, count) for notice, count in expected
        ]
