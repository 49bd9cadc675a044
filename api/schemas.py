"""What goes in and out, as OpenAPI shows it: one pydantic model per shape of WIRE.md section 2, with examples.

These models document; the domain's own readers decide what is taken, and `api.answers` writes what is answered.
tests/api/test_openapi.py holds the three together: real answers fit these models exactly, their members are those of
the domain's, and every example is posted and works.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from projections.decision import Reason, Verdict
from projections.state import Source

T1: Final = "2026-01-01T00:00:00.000000Z"
EVENT_ID: Final = "00000000-0013-8c4f-a1d2-5b6e7f809a1b"
DEFINITION_ID: Final = "00000000-0001-8b1e-9f00-c2d3e4f5a6b7"


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _time(description: str, **more: Any) -> Any:
    return Field(description=description, json_schema_extra={"format": "date-time"}, **more)


# What is sent.


class SettingChange(_Shape):
    """Set a value from `effective_from` until `effective_until`. Without an end it holds until the next change."""

    type: Literal["setting.changed"]
    subject: str = Field(description="kind:id, such as org:acme")
    setting: str
    value: Any = Field(description="Of the setting's own type; nothing is converted.")
    effective_from: str | None = _time(
        "When the change holds from; null or absent: from the moment of recording. The past needs a reason.",
        default=None,
    )
    effective_until: str | None = _time("The first instant at which it no longer holds.", default=None)
    reason: str | None = Field(None, min_length=1, max_length=2000)
    expected_version: int | None = Field(None, ge=0, description="The subject's version before this call.")


class SettingClear(_Shape):
    """Take the subject's own value away for a period, so that the catalog's default shows through."""

    type: Literal["setting.cleared"]
    subject: str
    setting: str
    effective_from: str | None = _time("Null or absent: from the moment of recording.", default=None)
    effective_until: str | None = _time("The first instant at which it no longer holds.", default=None)
    reason: str | None = Field(None, min_length=1, max_length=2000)
    expected_version: int | None = Field(None, ge=0)


class ChangeRetraction(_Shape):
    """Take one earlier change back, as though it had not been said."""

    type: Literal["change.retracted"]
    event_id: str
    reason: str | None = Field(None, min_length=1, max_length=2000, description="Needed where the past changes.")
    expected_version: int | None = Field(None, ge=0)


class SettingDefinition(_Shape):
    """What a setting is. `members` belongs to one_of and set_of, `ref_kinds` to subject_ref."""

    kinds: list[Literal["account", "org", "project", "key", "model"]] = Field(min_length=1)
    value_type: Literal["bool", "one_of", "set_of", "text", "integer", "subject_ref"]
    members: list[str] | None = None
    ref_kinds: list[Literal["account", "org", "project", "key", "model"]] | None = None
    default: Any
    protective: Any = Field(
        description="What is handled as true when nothing can be resolved; null: nothing is allowed."
    )
    writable_by: Literal["owner", "admin", "operator"]
    title: str
    description: str
    source: str = Field(description="The published rule that the setting stands for.")


class SettingDefined(_Shape):
    """Define a setting, or define it anew, from `effective_from` on. A setting keeps its value_type for ever."""

    type: Literal["setting.defined"]
    setting: str
    definition: SettingDefinition
    effective_from: str | None = _time("Null or absent: from the moment of recording.", default=None)
    reason: str | None = Field(None, min_length=1, max_length=2000)
    expected_version: int | None = Field(None, ge=0)


class SubmissionBatch(_Shape):
    """Recorded as one, or not at all. Every expected_version is the version before the batch."""

    events: list[SettingChange | SettingClear | ChangeRetraction | SettingDefined] = Field(
        min_length=1, max_length=1000
    )


class ObservedHandling(_Shape):
    """What was done with the data. What is absent or null was not observed, and is not judged."""

    stored: bool | None = None
    cached: bool | None = None
    trained: bool | None = None
    forwarded_to: str | None = Field(None, min_length=1, max_length=256)
    region: str | None = Field(None, min_length=1, max_length=256)
    network: Literal["public", "private"] | None = None


class RequestRecord(_Shape):
    """One line of a request log. One of the first four ids is required; ids are bare: acme, not org:acme."""

    key_id: str | None = None
    account_id: str | None = None
    org_id: str | None = None
    project_id: str | None = None
    model_id: str | None = None
    at: str | None = _time("When the request was made; null or absent: now.", default=None)
    request_id: str | None = Field(None, min_length=1, max_length=256)
    enforced_position: int | None = Field(None, ge=0, description="The ledger position that the gateway enforced.")
    handling: ObservedHandling | None = None


class RequestRecords(_Shape):
    requests: list[RequestRecord] = Field(min_length=1, max_length=10_000)


# What is answered.


class Receipt(_Shape):
    event_id: str
    position: int
    subject: str
    version: int
    recorded_at: str = _time("When the ledger accepted it.")
    effective_from: str | None = _time("Null for a retraction.")
    effective_until: str | None = _time("Null: without end.")


class Receipts(_Shape):
    """One receipt per event, in order; one submission gets one receipt."""

    receipts: list[Receipt]
    position: int = Field(description="Of the last event: an answer pinned to it, or later, has seen all of these.")


class EventData(_Shape):
    position: int
    version: int
    setting: str
    value: Any = None
    definition: dict[str, Any] | None = None
    retracts: str | None = None
    effective_from: str | None = None
    effective_until: str | None = None
    actor: str
    personal: dict[str, str] | None = Field(None, description="The commitment to the reason, which is kept beside it.")
    imported: bool = False


class Event(_Shape):
    """One event in the exact bytes that were recorded and hashed (CloudEvents 1.0)."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: str = _time("recorded_at")
    sequence: str
    datacontenttype: Literal["application/json"]
    data: EventData


