"""The open ledger and the threads that read it for the routes.

Any question may wait: for a network, a disk, a lock, or a catch-up after another process's import. On the event loop,
`GET /healthz` and every other connection would wait with it, so questions run in threads. Only a check that needs
nothing but memory is answered on the event loop (see `api.routes.checks`). Submissions have a queue of their own
(`api.submit_queue`), so that writers that wait for a lock do not delay readers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from api.audits.service import AuditService, AuditSettings
from api.http.problems import RequestRefused
from api.readiness import Disk, LedgerFigures, ReadyBounds, disks, ledger_figures, low_disk
from api.responses import PAGE_BYTES
from api.submit_queue import SubmitQueue
from ledger.append.authority import Authority
from ledger.append.group_commit import GROUP_MAX
from ledger.append.submissions import DefineSetting, RetractChange, Submission, references
from ledger.codec import parse_leaf
from ledger.diagnosis import CLOCK_AHEAD_DAYS, clock_ahead_warning
from ledger.errors import InforceError, NotWritable, PositionNotReached
from ledger.follower import AT_LEAST_SECONDS_MAX
from ledger.opening import absolute_url, open_ledger, sqlite_path
from ledger.receipts import Receipt
from ledger.recorders.append_guard import CLOCK_BEHIND_MAX_S
from ledger.recorders.contract import Entry
from ledger.roles import RoleName
from ledger.store import Ledger
from ledger.times import parse_time
from ledger.transparency.checkpoint_memory import memory_of
from ledger.transparency.integrator import Integrator
from ledger.transparency.note import SigningKey
from ledger.transparency.published_log import PublishedLog
from ledger.transparency.publisher import LogPublisher
from ledger.verbatim import valid_entries
from projections.access.reach import reached_since
from projections.access.rights import Caller
from projections.access.sign_in import AccessIndex
from projections.access.uses import TokenUses
from projections.query.outlooks import EventOutlook, OutlookReader
from projections.query.query import Query
from projections.query.snapshots import ReadContext
from projections.timelines.turns import TurnNeeded, answer_beside_others

READERS: Final = 4
TURN_S_MAX: Final = 10.0
"""How long a question that needs much memory may wait for those before it."""
READY_SECONDS_MAX: Final = 2.0
PROOF_S_MAX: Final = 10.0
"""How long a submission with `wait=checkpoint` waits once it is recorded."""
WAITING_MAX: Final = 256
"""Clients that may wait for a position at once. Each holds its connection and nothing else."""

_log = logging.getLogger("inforce.api")

Result = TypeVar("Result")


class ClockBounds(NamedTuple):
    """Nothing is recorded while the clock is `behind_max_s` seconds behind the last event. A start with a clock that is
    `ahead_warn_days` ahead of it warns."""

    behind_max_s: float = CLOCK_BEHIND_MAX_S
    ahead_warn_days: float = CLOCK_AHEAD_DAYS


CLOCK_BOUNDS: Final = ClockBounds()
READY_BOUNDS: Final = ReadyBounds()


class Service:
    """One open ledger. `close` ends the threads, and closes the ledger if `open` opened it."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        owns_ledger: bool,
        url: str | None = None,
        audits: AuditSettings | None = None,
        ready_bounds: ReadyBounds = READY_BOUNDS,
    ) -> None:
        """`url`: where the processes that audit open the ledger again; None: no audits are run."""
        self.ledger = ledger
        self.query = Query(ledger)
        self.log = PublishedLog(ledger.recorder)
        self.log_publisher: LogPublisher | None = None
        """None: this process has no key, and neither integrates nor signs."""
        self.encode = msgspec.json.Encoder(enc_hook=self.query.large_values.read).encode
        """Of answers with large values."""
        self._uses = TokenUses(ledger)
        self._use_writer = ThreadPoolExecutor(1, "inforce-token-uses")
        self.access = AccessIndex(self.query, self._note_use)
        self._outlook_reader = OutlookReader(ledger)
        self.audits = AuditService(self.query, url, audits or AuditSettings())
        self.at_least_s_max = AT_LEAST_SECONDS_MAX
        self._url = url
        self._waiting = 0
        self._owns_ledger = owns_ledger
        self.submit_queue = SubmitQueue(ledger)
        self._readers = ThreadPoolExecutor(READERS, "inforce-read", answer_beside_others)
        self._turn = asyncio.Lock()
        self._large = ThreadPoolExecutor(1, "inforce-read-large")
        self._probe = ThreadPoolExecutor(1, "inforce-probe")
        self.ready_bounds = ready_bounds
        self._catching_up: Future[ReadContext] | None = None
        ledger.recorder.append_guard.on_change = _log_writability

    @classmethod
    def open(
        cls,
        source: str | Ledger,
        *,
        group_max: int = GROUP_MAX,
        audits: AuditSettings | None = None,
        must_exist: bool = False,
        clock_bounds: ClockBounds = CLOCK_BOUNDS,
        ready_bounds: ReadyBounds = READY_BOUNDS,
        signing_keys: Sequence[SigningKey] = (),
    ) -> Service:
        """`source`: a database URL, where a ledger is created if there is none, unless it `must_exist`; or an open
        ledger, for which no audits are run. `group_max`: the most submissions that share a commit, if `source` is a
        URL. `signing_keys`: sign the log's checkpoints; a new ledger gets their origin. Logs why nothing may be
        recorded, if so. Raises `InforceError`."""
        if isinstance(source, Ledger):
            return cls(source, owns_ledger=False)
        behind_max_s = clock_bounds.behind_max_s
        ledger = open_ledger(
            source,
            create=not must_exist,
            write=True,
            announce=_log.warning,
            clock_behind_max_s=behind_max_s,
            origin=signing_keys[0].verifier.name if signing_keys else None,
        )
        ledger.writer.group_max = group_max
        try:
            integrator = Integrator(ledger, signing_keys, memory_of(ledger)) if signing_keys else None
            service = cls(ledger, owns_ledger=True, url=absolute_url(source), audits=audits, ready_bounds=ready_bounds)
            with suppress(NotWritable):
                ledger.require_writable()
            if warning := clock_ahead_warning(ledger, clock_bounds.ahead_warn_days):
                _log.warning("%s", warning)
            # Last: its thread uses the ledger from now on.
            if integrator is not None:
                service.log_publisher = LogPublisher(ledger.recorder, integrator)
            return service
        except BaseException:
            ledger.close()
            raise

    def close(self) -> None:
        self.audits.close()
        if self.log_publisher is not None:
            self.log_publisher.close()
        self.submit_queue.close()
        self.access.close()
        self._use_writer.shutdown(wait=True)
        for pool in (self._readers, self._large, self._probe):
            pool.shutdown(wait=True, cancel_futures=True)
        if self._owns_ledger:
            self.ledger.close()

    @property
    def positions_awaited(self) -> int:
        """How many requests wait for a position."""
        return self._waiting

    def _note_use(self, token: str, day: int) -> None:
        # Apart from the threads that answer: the write waits for the database's lock.
        with suppress(RuntimeError):
            self._use_writer.submit(self._uses.note, token, day)

    def now(self) -> int:
        """The present in µs, never before the last event in the ledger. So a question about now sees the last
        acknowledged submission even if this machine's clock stood still or stepped back, or is behind that of another
        writer. Reads the database: call it in a question's thread."""
        return self.query.context().now

    async def wait_for_position(self, position: int, receive: Receive) -> None:
        """Returns once the ledger has reached `position`. Holds no thread while it waits. `receive`: of the request,
        whose body must have been read. Raises `PositionNotReached`, and `ClientDisconnect` if the client hung up."""
        follower = self.ledger.follower
        # An acknowledged submission is committed, so one read of the head suffices for it.
        if follower.position >= position or await self.ask(follower.refresh) >= position:
            return
        if self._waiting >= WAITING_MAX:
            raise PositionNotReached(position, follower.position)
        self._waiting += 1
        waiting = asyncio.create_task(follower.wait_for_async(position, self.at_least_s_max))
        leaving = asyncio.create_task(wait_for_disconnect(receive))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise ClientDisconnect
            waiting.result()
        finally:
            self._waiting -= 1
            for task in (waiting, leaving):
                task.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)

    async def ask(self, question: Callable[[], Result]) -> Result:
        """Runs `question`, which writes nothing to the ledger, in a thread and returns its result. A question about
        very many events is run again by `ask_large`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, question)
        except TurnNeeded:
            return await self.ask_large(question)

    async def ask_large(self, question: Callable[[], Result]) -> Result:
        """As `ask`, one question at a time: of those that need much memory. Raises `RequestRefused` if its turn does
        not come within `TURN_S_MAX`."""
        try:
            async with asyncio.timeout(TURN_S_MAX):
                await self._turn.acquire()
        except TimeoutError:
            detail = f"questions that need much memory are answered one at a time, and took {TURN_S_MAX:.0f} s"
            raise RequestRefused("server_busy", detail) from None
        running = asyncio.get_running_loop().run_in_executor(self._large, question)
        # Not when this call ends: a client that hangs up does not end the thread.
        running.add_done_callback(self._end_turn)
        return await asyncio.shield(running)

    def _end_turn(self, question: asyncio.Future[Any]) -> None:
        self._turn.release()
        if not question.cancelled():
            # Marks the error as retrieved: the caller may be gone.
            question.exception()

    async def probe(self) -> LedgerFigures:
        """The ledger's head, read from the database now, and how far the timelines are behind it. Raises
        `TimeoutError`, `LedgerUnavailable` and, where nothing may be recorded, `NotWritable`; `RequestRefused` beyond
        `ready_bounds`."""
        figures = await self.in_probe(self._ready)
        if figures.lag > self.ready_bounds.lag_max:
            self._catch_up()
            detail = f"{figures.lag} events are not in the stored timelines yet, more than {self.ready_bounds.lag_max}"
            members = {"lag": figures.lag, "lag_max": self.ready_bounds.lag_max, "position": figures.position}
            raise RequestRefused("timelines_behind", detail, members=members)
        return figures

    async def in_probe(self, question: Callable[[], Result]) -> Result:
        """Runs a short question in the thread of health checks. Raises `TimeoutError`."""
        result = asyncio.get_running_loop().run_in_executor(self._probe, question)
        return await asyncio.wait_for(result, READY_SECONDS_MAX)

    def _ready(self) -> LedgerFigures:
        self.ledger.require_writable()
        disk = low_disk(self.disks(), self.ready_bounds.disk_free_min)
        if disk is not None:
            least = disk.least(self.ready_bounds.disk_free_min)
            detail = f"the disk of the {disk.place} has {disk.free} bytes free, and must have {least}"
            members: dict[str, int | str] = {"place": disk.place, "free_bytes": disk.free, "free_bytes_min": least}
            raise RequestRefused("disk_low", detail, members=members)
        return self.figures()

    def figures(self) -> LedgerFigures:
        """Reads the database. Raises `LedgerUnavailable`."""
        return ledger_figures(self.ledger, self.query.store)

    def disks(self) -> list[Disk]:
        """Of everything that this server writes to."""
        file = self.ledger.recorder.file
        is_written = file is not None and (self._url is None or not sqlite_path(self._url)[1])
        return disks(file if is_written else None, self.audits.folder)

    def _catch_up(self) -> None:
        """Brings the timelines up to the ledger, in a thread: questions would, and a server that is not ready gets
        none."""
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = self._large.submit(self.query.context)

    async def authority(self, caller: Caller, submissions: Sequence[Submission]) -> Authority | None:
        """The caller's right to record these; None: to everything. Raises `LedgerUnavailable` and `LedgerCorrupt`."""
        if caller.unlimited or caller.has("operator"):
            return caller.authority({})
        return await self.ask(lambda: caller.authority(self._reached(caller, submissions)))

    def _reached(self, caller: Caller, submissions: Sequence[Submission]) -> Mapping[str, frozenset[RoleName]]:
        context = self.query.context()
        starts = dict.fromkeys(references(submissions), context.now)
        for submission in submissions:
            if isinstance(submission, DefineSetting):
                continue
            if isinstance(submission, RetractChange):
                entry = self.ledger.find(submission.event_id)
                if entry is None:
                    continue
                text = parse_leaf(entry.leaf).data.effective_from
                subject, start = entry.subject, parse_time(text) if isinstance(text, str) else None
            else:
                subject, start = submission.subject, submission.effective_from
            starts[subject] = min(starts.get(subject, context.now), context.now if start is None else start)
        return reached_since(caller, context, starts)

    async def outlooks(
        self, submissions: Sequence[Submission], receipts: Sequence[Receipt]
    ) -> tuple[EventOutlook, ...]:
        """The outlooks of recorded submissions, in the order of the receipts. Raises no `InforceError`: the submissions
        are recorded, whatever can be read now."""
        outlooks = self._outlook_reader.nowait(submissions, receipts)
        if outlooks is None:
            outlooks = await self.ask(lambda: self._outlook_reader.read_or_warn(submissions, receipts))
        return outlooks

    def require_log(self) -> None:
        """Raises `RequestRefused` unless checkpoints are published."""
        if self.log_publisher is None:
            raise RequestRefused("log_not_signed", "this server has no signing key, so nothing was recorded")

    async def proofs(self, positions: Sequence[int]) -> list[bytes] | None:
        """The tlog-proofs of recorded events, once they are under a published checkpoint; None: they are not within
        `PROOF_S_MAX`, or the log cannot be read. Raises no `InforceError`: the events are recorded."""
        publisher = self.log_publisher
        if publisher is None or not await publisher.wait_for_async(max(positions), PROOF_S_MAX):
            return None
        try:
            return await self.ask(lambda: self.log.proofs(positions))
        except InforceError as error:
            _log.warning("the proofs of recorded events could not be made: %s", error)
            return None

    def feed(self, after: int, limit: int, subject: str | None) -> tuple[list[Entry], int, int]:
        """(entries after position `after`, `after` of the next page, the ledger's head). Raises `LedgerCorrupt`,
        which names the position, if an entry is damaged, and `AheadOfLedger` if the ledger ends before `after`."""
        head = self.ledger.require_reached(after)
        if subject is None:
            entries = self.ledger.page(after, limit, head, PAGE_BYTES)
        else:
            entries = self.ledger.subject_page(subject, after, limit, head, PAGE_BYTES)
        entries = list(valid_entries(entries))
        if len(entries) == limit or sum(len(entry.leaf) for entry in entries) >= PAGE_BYTES:
            return entries, entries[-1].position, head
        return entries, max(after, head), head


def _log_writability(problem: NotWritable | None) -> None:
    if problem is None:
        _log.warning("the ledger records again")
    else:
        _log.critical("%s: %s", problem.code, problem.detail)


async def wait_for_disconnect(receive: Receive) -> None:
    """Returns when the client has hung up. Drops every other message, so the body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
