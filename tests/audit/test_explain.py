"""The causes of a decision suffice for its reasons, and each of them is needed."""

import random
from itertools import pairwise
from typing import Any

import pytest

from ledger.subjects import CATALOG_SUBJECT, MUST_BE_KNOWN
from projections.audit.explain import Key, explain, explanation_json
from projections.decisions.causes import because
from projections.decisions.check import check
from projections.decisions.model import Observed, RequestRecord
from projections.query.as_of_view import AsOfView
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery, Query
from projections.temporal.effective_state import SettingState
from tests.support.ledgers import open_with_clock
from tests.support.older_catalog import older_definitions
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


PERMISSIVE = {
    TRAINING: True,
    STORAGE: True,
    CACHING: True,
    "passthrough.allowed": True,
    "residency.regions": [],
    "network.private_only": False,
    "model.hosting": "passthrough",
    "model.provider": "someone",
    "model.regions": ["moon"],
}
"""Values that permit everything in `LOOSE`."""


class OnlyCauses(AsOfView):
    """The ledger's states, but all settings of the governing subject and of the model permit the request, except the
    settings in `real`."""

    def __init__(
        self, bench: QueryLedger, record: RequestRecord, known_at: KnownAt, real: set[tuple[str, str]]
    ) -> None:
        super().__init__(PinnedQuery(bench.query).context(), record.at, known_at)
        self.real = real

    def setting(self, subject: str, setting: str) -> SettingState:
        state = super().setting(subject, setting)
        if (subject, setting) in self.real or setting not in PERMISSIVE or state.value is None:
            # Without a value nothing is permitted, and nothing is forbidden: the decision is indeterminate.
            return state
        value: Any = PERMISSIVE[setting]
        return SettingState(subject, setting, value, "explicit", None)


def assert_causes(bench: QueryLedger, record: RequestRecord, known_at: KnownAt = IN_FORCE) -> int:
    """Asserts that the causes alone give the reasons, and that each of their settings is needed. Returns the number of
    settings behind the reasons; 0 if no reason speaks against the request."""
    explanation = explain(PinnedQuery(bench.query), record, known_at)
    outcome = explanation.decision.outcome
    if outcome.verdict not in ("denied", "violation"):
        assert not any(cause.reason in AGAINST for cause in explanation.causes)
        return 0
    against = [cause for cause in explanation.causes if cause.reason in AGAINST]
    states = {(state.subject, state.setting): state for cause in against for state in cause.rests_on}

    def reasons(real: set[Key]) -> set[str]:
        return AGAINST.intersection(check(record, OnlyCauses(bench, record, known_at, real)).reasons)

    expected = {reason for reason in outcome.reasons if reason in AGAINST}
    assert {cause.reason for cause in against} == expected
    assert reasons(set(states)) == expected, "the causes alone give the reasons"
    assert reasons(set()) == set(), "without them everything is permitted"
    for key, state in states.items():
        if state.value != PERMISSIVE[key[1]]:
            assert reasons(set(states) - {key}) != expected, f"{key} is needed"
    behind = {change.position for state in states.values() for change in (state.change, state.cleared_by) if change}
    assert behind <= {source.position for source in explanation.needed}
    return len(states)


AGAINST = {
    *("passthrough_not_allowed", "left_platform", "wrong_provider", "outside_residency", "public_network"),
    *("stored_against_setting", "cached_against_setting", "trained_without_opt_in"),
}


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
def test_the_causes_alone_give_the_reasons_and_each_is_needed(bench: QueryLedger, seed: int) -> None:
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
    sizes = set()
    for _ in range(40):
        ids: dict[str, Any] = {"key_id": chance.choice([None, "k1"]), "org_id": chance.choice([None, None, "acme"])}
        ids |= {"project_id": chance.choice([None, None, "p1"]), "account_id": chance.choice(["u1", "u2"])}
        record = RequestRecord(
            NOON + chance.randint(-2, 62),
            **ids,
            model_id=chance.choice([None, "m1"]),
            handling=chance.choice([None, LOOSE, Observed(cached=True), Observed(forwarded_to="someone")]),
        )
        sizes.add(assert_causes(bench, record, chance.choice([IN_FORCE, IN_FORCE, None, NOON + 30])))
    assert len(sizes) >= 3


