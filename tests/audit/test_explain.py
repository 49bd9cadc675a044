"""The smallest set of events that a decision rests on: it suffices, and no smaller set does."""

import random
from collections.abc import Mapping
from itertools import combinations, pairwise
from typing import Any

import pytest

from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING
from projections.audit.explain import explain, explanation_json
from projections.decisions.check import check
from projections.decisions.model import Observed, RequestRecord
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery, Query
from projections.temporal.changes import Change, Retraction, read_assertion
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import fold
from tests.support.ledgers import open_with_clock
from tests.support.questions import (
    CACHING,
    NOON,
    START,
    STORAGE,
    TRAINING,
    QueryLedger,
    changed,
    cleared,
    defined,
    retracted,
)

LOOSE = Observed(stored=True, cached=True, trained=True, forwarded_to="someone", region="moon", network="public")


@pytest.fixture
def bench(database_url: str) -> Any:
    ledger, clock = open_with_clock(database_url, START)
    with ledger:
        yield QueryLedger(ledger, clock, Query(ledger))


class NaivePartialLedger:
    """The states of a ledger with only `events` and each setting's first definition."""

    def __init__(self, bench: QueryLedger, at: int, events: set[int]) -> None:
        self.at = at
        entries = bench.ledger.page(0, 100_000)
        assertions = [(entry.subject, read_assertion(entry.leaf)) for entry in entries]
        self.retractions = [(s, one) for s, one in assertions if isinstance(one, Retraction) and one.position in events]
        self.changes: dict[str, list[Change]] = {}
        defined: set[str] = set()
        for subject, one in assertions:
            if not isinstance(one, Change):
                continue
            if subject == CATALOG_SUBJECT and one.setting not in defined:
                defined.add(one.setting)
                first = {name: getattr(one, name) for name in Change.__struct_fields__} | {"effective_from": BEGINNING}
                self.changes.setdefault(subject, []).append(Change(**first))
            elif one.position in events:
                self.changes.setdefault(subject, []).append(one)

    def _at(self, subject: str, setting: str) -> Change | None:
        timeline = fold(self.changes.get(subject, [])).get(setting)
        return None if timeline is None else timeline.at(self.at)

    def setting(self, subject: str, setting: str) -> SettingState:
        return effective(subject, setting, self._at(subject, setting), self._at(CATALOG_SUBJECT, setting))

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        change = self._at(CATALOG_SUBJECT, setting)
        return change.value if change is not None and isinstance(change.value, dict) else None

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        retractions = (
            one for s, one in self.retractions if (s, one.setting) == (subject, setting) and one.position > after
        )
        return next(retractions, None)


def is_minimal(bench: QueryLedger, record: RequestRecord, known_at: KnownAt = IN_FORCE) -> int:
    """Asserts by brute force that the explanation is minimal; returns the number of events."""
    explanation = explain(PinnedQuery(bench.query), record, known_at)
    outcome = explanation.decision.outcome
    positions = [weighed.source.position for weighed in explanation.events]
    assert positions == sorted(set(positions))
    needed = {source.position for source in explanation.needed}

    def suffices(events: set[int]) -> bool:
        partial = check(record, NaivePartialLedger(bench, record.at, events))
        return (partial.verdict, partial.reasons) == (outcome.verdict, outcome.reasons)

    as_small = [set(events) for events in combinations(positions, len(needed)) if suffices(set(events))]
    assert needed == as_small[0]
    assert explanation.others == len(as_small) - 1
    for size in range(len(needed)):
        assert not any(suffices(set(events)) for events in combinations(positions, size))
    return len(needed)


GOVERNORS = ["account:u1", "account:u2", "org:acme", "org:beta"]


def draw_submission(chance: random.Random) -> dict[str, Any]:
    start = None if chance.random() < 0.6 else NOON + chance.randint(-5, 60)
    kind = chance.random()
    if kind < 0.4:
        return changed(
            chance.choice(GOVERNORS), chance.choice([TRAINING, STORAGE, CACHING]), chance.random() < 0.5, start
        )
    if kind < 0.5:
        return cleared(chance.choice(GOVERNORS), chance.choice([TRAINING, CACHING]), start)
    if kind < 0.6:
        owned, owner = chance.choice([("key:k1", "project:p1"), ("project:p1", "project:p2")])
        return changed(owned, "owner", chance.choice([*GOVERNORS, owner]), start)
    if kind < 0.67:
        return changed(chance.choice(GOVERNORS[:2]), "attached_to", chance.choice(GOVERNORS[2:]), start)
    if kind < 0.75:
        return changed(chance.choice(GOVERNORS[2:]), "passthrough.allowed", chance.random() < 0.6, start)
    if kind < 0.8:
        return changed(
            chance.choice(GOVERNORS[2:]), "residency.regions", chance.choice([["eu"], ["eu", "moon"]]), start
        )
    if kind < 0.87:
        return changed("model:m1", "model.hosting", chance.choice(["hosted", "passthrough"]), start)
    if kind < 0.92:
        return changed("model:m1", "model.provider", chance.choice(["someone", "else"]), start)
    return defined(chance.choice([CACHING, STORAGE]), start, default=chance.random() < 0.5)


