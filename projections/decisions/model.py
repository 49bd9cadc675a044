"""Request record in, decision out: the types of the decision rules (projections/README.md) and their wire form
(api/README.md). Instants are µs inside and RFC 3339 on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from ledger.errors import BadRecord, BadTime, Fault
from ledger.subjects import ID_SHOWN_MAX, is_id
from ledger.times import format_time, parse_time
from projections.temporal.changes import Change, Retraction
from projections.temporal.coordinates import ClockNotice, clock_notice_json
from projections.temporal.effective_state import SettingState

Verdict = Literal["allowed", "denied", "compliant", "violation", "indeterminate"]

Reason = Literal[
    "before_first_record",
    "scope_conflict",
    "unknown_owner",
    "unknown_model",
    "unknown_subject",
    "unknown_region",
    "undecidable_value",
    "passthrough_not_allowed",
    "left_platform",
    "wrong_provider",
    "outside_residency",
    "served_elsewhere",
    "not_as_published",
    "public_network",
    "stored_against_setting",
    "cached_against_setting",
    "trained_without_opt_in",
    "enforcement_lag",
]

REASONS: Final[Mapping[Reason, str]] = {
    "before_first_record": "The ledger knew nothing yet at that moment.",
    "scope_conflict": "The record names an org or account that contradicts what its key or project leads to.",
    "unknown_owner": "A key or project of the record had no owner at that moment.",
    "unknown_model": "How the model is hosted, or who its provider is, was not known at that moment.",
    "unknown_subject": "A subject that must be known had no event in the ledger at that moment.",
    "unknown_region": "Whether the region was an allowed one could not be told at that moment.",
    "undecidable_value": "A setting had a value that the rules do not speak of, or had none.",
    "passthrough_not_allowed": "A passthrough model, and passthrough was not allowed for this traffic.",
    "left_platform": "Data left the platform although nothing permitted it.",
    "wrong_provider": "Data was forwarded to another party than the model's provider.",
    "outside_residency": "Handled, or only available, outside the regions that were allowed.",
    "served_elsewhere": "Handled apart from all regions in which the model runs.",
    "not_as_published": "The model was not served as its settings of that moment say.",
    "public_network": "A public network, although private networking was required.",
    "stored_against_setting": "Inputs or outputs were stored although storage was off.",
    "cached_against_setting": "The request was cached although caching was off.",
    "trained_without_opt_in": "Data was used for training without an opt-in.",
    "enforcement_lag": "The gateway enforced an older policy: the change had not reached it yet.",
}
"""Stable code → what it means. A decision's reasons stand in this order."""


class Observed(NamedTuple):
    """The handling of a request's data that a log reports. None: not observed, so it cannot be a violation."""

    stored: bool | None = None
    cached: bool | None = None
    trained: bool | None = None
    forwarded_to: str | None = None
    region: str | None = None
    network: Literal["public", "private"] | None = None
    precision: str | None = None
    distilled: bool | None = None
    system_prompt_forced: bool | None = None
    censored: bool | None = None
    revision: str | None = None

    @property
    def as_served(self) -> tuple[str | bool | None, ...]:
        """The members that say how the model was served, in the order of `AS_SERVED`."""
        return self[_FIRST_SERVED:]


class RequestRecord(NamedTuple):
    """One line of a request log. Ids are bare (`acme`, not `org:acme`); at least one of the first four is there."""

    at: int
    key_id: str | None = None
    account_id: str | None = None
    org_id: str | None = None
    project_id: str | None = None
    model_id: str | None = None
    request_id: str | None = None
    enforced_position: int | None = None
    handling: Observed | None = None


class DataPolicy(NamedTuple):
    """The data policy that governs: the platform's, or a passthrough provider's own, as it was at that moment.

    name: as the model names the provider. provider: its subject. None: nobody recorded it.
    """

    by: Literal["platform", "provider"]
    name: str | None = None
    url: str | None = None
    provider: str | None = None
    policy_sha256: str | None = None
    trains: bool | None = None
    stores: bool | None = None
    retention_days: int | None = None
    regions: tuple[str, ...] | None = None


class Handling(NamedTuple):
    """The permitted handling of the data. `allowed_regions` None: anywhere; empty: nowhere."""

    may_store: bool
    may_cache: bool
    may_train: bool
    may_leave_platform: bool
    allowed_regions: tuple[str, ...] | None
    private_network_required: bool
    data_policy: DataPolicy


class GovernedBy(NamedTuple):
    """The governing subject (None: undetermined), the subjects that led to it, in order, and whether the ledger has an
    event of the governing one."""

    subject: str | None
    via: tuple[str, ...]
    known: bool = False


class EnforcementLag(NamedTuple):
    """How long the deciding event had been in force (µs) when the gateway still enforced an older position."""

    lag_us: int
    enforced_position: int
    deciding_position: int