class EventPage(_Shape):
    events: list[Event]
    next_after: int = Field(
        description="Send it as `after` for what comes next; it is the head where nothing does yet."
    )
    head: int = Field(description="The position of the ledger's last event.")


class SubjectRow(_Shape):
    subject: str
    version: int
    position: int = Field(description="Of the subject's last event.")


class SubjectPage(_Shape):
    subjects: list[SubjectRow]
    next_after: str | None = Field(description="Send it as `after` for the next page; null: there is none.")
    position: int


class DecidingEvent(_Shape):
    """The event behind a value: the subject's own, or for a default the definition."""

    event_id: str
    position: int
    version: int
    recorded_at: str = _time("")
    effective_from: str = _time("")
    effective_until: str | None = _time("Null: without end.")
    actor: str


class SettingState(DecidingEvent):
    value: Any
    source: Literal["explicit", "default"]
    cleared_by: DecidingEvent | None = Field(None, description="The clear that the default shows through.")


class State(_Shape):
    subject: str
    at: str = _time("Valid time.")
    known_at: str = _time("Only what was recorded by then was used.")
    position: int
    settings: dict[str, SettingState]


class Interval(_Shape):
    setting: str
    value: Any
    source: Source
    from_: str | None = _time("Null: open.", alias="from")
    until: str | None = _time("The first instant that no longer belongs to it; null: open.")
    event_id: str | None


class Timeline(_Shape):
    """Half-open intervals without gaps, setting by setting."""

    subject: str
    known_at: str = Field(description="An instant, or `at`: what was in force.")
    position: int
    intervals: list[Interval]


class HistoryRow(_Shape):
    event: Event
    reason: str | None
    retracted_by: str | None = Field(description="The event_id of the retraction that took it back.")


class History(_Shape):
    """Newest first."""

    subject: str
    events: list[HistoryRow]
    next_after: int | None = Field(description="Send it as `after` for older ones; null: there are none.")
    position: int


class ChangedBy(DecidingEvent):
    setting: str
    value: Any = Field(description="Null: the setting was cleared.")


class RetractedBy(_Shape):
    setting: str
    retracts: str
    event_id: str
    position: int
    version: int
    recorded_at: str = _time("")
    actor: str


