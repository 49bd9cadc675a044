"""Where audits lie: a folder each, with the log until it has been audited, and what came of it until it expires.

    <id>/            job.json, log, lock; progress.json while it runs; then outcome.json, findings.ndjson and so on
    incoming-<id>/   a log that is being received, its lock held by who receives it
    gone-<id>/       what was deleted or has expired, until its files are gone, too

A name changes in one step, and a file's content too, so a process that ends at any moment leaves nothing half-done:
what it left is an audit to be run again, or rubbish to be swept away by the next one. Any number of processes may serve
one folder. Logs are somebody's data: only their owner may read them. Proved by tests/api/audits/test_folder.py.
"""

from __future__ import annotations

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
from ledger.entropy import fresh

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
    """`origin`: of the ledger whose audits these are; those of others in the same folder are left alone. `keep_us`: so
    long what came of an audit is kept, from when it ended."""

    def __init__(self, path: Path, origin: str, keep_us: int) -> None:
        self.path = path
        self.keep_us = keep_us
        self._origin = origin

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A folder for a log that is received within the block, gone with it unless it was `put`. Raises `OSError`."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path / f"{_INCOMING}{fresh(16).hex()}"
        with ExitStack() as stack:
            with self._alone():
                path.mkdir(mode=0o700)
                stack.callback(shutil.rmtree, path, ignore_errors=True)
                stack.enter_context(claim(path))
            yield path

    def put(self, incoming: Path, job: Job) -> None:
        """From now on there is this audit, whatever becomes of this process. Raises `OSError`."""
        write(incoming, job)
        _sync(incoming)
        incoming.rename(self.path / job.id)
        _sync(self.path)

    def ids(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.path) if _ID.fullmatch(name)]
        except FileNotFoundError:
            return []

    def of(self, id_: str) -> Path:
        return self.path / id_

    def view(self, id_: str, now: int) -> AuditStatus | None:
        """None: there is no such audit, or it has expired."""
        view = self._view(id_) if _ID.fullmatch(id_) is not None else None
        return None if view is None or self._expired(view, now) else view

    def _view(self, id_: str) -> AuditStatus | None:
        path = self.path / id_
        job = read(path, Job)
        if job is None or job.origin != self._origin:
            return None
        # In this order: what was running when its progress was read may have ended since, and not the other way round.
        progress = read(path, Progress)
        return AuditStatus(job=job, progress=progress, outcome=read(path, AuditOutcome))

    def _expired(self, view: AuditStatus, now: int) -> bool:
        return view.outcome is not None and now >= view.outcome.finished_at + self.keep_us

    def views(self, now: int) -> list[AuditStatus]:
        """Every audit, the newest first."""
        found = [view for id_ in self.ids() if (view := self.view(id_, now)) is not None]
        return sorted(found, key=lambda view: (view.job.created_at, view.job.id), reverse=True)

    def waiting(self, now: int) -> list[Job]:
        """What has not ended and nobody has in hand, the oldest first."""
        left = [view.job for view in reversed(self.views(now)) if view.outcome is None]
        return [job for job in left if not _is_claimed(self.of(job.id))]

    def remove(self, id_: str) -> bool:
        """Whether there was such an audit; there is none now. Its files go at the next `sweep`. Raises `OSError`."""
        try:
            (self.path / id_).rename(self.path / f"{_GONE}{fresh(16).hex()}")
        except FileNotFoundError:
            return False
        _sync(self.path)
        return True

    def sweep(self, now: int) -> None:
        """Removes what has expired, what was deleted, and what somebody who was cut off had left behind: a log that was
        being received, or one that had just been audited."""
        for id_ in self.ids():
            view = self._view(id_)
            if view is None or view.outcome is None:
                continue
            if self._expired(view, now):
                self.remove(id_)
            else:
                (self.of(id_) / LOG).unlink(missing_ok=True)
        with suppress(FileNotFoundError), self._alone():
            for name in os.listdir(self.path):
                path = self.path / name
                if name.startswith(_GONE) or (name.startswith(_INCOMING) and not _is_claimed(path)):
                    shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """What is made within the block is not yet claimed, or no longer, and nobody else sees it so."""
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def read(folder: Path, kind: type[Record]) -> Record | None:
    """None: there is none, or nothing that can be read, as a machine leaves it that lost its power: one audit's must
    not stand in the way of all others."""
    try:
        return msgspec.json.decode((folder / _NAMES[kind]).read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def write(folder: Path, record: Job | Progress | AuditOutcome) -> None:
    """Whole or not at all. What says how far an audit is may be lost with the machine; nothing else may."""
    path = folder / _NAMES[type(record)]
    beside = path.with_name(f".{path.name}")
    with beside.open("wb") as file:
        file.write(msgspec.json.encode(record))
        if not isinstance(record, Progress):
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)
    if isinstance(record, AuditOutcome):
        _sync(folder)


def forget_progress(folder: Path) -> None:
    """Its process has ended, and it waits for its turn again: unless that was not so, or another has begun it since."""
    with suppress(Claimed, FileNotFoundError), claim(folder):
        if read(folder, AuditOutcome) is None:
            (folder / _PROGRESS).unlink(missing_ok=True)


_NAMES: Final[dict[type[Job | Progress | AuditOutcome], str]] = {Job: _JOB, Progress: _PROGRESS, AuditOutcome: _OUTCOME}


class Claimed(Exception):
    """Another process has this audit in hand."""


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Nobody else holds this folder within the block: a lock that ends with its process. Raises `Claimed`."""
    with (folder / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Claimed from None
        yield


def _is_claimed(folder: Path) -> bool:
    try:
        with claim(folder):
            return False
    except (Claimed, OSError):
        return True


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
