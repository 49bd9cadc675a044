"""The records of one audit: the request (`Job`), its `Progress` and its `AuditOutcome`.

Each is a file in the audit's folder that is written whole, so the folder alone shows the state: no process needs to be
asked, and none needs to run. Instants are in µs. Imports no bulk engine, because the server reads these records too.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from ledger.times import format_time
from projections.audit.reading.aliases import Alias, Aliases
from projections.audit.reading.layout import Forms, Layout, make_layout
from projections.audit.reading.log_times import TimeUnit
from projections.audit.reading.shape import LogFormat, LogShape
from projections.temporal.coordinates import KnownAt, Pin

State = Literal["queued", "running", "done", "failed"]

EXIT_DONE: Final = 0
EXIT_LEDGER_UNAVAILABLE: Final = 3
EXIT_ALREADY_CLAIMED: Final = 4
"""Exit codes of `api.audits.worker_process`. DONE: the audit has an outcome."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`sha256`, `bytes`: of the log as received. The pin was taken after the whole log arrived, before any verdict."""

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
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    neither: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str, str], ...] = ()
    happened: bool = False
    delimiter: str | None = None
    rows: str | None = None
    sheet: str | None = None
    owner: str | None = None
    """The principal that sent the log; None: an inforce without sign-in received it."""

    @property
    def pin(self) -> Pin:
        return Pin(self.origin, self.position, self.recorded_at, self.leaf_hash)

    def layout(self) -> Layout:
        return make_layout(self.map, self.set, self.forms(), self.shape())

    def shape(self) -> LogShape:
        return LogShape(self.log_format, delimiter=self.delimiter, rows=self.rows, sheet=self.sheet)

    def forms(self) -> Forms:
        return Forms(
            timezone=self.timezone,
            time_unit=self.time_unit,
            time_format=self.time_format,
            true=self.true,
            false=self.false,
            neither=self.neither,
            aliases=Aliases(tuple(Alias(*row) for row in self.aliases)),
            happened=self.happened,
        )


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    rows: int = 0
    bytes_read: int = 0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """`code`: stable; `detail`: one line with what to do, without anything of the log."""

    code: str
    detail: str


class AuditOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Has either `summary` or `error`. `findings`, `rejects`: the number of lines in those files."""

    finished_at: int
    findings: int = 0
    rejects: int = 0
    summary: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    error: Failure | None = None


class AuditStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The three records together. `progress` None: no process has begun the audit yet."""

    job: Job
    progress: Progress | None
    outcome: AuditOutcome | None

    @property
    def state(self) -> State:
        if self.outcome is not None:
            return "failed" if self.outcome.error is not None else "done"
        return "queued" if self.progress is None else "running"


def status_json(status: AuditStatus, keep_us: int) -> dict[str, Any]:
    """`keep_us`: how long an audit is kept after it ended."""
    job, outcome = status.job, status.outcome
    progress = status.progress or Progress()
    return {
        "id": job.id,
        "state": status.state,
        "created_at": format_time(job.created_at),
        "created_by": job.owner,
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