class UndefinedState(_Shape):
    value: None
    source: Literal["undefined"]


class NotApplicableState(DecidingEvent):
    value: Any
    source: Literal["not_applicable"]


class SettingDifference(_Shape):
    setting: str
    before: SettingState | NotApplicableState | UndefinedState
    after: SettingState | NotApplicableState | UndefinedState
    changed_by: list[ChangedBy | RetractedBy]


class Differences(_Shape):
    subject: str
    from_: str = _time("", alias="from")
    to: str = _time("")
    known_at: str = Field(description="An instant, or `at`: what was in force at each of the two.")
    position: int
    differences: list[SettingDifference]


class CatalogEntry(SettingDefinition):
    event_id: str
    position: int
    version: int
    recorded_at: str = _time("")
    effective_from: str = _time("")
    actor: str


class Catalog(_Shape):
    at: str = _time("")
    known_at: str = _time("")
    position: int
    settings: dict[str, CatalogEntry]


class GovernedBy(_Shape):
    subject: str | None = Field(description="The governing account or organization; null: it cannot be told.")
    via: list[str] = Field(description="The subjects that led to it, in order.")


class DataPolicy(_Shape):
    by: Literal["platform", "provider"]
    name: str | None = None
    url: str | None = None


class Handling(_Shape):
    may_store: bool
    may_cache: bool
    may_train: bool
    may_leave_platform: bool
    allowed_regions: list[str] | None = Field(description="Null: anywhere; empty: nowhere.")
    private_network_required: bool
    data_policy: DataPolicy


class EvidenceState(DecidingEvent):
    subject: str
    setting: str
    value: Any
    source: Literal["explicit", "default", "not_applicable"]
    cleared_by: DecidingEvent | None = None


class EvidenceUndefined(UndefinedState):
    subject: str
    setting: str


class EnforcementLag(_Shape):
    lag_us: int
    enforced_position: int
    deciding_position: int


class Outcome(_Shape):
    verdict: Verdict
    governed_by: GovernedBy
    handling: Handling
    reasons: list[Reason]
    evidence: list[EvidenceState | EvidenceUndefined]
    enforcement_lag: EnforcementLag | None = None


class Hindsight(Outcome):
    """The decision with everything recorded since, and the events that changed it."""

    changed_by: list[EvidenceState | RetractedBy]


class AsOf(_Shape):
    at: str = _time("")
    known_at: str = _time("")
    position: int


class Decision(Outcome):
    request_id: str | None = None
    as_of: AsOf
    hindsight: Hindsight | None = Field(None, description="Only where it changes the verdict or the handling.")


class Decisions(_Shape):
    """In the order of the records, all pinned to one position."""

    decisions: list[Decision]
    position: int


class Health(_Shape):
    status: Literal["ok"]
    version: str


class Ready(_Shape):
    status: Literal["ready"]
    position: int


class ProblemFault(_Shape):
    in_: Literal["body", "query", "path", "header"] = Field(alias="in", description="What `pointer` points into.")
    pointer: str = Field(description="JSON pointer (RFC 6901), or / and the parameter's name.")
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details. `type` is served here and says what the code means. Codes may add members."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="Holds the request's id, under which the server's log says more.")
    code: str
    errors: list[ProblemFault] | None = None
    subject: str | None = Field(None, description="With version_conflict.")
    expected_version: int | None = Field(None, description="With version_conflict.")
    current_version: int | None = Field(None, description="With version_conflict: retry with this one.")


class ProblemKind(_Shape):
    type: str
    code: str
    status: int
    title: str
    meaning: str


class ProblemKinds(_Shape):
    problems: list[ProblemKind]


