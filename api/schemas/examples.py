"""Examples of request and response bodies.

tests/api/test_openapi.py posts every request example and checks every example against its model.
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel

from api.schemas.audits import Audit, AuditList, FindingPage, RejectPage
from api.schemas.decisions import Decision, Decisions
from api.schemas.responses import (
    Catalog,
    Differences,
    Event,
    EventPage,
    EventStream,
    Health,
    History,
    ProblemKind,
    Ready,
    Receipts,
    State,
    SubjectPage,
    Timeline,
)

T1: Final = "2026-01-01T00:00:00.000000Z"
EVENT_ID: Final = "00000000-0013-8c4f-a1d2-5b6e7f809a1b"
DEFINITION_ID: Final = "00000000-0001-8b1e-9f00-c2d3e4f5a6b7"

SUBMISSION_EXAMPLES: Final[dict[str, Any]] = {
    "change": {
        "summary": "Set a value, and state the version it is based on",
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
        "summary": "Remove the subject's own value, so that the default holds",
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
        "summary": "Several submissions, recorded atomically",
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
    "never again": {
        "summary": "Opt out, and retract everything that is scheduled for the setting",
        "value": {
            "type": "setting.changed",
            "subject": "org:acme",
            "setting": "training.opt_in",
            "value": False,
            "cancels_scheduled": True,
        },
    },
    "retract": {
        "summary": "Retract a change",
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
        "summary": "Did the handling comply with the settings in force?",
        "value": {
            "request_id": "r-1",
            "at": "2026-03-01T12:00:00Z",
            "key_id": "k1",
            "model_id": "deepseek-ai/DeepSeek-V3",
            "enforced_position": 42,
            "handling": {
                "stored": False,
                "cached": True,
                "trained": True,
                "network": "public",
                "precision": "fp8",
                "revision": "2026-01",
            },
        },
    },
    "several": {
        "summary": "Several records, pinned to one position",
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
    "holds_until": "2026-06-01T00:00:00.000000Z",
    "still_scheduled": [
        {"position": 18, "effective_from": "2026-06-01T00:00:00.000000Z", "effective_until": None, "value": False}
    ],
    "still_scheduled_left_out": 0,
    "retracts": None,
    "warnings": [],
}
_HOLDS: Final = {"holds_until": None, "holds_until_at_recording": "2026-06-01T00:00:00.000000Z"}
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
    "governed_by": {"subject": "org:acme", "via": ["org:acme"], "known": True},
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

_AUDIT: Final = {
    "id": "5b1f0c9a4f7e4f0e8a3c2d1b0a998877",
    "state": "done",
    "created_at": "2026-07-01T08:00:00.000000Z",
    "created_by": "principal:ops-anna",
    "finished_at": "2026-07-01T08:00:09.000000Z",
    "expires_at": "2026-07-08T08:00:09.000000Z",
    "known_at": "at",
    "pin": {"origin": "ledger.example.com", "position": 19, "recorded_at": T1, "leaf_hash": "5d41402abc4b2a76" * 4},
    "log": {"bytes": 104_857_600, "sha256": "9f86d081884c7d65" * 4},
    "reading": {
        "map": {"request_id": "id"},
        "set": {},
        "timezone": None,
        "time_unit": None,
        "time_format": None,
        "true": [],
        "false": [],
        "neither": [],
        "aliases": None,
        "happened": False,
        "log_format": None,
        "max_row_bytes": 67108864,
        "delimiter": None,
        "rows": None,
        "sheet": None,
    },
    "progress": {"rows": 1_000_001, "bytes_read": 104_857_600},
    "summary": {
        "unknown_subjects": {"rows": 12, "count": 1, "subjects": [{"subject": "account:u1", "rows": 12}]},
        "rows": 1_000_001,
        "rejects": 1,
        "observed": True,
        "happened": False,
        "verdicts": {"violation": 1, "compliant": 999_999},
        "reasons": {"trained_without_opt_in": 1},
        "subjects": [
            {"subject": "org:acme", "verdicts": {"violation": 1, "compliant": 899_999}},
            {"subject": "account:u1", "verdicts": {"compliant": 100_000}},
        ],
        "subject_count": 2,
        "providers": [
            {"provider": "provider:deep", "name": "Deep", "rows": 12, "trains": 12, "stores": 0, "unknown": 0}
        ],
        "hindsight": 0,
        "first_at": "2026-06-01T00:00:00.173000Z",
        "last_at": "2026-06-30T23:59:59.846000Z",
    },
    "findings": 1,
    "warnings": [],
    "error": None,
}
_FINDING: Final = {
    "source": "log",
    "line": 4711,
    "request_id": "req_04711",
    "at": "2026-06-11T09:30:00.250000Z",
    "verdict": "violation",
    "reasons": ["trained_without_opt_in"],
    "governed_by": "org:acme",
    "subject_known": True,
    "may_store": False,
    "may_cache": True,
    "may_train": False,
    "may_leave_platform": False,
    "allowed_regions": None,
    "private_network_required": False,
    "data_policy": "platform",
    "provider": None,
    "policy_url": None,
    "provider_subject": None,
    "provider_policy_sha256": None,
    "provider_trains": None,
    "provider_stores": None,
    "provider_retention_days": None,
    "provider_regions": None,
    "deciding_positions": [1, 2, 3],
    "hindsight": None,
    "enforcement_lag_us": None,
    "lag_position": None,
}
RESPONSE_EXAMPLES: Final[dict[type[BaseModel], Any]] = {
    Receipts: {"receipts": [_RECEIPT], "position": 19},
    Event: _EVENT,
    EventPage: {"events": [_EVENT], "next_after": 19, "head": 19},
    EventStream: f"id: 19\ndata: {json.dumps(_EVENT, separators=(',', ':'))}\n\n",
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
        "version": 4,
        "settings": {
            "storage.inputs_outputs": _DEFAULT | {"next": None},
            "training.opt_in": _EXPLICIT
            | {
                "next": {
                    "position": 18,
                    "effective_from": "2026-06-01T00:00:00.000000Z",
                    "value": False,
                    "source": "explicit",
                }
            },
        },
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
        "events": [{"event": _EVENT, "reason": "ticket 4711", "retracted_by": None, **_HOLDS}],
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
    Audit: _AUDIT,
    AuditList: {"audits": [_AUDIT]},
    FindingPage: {"findings": [_FINDING], "next_after": None},
    RejectPage: {"rejects": [{"line": 8, "reason": "the line is not JSON"}], "next_after": None},
    Health: {"status": "ok", "version": "0.2.0"},
    Ready: {
        "status": "ready",
        "position": 19,
        "lag": 0,
        "damaged_timelines": 0,
        "log": {"size": 19, "integrates": True, "problem": None},
    },
    ProblemKind: {
        "type": "/problems/version_conflict",
        "code": "version_conflict",
        "status": 409,
        "title": "The subject is at another version",
        "meaning": "expected_version is not the subject's version.",
    },
}
