"""The open ledger and what the routes ask of it, off the event loop.

Every question may wait for a database (a network, a disk, a catch-up after somebody else's import), so whatever may
wait is asked in a thread: on the event loop `GET /healthz` and every other connection would wait with it. Only a check
that memory answers without waiting for anything is answered there (see `routes.checks`). Submissions have a way of
their own (`submit_queue`), so that writers who wait for a lock do not keep readers waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from api.audits.service import AuditService, AuditSettings
from api.submit_queue import SubmitQueue
from ledger.append.group_commit import GROUP_MAX
from ledger.errors import PositionNotReached
from ledger.following import AT_LEAST_SECONDS_MAX
from ledger.opening import absolute_url, open_ledger
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.verbatim import exact
from projections.query.query import Query
from projections.timelines.store import SubjectRow

READERS: Final = 4
READY_SECONDS_MAX: Final = 2.0
WAITING_MAX: Final = 256
"""So many callers may wait for a position at once; each holds its connection and nothing else."""
ANONYMOUS: Final = "anonymous"
"""The caller and the actor of everything, until authentication comes."""

Answer = TypeVar("Answer")


class Service:
    """One ledger, open. `close` ends the threads, and closes the ledger if it was opened here."""

    def __init__(
        self, ledger: Ledger, *, owns_ledger: bool, url: str | None = None, audits: AuditSettings | None = None
    ) -> None:
        """`url`: where the ledger can be opened again, by the processes that audit; None: nowhere."""
        self.ledger = ledger
        self.query = Query(ledger)
        self.audits = AuditService(self.query, url, audits or AuditSettings())
        self.at_least_s_max = AT_LEAST_SECONDS_MAX
        self._waiting = 0
        self._owns_ledger = owns_ledger
        self.submit_queue = SubmitQueue(ledger, ANONYMOUS)
        self._readers = ThreadPoolExecutor(READERS, "inforce-read")
        self._probe = ThreadPoolExecutor(1, "inforce-probe")

    @classmethod
    def open(cls, source: str | Ledger, *, group_max: int = GROUP_MAX, audits: AuditSettings | None = None) -> Service:
        """`source`: a database URL, where a ledger is begun if there is none, or an open ledger, of which no audits are
        run. `group_max`: so many submissions share a commit at most, where it is opened here. Raises
        `InforceError`."""
        if isinstance(source, Ledger):
            return cls(source, owns_ledger=False)
        ledger = open_ledger(source, create=True)
        ledger.writer.group_max = group_max
        try:
            return cls(ledger, owns_ledger=True, url=absolute_url(source), audits=audits)
        except BaseException:
            ledger.close()
            raise

    def close(self) -> None:
        self.audits.close()
        self.submit_queue.close()
        for pool in (self._readers, self._probe):
            pool.shutdown(wait=True, cancel_futures=True)
        if self._owns_ledger:
            self.ledger.close()

    def now(self) -> int:
        """The present in µs, having looked at the ledger: never before what is recorded there. With a clock that stood
        still or stepped back, and beside others whose clocks are ahead, a question about now still sees the last
        acknowledged submission. For a question's own thread."""
        return self.query.moment().now

    async def wait_for_position(self, position: int, receive: Receive) -> None:
        """Returns once the ledger has reached `position`, without holding a thread. `receive`: the caller's, whose body
        was read before. Raises `PositionNotReached`, and `ClientDisconnect` where the caller hung up."""
        follower = self.ledger.follower
        # What an acknowledged write needs: it is committed, so one look finds it.
        if follower.position >= position or await self.ask(follower.look) >= position:
            return
        if self._waiting >= WAITING_MAX:
            raise PositionNotReached(position, follower.position)
        self._waiting += 1
        waiting = asyncio.create_task(follower.reached(position, self.at_least_s_max))
        leaving = asyncio.create_task(hung_up(receive))
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

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """The answer to a question that writes nothing to the ledger."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, question)

    async def probe(self) -> int:
        """The ledger's head, read from the database now. Raises `TimeoutError` and `LedgerUnavailable`."""
        asked = asyncio.get_running_loop().run_in_executor(self._probe, self.ledger.head)
        return (await asyncio.wait_for(asked, READY_SECONDS_MAX)).position

    def feed(self, after: int, limit: int, subject: str | None) -> tuple[list[Entry], int, int]:
        """(entries behind position `after`, where to go on from, the ledger's head). Raises `LedgerCorrupt`, naming the
        position, where one of them cannot be handed out."""
        head = self.ledger.head().position
        if subject is None:
            entries = self.ledger.page(after, limit, head)
        else:
            entries = self.ledger.subject_page(subject, after, limit, head)
        entries = list(exact(entries))
        if len(entries) == limit:
            return entries, entries[-1].position, head
        return entries, max(after, head), head

    def subjects(
        self, kind: str | None, prefix: str | None, after: str | None, limit: int
    ) -> tuple[int, list[SubjectRow]]:
        """(position, subjects that have a history): see `TimelineStore.subjects`."""
        return self.query.subjects(kind, prefix, after, limit)


async def hung_up(receive: Receive) -> None:
    """Returns when the caller has hung up. Whatever else comes is dropped, so the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