def test_a_default_that_decides_is_named_with_its_definition(bench: QueryLedger) -> None:
    explanation = explain(PinnedQuery(bench.query), RequestRecord(NOON, org_id="acme", handling=Observed(stored=True)))
    (cause,) = explanation.causes
    assert because(cause) == "because `storage.inputs_outputs` was false (default, #2) and the log says stored"
    ((source, needed, without),) = explanation.events
    assert (source.subject, source.position, needed, without) == (CATALOG_SUBJECT, 2, True, None)
    written = explanation_json(explanation)
    assert written["decided_by"] == [2]
    assert written["causes"][0]["observed"] == {"stored": True}
    assert written["events"][0]["without"] is None


def test_a_setting_that_permits_an_act_is_no_cause_of_another(bench: QueryLedger) -> None:
    receipts = bench.submit(NOON, changed("org:acme", TRAINING, True), changed("org:acme", STORAGE, True))
    record = RequestRecord(NOON, org_id="acme", handling=Observed(stored=True, trained=True, network="public"))
    permitted = explain(PinnedQuery(bench.query), record)
    assert permitted.decision.outcome.verdict == "compliant"
    words = [because(cause) for cause in permitted.causes]
    assert words[0] == f"because `storage.inputs_outputs` was true (#{receipts[1].position}) and the log says stored"
    assert [cause.reason for cause in permitted.causes] == [None, None, None]
    (private,) = bench.submit(NOON + 1, changed("org:acme", "network.private_only", True))
    refused = explain(PinnedQuery(bench.query), record._replace(at=NOON + 1))
    assert [because(cause) for cause in refused.causes] == [
        f"because `network.private_only` was true (#{private.position}) and the log says network public"
    ]
    assert [source.position for source in refused.needed] == [private.position]


def test_each_way_in_which_a_model_was_not_served_as_published_is_a_cause_of_its_own(bench: QueryLedger) -> None:
    precision, distilled, revision = bench.submit(
        NOON,
        changed("model:m1", "model.precision", "bf16"),
        changed("model:m1", "model.distilled", False),
        changed("model:m1", "model.revision", "2026-01"),
    )
    observed = Observed(precision="fp8", distilled=True, censored=True, revision="2026-01")
    record = RequestRecord(NOON, org_id="acme", model_id="m1", handling=observed)
    explanation = explain(PinnedQuery(bench.query), record)
    assert explanation.decision.outcome.reasons == ("unknown_model", "not_as_published")
    words = [because(cause) for cause in explanation.causes if cause.reason == "not_as_published"]
    assert words == [
        f'because `model.precision` was "bf16" (#{precision.position}) and the log says precision fp8',
        f"because `model.distilled` was false (#{distilled.position}) and the log says distilled",
    ]
    positions = [source.position for source in explanation.needed]
    assert precision.position in positions
    assert revision.position not in positions
    beside = {state.setting: state.observed for state in explanation.decision.outcome.evidence if state.observed}
    assert beside["model.precision"] == "fp8"
    assert beside["model.censorship_layer"] is True
    assert "model.system_prompt_forced" not in {state.setting for state in explanation.decision.outcome.evidence}


