"""The process that runs one audit: `python -m api.audits.worker_process FOLDER`, the ledger's URL on standard input.

It ends with whoever holds the other end of that: an audit that nobody waits for is begun again by the next server.
Proved by tests/api/audits/test_scheduler.py.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa

from api.audits.disk_space import require_disk_space
from api.audits.folder import FINDINGS, LOG, REJECTS, Claimed, claim, read, write
from api.audits.jobs import AuditOutcome, Failure, Job, Progress
from api.audits.paged_lines import PLACES, PagedLines
from api.http.problems import error_location
from ledger.errors import BadInput, BadRecord, LedgerCorrupt, LedgerUnavailable
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.audit.counting import against
from projections.audit.index.pin import pin_of
from projections.audit.numba_support import AVAILABLE, MISSING
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.files import LogFile
from projections.audit.reading.logs import LogReader
from projections.audit.reading.strict import LogRow
from projections.audit.run import by_kernel, hold_little, run
from projections.audit.summary import Summary, pin_json, summary_json
from projections.audit.verdict_files import VerdictWriter

DONE: Final = 0
UNAVAILABLE: Final = 3
TAKEN: Final = 4
"""Exit codes: there is an outcome; the ledger cannot be asked now; another process has this audit in hand."""
SUBJECTS_SHOWN: Final = 100
NICE: Final = 10
_TELL_S: Final = 0.5
_LOOK_ROWS: Final = 10_000
"""Rejects after which it is looked whether the disk has room for more."""
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


def main() -> int:
    folder = Path(sys.argv[1]).absolute()
    url = sys.stdin.buffer.readline().decode().rstrip("\n")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Whoever asks the server for a decision goes first, in time and in memory.
    os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    hold_little()
    try:
        with claim(folder):
            # What a log is called is told in its verdicts.
            os.chdir(folder)
            return _settle(folder, url)
    except Claimed:
        return TAKEN
    except FileNotFoundError:
        if folder.exists():
            raise
        # It was deleted meanwhile.
        return DONE


def _end_with_parent() -> None:
    # Not through `sys.stdin`: its lock, held here, would be the end of an interpreter that shuts down.
    while os.read(0, 1):
        pass
    os._exit(UNAVAILABLE)


def _settle(folder: Path, url: str) -> int:
    job = read(folder, Job)
    if job is None or read(folder, AuditOutcome) is not None:
        return DONE
    write(folder, Progress())
    if not AVAILABLE:
        print(f"audit {job.id}: {MISSING}", file=sys.stderr)
    try:
        with open_ledger(url) as ledger:
            write(folder, outcome_of(ledger, folder, job))
    except LedgerUnavailable as error:
        print(f"audit {job.id} waits: {error.code}: {error.detail}", file=sys.stderr)
        return UNAVAILABLE
    (folder / LOG).unlink(missing_ok=True)
    return DONE


def outcome_of(ledger: Ledger, folder: Path, job: Job) -> AuditOutcome:
    """Raises `LedgerUnavailable`: it may be asked another time."""
    try:
        return _audit(ledger, folder, job)
    except (BadInput, LedgerCorrupt) as error:
        return _failed(ledger, error.code, error.detail)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _forget(folder)
        return _failed(ledger, "no_space", "the findings do not fit on the server's disk; none were kept")


def _failed(ledger: Ledger, code: str, detail: str) -> AuditOutcome:
    return AuditOutcome(finished_at=ledger.clock.now(), error=Failure(code=code, detail=detail))


def _forget(folder: Path) -> None:
    for name in (FINDINGS, REJECTS):
        for file in (name, name + PLACES):
            (folder / file).unlink(missing_ok=True)


def _audit(ledger: Ledger, folder: Path, job: Job) -> AuditOutcome:
    head = ledger.head().position
    if head < job.position or pin_of(ledger, job.position) != job.pin:
        detail = (
            f"the audit rests on the event at position {job.position}, and the ledger, at position {head} now, "
            "has another one there or none: perhaps it was restored from a backup; send the log again"
        )
        return _failed(ledger, "ledger_changed", detail)
    how = job.layout()
    logs = LogReader([LogFile(LOG, job.bytes, how.mapping)], how.log_format)
    summary = Summary(job.pin, job.known_at)
    told = time.monotonic()

    def tell(rows: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL_S:
            told = time.monotonic()
            write(folder, Progress(rows=rows, bytes_read=logs.bytes_read))

    with ExitStack() as stack:
        kept = _Kept(stack, folder, job.max_rejects)
        run(logs, by_kernel(ledger, job.pin, job.known_at), summary, takers=[kept], progress=tell)
        kept.finish()
    if logs.digest != job.sha256:
        return _failed(ledger, "log_damaged", "the log on the server's disk is not what was received; send it again")
    write(folder, Progress(rows=summary.rows, bytes_read=job.bytes))
    return AuditOutcome(
        finished_at=ledger.clock.now(),
        findings=kept.findings.count,
        rejects=kept.rejects.count,
        summary=_shown(summary),
        warnings=tuple(logs.warnings),
    )


def _shown(summary: Summary) -> dict[str, Any]:
    """What is not said elsewhere of the audit, with as many subjects as may be read at every asking."""
    written = summary_json(summary)
    shown = {name: value for name, value in written.items() if name not in pin_json(summary)}
    return shown | {"subjects": written["subjects"][:SUBJECTS_SHOWN]}


class _Kept:
    """The rows that speak against requests, and those that cannot be read, in files to be read a page at a time."""

    def __init__(self, stack: ExitStack, folder: Path, max_rejects: int | None) -> None:
        self._folder = folder
        self._files: list[BinaryIO] = []

        def opened(name: str) -> PagedLines:
            pair = [stack.enter_context((folder / file).open("wb")) for file in (name, name + PLACES)]
            self._files += pair
            return PagedLines(*pair)

        self.findings = opened(FINDINGS)
        self.rejects = opened(REJECTS)
        self._max_rejects = max_rejects
        self._writer = VerdictWriter(self.findings, "ndjson")

    def take(self, part: LogBatch, verdicts: Any) -> None:
        require_disk_space(self._folder)
        rows = against(verdicts)
        self._writer.take(part.source, part.lines[rows], verdicts.take(pa.array(rows)))

    def reject(self, row: LogRow) -> None:
        if self.rejects.count % _LOOK_ROWS == 0:
            require_disk_space(self._folder)
        self.rejects.write(msgspec.json.encode({"line": row.line, "reason": row.fault}) + b"\n")
        if self._max_rejects is not None and self.rejects.count > self._max_rejects:
            raise BadRecord(
                f"more than {self._max_rejects} lines cannot be read, the last of them line {row.line}: {row.fault}"
            )

    def finish(self) -> None:
        self._writer.finish({})
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:
        # Never its message, which could hold what is in the log.
        print(f"an audit failed unexpectedly: {error_location(error)}", file=sys.stderr)
        code = 1
    sys.exit(code)