class Evidence(tuple[SettingState, ...]):
    """The settings that decisions rest on, in order. All outcomes of one basis share it."""


class _Outcome(NamedTuple):
    verdict: Verdict
    governed_by: GovernedBy
    handling: Handling
    reasons: tuple[Reason, ...]
    evidence: Evidence
    enforcement_lag: EnforcementLag | None
    undecidable: tuple[str, ...] = ()


class Outcome(_Outcome):
    """A decision at one known_at. `undecidable`: the settings of its evidence whose values the rules do not speak
    of."""

    encoded: tuple[bytes, ...] | None = None
    """Its JSON but for the lag, in parts, cached by `projections.decisions.encoding`."""


class Hindsight(NamedTuple):
    """The decision with everything known now, and the events that changed it."""

    outcome: Outcome
    changed_by: tuple[SettingState | Retraction, ...]


class AsOf(NamedTuple):
    """The coordinates of an answer (µs) and the ledger position that it is pinned to."""

    at: int
    known_at: int
    position: int
    clock_notice: ClockNotice | None = None


class Decision(NamedTuple):
    request_id: str | None
    outcome: Outcome
    as_of: AsOf
    hindsight: Hindsight | None


_FIRST_SERVED: Final = Observed._fields.index("precision")
AS_SERVED: Final = Observed._fields[_FIRST_SERVED:]
"""The members of the handling that are compared with what the model's settings say."""
_IDS: Final = ("key_id", "account_id", "org_id", "project_id")
_MEMBERS: Final = frozenset((*_IDS, "request_id", "at", "model_id", "enforced_position", "handling"))
_OBSERVED: Final = frozenset(Observed._fields)
TEXT_MAX: Final = 256


def read_record(raw: object, now: int, pointer: str = "") -> RequestRecord:
    """A request record from its JSON value. `now` (µs) stands in for an absent `at`. Raises `BadRecord`."""
    if not isinstance(raw, dict):
        raise BadRecord("a request record must be an object", (Fault(pointer, "an object is required here"),))
    faults: list[Fault] = []
    if not raw.keys() <= _MEMBERS:
        faults.extend(
            Fault(f"{pointer}/{_escape(m)}", "this member does not belong here") for m in raw if m not in _MEMBERS
        )
    key, account, org, project, model = (_id(raw.get(name), pointer, name, faults) for name in (*_IDS, "model_id"))
    if not faults and key is None and account is None and org is None and project is None:
        faults.append(Fault(pointer, f"one of {', '.join(_IDS)} is required"))
    request_id = _text(raw.get("request_id"), pointer, "request_id", faults)
    enforced = raw.get("enforced_position")
    if enforced is not None and (isinstance(enforced, bool) or not isinstance(enforced, int) or enforced < 0):
        faults.append(Fault(f"{pointer}/enforced_position", "a ledger position is a whole number, 0 or more"))
    at = now
    raw_at = raw.get("at")
    if raw_at is not None:
        try:
            at = parse_time(raw_at)
        except BadTime as error:
            faults.append(Fault(f"{pointer}/at", error.detail))
    raw_handling = raw.get("handling")
    handling = None if raw_handling is None else _observed(raw_handling, f"{pointer}/handling", faults)
    if faults:
        first = faults[0]
        raise BadRecord(f"{first.pointer}: {first.detail}" if first.pointer else first.detail, tuple(faults))
    return RequestRecord(at, key, account, org, project, model, request_id, enforced, handling)


def _observed(raw: object, pointer: str, faults: list[Fault]) -> Observed | None:
    if not isinstance(raw, dict):
        faults.append(Fault(pointer, "an object is required here"))
        return None
    if not raw.keys() <= _OBSERVED:
        faults.extend(
            Fault(f"{pointer}/{_escape(m)}", "this member does not belong here") for m in raw if m not in _OBSERVED
        )
    stored, cached, trained = (_flag(raw.get(name), pointer, name, faults) for name in ("stored", "cached", "trained"))
    network = raw.get("network")
    if network is not None and network not in ("public", "private"):
        faults.append(Fault(f"{pointer}/network", "network must be public or private"))
    forwarded_to = _text(raw.get("forwarded_to"), pointer, "forwarded_to", faults)
    region = _text(raw.get("region"), pointer, "region", faults)
    precision, revision = (_text(raw.get(name), pointer, name, faults) for name in ("precision", "revision"))
    flags = ("distilled", "system_prompt_forced", "censored")
    distilled, prompted, censored = (_flag(raw.get(name), pointer, name, faults) for name in flags)
    observed = Observed(
        *(stored, cached, trained, forwarded_to, region, network),
        *(precision, distilled, prompted, censored, revision),
    )
    return None if observed == NOTHING_OBSERVED else observed


NOTHING_OBSERVED: Final = Observed()


