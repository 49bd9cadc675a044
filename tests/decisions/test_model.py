"""Request records from JSON, every way they can be wrong, and decisions in their wire form."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from ledger.errors import BadRecord
from ledger.times import parse_time
from projections.decisions.model import (
    REASONS,
    TEXT_MAX,
    AsOf,
    DataPolicy,
    Decision,
    EnforcementLag,
    Evidence,
    GovernedBy,
    Handling,
    Hindsight,
    Observed,
    Outcome,
    RequestRecord,
    Verdict,
    decision_json,
    read_record,
)
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState

NOW = parse_time("2026-03-01T12:00:00Z")

FULL = {
    "request_id": "r1",
    "at": "2026-03-01T12:00:00.123456789+01:00",
    "key_id": "k1",
    "account_id": "u1",
    "org_id": "acme",
    "project_id": "p1",
    "model_id": "lab/Model-1:free",
    "enforced_position": 7,
    "handling": {
        "stored": True,
        "cached": False,
        "trained": False,
        "forwarded_to": "upstream",
        "region": "eu-west",
        "network": "private",
        "precision": "bf16",
        "distilled": False,
        "system_prompt_forced": True,
        "censored": False,
        "revision": "2026-01",
    },
}


def test_a_record_with_everything_is_read() -> None:
    assert read_record(FULL, NOW) == RequestRecord(
        at=parse_time("2026-03-01T11:00:00.123456Z"),
        key_id="k1",
        account_id="u1",
        org_id="acme",
        project_id="p1",
        model_id="lab/Model-1:free",
        request_id="r1",
        enforced_position=7,
        handling=Observed(
            stored=True,
            cached=False,
            trained=False,
            forwarded_to="upstream",
            region="eu-west",
            network="private",
            precision="bf16",
            distilled=False,
            system_prompt_forced=True,
            censored=False,
            revision="2026-01",
        ),
    )


@pytest.mark.parametrize("name", ["key_id", "account_id", "org_id", "project_id"])
def test_one_id_is_enough_and_the_present_stands_in_for_at(name: str) -> None:
    assert read_record({name: "x"}, NOW) == RequestRecord(at=NOW, **{name: "x"})  # type: ignore[arg-type]  # one of the ids, by name


def test_null_is_the_same_as_absent() -> None:
    nothing = {name: None for name in FULL if name != "org_id"}
    assert read_record({**nothing, "org_id": "acme"}, NOW) == RequestRecord(at=NOW, org_id="acme")


@pytest.mark.parametrize("handling", [{}, {"stored": None}, dict.fromkeys(Observed._fields)])
def test_handling_without_any_observation_is_none(handling: dict[str, Any]) -> None:
    assert read_record({"org_id": "acme", "handling": handling}, NOW).handling is None


def test_false_is_an_observation() -> None:
    assert read_record({"org_id": "acme", "handling": {"stored": False}}, NOW).handling == Observed(stored=False)


def test_position_0_is_before_the_first_event() -> None:
    assert read_record({"org_id": "acme", "enforced_position": 0}, NOW).enforced_position == 0


BAD: list[tuple[Any, str]] = [
    (None, ""),
    ([], ""),
    ("r1", ""),
    (1, ""),
    ({}, ""),
    ({"model_id": "m1"}, ""),
    ({"key_id": None, "org_id": None}, ""),
    ({"org_id": ""}, "/org_id"),
    ({"org_id": "a b"}, "/org_id"),
    ({"org_id": "acmé"}, "/org_id"),
    ({"org_id": "acme\n"}, "/org_id"),
    ({"org_id": "a" * 257}, "/org_id"),
    ({"org_id": 1}, "/org_id"),
    ({"org_id": True}, "/org_id"),
    ({"org_id": ["acme"]}, "/org_id"),
    ({"key_id": {}}, "/key_id"),
    ({"account_id": "u\x00"}, "/account_id"),
    ({"project_id": 1.5}, "/project_id"),
    ({"model_id": "a model"}, "/model_id"),
    ({"org": "acme"}, "/org"),
    ({"a/b~c": 1}, "/a~1b~0c"),
    ({"request_id": ""}, "/request_id"),
    ({"request_id": "r" * (TEXT_MAX + 1)}, "/request_id"),
    ({"request_id": 1}, "/request_id"),
    ({"at": "2026-03-01"}, "/at"),
    ({"at": "2026-03-01T12:00:00"}, "/at"),
    ({"at": "now"}, "/at"),
    ({"at": 1772366400}, "/at"),
    ({"at": True}, "/at"),
    ({"at": []}, "/at"),
    ({"at": "2026-02-30T12:00:00Z"}, "/at"),
    ({"at": "2026-03-01T12:00:60Z"}, "/at"),
    ({"enforced_position": -1}, "/enforced_position"),
    ({"enforced_position": "7"}, "/enforced_position"),
    ({"enforced_position": 7.0}, "/enforced_position"),
    ({"enforced_position": True}, "/enforced_position"),
    ({"enforced_position": [7]}, "/enforced_position"),
    ({"handling": True}, "/handling"),
    ({"handling": []}, "/handling"),
    ({"handling": "stored"}, "/handling"),
    ({"handling": {"kept": True}}, "/handling/kept"),
    ({"handling": {"stored": "yes"}}, "/handling/stored"),
    ({"handling": {"stored": 1}}, "/handling/stored"),
    ({"handling": {"cached": 0}}, "/handling/cached"),
    ({"handling": {"trained": []}}, "/handling/trained"),
    ({"handling": {"forwarded_to": ""}}, "/handling/forwarded_to"),
    ({"handling": {"forwarded_to": True}}, "/handling/forwarded_to"),
    ({"handling": {"region": ["eu"]}}, "/handling/region"),
    ({"handling": {"region": "r" * (TEXT_MAX + 1)}}, "/handling/region"),
    ({"handling": {"network": "vpn"}}, "/handling/network"),
    ({"handling": {"network": True}}, "/handling/network"),
    ({"handling": {"precision": 16}}, "/handling/precision"),
    ({"handling": {"revision": ""}}, "/handling/revision"),
    ({"handling": {"distilled": "no"}}, "/handling/distilled"),
    ({"handling": {"system_prompt_forced": 0}}, "/handling/system_prompt_forced"),
    ({"handling": {"censored": []}}, "/handling/censored"),
    ({"handling": {"network": ["public"]}}, "/handling/network"),
]


@pytest.mark.parametrize(("raw", "pointer"), BAD, ids=lambda value: repr(value)[:60])
def test_a_bad_record_is_refused_with_a_pointer_to_the_fault(raw: Any, pointer: str) -> None:
    if isinstance(raw, dict) and pointer not in ("", "/org_id"):
        raw = {"org_id": "acme", **raw}
    with pytest.raises(BadRecord) as caught:
        read_record(raw, NOW, "/requests/3")
    assert [fault.pointer for fault in caught.value.faults] == [f"/requests/3{pointer}"]
    assert caught.value.code == "bad_record"


def test_every_fault_is_named_and_no_value_is_echoed() -> None:
    raw = {"key_id": "s e c r e t", "at": "s3cret", "handling": {"network": "s3cret", "stored": "s3cret"}}
    with pytest.raises(BadRecord) as caught:
        read_record(raw, NOW)
    assert {fault.pointer for fault in caught.value.faults} == {
        "/key_id",
        "/at",
        "/handling/network",
        "/handling/stored",
    }
    assert "ecret" not in f"{caught.value} {caught.value.faults}"
    assert "\n" not in str(caught.value)


# A decision in its wire form.

CHANGE = Change(42, 4, "e42", NOW, "ops", "training.opt_in", True, NOW - 5, NOW + 5)
CLEAR = Change(43, 5, "e43", NOW, "ops", "storage.inputs_outputs", None, NOW, None)
DEFAULT = Change(2, 2, "e2", 0, "inforce", "storage.inputs_outputs", {"default": False}, 0, None)
HANDLING = Handling(
    may_store=False,
    may_cache=True,
    may_train=False,
    may_leave_platform=False,
    allowed_regions=None,
    private_network_required=False,
    data_policy=DataPolicy("platform"),
)
OUTCOME = Outcome(
    verdict="violation",
    governed_by=GovernedBy("org:acme", ("key:k1", "org:acme"), known=True),
    handling=HANDLING,
    reasons=("trained_without_opt_in", "enforcement_lag"),
    evidence=Evidence(
        (
            SettingState("org:acme", "training.opt_in", True, "explicit", CHANGE),
            SettingState("org:acme", "storage.inputs_outputs", False, "default", DEFAULT, CLEAR),
            SettingState("org:acme", "beta.search", None, "undefined", None),
        )
    ),
    enforcement_lag=EnforcementLag(250_000, 41, 42),
)
OPT_IN_JSON = {
    "subject": "org:acme",
    "setting": "training.opt_in",
    "value": True,
    "source": "explicit",
    "event_id": "e42",
    "position": 42,
    "version": 4,
    "recorded_at": "2026-03-01T12:00:00.000000Z",
    "effective_from": "2026-03-01T11:59:59.999995Z",
    "effective_until": "2026-03-01T12:00:00.000005Z",
    "actor": "ops",
}
CLEARED_JSON = {
    "subject": "org:acme",
    "setting": "storage.inputs_outputs",
    "value": False,
    "source": "default",
    "event_id": "e2",
    "position": 2,
    "version": 2,
    "recorded_at": "1970-01-01T00:00:00.000000Z",
    "effective_from": "1970-01-01T00:00:00.000000Z",
    "effective_until": None,
    "actor": "inforce",
    "cleared_by": {
        "event_id": "e43",
        "position": 43,
        "version": 5,
        "recorded_at": "2026-03-01T12:00:00.000000Z",
        "effective_from": "2026-03-01T12:00:00.000000Z",
        "effective_until": None,
        "actor": "ops",
    },
}
OUTCOME_JSON = {
    "verdict": "violation",
    "governed_by": {"subject": "org:acme", "via": ["key:k1", "org:acme"], "known": True},
    "handling": {
        "may_store": False,
        "may_cache": True,
        "may_train": False,
        "may_leave_platform": False,
        "allowed_regions": None,
        "private_network_required": False,
        "data_policy": {"by": "platform"},
    },
    "reasons": ["trained_without_opt_in", "enforcement_lag"],
    "evidence": [
        OPT_IN_JSON,
        CLEARED_JSON,
        {"subject": "org:acme", "setting": "beta.search", "value": None, "source": "undefined"},
    ],
    "enforcement_lag": {"lag_us": 250_000, "enforced_position": 41, "deciding_position": 42},
}


def test_a_decision_over_the_wire_has_the_members_of_the_design() -> None:
    written = decision_json(Decision("r1", OUTCOME, AsOf(NOW, NOW + 1, 99), None))
    assert written == {
        "request_id": "r1",
        **OUTCOME_JSON,
        "as_of": {
            "at": "2026-03-01T12:00:00.000000Z",
            "known_at": "2026-03-01T12:00:00.000001Z",
            "position": 99,
        },
    }
    assert json.loads(json.dumps(written)) == written


def test_request_id_lag_and_hindsight_are_left_out_if_absent() -> None:
    written = decision_json(Decision(None, OUTCOME._replace(enforcement_lag=None), AsOf(NOW, NOW, 1), None))
    assert not {"request_id", "enforcement_lag", "hindsight"} & written.keys()


def test_hindsight_holds_the_other_decision_and_the_events_that_changed_it() -> None:
    other = OUTCOME._replace(verdict="compliant", reasons=(), enforcement_lag=None)
    retraction = Retraction(50, 6, "e50", NOW + 1, "ops", "training.opt_in", "e42")
    hindsight = Hindsight(other, (OUTCOME.evidence[0], retraction))
    written = decision_json(Decision(None, OUTCOME, AsOf(NOW, NOW, 99), hindsight))["hindsight"]
    assert (written["verdict"], written["reasons"]) == ("compliant", [])
    assert written["changed_by"] == [
        OPT_IN_JSON,
        {
            "setting": "training.opt_in",
            "retracts": "e42",
            "event_id": "e50",
            "position": 50,
            "version": 6,
            "recorded_at": "2026-03-01T12:00:00.000001Z",
            "actor": "ops",
        },
    ]


def test_a_providers_policy_is_written_with_its_name_and_address_and_regions_as_an_array() -> None:
    handling = HANDLING._replace(
        allowed_regions=(),
        data_policy=DataPolicy(
            "provider", "upstream", "https://upstream.example/data", "provider:up", trains=True, regions=("eu",)
        ),
    )
    written = decision_json(Decision(None, OUTCOME._replace(handling=handling), AsOf(NOW, NOW, 1), None))["handling"]
    assert written["allowed_regions"] == []
    assert written["data_policy"] == {
        "by": "provider",
        "name": "upstream",
        "url": "https://upstream.example/data",
        "provider": "provider:up",
        "policy_sha256": None,
        "trains": True,
        "stores": None,
        "retention_days": None,
        "regions": ["eu"],
    }


def test_every_reason_is_explained_in_one_sentence() -> None:
    for code, meaning in REASONS.items():
        assert code == code.lower()
        assert meaning.endswith(".")


def test_every_reason_verdict_and_member_of_handling_is_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "projections" / "README.md").read_text()
    for name in (*REASONS, *get_args(Verdict), *Handling._fields):
        assert f"`{name}`" in readme, name


@pytest.mark.parametrize("kind", ["key", "account", "org", "project", "model"])
def test_an_id_that_holds_its_kind_is_refused_with_the_bare_one_proposed(kind: str) -> None:
    def faults(value: str) -> list[tuple[str, str]]:
        with pytest.raises(BadRecord) as refused:
            read_record({"account_id": "u1", f"{kind}_id": value}, now=0)
        return [(fault.pointer, fault.detail) for fault in refused.value.faults]

    assert faults(f"{kind}:a:b") == [(f"/{kind}_id", f"{kind}_id holds its kind, {kind}; send a:b")]
    assert faults(f"{kind}:") == [(f"/{kind}_id", f"{kind}_id holds its kind, {kind}; send the id alone")]
    assert faults(f"{kind}:{'x' * 200}") == [(f"/{kind}_id", f"{kind}_id holds its kind, {kind}; send the id alone")]
    for value in (kind, f"{kind}s:a", "llama3:8b", "ft:gpt-4", "a:b"):
        assert read_record({"account_id": "u1", f"{kind}_id": value}, now=0)
