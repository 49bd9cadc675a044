"""What the routes ask of audits: whether one can be taken, taking it, how it stands, its lines, and forgetting it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from api.audits.folder import FINDINGS, LOG, AuditFolder
from api.audits.jobs import AuditStatus, Job, status_json
from api.audits.paged_lines import read_page
from api.audits.scheduler import AuditScheduler
from api.audits.upload import StoredLog
from api.http.problems import RequestRefused
from ledger.entropy import fresh
from ledger.errors import BadInput
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import Ledger
from projections.audit.reading.layout import Layout
from projections.query.pinned import PinnedQuery
from projections.query.query import Query
from projections.temporal.coordinates import KnownAt

KEEP_HOURS: Final = 168
KEEP_HOURS_MAX: Final = 876_000
"""A hundred years: when something expires has to be an instant that can be written down."""
BYTES_MAX: Final = 4 * 1024**3
UPLOADS_MAX: Final = 4
COUNT_MAX: Final = 100
"""Logs that are received at once, and audits that are kept at once: each may hold the disk space of a log."""
_HOUR_US: Final = 3_600_000_000
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

_log = logging.getLogger("inforce.audits")

Answer = TypeVar("Answer")


class AuditSettings(NamedTuple):
    """`folder` None: beside the ledger's file, or in the user's folder for such things. `bytes_max`: of one log.
    `count_max`: audits that are kept at once."""

    folder: Path | None = None
    keep_hours: float = KEEP_HOURS
    bytes_max: int = BYTES_MAX
    count_max: int = COUNT_MAX


class AuditService:
    """`url`: of the ledger, for the processes that audit; None: it is in no place that these could open. Raises
    `BadInput` for settings that cannot be had."""

    def __init__(self, query: Query, url: str | None, settings: AuditSettings) -> None:
        if not 0 < settings.keep_hours <= KEEP_HOURS_MAX:
            raise BadInput(f"audits are kept for more than 0 and at most {KEEP_HOURS_MAX:,} hours")
        self.bytes_max = settings.bytes_max
        self._count_max = settings.count_max
        self._query = query
        self._ledger = query.ledger
        self._url = url
        self._folder = AuditFolder(
            settings.folder or default_folder(query.ledger),
            query.ledger.origin,
            round(settings.keep_hours * _HOUR_US),
        )
        self._processes = AuditScheduler(self._folder, url or "", self._ledger.clock.now)
        self.threads = ThreadPoolExecutor(UPLOADS_MAX, "inforce-receive")
        self._uploads = 0
        # What an earlier process left to do, and what others who serve the same folder may leave.
        if url is not None:
            self._processes.start()

    def close(self) -> None:
        self._processes.close()
        self.threads.shutdown(wait=True, cancel_futures=True)

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[Path]:
        """A folder for a log that is received within the block. Raises `RequestRefused` where none can be taken now."""
        self._need_engine()
        if self._uploads >= UPLOADS_MAX:
            raise RequestRefused(
                "audits_full", f"{UPLOADS_MAX} logs are being received at this moment, and no more are taken"
            )
        self._uploads += 1
        stack = ExitStack()
        try:
            with self.keeping():
                kept = await self._ask(self._folder.ids)
                if len(kept) >= self._count_max:
                    raise RequestRefused(
                        "audits_full", f"{self._count_max} audits are kept here, and no more; delete one"
                    )
                path = await self._ask(lambda: stack.enter_context(self._folder.incoming()))
            yield path
        finally:
            self._uploads -= 1
            await asyncio.shield(self._ask(stack.close))

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Whatever is wrong with folder or disk within the block is the operator's to mend. Raises `RequestRefused`."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                detail = "the log does not fit on the server's disk; nothing of it was kept"
                raise RequestRefused("no_space", detail) from None
            _log.error("audits cannot be kept in %s: %s", self._folder.path, error.strerror)
            raise RequestRefused(
                "audits_unavailable", "audits cannot be kept on this server; its log says why"
            ) from None

    def _need_engine(self) -> None:
        if self._url is None:
            raise RequestRefused("audits_unavailable", "this server's ledger is in no place that an audit could open")
        if any(find_spec(name) is None for name in ("pyarrow", "numpy")):
            raise RequestRefused(
                "audits_unavailable", "this installation has no audit engine: it is the extra inforce[audit]"
            )

    def accept(
        self, incoming: Path, received: StoredLog, how: Layout, known_at: KnownAt, max_rejects: int | None
    ) -> AuditStatus:
        """Takes the log that was received, pinned to what is recorded now. Raises `RequestRefused`, and the
        errors of the ledger."""
        pin = PinnedQuery(self._query).pinned
        job = Job(
            id=fresh(16).hex(),
            created_at=self._ledger.clock.now(),
            map=dict(how.mapping.columns),
            set=dict(how.mapping.constants),
            timezone=how.timezone,
            log_format=how.log_format,
            known_at=known_at,
            max_rejects=max_rejects,
            **pin._asdict(),
            bytes=received.bytes,
            sha256=received.sha256,
        )
        with self.keeping():
            self._folder.put(incoming, job)
        self._processes.start()
        return AuditStatus(job=job, progress=None, outcome=None)

    def json(self, view: AuditStatus) -> dict[str, Any]:
        return status_json(view, self._folder.keep_us)

    def view(self, id_: str) -> AuditStatus:
        """Raises `RequestRefused`."""
        with self.keeping():
            view = self._folder.view(id_, self._ledger.clock.now())
        if view is None:
            raise _not_found()
        return view

    def views(self) -> list[AuditStatus]:
        """Raises `RequestRefused`."""
        with self.keeping():
            return self._folder.views(self._ledger.clock.now())

    def page(self, id_: str, name: str, after: int, limit: int) -> tuple[list[bytes], int | None]:
        """(lines `after` + 1 … of a file of a finished audit, `after` of the next page). Raises `RequestRefused`."""
        view = self.view(id_)
        outcome = view.outcome
        if outcome is None:
            raise RequestRefused("audit_not_done", f"the audit is {view.state}; ask again when it is done")
        if outcome.error is not None:
            raise RequestRefused(
                "audit_not_done", "the audit has failed, and found nothing; GET the audit to learn why"
            )
        with self.keeping():
            try:
                lines = read_page(self._folder.of(id_) / name, after, limit)
            except FileNotFoundError:
                raise _not_found() from None
        end = after + len(lines)
        total = outcome.findings if name == FINDINGS else outcome.rejects
        return lines, end if end < total and lines else None

    def remove(self, id_: str) -> None:
        """Raises `RequestRefused`."""
        self.view(id_)
        with self.keeping():
            removed = self._folder.remove(id_)
        if not removed:
            raise _not_found()
        self._processes.start()

    async def _ask(self, question: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self.threads, question)


def _not_found() -> RequestRefused:
    return RequestRefused("audit_not_found", "there is no such audit here: it was deleted, has expired or never was")


def log_of(incoming: Path) -> Path:
    return incoming / LOG


def default_folder(ledger: Ledger) -> Path:
    """Beside the ledger's file, or else where programs keep what they have to do."""
    if isinstance(ledger.recorder, SQLiteLedgerRecorder):
        path = Path(ledger.recorder.datastore.path)
        return path.with_name(f"{path.name}.audits")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "inforce" / "audits" / hashlib.sha256(ledger.origin.encode()).hexdigest()[:32]