@pytest.mark.parametrize("seed", range(6))
def test_the_set_suffices_and_no_smaller_one_does(bench: QueryLedger, seed: int) -> None:
    chance = random.Random(seed)
    retractable: list[str] = []
    for step in range(50):
        if retractable and chance.random() < 0.15:
            bench.submit(NOON + step, retracted(retractable.pop(chance.randrange(len(retractable)))))
            continue
        event = draw_submission(chance)
        receipt = bench.submit(NOON + step, event)[0]
        if event["type"] != "setting.defined":
            retractable.append(receipt.event_id)
    head = bench.ledger.head().position
    sizes = set()
    for _ in range(40):
        ids = {"key_id": chance.choice([None, "k1"]), "org_id": chance.choice([None, None, "acme"])}
        ids |= {"project_id": chance.choice([None, None, "p1"]), "account_id": chance.choice(["u1", "u2"])}
        record = RequestRecord(
            NOON + chance.randint(-2, 62),
            **ids,
            model_id=chance.choice([None, "m1"]),
            enforced_position=chance.choice([None, chance.randint(1, head)]),
            handling=chance.choice([None, LOOSE, Observed(cached=True), Observed(forwarded_to="someone")]),
        )
        sizes.add(is_minimal(bench, record, chance.choice([IN_FORCE, IN_FORCE, None, NOON + 30])))
    assert len(sizes) >= 3


def test_an_event_that_repeats_the_default_is_not_needed_although_it_changed_the_verdict(bench: QueryLedger) -> None:
    """Opting out repeats the default, so no event is needed; but without that event the earlier one would hold."""
    bench.submit(NOON, changed("org:acme", TRAINING, True))
    (out,) = bench.submit(NOON + 10, changed("org:acme", TRAINING, False))
    record = RequestRecord(NOON + 20, org_id="acme", handling=Observed(trained=True))
    explanation = explain(PinnedQuery(bench.query), record)
    assert explanation.needed == ()
    ((source, needed, verdict, reasons),) = explanation.events
    assert (source.position, needed, verdict, reasons) == (out.position, False, "compliant", ())
    written = explanation_json(explanation)
    assert written["decided_by"] == []
    assert written["events"][0]["without"] == {"verdict": "compliant", "reasons": []}


def test_a_redefined_default_is_an_event_like_others(bench: QueryLedger) -> None:
    (anew,) = bench.submit(NOON, defined(CACHING, default=False))
    record = RequestRecord(NOON, org_id="acme", handling=Observed(cached=True))
    explanation = explain(PinnedQuery(bench.query), record)
    assert [(source.subject, source.position) for source in explanation.needed] == [(CATALOG_SUBJECT, anew.position)]
    assert explanation.events[0].verdict == "compliant"
    before = explain(PinnedQuery(bench.query), record._replace(at=NOON - 1))
    assert (before.decision.outcome.verdict, before.events) == ("compliant", ())


def test_a_lag_needs_the_retraction_that_causes_it(bench: QueryLedger) -> None:
    (opted,) = bench.submit(NOON, changed("org:acme", TRAINING, True))
    (back,) = bench.submit(NOON + 10, retracted(opted.event_id))
    handled = Observed(trained=True)
    record = RequestRecord(NOON + 20, org_id="acme", enforced_position=opted.position, handling=handled)
    explanation = explain(PinnedQuery(bench.query), record)
    assert explanation.decision.outcome.reasons == ("enforcement_lag",)
    assert [source.position for source in explanation.needed] == [back.position]
    assert explanation.events[0].verdict == "compliant"
    assert explanation_json(explanation)["events"][0]["retracts"] == opted.event_id


def test_a_long_chain_of_owners_costs_its_length(bench: QueryLedger) -> None:
    chain = ["key:k1", *(f"project:p{n}" for n in range(1, 7)), "org:acme"]
    links = [changed(owned, "owner", owner) for owned, owner in pairwise(chain)]
    policies = [changed("org:acme", setting, True) for setting in (TRAINING, STORAGE, "network.private_only")]
    receipts = bench.submit(NOON, *links, *policies)
    record = RequestRecord(NOON, key_id="k1", handling=LOOSE)
    needed = explain(PinnedQuery(bench.query), record).needed
    # The chain and private networking: the other settings permit what the defaults forbid, so they cause no reason.
    assert [source.position for source in needed] == [receipt.position for receipt in receipts]
