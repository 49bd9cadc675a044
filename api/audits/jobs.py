"""What is known of one audit: what was asked (`Job`), how far it is (`Progress`), and how it ended (`AuditOutcome`).

Each is a file of its own in the audit's folder, written once and whole, so whoever reads the folder knows the state: no
process has to be asked, and none has to be alive. Instants in µs. Imports no engine.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ledger.times import format_time
from projections.audit.reading.layout import Layout, make_layout
from projections.audit.reading.strict import LogFormat
from projections.temporal.coordinates import KnownAt, Pin

State = Literal["queued", "running", "done", "failed"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`sha256`, `bytes`: of the log, as it was received. The pin is taken when it was all there, before any verdict."""

    id: str
    created_at: int
    map: dict[str, str]
    set: dict[str, str]
    timezone: str | None
    log_format: LogFormat | None
    known_at: KnownAt
    max_rejects: int | None
    origin: str
    position: int
    recorded_at: int | None
    leaf_hash: str | None
    bytes: int
    sha256: str

    @property
    def pin(self) -> Pin:
        return Pin(self.origin, self.position, self.recorded_at, self.leaf_hash)

    def layout(self) -> Layout:
        return make_layout(self.map, self.set, self.timezone, self.log_format)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    rows: int = 0
    bytes_read: int = 0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """`code`: one of ours, stable; `detail`: one line that says what to do, and holds nothing of the log."""

    code: str
    detail: str


class AuditOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One of `summary` and `error` is there. `findings`, `rejects`: lines of those files."""

    finished_at: int
    findings: int = 0
    rejects: int = 0
    summary: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    error: Failure | None = None


class AuditStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An audit as it stands. `progress` None: it waits for its turn."""

    job: Job
    progress: Progress | None
    outcome: AuditOutcome | None

    @property
    def state(self) -> State:
        if self.outcome is not None:
            return "failed" if self.outcome.error is not None else "done"
        return "queued" if self.progress is None else "running"


def status_json(view: AuditStatus, keep_us: int) -> dict[str, Any]:
    """As it is served."""
    job, outcome = view.job, view.outcome
    progress = view.progress or Progress()
    return {
        "id": job.id,
        "state": view.state,
        "created_at": format_time(job.created_at),
        "finished_at": None if outcome is None else format_time(outcome.finished_at),
        "expires_at": None if outcome is None else format_time(outcome.finished_at + keep_us),
        "known_at": format_time(job.known_at) if isinstance(job.known_at, int) else job.known_at or "now",
        "pin": {
            "origin": job.origin,
            "position": job.position,
            "recorded_at": None if job.recorded_at is None else format_time(job.recorded_at),
            "leaf_hash": job.leaf_hash,
        },
        "log": {"bytes": job.bytes, "sha256": job.sha256},
        "reading": job.layout().json(),
        "progress": {"rows": progress.rows, "bytes_read": progress.bytes_read},
        "summary": None if outcome is None else outcome.summary,
        "findings": None if outcome is None or outcome.error is not None else outcome.findings,
        "warnings": [] if outcome is None else list(outcome.warnings),
        "error": None if outcome is None or outcome.error is None else msgspec.to_builtins(outcome.error),
    }
