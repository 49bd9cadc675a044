"""The bodies of answers about audits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.base import WireModel, time_field
from projections.audit.reading.strict import LogFormat
from projections.decisions.model import Reason, Verdict


class AuditPin(WireModel):
    """What every verdict of the audit rests on: the ledger at one position, and that event's leaf hash."""

    origin: str
    position: int
    recorded_at: str | None = time_field("Null: no event yet.")
    leaf_hash: str | None


class AuditLog(WireModel):
    bytes: int
    sha256: str = Field(description="Of the exact bytes that were sent, in hex.")


class AuditReading(WireModel):
    """How the log is read, as it was asked for."""

    map: dict[str, str]
    set: dict[str, str]
    timezone: str | None
    log_format: LogFormat | None


class AuditProgress(WireModel):
    rows: int
    bytes_read: int = Field(description="Of the log's bytes.")


class AuditSubject(WireModel):
    subject: str | None = Field(description="Who governs; null: nobody that can be told.")
    verdicts: dict[Verdict, int]


class AuditSummary(WireModel):
    """Rows are verdicts and rejects together; a verdict or a reason that no row has is left out."""

    rows: int
    rejects: int
    verdicts: dict[Verdict, int]
    reasons: dict[Reason, int]
    subjects: list[AuditSubject] = Field(description="Those with most verdicts against them first, at most 100.")
    subject_count: int
    hindsight: int = Field(description="Rows that would be decided otherwise with what was recorded later.")
    first_at: str | None = time_field("Of the requests.")
    last_at: str | None = time_field("Of the requests.")


class AuditFailure(WireModel):
    code: str
    detail: str


class Audit(WireModel):
    """An audit as it stands."""

    id: str
    state: Literal["queued", "running", "done", "failed"]
    created_at: str = time_field("When its log was all there.")
    finished_at: str | None = time_field("Null: not yet.")
    expires_at: str | None = time_field("When it is forgotten. Null: it has not ended.")
    known_at: str = Field(description="`at`: what was in force when each request was made; or an instant.")
    pin: AuditPin
    log: AuditLog
    reading: AuditReading
    progress: AuditProgress
    summary: AuditSummary | None = Field(description="Null until it is done.")
    findings: int | None = Field(description="So many there are to page through. Null until it is done.")
    warnings: list[str]
    error: AuditFailure | None = Field(description="Why it has failed.")


class AuditList(WireModel):
    """Every audit that is kept."""

    audits: list[Audit]


class Finding(WireModel):
    """A request whose verdict speaks against it: a row as `inforce audit --out` writes it."""

    source: Literal["log"]
    line: int
    request_id: str | None
    at: str = time_field("When the request was made.")
    verdict: Verdict
    reasons: list[Reason]
    governed_by: str | None
    may_store: bool
    may_cache: bool
    may_train: bool
    may_leave_platform: bool
    allowed_regions: list[str] | None
    private_network_required: bool
    data_policy: Literal["platform", "provider"]
    provider: str | None
    policy_url: str | None
    deciding_positions: list[int]
    hindsight: Verdict | None
    enforcement_lag_us: int | None
    lag_position: int | None


class FindingPage(WireModel):
    """A page of findings, in the order of the log."""

    findings: list[Finding]
    next_after: int | None = Field(description="`after` of the next page; null: this is the last.")


class Reject(WireModel):
    line: int
    reason: str


class RejectPage(WireModel):
    """A page of lines that could not be read, in the order of the log."""

    rejects: list[Reject]
    next_after: int | None = Field(description="`after` of the next page; null: this is the last.")
