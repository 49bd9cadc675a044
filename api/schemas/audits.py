"""Models of the response bodies about audits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.base import ClockNotice, WireModel, time_field
from projections.audit.reading.log_times import TimeUnit
from projections.audit.reading.shape import LogFormat
from projections.decisions.model import Reason, Verdict


class AuditPin(WireModel):
    """The state of the ledger that decides every verdict of the audit: a position and that event's leaf hash."""

    origin: str
    position: int
    recorded_at: str | None = time_field("Null: no event yet.")
    leaf_hash: str | None


class AuditLog(WireModel):
    bytes: int
    sha256: str = Field(description="The hash of the exact bytes received, in hex.")


class AuditAliases(WireModel):
    """The ids for names in the log: their digest, which is the same for the same aliases in any order."""

    sha256: str
    count: int


class AuditReading(WireModel):
    """How the log is read, as the request's parameters set it."""

    map: dict[str, str]
    set: dict[str, str]
    timezone: str | None
    time_unit: TimeUnit | None
    time_format: str | None
    true: list[str]
    false: list[str]
    neither: list[str]
    aliases: AuditAliases | None = Field(description="Null: the log has ids.")
    happened: bool
    log_format: LogFormat | None
    max_row_bytes: int
    delimiter: str | None
    rows: str | None
    sheet: str | None


class AuditProgress(WireModel):
    rows: int
    bytes_read: int = Field(description="How many of the log's bytes have been read.")


class AuditSubject(WireModel):
    subject: str | None = Field(description="The governing subject; null: it is unknown.")
    verdicts: dict[Verdict, int]


class UnknownSubject(WireModel):
    subject: str
    rows: int


class UnknownSubjects(WireModel):
    """The rows whose governing subject the ledger had no event of, and these subjects: at most 100."""

    rows: int
    count: int
    subjects: list[UnknownSubject]


class AuditProvider(WireModel):
    """Requests that were governed by a provider's own data policy, as it was recorded at their time."""

    provider: str | None = Field(description="The provider's subject; null: the ledger has none of that name.")
    name: str | None = Field(description="As the model names it.")
    rows: int
    trains: int = Field(description="Rows under a policy by which the provider trains on the data.")
    stores: int = Field(description="Rows under a policy by which the provider stores the data.")
    unknown: int = Field(description="Rows for which nobody recorded whether it trains, or whether it stores.")


class AuditClockNotice(ClockNotice):
    """A stretch of time in which the clock was ahead."""

    rows: int = Field(description="The requests whose verdicts rest on it.")


class AuditSummary(WireModel):
    """`rows` counts verdicts and rejects together. A verdict or reason without any row is absent."""

    unknown_subjects: UnknownSubjects

    rows: int
    rejects: int
    observed: bool = Field(description="Whether any row says how the data was handled.")
    happened: bool = Field(description="Whether rows that do not say so were judged as requests that happened.")
    verdicts: dict[Verdict, int]
    reasons: dict[Reason, int]
    subjects: list[AuditSubject] = Field(description="At most 100, those with the most findings first.")
    subject_count: int
    providers: list[AuditProvider] = Field(description="At most 100, those with the most rows first.")
    hindsight: int = Field(description="Rows whose decision changes if everything recorded later is used.")
    first_at: str | None = time_field("The time of the earliest request.")
    last_at: str | None = time_field("The time of the latest request.")
    clock_notices: list[AuditClockNotice] | None = Field(
        None, description="Present only where verdicts rest on a clock that was ahead."
    )


class AuditFailure(WireModel):
    code: str
    detail: str


class Audit(WireModel):
    """The status of an audit."""

    id: str
    state: Literal["queued", "running", "done", "failed"]
    created_at: str = time_field("When its log was received completely.")
    created_by: str | None = Field(description="The principal that sent the log. Null: an older inforce received it.")
    finished_at: str | None = time_field("Null: not yet.")
    expires_at: str | None = time_field("When it is deleted. Null: it has not ended.")
    known_at: str = Field(description="`at`: the settings in force when each request was made; or an instant.")
    pin: AuditPin
    log: AuditLog
    reading: AuditReading
    progress: AuditProgress
    summary: AuditSummary | None = Field(description="Null until it is done.")
    findings: int | None = Field(description="The number of findings. Null until it is done.")
    warnings: list[str]
    error: AuditFailure | None = Field(description="The cause, if the audit failed.")


class AuditList(WireModel):
    """All audits, newest first."""

    audits: list[Audit]
    next_after: str | None = Field(
        None,
        description="Present only if the answer reached its size and ended early. Send it as `after` to get the rest.",
    )


class Finding(WireModel):
    """A violation or denial: a row as `inforce audit --out` writes it."""

    source: Literal["log"]
    line: int
    request_id: str | None
    at: str = time_field("When the request was made.")
    verdict: Verdict
    reasons: list[Reason]
    governed_by: str | None
    subject_known: bool
    may_store: bool
    may_cache: bool
    may_train: bool
    may_leave_platform: bool
    allowed_regions: list[str] | None
    private_network_required: bool
    data_policy: Literal["platform", "provider"]
    provider: str | None
    policy_url: str | None
    provider_subject: str | None
    provider_policy_sha256: str | None
    provider_trains: bool | None
    provider_stores: bool | None
    provider_retention_days: int | None
    provider_regions: list[str] | None
    deciding_positions: list[int]
    hindsight: Verdict | None
    enforcement_lag_us: int | None
    lag_position: int | None


class FindingPage(WireModel):
    """A page of findings, in the order of the log."""

    findings: list[Finding]
    next_after: int | None = Field(description="Send it as `after` to get the next page; null: this is the last page.")


class Reject(WireModel):
    line: int
    reason: str


class RejectPage(WireModel):
    """A page of lines that could not be read, in the order of the log."""

    rejects: list[Reject]
    next_after: int | None = Field(description="Send it as `after` to get the next page; null: this is the last page.")