SUBMISSION_EXAMPLES: Final[dict[str, Any]] = {
    "change": {
        "summary": "Set a value, with the version that it rests on",
        "value": {
            "type": "setting.changed",
            "subject": "org:acme",
            "setting": "training.opt_in",
            "value": True,
            "effective_from": "2026-01-01T00:00:00Z",
            "effective_until": None,
            "reason": "ticket 4711",
            "expected_version": 0,
        },
    },
    "clear": {
        "summary": "Take the own value away: the default shows through",
        "value": {"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in"},
    },
    "define": {
        "summary": "Define a setting of your own",
        "value": {
            "type": "setting.defined",
            "setting": "beta.search",
            "definition": {
                "kinds": ["account", "org"],
                "value_type": "bool",
                "default": False,
                "protective": False,
                "writable_by": "admin",
                "title": "Search (beta)",
                "description": "Whether the organization tries out search.",
                "source": "Product decision 12",
            },
        },
    },
    "batch": {
        "summary": "Several, as one",
        "value": {
            "events": [
                {"type": "setting.changed", "subject": "key:k1", "setting": "owner", "value": "org:acme"},
                {
                    "type": "setting.changed",
                    "subject": "model:deepseek-ai/DeepSeek-V3",
                    "setting": "model.hosting",
                    "value": "hosted",
                    "effective_from": "2026-01-01T00:00:00Z",
                    "reason": "hosted since the new year",
                },
            ]
        },
    },
    "retract": {
        "summary": "Take a change back",
        "value": {
            "type": "change.retracted",
            "event_id": EVENT_ID,
            "reason": "entered for the wrong organization",
        },
    },
}

CHECK_EXAMPLES: Final[dict[str, Any]] = {
    "question": {
        "summary": "May this request be made now?",
        "value": {"org_id": "acme", "model_id": "deepseek-ai/DeepSeek-V3"},
    },
    "observed": {
        "summary": "Was what was done in force then?",
        "value": {
            "request_id": "r-1",
            "at": "2026-03-01T12:00:00Z",
            "key_id": "k1",
            "model_id": "deepseek-ai/DeepSeek-V3",
            "enforced_position": 42,
            "handling": {"stored": False, "cached": True, "trained": True, "network": "public"},
        },
    },
    "several": {
        "summary": "Several, pinned to one position",
        "value": {"requests": [{"org_id": "acme"}, {"account_id": "u1", "at": "2026-03-01T12:00:00Z"}]},
    },
}

