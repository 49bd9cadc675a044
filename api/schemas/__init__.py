"""The bodies of requests and responses as OpenAPI shows them: one pydantic model per shape, with examples.

These models only document. The readers of the domain decide which requests are valid, and `api.responses` writes the
responses. Proved by tests/api/test_openapi.py: real responses fit these models exactly, the models have the members of
the domain's types, and every example is posted and works.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.schemas.audits import (
    Audit,
    AuditFailure,
    AuditList,
    AuditLog,
    AuditPin,
    AuditProgress,
    AuditReading,
    AuditSubject,
    AuditSummary,
    Finding,
    FindingPage,
    Reject,
    RejectPage,
)
from api.schemas.examples import CHECK_EXAMPLES, RESPONSE_EXAMPLES, SUBMISSION_EXAMPLES
from api.schemas.requests import (
    ChangeRetraction,
    ObservedHandling,
    RequestRecord,
    RequestRecords,
    SettingChange,
    SettingClear,
    SettingDefined,
    SettingDefinition,
    SubmissionBatch,
)
from api.schemas.responses import (
    AsOf,
    Catalog,
    CatalogEntry,
    ChangedBy,
    DataPolicy,
    DecidingEvent,
    Decision,
    Decisions,
    Differences,
    EnforcementLag,
    Event,
    EventData,
    EventPage,
    EventStream,
    EvidenceState,
    EvidenceUndefined,
    GovernedBy,
    Handling,
    Health,
    Hindsight,
    History,
    HistoryRow,
    Interval,
    NotApplicableState,
    Outcome,
    Problem,
    ProblemFault,
    ProblemKind,
    ProblemKinds,
    Ready,
    Receipt,
    Receipts,
    RetractedBy,
    SettingDifference,
    SettingState,
    State,
    SubjectPage,
    SubjectRow,
    Timeline,
    UndefinedState,
)

__all__ = [
    "CHECK_EXAMPLES",
    "REQUEST_MODELS",
    "RESPONSE_EXAMPLES",
    "RESPONSE_MODELS",
    "SUBMISSION_EXAMPLES",
    "AsOf",
    "Audit",
    "AuditFailure",
    "AuditList",
    "AuditLog",
    "AuditPin",
    "AuditProgress",
    "AuditReading",
    "AuditSubject",
    "AuditSummary",
    "Catalog",
    "CatalogEntry",
    "ChangeRetraction",
    "ChangedBy",
    "DataPolicy",
    "DecidingEvent",
    "Decision",
    "Decisions",
    "Differences",
    "EnforcementLag",
    "Event",
    "EventData",
    "EventPage",
    "EventStream",
    "EvidenceState",
    "EvidenceUndefined",
    "Finding",
    "FindingPage",
    "GovernedBy",
    "Handling",
    "Health",
    "Hindsight",
    "History",
    "HistoryRow",
    "Interval",
    "NotApplicableState",
    "ObservedHandling",
    "Outcome",
    "Problem",
    "ProblemFault",
    "ProblemKind",
    "ProblemKinds",
    "Ready",
    "Receipt",
    "Receipts",
    "Reject",
    "RejectPage",
    "RequestRecord",
    "RequestRecords",
    "RetractedBy",
    "SettingChange",
    "SettingClear",
    "SettingDefined",
    "SettingDefinition",
    "SettingDifference",
    "SettingState",
    "State",
    "SubjectPage",
    "SubjectRow",
    "SubmissionBatch",
    "Timeline",
    "UndefinedState",
    "components",
    "ref",
]

REQUEST_MODELS: Final = (
    SettingChange,
    SettingClear,
    ChangeRetraction,
    SettingDefined,
    SubmissionBatch,
    RequestRecord,
    RequestRecords,
)
RESPONSE_MODELS: Final = (
    *(
        Receipts,
        Event,
        EventPage,
        EventStream,
        SubjectPage,
        State,
        Timeline,
        History,
        Differences,
        Catalog,
        Decision,
        Decisions,
    ),
    *(Audit, AuditList, FindingPage, RejectPage),
    *(Health, Ready, Problem, ProblemKind, ProblemKinds),
)

_TEMPLATE: Final = "#/components/schemas/{model}"


def ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(model=model.__name__)}


def components() -> dict[str, Any]:
    """Name → JSON Schema of every model that a route uses, directly or through another model."""
    _, document = models_json_schema(
        [(model, "validation") for model in (*REQUEST_MODELS, *RESPONSE_MODELS)], ref_template=_TEMPLATE
    )
    schemas: dict[str, Any] = document["$defs"]
    return schemas
