"""The folder that holds the audits, one subfolder each: the log until it is audited, the results until they expire.

    <id>/            job.json, log, lock; progress.json while it runs; then outcome.json and the result files
    incoming-<id>/   a log that is being uploaded; the uploading server holds its lock
    gone-<id>/       a deleted or expired audit whose files are still to be removed

Names and file contents change in one step, so a process that is killed leaves nothing half done: either an audit to run
again, or remains for the next `sweep`. Any number of processes may serve one folder. Logs hold
personal data, so only the owner may read the folder. The ledger by default shares the disk: audits leave a reserve,
or a few kilobytes of compressed log whose every line is a reject could fill the disk.
Proved by tests/api/audits/test_folder.py and tests/api/audits/test_disk_space.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from api.audits.jobs import AuditOutcome, AuditStatus, Job, Progress
from ledger.entropy import random_bytes
from ledger.private_files import make_private_folder, open_private

RESERVE_BYTES: Final = 1 << 28
RESERVE_SHARE: Final = 10
"""Audits leave `RESERVE_BYTES` free, or a tenth of a small disk."""
LOG: Final = "log"
FINDINGS: Final = "findings.ndjson"
REJECTS: Final = "rejects.ndjson"
_JOB: Final = "job.json"
_PROGRESS: Final = "progress.json"
_OUTCOME: Final = "outcome.json"
_LOCK: Final = "lock"
_INCOMING: Final = "incoming-"
_GONE: Final = "gone-"
_ID: Final = re.compile(r"[0-9a-f]{32}")

Record = TypeVar("Record", Job, Progress, AuditOutcome)


class AuditFolder:
    """`origin`: of the ledger; audits of other ledgers in the same folder are left alone. `keep_us`: how long an audit
    is kept after it ended."""

    def __init__(self, path: Path, origin: str, keep_us: int) -> None:
        self.path = path
        self.keep_us = keep_us
        self._origin = origin

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A folder for a log that is uploaded within the block. It is removed afterwards unless `put` took it. Raises
        `OSError`."""
        make_private_folder(self.path)
        path = self.path / f"{_INCOMING}{random_bytes(16).hex()}"
        with ExitStack() as stack:
            with self._locked():
                make_private_folder(path, exist_ok=False)
                stack.callback(shutil.rmtree, path, ignore_errors=True)
                stack.enter_context(claim(path))
            yield path

    def put(self, incoming: Path, job: Job) -> None:
        """Turns the incoming folder into an audit, durably. Raises `OSError`."""
        write(incoming, job)
        _sync(incoming)
        incoming.rename(self.path / job.id)
        _sync(self.path)

    def ids(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.path) if _ID.fullmatch(name)]
        except FileNotFoundError:
            return []

    def path_of(self, id_: str) -> Path:
        return self.path / id_

    def status(self, id_: str, now: int) -> AuditStatus | None:
        """None if there is no such audit, or it has expired."""
        status = self._status(id_) if _ID.fullmatch(id_) is not None else None
        return None if status is None or self._expired(status, now) else status

    def _status(self, id_: str) -> AuditStatus | None:
        path = self.path / id_
        job = read(path, Job)
        if job is None or job.origin != self._origin:
            return None
        # Progress first: an audit may end between the two reads, but an ended one never runs again.
        progress = read(path, Progress)
        return AuditStatus(job=job, progress=progress, outcome=read(path, AuditOutcome))

    def _expired(self, status: AuditStatus, now: int) -> bool:
        return status.outcome is not None and now >= status.outcome.finished_at + self.keep_us

    def statuses(self, now: int) -> list[AuditStatus]:
        """Every audit, newest first."""
        statuses = [status for id_ in self.ids() if (status := self.status(id_, now)) is not None]
        return sorted(statuses, key=lambda status: (status.job.created_at, status.job.id), reverse=True)

    def waiting(self, now: int) -> list[Job]:
        """The audits that have not ended and that no process runs, oldest first."""
        unfinished = [status.job for status in reversed(self.statuses(now)) if status.outcome is None]
        return [job for job in unfinished if not _is_claimed(self.path_of(job.id))]

    def remove(self, id_: str) -> bool:
        """Removes the audit; its files go at the next `sweep`. False: there was no such audit. Raises `OSError`."""
        try:
            (self.path / id_).rename(self.path / f"{_GONE}{random_bytes(16).hex()}")
        except FileNotFoundError:
            return False
        _sync(self.path)
        return True

    def sweep(self, now: int) -> None:
        """Removes expired and deleted audits, and the remains of killed processes: incomplete uploads, and logs that
        were already audited."""
        for id_ in self.ids():
            status = self._status(id_)
            if status is None or status.outcome is None:
                continue
            if self._expired(status, now):
                self.remove(id_)
            else:
                (self.path_of(id_) / LOG).unlink(missing_ok=True)
        with suppress(FileNotFoundError), self._locked():
            for name in os.listdir(self.path):
                path = self.path / name
                if name.startswith(_GONE) or (name.startswith(_INCOMING) and not _is_claimed(path)):
                    shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps `sweep` away from a folder that was just created and is not yet claimed."""
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def read(folder: Path, kind: type[Record]) -> Record | None:
    """None if the record is absent or damaged. A power failure can damage a file, and one audit's must not block all
    others."""
    try:
        return msgspec.json.decode((folder / _NAMES[kind]).read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def write(folder: Path, record: Job | Progress | AuditOutcome) -> None:
    """Writes the record atomically and, except for progress, durably."""
    path = folder / _NAMES[type(record)]
    temporary = path.with_name(f".{path.name}")
    with open_private(temporary, "wb") as file:
        file.write(msgspec.json.encode(record))
        if not isinstance(record, Progress):
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if isinstance(record, AuditOutcome):
        _sync(folder)


def forget_progress(folder: Path) -> None:
    """Marks the audit as queued again after its process ended. Does nothing if it has an outcome, or another process
    runs it."""
    with suppress(AlreadyClaimed, FileNotFoundError), claim(folder):
        if read(folder, AuditOutcome) is None:
            (folder / _PROGRESS).unlink(missing_ok=True)


_NAMES: Final[dict[type[Job | Progress | AuditOutcome], str]] = {
    Job: _JOB,
    Progress: _PROGRESS,
    AuditOutcome: _OUTCOME,
}


class AlreadyClaimed(Exception):
    """Another process runs this audit."""


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Locks the folder for this process within the block; the lock ends with the process. Raises `AlreadyClaimed`."""
    with open_private(folder / _LOCK, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyClaimed from None
        yield


def _is_claimed(folder: Path) -> bool:
    try:
        with claim(folder):
            return False
    except (AlreadyClaimed, OSError):
        return True


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_disk_space(folder: Path, bytes_: int = 0) -> None:
    """Raises `OSError` (ENOSPC) unless the disk of `folder` has `bytes_` free beside the reserve."""
    disk = shutil.disk_usage(folder)
    if disk.free - bytes_ < min(RESERVE_BYTES, disk.total // RESERVE_SHARE):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