# Logs have millions of lines, so the pointer to a member is built only for a fault.


def _flag(raw: object, pointer: str, name: str, faults: list[Fault]) -> bool | None:
    if raw is None or isinstance(raw, bool):
        return raw
    faults.append(Fault(f"{pointer}/{name}", "the value must be true or false"))
    return None


def _id(raw: object, pointer: str, name: str, faults: list[Fault]) -> str | None:
    if raw is None:
        return None
    if isinstance(raw, str) and is_id(raw):
        kind = name.removesuffix("_id")
        if not raw.startswith(f"{kind}:"):
            return raw
        bare = raw[len(kind) + 1 :]
        shown = f"send {bare}" if 1 <= len(bare) <= ID_SHOWN_MAX else "send the id alone"
        faults.append(Fault(f"{pointer}/{name}", f"{name} holds its kind, {kind}; {shown}"))
        return None
    faults.append(Fault(f"{pointer}/{name}", "an id is 1-256 of A-Z a-z 0-9 . _ ~ @ / + : -"))
    return None


def _text(raw: object, pointer: str, name: str, faults: list[Fault]) -> str | None:
    if raw is None:
        return None
    if isinstance(raw, str) and 1 <= len(raw) <= TEXT_MAX:
        return raw
    faults.append(Fault(f"{pointer}/{name}", f"a text of 1 to {TEXT_MAX} characters is required here"))
    return None


def _escape(member: str) -> str:
    return member.replace("~", "~0").replace("/", "~1")


def decision_json(decision: Decision) -> dict[str, Any]:
    """The decision in its wire form."""
    as_of = decision.as_of
    document: dict[str, Any] = {}
    if decision.request_id is not None:
        document["request_id"] = decision.request_id
    document |= outcome_json(decision.outcome)
    document["as_of"] = {
        "at": format_time(as_of.at),
        "known_at": format_time(as_of.known_at),
        "position": as_of.position,
    }
    if as_of.clock_notice is not None:
        document["as_of"]["clock_notice"] = clock_notice_json(as_of.clock_notice)
    if decision.hindsight is not None:
        document["hindsight"] = hindsight_json(decision.hindsight)
    return document


def hindsight_json(hindsight: Hindsight) -> dict[str, Any]:
    return {
        **outcome_json(hindsight.outcome),
        "changed_by": [
            state_json(by) if isinstance(by, SettingState) else retraction_json(by) for by in hindsight.changed_by
        ],
    }


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    lag = outcome.enforcement_lag
    document: dict[str, Any] = {
        "verdict": outcome.verdict,
        "governed_by": {**outcome.governed_by._asdict(), "via": list(outcome.governed_by.via)},
        "handling": handling_json(outcome.handling),
        "reasons": list(outcome.reasons),
        **({"undecidable": list(outcome.undecidable)} if outcome.undecidable else {}),
        "evidence": [state_json(state) for state in outcome.evidence],
    }
    if lag is not None:
        document["enforcement_lag"] = lag._asdict()
    return document


def handling_json(handling: Handling) -> dict[str, Any]:
    return {
        "may_store": handling.may_store,
        "may_cache": handling.may_cache,
        "may_train": handling.may_train,
        "may_leave_platform": handling.may_leave_platform,
        "allowed_regions": None if handling.allowed_regions is None else list(handling.allowed_regions),
        "private_network_required": handling.private_network_required,
        "data_policy": data_policy_json(handling.data_policy),
    }


def data_policy_json(policy: DataPolicy) -> dict[str, Any]:
    if policy.by == "platform":
        return {"by": "platform"}
    return policy._asdict() | {"regions": None if policy.regions is None else list(policy.regions)}


def state_json(state: SettingState) -> dict[str, Any]:
    """One piece of evidence: a setting's value, and the event that decided it."""
    document: dict[str, Any] = {"subject": state.subject, "setting": state.setting}
    document |= {"value": state.value, "source": state.source}
    if state.observed is not None:
        document["observed"] = state.observed
    document |= change_json(state.change)
    if state.cleared_by is not None:
        document["cleared_by"] = change_json(state.cleared_by)
    return document


def change_json(change: Change | None) -> dict[str, Any]:
    if change is None:
        return {}
    until = change.effective_until
    return {
        "event_id": change.event_id,
        "position": change.position,
        "version": change.version,
        "recorded_at": format_time(change.recorded_at),
        "effective_from": format_time(change.effective_from),
        "effective_until": None if until is None else format_time(until),
        "actor": change.actor,
    }


def retraction_json(retraction: Retraction) -> dict[str, Any]:
    return {
        "setting": retraction.setting,
        "retracts": retraction.retracts,
        "event_id": retraction.event_id,
        "position": retraction.position,
        "version": retraction.version,
        "recorded_at": format_time(retraction.recorded_at),
        "actor": retraction.actor,
    }
