"""Everything that the routes do with audits: accept a log, read status and results, delete."""

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

from api.audits.folder import FINDINGS, AuditFolder
from api.audits.jobs import AuditStatus, Job, status_json
from api.audits.paged_lines import read_page
from api.audits.scheduler import AuditScheduler
from api.audits.upload import StoredLog
from api.http.problems import RequestRefused
from api.responses import PAGE_BYTES
from ledger.entropy import random_bytes
from ledger.errors import BadInput
from ledger.store import Ledger
from projections.access.rights import Caller
from projections.audit.reading.layout import Layout
from projections.query.query import PinnedQuery, Query
from projections.temporal.coordinates import KnownAt

KEEP_HOURS: Final = 168
KEEP_HOURS_MAX: Final = 876_000
"""A hundred years, because the time of expiry must be a valid instant."""
BYTES_MAX: Final = 4 * 1024**3
UPLOADS_MAX: Final = 4
"""Uploads at once. Each may occupy the disk space of a log."""
COUNT_MAX: Final = 100
"""Audits that are kept at once. Each may occupy the disk space of a log."""
_HOUR_US: Final = 3_600_000_000
_DISK_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

_log = logging.getLogger("inforce.audits")

Result = TypeVar("Result")


class AuditSettings(NamedTuple):
    """`folder` None: beside the ledger's file, or in the user's state folder. `bytes_max`: of one log. `count_max`:
    audits that are kept at once."""

    folder: Path | None = None
    keep_hours: float = KEEP_HOURS
    bytes_max: int = BYTES_MAX
    count_max: int = COUNT_MAX


