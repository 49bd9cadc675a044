"""The process that runs one audit: `python -m api.audits.worker_process FOLDER`, the ledger's URL on standard input.

It ends when the server closes that input, so it never outlives its server; the next server starts the audit again.
Proved by tests/api/audits/test_scheduler.py.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa

from api.audits.folder import FINDINGS, LOG, REJECTS, AlreadyClaimed, claim, read, require_disk_space, write
from api.audits.jobs import (
    EXIT_ALREADY_CLAIMED,
    EXIT_DONE,
    EXIT_LEDGER_UNAVAILABLE,
    AuditOutcome,
    Failure,
    Job,
    Progress,
)
from api.audits.paged_lines import OFFSETS_SUFFIX, PagedLines
from api.http.problems import error_location
from ledger.errors import BadInput, LedgerCorrupt, LedgerUnavailable
from ledger.opening import open_ledger
from ledger.private_files import open_private
from ledger.store import Ledger
from ledger.times import format_time
from projections.audit.counting import against
from projections.audit.index.pin import pin_of
from projections.audit.numba_support import AVAILABLE, MISSING
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.files import LogFile
from projections.audit.reading.logs import LogReader
from projections.audit.reading.strict import LogRow, too_many_rejects
from projections.audit.run import index_decider, limit_memory, run
from projections.audit.summary import Summary, pin_json, summary_json
from projections.audit.verdict_files import VerdictWriter
from projections.query.clock_notices import notices_of_ledger

SUBJECTS_MAX: Final = 100
"""Subjects in the summary, which every GET of the audit returns."""
NICE: Final = 10
_PROGRESS_S: Final = 0.5
_REJECTS_PER_DISK_CHECK: Final = 10_000
_DISK_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


def main() -> int:
    folder = Path(sys.argv[1]).absolute()
    url = sys.stdin.buffer.readline().decode().rstrip("\n")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The server's own requests get CPU and memory first.
    os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    limit_memory()
    try:
        with claim(folder):
            # Verdicts contain the log's path, so it must be relative.
            os.chdir(folder)
            return _run_job(folder, url)
    except AlreadyClaimed:
        return EXIT_ALREADY_CLAIMED
    except FileNotFoundError:
        if folder.exists():
            raise
        # The audit was deleted meanwhile.
        return EXIT_DONE


def _end_with_parent() -> None:
    # Not through `sys.stdin`: an interpreter that exits would wait for the lock that is held here.
    while os.read(0, 1):
        pass
    os._exit(EXIT_LEDGER_UNAVAILABLE)


def _run_job(folder: Path, url: str) -> int:
    job = read(folder, Job)
    if job is None or read(folder, AuditOutcome) is not None:
        return EXIT_DONE
    write(folder, Progress())
    if not AVAILABLE:
        print(f"audit {job.id}: {MISSING}", file=sys.stderr)
    try:
        with open_ledger(url) as ledger:
            write(folder, outcome_of(ledger, folder, job))
    except LedgerUnavailable as error:
        print(f"audit {job.id} waits: {error.code}: {error.detail}", file=sys.stderr)
        return EXIT_LEDGER_UNAVAILABLE
    (folder / LOG).unlink(missing_ok=True)
    return EXIT_DONE


def outcome_of(ledger: Ledger, folder: Path, job: Job) -> AuditOutcome:
    """Runs the audit. Raises `LedgerUnavailable`: the audit must be run again later."""
    try:
        return _audit(ledger, folder, job)
    except (BadInput, LedgerCorrupt) as error:
        return _failed(ledger, error.code, error.detail)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        _delete_results(folder)
        return _failed(ledger, "no_space", "the findings do not fit on the server's disk; none were kept")


def _failed(ledger: Ledger, code: str, detail: str) -> AuditOutcome:
    return AuditOutcome(finished_at=ledger.clock.now(), error=Failure(code=code, detail=detail))


def _delete_results(folder: Path) -> None:
    for name in (FINDINGS, REJECTS):
        for file in (name, name + OFFSETS_SUFFIX):
            (folder / file).unlink(missing_ok=True)


def _audit(ledger: Ledger, folder: Path, job: Job) -> AuditOutcome:
    head = ledger.head().position
    if head < job.position or pin_of(ledger, job.position) != job.pin:
        detail = (
            f"the audit is pinned to the event at position {job.position}, but the ledger, at position {head} now, "
            "has another event there or none: perhaps it was restored from a backup; send the log again"
        )
        return _failed(ledger, "ledger_changed", detail)
    layout = job.layout()
    logs = LogReader([LogFile(LOG, job.bytes, layout.mapping)], layout.shape)
    summary = Summary(job.pin, job.known_at, clock_notices=notices_of_ledger(ledger, job.pin))
    summary.happened = job.happened
    written_at = time.monotonic()

    def write_progress(rows: int) -> None:
        nonlocal written_at
        if time.monotonic() - written_at >= _PROGRESS_S:
            written_at = time.monotonic()
            write(folder, Progress(rows=rows, bytes_read=logs.bytes_read))

    with ExitStack() as stack:
        results = _ResultFiles(stack, folder, job.max_rejects)
        run(logs, index_decider(ledger, job.pin, job.known_at), summary, sinks=[results], progress=write_progress)
        results.finish()
    if logs.digest != job.sha256:
        return _failed(ledger, "log_damaged", "the log on the server's disk is not the received one; send it again")
    if summary.rows and summary.rejects == summary.rows:
        _delete_results(folder)
        first = results.first_reject
        example = "" if first is None else f", the first: line {first.line}: {first.fault}"
        detail = f"none of the {summary.rows} rows could be read{example}; map names the columns to read"
        return _failed(ledger, "bad_record", detail)
    write(folder, Progress(rows=summary.rows, bytes_read=job.bytes))
    return AuditOutcome(
        finished_at=ledger.clock.now(),
        findings=results.findings.count,
        rejects=results.rejects.count,
        summary=_outcome_summary(summary),
        warnings=(*logs.warnings, *_warnings(ledger, summary)),
    )


def _warnings(ledger: Ledger, summary: Summary) -> Iterator[str]:
    """Says why a summary counts nothing, or why so many requests rest on nothing."""
    if not summary.rows:
        yield "the log has no rows, so nothing was audited; check that it is the right log"
    early, first = summary.reasons["before_first_record"], ledger.recorder.entry(1)
    if early and first is not None:
        yield (
            f"{early:,} of {summary.rows:,} requests were made before the ledger's first event, of "
            f"{format_time(first.recorded_at)}: nothing was in force then; known_at with a moment of today judges them "
            "in hindsight"
        )


def _outcome_summary(summary: Summary) -> dict[str, Any]:
    """The summary without the pin, which the audit has already, and with the first subjects only."""
    members = summary_json(summary)
    without_pin = {name: value for name, value in members.items() if name not in pin_json(summary)}
    return without_pin | {name: members[name][:SUBJECTS_MAX] for name in ("subjects", "providers")}


class _ResultFiles:
    """Writes findings and rejects to files that are read a page at a time."""

    def __init__(self, stack: ExitStack, folder: Path, max_rejects: int | None) -> None:
        self._folder = folder
        self._files: list[BinaryIO] = []

        def paged_lines(name: str) -> PagedLines:
            pair = [stack.enter_context(open_private(folder / file, "wb")) for file in (name, name + OFFSETS_SUFFIX)]
            self._files += pair
            return PagedLines(*pair)

        self.findings = paged_lines(FINDINGS)
        self.rejects = paged_lines(REJECTS)
        self._max_rejects = max_rejects
        self.first_reject: LogRow | None = None
        self._writer = VerdictWriter(self.findings, "ndjson")

    def take(self, part: LogBatch, verdicts: Any) -> None:
        require_disk_space(self._folder)
        rows = against(verdicts)
        self._writer.take(part.source, part.lines[rows], verdicts.take(pa.array(rows)))

    def reject(self, row: LogRow) -> None:
        self.first_reject = self.first_reject or row
        if self.rejects.count % _REJECTS_PER_DISK_CHECK == 0:
            require_disk_space(self._folder)
        self.rejects.write(msgspec.json.encode({"line": row.line, "reason": row.fault}) + b"\n")
        if self._max_rejects is not None and self.rejects.count > self._max_rejects:
            raise too_many_rejects(self._max_rejects, self.first_reject)

    def finish(self) -> None:
        self._writer.finish({})
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:
        # Without the error's message, which could hold parts of the log.
        print(f"an audit failed unexpectedly: {error_location(error)}", file=sys.stderr)
        code = 1
    sys.exit(code)
