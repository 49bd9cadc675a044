"""A report counts the same as counting row by row, whatever the size of the batches."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ledger.times import DAY
from projections.audit.counting import codes_of
from projections.audit.reading.strict import LogRow
from projections.audit.report.collector import (
    EVERY_MAX,
    FAULTS_MAX,
    INDETERMINATE,
    OTHER_FAULTS,
    REJECTS_SHOWN,
    ReportCollector,
)
from projections.audit.report.counters import PENDING_MIN, DayCounter, NameCounter, heaviest
from projections.audit.report.report_json import report_json
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.decisions.model import Observed, RequestRecord
from projections.query.query import PinnedQuery
from tests.audit.report.making import audited, log
from tests.support.older_catalog import older_definitions
from tests.support.questions import NOON, QueryLedger, defined

LATER = NOON + 9 * DAY
"""After everything that `populate` records."""


def test_the_counts_equal_those_of_counting_row_by_row(bench: QueryLedger) -> None:
    rows = log()
    days: dict[int, Counter[str]] = defaultdict(Counter)
    why: dict[int, Counter[str]] = defaultdict(Counter)
    models: dict[str | None, Counter[str]] = defaultdict(Counter)
    reasons: Counter[tuple[str, str]] = Counter()
    hindsight: Counter[tuple[str, str]] = Counter()
    for record, decision in zip(rows, PinnedQuery(bench.query).check_all(rows), strict=True):
        verdict = decision.outcome.verdict
        days[record.at // DAY][verdict] += 1
        models[record.model_id][verdict] += 1
        for reason in decision.outcome.reasons:
            reasons[verdict, reason] += 1
            if verdict in ("violation", "denied"):
                why[record.at // DAY][reason] += 1
        if decision.hindsight is not None:
            hindsight[verdict, decision.hindsight.outcome.verdict] += 1
    assert set(VERDICT_NAMES) <= {verdict for counts in days.values() for verdict in counts}
    assert hindsight
    collector, _, report = audited(bench, rows)
    assert [(day, _named(VERDICT_NAMES, counts)) for day, counts in collector.days.counts()] == sorted(days.items())
    assert [(day, _named(REASON_NAMES, counts)) for day, counts in collector.days_reasons.counts()] == sorted(
        why.items()
    )
    assert {one.model: dict(one.verdicts) for one in report.models} == models
    assert report.models_count == len(models) - 1
    counts_of_reasons = {
        (v, r): int(collector.reasons[i, j]) for i, v in enumerate(VERDICT_NAMES) for j, r in enumerate(REASON_NAMES)
    }
    assert {pair: count for pair, count in counts_of_reasons.items() if count} == reasons
    assert {(verdict, later): count for verdict, later, count in report.hindsight.rows} == hindsight


def _named(names: tuple[Any, ...], counts: list[int]) -> dict[str, int]:
    return {name: count for name, count in zip(names, counts, strict=True) if count}


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_the_size_of_the_batches_changes_nothing(bench: QueryLedger, size: int) -> None:
    assert report_json(audited(bench, log(), size).report) == report_json(audited(bench, log(), 7).report)


def test_a_report_shows_the_first_rows_and_at_most_two_of_one_subject(
    bench: QueryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.audit.report.report.EVERY_MAX", 10)
    report = audited(bench, log()).report
    (cached,) = [one for one in report.findings_of if one.reason == "cached_against_setting"]
    shown = [report.findings[place].sample for place in cached.shown]
    # The first two lines of acme, and the one line of each other org: a new default holds for them after the first day.
    assert [(sample.line, sample.record.org_id) for sample in shown] == [
        (1, None),
        (2, None),
        (5, "beta2"),
        (25, "beta1"),
        (35, "beta3"),
    ]


@pytest.mark.parametrize("more", [0, 1])
def test_a_report_shows_every_row_while_they_are_few(bench: QueryLedger, more: int) -> None:
    breach = RequestRecord(NOON + DAY, org_id="acme", model_id="a/b", handling=Observed(trained=True, stored=True))
    audit = audited(bench, [breach._replace(handling=None), *[breach] * (EVERY_MAX - 1 + more)], 64)
    assert sum(audit.summary.verdicts.values()) == EVERY_MAX + more
    by_reason = {one.reason: one for one in audit.report.findings_of}
    lines = [audit.report.findings[place].sample.line for place in by_reason["passthrough_not_allowed"].shown]
    # First the requests, then the questions.
    assert lines == ([2, 3, 1] if more else [*range(2, EVERY_MAX + 1), 1])
    assert (by_reason["stored_against_setting"].rows == len(by_reason["stored_against_setting"].shown)) == (not more)


def test_a_report_names_missing_facts_with_the_knowledge_of_today(bench: QueryLedger) -> None:
    undecided = {one.reason: one for one in audited(bench, log()).report.undecided}
    assert set(undecided) == {"before_first_record", "scope_conflict", "unknown_owner", "unknown_model"}
    owners = {missing.ids["key_id"]: missing for missing in undecided["unknown_owner"].missing}
    assert owners["gone"].subject == "key:gone"
    assert owners["gone"].rows == 5
    assert "cleared by #" in owners["gone"].words
    assert owners["gone"].since is None
    assert (owners["later"].subject, owners["later"].setting, owners["later"].rows) == ("key:later", "owner", 5)
    assert owners["later"].since is not None
    assert "org:acme" in owners["later"].since
    (conflict,) = undecided["scope_conflict"].missing
    assert conflict.words == "key:k1 → project:p1 → org:acme, and the record names org:other"
    (model,) = undecided["unknown_model"].missing
    assert model.words == "the hosting of model:unheard/of was not known; no event is about this model"
    (early,) = undecided["before_first_record"].missing
    assert early.words.startswith("the ledger begins on 2026-01-01T00:00:00")


def test_a_report_names_the_values_that_the_rules_do_not_speak_of(bench: QueryLedger) -> None:
    with older_definitions():
        bench.submit(LATER, defined("network.private_only", default=None, kinds=["org"], protective=True))
    row = RequestRecord(LATER + 1, org_id="gamma", handling=Observed(network="public"))
    (undecided,) = audited(bench, [row, row._replace(org_id="beta"), row]).report.undecided
    assert (undecided.reason, undecided.rows, undecided.groups) == ("undecidable_value", 3, 2)
    assert undecided.missing[0].words == "network.private_only of org:gamma was null: the rules do not speak of that"


def test_a_counter_merges_any_number_of_names_exactly() -> None:
    chance = np.random.default_rng(4)
    counter, expected, ends = NameCounter(2), Counter[tuple[str, int]](), dict[str, tuple[int, int]]()
    for _ in range(5):
        numbers = chance.integers(0, 60_000, 40_000)
        things, at = chance.integers(0, 2, len(numbers)), chance.integers(-1000, 1000, len(numbers))
        counter.add(pa.array([f"n{number}" for number in numbers]), things, at)
        for number, thing, instant in zip(numbers.tolist(), things.tolist(), at.tolist(), strict=True):
            name = f"n{number}"
            expected[name, thing] += 1
            first, last = ends.get(name, (instant, instant))
            ends[name] = min(first, instant), max(last, instant)
    assert len(ends) < PENDING_MIN < 5 * 25_000
    counts = counter.counts()
    names = counts.names.to_pylist()
    assert len(names) == len(set(names)) == len(ends)
    assert {
        (n, t): c for n, row in zip(names, counts.counts.tolist(), strict=True) for t, c in enumerate(row) if c
    } == (expected)
    assert dict(zip(names, zip(counts.first.tolist(), counts.last.tolist(), strict=True), strict=True)) == ends


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 10, None])
def test_the_heaviest_names_equal_those_of_sorting_all(limit: int | None) -> None:
    names = pa.array(["d", "a", None, "c", "b", "e"], pa.large_string())
    first, then = np.array([1, 2, 2, 1, 2, 0]), np.array([5, 1, 1, 5, 3, 9])
    order = sorted(range(6), key=lambda i: (-first[i], -then[i], names[i].as_py() or ""))
    assert heaviest(names, [first, then], limit) == order[:limit]


def test_days_far_apart_need_no_room_for_the_days_between() -> None:
    days = DayCounter(2)
    days.add(np.array([-700_000, 2_900_000, -700_000]), np.array([0, 1, 1]))
    assert days.counts() == [(-700_000, [1, 1]), (2_900_000, [0, 1])]


def test_the_order_of_a_dictionary_does_not_matter() -> None:
    column = pa.array(["denied", "allowed", "denied"]).dictionary_encode()
    assert codes_of(column, VERDICT_NAMES).tolist() == [1, 0, 1]
    assert [VERDICT_NAMES[code] for code in (1, 0, 1)] == ["denied", "allowed", "denied"]


def test_faults_are_counted_and_their_number_is_limited() -> None:
    collector = ReportCollector()
    for number in range(FAULTS_MAX + 10):
        collector.reject(LogRow("a", number, None, f"member {number}"))
    collector.reject(LogRow("a", 0, None, "member 0"))
    assert len(collector.rejects) == REJECTS_SHOWN
    assert (collector.faults["member 0"], collector.faults[OTHER_FAULTS]) == (2, 10)
    assert len(collector.faults) == FAULTS_MAX + 1
    assert VERDICT_NAMES.index("indeterminate") == INDETERMINATE