class AuditService:
    """`url`: of the ledger, for the processes that audit; None: they could not open it, so no audits are run. Raises
    `BadInput` for invalid settings."""

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
        self._scheduler = AuditScheduler(self._folder, url or "", self._ledger.clock.now)
        self.threads = ThreadPoolExecutor(UPLOADS_MAX, "inforce-receive")
        self._uploads = 0
        # Continues the audits that an earlier process left, and those of other servers of the folder.
        if url is not None:
            self._scheduler.start()

    @property
    def folder(self) -> Path:
        return self._folder.path

    def close(self) -> None:
        self._scheduler.close()
        self.threads.shutdown(wait=True, cancel_futures=True)

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[Path]:
        """A folder for a log that is uploaded within the block. Raises `RequestRefused` if none is accepted now."""
        self._require_engine()
        if self._uploads >= UPLOADS_MAX:
            raise RequestRefused("audits_full", f"the server is receiving {UPLOADS_MAX} logs, which is the limit")
        self._uploads += 1
        stack = ExitStack()
        try:
            with self.storage_problems():
                ids = await self._run(self._folder.ids)
                if len(ids) >= self._count_max:
                    detail = f"the server keeps {self._count_max} audits, which is the limit; delete one"
                    raise RequestRefused("audits_full", detail)
                path = await self._run(lambda: stack.enter_context(self._folder.incoming()))
            yield path
        finally:
            self._uploads -= 1
            await asyncio.shield(self._run(stack.close))

    @contextmanager
    def storage_problems(self) -> Iterator[None]:
        """Turns an `OSError` within the block into a problem for the operator. Raises `RequestRefused`."""
        try:
            yield
        except OSError as error:
            if error.errno in _DISK_FULL:
                detail = "the log does not fit on the server's disk; nothing of it was kept"
                raise RequestRefused("no_space", detail) from None
            _log.error("audits cannot be kept in %s: %s", self._folder.path, error.strerror)
            detail = "audits cannot be kept on this server; its log names the cause"
            raise RequestRefused("audits_unavailable", detail) from None

    def _require_engine(self) -> None:
        if self._url is None:
            detail = "no other process can open this server's ledger, so it cannot run audits"
            raise RequestRefused("audits_unavailable", detail)
        if any(find_spec(name) is None for name in ("pyarrow", "numpy")):
            detail = "this installation lacks packages of the audit; install inforce again, with all that it needs"
            raise RequestRefused("audits_unavailable", detail)

    def accept(
        self, incoming: Path, log: StoredLog, layout: Layout, known_at: KnownAt, max_rejects: int | None, owner: str
    ) -> AuditStatus:
        """Creates an audit of the received log, pinned to the ledger's head. Raises `RequestRefused` and the errors of
        the ledger."""
        pin = PinnedQuery(self._query).pinned
        job = Job(
            id=random_bytes(16).hex(),
            created_at=self._ledger.clock.now(),
            map=dict(layout.mapping.columns),
            set=dict(layout.mapping.constants),
            timezone=layout.forms.timezone,
            time_unit=layout.forms.time_unit,
            time_format=layout.forms.time_format,
            true=layout.forms.true,
            false=layout.forms.false,
            neither=layout.forms.neither,
            aliases=tuple((row.kind, row.name, row.id) for row in layout.forms.aliases.rows),
            happened=layout.forms.happened,
            log_format=layout.shape.log_format,
            delimiter=layout.shape.delimiter,
            rows=layout.shape.rows,
            sheet=layout.shape.sheet,
            known_at=known_at,
            max_rejects=max_rejects,
            owner=owner,
            **pin._asdict(),
            bytes=log.bytes,
            sha256=log.sha256,
        )
        with self.storage_problems():
            self._folder.put(incoming, job)
        self._scheduler.start()
        return AuditStatus(job=job, progress=None, outcome=None)

    def json(self, status: AuditStatus) -> dict[str, Any]:
        return status_json(status, self._folder.keep_us)

    def status(self, id_: str) -> AuditStatus:
        """Raises `RequestRefused`."""
        with self.storage_problems():
            status = self._folder.status(id_, self._ledger.clock.now())
        if status is None:
            raise _not_found()
        return status

    def statuses(self) -> list[AuditStatus]:
        """Raises `RequestRefused`."""
        with self.storage_problems():
            return self._folder.statuses(self._ledger.clock.now())

    def page(self, id_: str, name: str, after: int, limit: int) -> tuple[list[bytes], int | None]:
        """(lines after the first `after` of the result file `name`, `after` of the next page). Raises
        `RequestRefused`."""
        status = self.status(id_)
        outcome = status.outcome
        if outcome is None:
            raise RequestRefused("audit_not_done", f"the audit is {status.state}; ask again when it is done")
        if outcome.error is not None:
            raise RequestRefused("audit_not_done", "the audit failed and has no results; GET the audit for the cause")
        with self.storage_problems():
            try:
                lines = read_page(self._folder.path_of(id_) / name, after, limit, PAGE_BYTES)
            except FileNotFoundError:
                raise _not_found() from None
        end = after + len(lines)
        total = outcome.findings if name == FINDINGS else outcome.rejects
        return lines, end if end < total and lines else None

    def remove(self, id_: str, caller: Caller) -> None:
        """An operator removes every audit, another caller its own. Raises `RequestRefused`."""
        if self.status(id_).job.owner != caller.actor and not caller.has("operator"):
            detail = f"another principal sent this audit's log, and {caller.in_words()}"
            raise RequestRefused("forbidden", detail)
        with self.storage_problems():
            if not self._folder.remove(id_):
                raise _not_found()
        self._scheduler.start()

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)


def _not_found() -> RequestRefused:
    return RequestRefused("audit_not_found", "there is no such audit: it was deleted, has expired or never existed")


def default_folder(ledger: Ledger) -> Path:
    """Beside the ledger's file if it has one, else in the user's state folder (XDG)."""
    path = ledger.recorder.file
    if path is not None:
        return folder_beside(path)
    return state_folder() / hashlib.sha256(ledger.origin.encode()).hexdigest()[:32]


def folder_beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.audits")


def state_folder() -> Path:
    """The folder of the audits of ledgers that are no files."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "inforce" / "audits"