_RECEIPT: Final = {
    "event_id": EVENT_ID,
    "position": 19,
    "subject": "org:acme",
    "version": 1,
    "recorded_at": "2026-01-15T09:30:00.000000Z",
    "effective_from": T1,
    "effective_until": None,
}
_EVENT: Final = {
    "specversion": "1.0",
    "id": EVENT_ID,
    "source": "urn:inforce:inforce.local/5f0c2a91",
    "type": "inforce.setting.changed.v1",
    "subject": "org:acme",
    "time": "2026-01-15T09:30:00.000000Z",
    "sequence": "00000000000000000019",
    "datacontenttype": "application/json",
    "data": {
        "position": 19,
        "version": 1,
        "setting": "training.opt_in",
        "value": True,
        "effective_from": T1,
        "effective_until": None,
        "actor": "anonymous",
        "personal": {"commitment": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
    },
}
_EXPLICIT: Final = {
    "value": True,
    "source": "explicit",
    "event_id": EVENT_ID,
    "position": 19,
    "version": 1,
    "recorded_at": "2026-01-15T09:30:00.000000Z",
    "effective_from": T1,
    "effective_until": None,
    "actor": "anonymous",
}
_DEFAULT: Final = {
    "value": False,
    "source": "default",
    "event_id": DEFINITION_ID,
    "position": 1,
    "version": 1,
    "recorded_at": T1,
    "effective_from": "0001-01-01T00:00:00.000000Z",
    "effective_until": None,
    "actor": "inforce",
}
_OUTCOME: Final = {
    "verdict": "allowed",
    "governed_by": {"subject": "org:acme", "via": ["org:acme"]},
    "handling": {
        "may_store": False,
        "may_cache": True,
        "may_train": True,
        "may_leave_platform": False,
        "allowed_regions": None,
        "private_network_required": False,
        "data_policy": {"by": "platform"},
    },
    "reasons": [],
    "evidence": [{"subject": "org:acme", "setting": "training.opt_in", **_EXPLICIT}],
}
_DECISION: Final = {
    **_OUTCOME,
    "as_of": {"at": "2026-03-01T12:00:00.000000Z", "known_at": "2026-03-01T12:00:00.000000Z", "position": 19},
}
_DEFINED: Final = {
    "kinds": ["account", "org"],
    "value_type": "bool",
    "default": False,
    "protective": False,
    "writable_by": "admin",
    "title": "Training opt-in",
    "description": "Data sharing for training other models is opt-in.",
    "source": "Published data privacy rules",
    "event_id": DEFINITION_ID,
    "position": 1,
    "version": 1,
    "recorded_at": T1,
    "effective_from": "0001-01-01T00:00:00.000000Z",
    "actor": "inforce",
}
_NOW: Final = "2026-03-01T12:00:00.000000Z"

ANSWER_EXAMPLES: Final[dict[type[BaseModel], Any]] = {
    Receipts: {"receipts": [_RECEIPT], "position": 19},
    Event: _EVENT,
    EventPage: {"events": [_EVENT], "next_after": 19, "head": 19},
    SubjectPage: {
        "subjects": [{"subject": "org:acme", "version": 1, "position": 19}],
        "next_after": None,
        "position": 19,
    },
    State: {
        "subject": "org:acme",
        "at": _NOW,
        "known_at": _NOW,
        "position": 19,
        "settings": {"storage.inputs_outputs": _DEFAULT, "training.opt_in": _EXPLICIT},
    },
    Timeline: {
        "subject": "org:acme",
        "known_at": _NOW,
        "position": 19,
        "intervals": [
            {
                "setting": "training.opt_in",
                "value": False,
                "source": "default",
                "from": None,
                "until": T1,
                "event_id": DEFINITION_ID,
            },
            {
                "setting": "training.opt_in",
                "value": True,
                "source": "explicit",
                "from": T1,
                "until": None,
                "event_id": EVENT_ID,
            },
        ],
    },
    History: {
        "subject": "org:acme",
        "events": [{"event": _EVENT, "reason": "ticket 4711", "retracted_by": None}],
        "next_after": None,
        "position": 19,
    },
    Differences: {
        "subject": "org:acme",
        "from": "2025-12-31T00:00:00.000000Z",
        "to": _NOW,
        "known_at": _NOW,
        "position": 19,
        "differences": [
            {
                "setting": "training.opt_in",
                "before": _DEFAULT,
                "after": _EXPLICIT,
                "changed_by": [{"setting": "training.opt_in"} | {k: v for k, v in _EXPLICIT.items() if k != "source"}],
            }
        ],
    },
    Catalog: {"at": _NOW, "known_at": _NOW, "position": 19, "settings": {"training.opt_in": _DEFINED}},
    Decision: _DECISION,
    Decisions: {"decisions": [_DECISION], "position": 19},
    Health: {"status": "ok", "version": "0.1.0"},
    Ready: {"status": "ready", "position": 19},
    ProblemKind: {
        "type": "/problems/version_conflict",
        "code": "version_conflict",
        "status": 409,
        "title": "The subject is at another version",
        "meaning": "expected_version is not the subject's version.",
    },
}

SENT: Final = (
    SettingChange,
    SettingClear,
    ChangeRetraction,
    SettingDefined,
    SubmissionBatch,
    RequestRecord,
    RequestRecords,
)
ANSWERED: Final = (
    *(Receipts, Event, EventPage, SubjectPage, State, Timeline, History, Differences, Catalog, Decision, Decisions),
    *(Health, Ready, Problem, ProblemKind, ProblemKinds),
)

_TEMPLATE: Final = "#/components/schemas/{model}"


def ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(model=model.__name__)}


def components() -> dict[str, Any]:
    """Name → JSON Schema of every model that a route refers to, and of what those refer to."""
    _, found = models_json_schema([(model, "validation") for model in (*SENT, *ANSWERED)], ref_template=_TEMPLATE)
    schemas: dict[str, Any] = found["$defs"]
    return schemas