def test_an_event_that_repeats_the_default_decides(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", TRAINING, True))
    (out,) = bench.submit(NOON + 10, changed("org:acme", TRAINING, False))
    record = RequestRecord(NOON + 20, org_id="acme", handling=Observed(trained=True))
    explanation = explain(PinnedQuery(bench.query), record)
    ((source, needed, without),) = explanation.events
    assert (source.position, needed, without) == (out.position, True, ("compliant", ()))
    written = explanation_json(explanation)
    assert written["decided_by"] == [out.position]
    assert written["events"][0]["without"] == {"verdict": "compliant", "reasons": ()}


def test_a_clear_is_named_beside_the_default_that_it_lets_through(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", TRAINING, True))
    (clear,) = bench.submit(NOON + 10, cleared("org:acme", TRAINING))
    record = RequestRecord(NOON + 20, org_id="acme", handling=Observed(trained=True))
    explanation = explain(PinnedQuery(bench.query), record)
    assert because(explanation.causes[0]) == (
        f"because `training.opt_in` was false (default, #1, cleared by #{clear.position}) and the log says trained"
    )
    assert [source.position for source in explanation.needed] == [1, clear.position]


def test_a_redefined_default_is_an_event_like_others(bench: QueryLedger) -> None:
    (anew,) = bench.submit(NOON, defined(CACHING, default=False))
    record = RequestRecord(NOON, org_id="acme", handling=Observed(cached=True))
    explanation = explain(PinnedQuery(bench.query), record)
    assert [(source.subject, source.position) for source in explanation.needed] == [(CATALOG_SUBJECT, anew.position)]
    assert explanation.events[0].without == ("compliant", ())
    before = explain(PinnedQuery(bench.query), record._replace(at=NOON - 1))
    assert before.decision.outcome.verdict == "compliant"
    assert [(one.source.position, one.without) for one in before.events] == [(3, None)]


def test_a_lag_needs_the_retraction_that_causes_it(bench: QueryLedger) -> None:
    (opted,) = bench.submit(NOON, changed("org:acme", TRAINING, True))
    (back,) = bench.submit(NOON + 10, retracted(opted.event_id))
    handled = Observed(trained=True)
    record = RequestRecord(NOON + 20, org_id="acme", enforced_position=opted.position, handling=handled)
    explanation = explain(PinnedQuery(bench.query), record)
    assert explanation.decision.outcome.reasons == ("enforcement_lag",)
    assert [source.position for source in explanation.needed] == [1, back.position]
    assert explanation.events[1].without == ("compliant", ())
    assert explanation_json(explanation)["events"][1]["retracts"] == opted.event_id


def test_the_links_to_the_governing_subject_decide_too(bench: QueryLedger) -> None:
    chain = ["key:k1", *(f"project:p{n}" for n in range(1, 7)), "org:acme"]
    links = [changed(owned, "owner", owner) for owned, owner in pairwise(chain)]
    policies = [changed("org:acme", setting, True) for setting in (TRAINING, STORAGE, "network.private_only")]
    receipts = bench.submit(NOON, *links, *policies)
    needed = explain(PinnedQuery(bench.query), RequestRecord(NOON, key_id="k1", handling=LOOSE)).needed
    positions = [source.position for source in needed]
    # left_platform rests on a default; training and storage are permitted, and are behind no reason.
    assert positions[-8:] == [*(receipt.position for receipt in receipts[:7]), receipts[-1].position]
    assert all(source.subject == CATALOG_SUBJECT for source in needed[:-8])


def test_an_unresolved_link_is_the_cause(bench: QueryLedger) -> None:
    explanation = explain(PinnedQuery(bench.query), RequestRecord(NOON, key_id="k1"))
    (cause,) = explanation.causes
    assert (cause.reason, [state.subject for state in cause.rests_on]) == ("unknown_owner", ["key:k1"])
    assert because(cause).startswith("because `owner` was null (default, #")


def test_a_value_that_the_rules_do_not_speak_of_is_the_cause(bench: QueryLedger) -> None:
    with older_definitions():
        (anew,) = bench.submit(NOON, defined(CACHING, default=None))
    record = RequestRecord(NOON, org_id="acme", handling=Observed(cached=True))
    explanation = explain(PinnedQuery(bench.query), record)
    assert explanation.decision.outcome.reasons == ("undecidable_value",)
    assert explanation.decision.outcome.undecidable == (CACHING,)
    assert [because(cause) for cause in explanation.causes] == [
        f"because `{CACHING}` was null (default, #{anew.position})"
    ]
    assert [source.position for source in explanation.needed] == [anew.position]


MUST_KNOW_ORGS = defined(
    MUST_BE_KNOWN,
    kinds=["account", "org", "project", "key"],
    value_type="set_of",
    members=["account", "org", "project", "key"],
    default=["org"],
    protective=None,
)


def test_the_demand_that_a_subject_be_known_is_the_cause(bench: QueryLedger) -> None:
    (demand,) = bench.submit(NOON, MUST_KNOW_ORGS)
    explanation = explain(PinnedQuery(bench.query), RequestRecord(NOON, org_id="typo", handling=LOOSE))
    (cause,) = explanation.causes
    assert cause.reason == "unknown_subject"
    assert because(cause) == f'because `{MUST_BE_KNOWN}` was ["org"] (default, #{demand.position})'
    assert [source.position for source in explanation.needed] == [demand.position]
    (weighed,) = explanation.events
    assert weighed.without is not None
    assert "unknown_subject" not in weighed.without.reasons


def test_the_regions_that_claim_one_name_are_the_cause_with_the_observed_region(bench: QueryLedger) -> None:
    receipts = bench.submit(
        NOON,
        changed("org:acme", "residency.regions", ["eu"]),
        changed("region:a", "region.names", ["both"]),
        changed("region:b", "region.names", ["both"]),
    )
    explanation = explain(
        PinnedQuery(bench.query), RequestRecord(NOON, org_id="acme", handling=Observed(region="both"))
    )
    (cause,) = explanation.causes
    residency, a, b = (receipt.position for receipt in receipts)
    assert because(cause) == (
        f'because `residency.regions` was ["eu"] (#{residency}) and `region.names` of region:a was ["both"] (#{a})'
        f' and `region.names` of region:b was ["both"] (#{b}) and the log says region both'
    )
    assert [source.position for source in explanation.needed] == [residency, a, b]
    without = [weighed.without for weighed in explanation.events]
    assert all(one is not None and "unknown_region" not in one.reasons for one in without)


def test_the_providers_that_claim_one_name_are_the_cause_with_the_observed_receiver(bench: QueryLedger) -> None:
    receipts = bench.submit(
        NOON,
        changed("org:acme", "passthrough.allowed", True),
        changed("model:m", "model.hosting", "passthrough"),
        changed("model:m", "model.provider", "Deep"),
        changed("provider:a", "provider.names", ["deep", "a"]),
        changed("provider:b", "provider.names", ["DEEP", "b"]),
    )
    record = RequestRecord(NOON, org_id="acme", model_id="m", handling=Observed(forwarded_to="b"))
    explanation = explain(PinnedQuery(bench.query), record)
    (cause,) = explanation.causes
    assert cause.reason == "unknown_model"
    assert because(cause).endswith(
        "of provider:b was " + f'["DEEP", "b"] (#{receipts[-1].position})' + " and the log says forwarded_to b"
    )
    assert [source.position for source in explanation.needed] == [receipt.position for receipt in receipts[1:]]


def test_a_provider_that_is_known_is_no_cause_of_an_unknown_model(bench: QueryLedger) -> None:
    (allowed, hosting, named) = bench.submit(
        NOON,
        changed("org:acme", "passthrough.allowed", True),
        changed("model:m", "model.hosting", "passthrough"),
        changed("provider:a", "provider.names", ["someone"]),
    )
    (cause,) = explain(
        PinnedQuery(bench.query), RequestRecord(NOON, org_id="acme", model_id="m", handling=LOOSE)
    ).causes[-1:]
    assert (cause.reason, cause.observed) == ("unknown_model", ())
    assert {state.newest.position for state in cause.rests_on if state.newest is not None}.isdisjoint(
        {named.position, allowed.position}
    )
    assert hosting.position in {state.newest.position for state in cause.rests_on if state.newest is not None}
