"""The open ledger and what the routes ask of it, off the event loop.

Every question may wait for a database (a lock, a network, a catch-up after somebody else's import), so none is asked
on the event loop: there `GET /healthz` and every other connection would wait with it. Submissions have threads of
their own, so that writers who wait for a lock do not keep readers waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from ledger.drafts import Idempotency
from ledger.opening import open_ledger
from ledger.recorders.contract import Entry
from ledger.store import Ledger, Receipt
from ledger.submissions import Submission
from projections.query import Query
from projections.timelines import SubjectRow

READERS: Final = 4
WRITERS: Final = 8
READY_SECONDS_MAX: Final = 2.0
ANONYMOUS: Final = "anonymous"
"""The caller and the actor of everything, until authentication comes."""

Answer = TypeVar("Answer")


class Service:
    """One ledger, open. `close` ends the threads, and closes the ledger if it was opened here."""

    def __init__(self, ledger: Ledger, *, owns_ledger: bool) -> None:
        self.ledger = ledger
        self.query = Query(ledger)
        self._owns_ledger = owns_ledger
        self._recorded_at = ledger.head().recorded_at or 0
        self._readers = ThreadPoolExecutor(READERS, "inforce-read")
        self._writers = ThreadPoolExecutor(WRITERS, "inforce-write")
        self._probe = ThreadPoolExecutor(1, "inforce-probe")

    @classmethod
    def open(cls, source: str | Ledger) -> Service:
        """`source`: a database URL, where a ledger is begun if there is none, or an open ledger. Raises
        `InforceError`."""
        if isinstance(source, Ledger):
            return cls(source, owns_ledger=False)
        ledger = open_ledger(source, create=True)
        try:
            return cls(ledger, owns_ledger=True)
        except BaseException:
            ledger.close()
            raise

    def close(self) -> None:
        for pool in (self._writers, self._readers, self._probe):
            pool.shutdown(wait=True, cancel_futures=True)
        if self._owns_ledger:
            self.ledger.close()

    def now(self) -> int:
        """The present in µs, and never before what was recorded here: with a clock that stood still or stepped back, a
        question about now still sees the last acknowledged submission."""
        return max(self.ledger.clock.now(), self._recorded_at)

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """The answer to a question that writes nothing to the ledger."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, question)

    async def record(self, submission: Callable[[], Answer]) -> Answer:
        """The outcome of something that calls `submit`."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, submission)

    def submit(
        self, submissions: Sequence[Submission], idempotency: Idempotency | None, *, batch: bool = False
    ) -> tuple[Receipt, ...]:
        receipts = self.ledger.submit(submissions, actor=ANONYMOUS, idempotency=idempotency, batch=batch)
        self._recorded_at = max(self._recorded_at, receipts[-1].recorded_at)
        return receipts

    async def probe(self) -> int:
        """The ledger's head, read from the database now. Raises `TimeoutError` and `LedgerUnavailable`."""
        asked = asyncio.get_running_loop().run_in_executor(self._probe, self.ledger.head)
        return (await asyncio.wait_for(asked, READY_SECONDS_MAX)).position

    def feed(self, after: int, limit: int, subject: str | None) -> tuple[list[Entry], int, int]:
        """(entries behind position `after`, where to go on from, the ledger's head)."""
        head = self.ledger.head().position
        if subject is None:
            entries = self.ledger.page(after, limit, head)
        else:
            stream = self.ledger.stream(subject)
            entries = [entry for entry in stream if after < entry.position <= head][:limit]
        if len(entries) == limit:
            return entries, entries[-1].position, head
        return entries, max(after, head), head

    def subjects(
        self, kind: str | None, prefix: str | None, after: str | None, limit: int
    ) -> tuple[int, list[SubjectRow]]:
        """(position, subjects that have a history): see `TimelineStore.subjects`."""
        return self.query.subjects(kind, prefix, after, limit)
