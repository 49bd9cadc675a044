"""How submissions come to the ledger's writer: without a thread each, and within bounds.

A body is read and decided off the event loop where it is large; a small one costs less than the way to a thread and
back. Then it waits for the writer, which commits whatever waits as one group and tells the event loop once for all of
them. What waits, and what is still being read, is bounded in bytes: more is refused before its body is read.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from ledger import strict_json
from ledger.append.group_commit import QueuedSubmission
from ledger.append.submissions import Submission, canonical_json, parse_submissions
from ledger.drafts import Idempotency
from ledger.errors import LedgerBusy
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.strict_json import MAX_BYTES

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of bodies of submissions, from the first byte that is read until the answer."""
SMALL_BYTES: Final = 4096
"""A body of so many bytes is read on the event loop: some 50 µs."""


class _Read(NamedTuple):
    submissions: tuple[Submission, ...]
    idempotency: Idempotency | None
    batch: bool


class SubmitQueue:
    def __init__(self, ledger: Ledger, caller: str) -> None:
        """`caller`: who submits, and whose idempotency keys they are."""
        self._ledger = ledger
        self._caller = caller
        self._held = 0
        self._tellers: WeakKeyDictionary[asyncio.AbstractEventLoop, CompletionNotifier] = WeakKeyDictionary()
        self._reading = ThreadPoolExecutor(1, "inforce-read-body")

    def close(self) -> None:
        self._reading.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def reserve_memory(self, bytes_: int) -> Iterator[None]:
        """Memory for a body that is about to be read, until it is answered. Raises `LedgerBusy`."""
        if self._held + bytes_ > HELD_BYTES_MAX or not self._ledger.writer.room_for(bytes_):
            raise LedgerBusy(self._ledger.writer.waiting)
        self._held += bytes_
        try:
            yield
        finally:
            self._held -= bytes_

    async def submit(self, sent: bytes, key: str | None) -> tuple[Receipt, ...]:
        """Raises what reading the body raises, and what `Ledger.submit` does."""
        loop = asyncio.get_running_loop()
        if len(sent) <= SMALL_BYTES:
            read = _read(sent, key, self._caller)
        else:
            read = await loop.run_in_executor(self._reading, _read, sent, key, self._caller)
        teller = self._tellers.get(loop)
        if teller is None:
            teller = self._tellers[loop] = CompletionNotifier(loop)
        queued = self._ledger.enqueue(
            read.submissions,
            actor=self._caller,
            told=teller.told,
            bytes_=len(sent),
            idempotency=read.idempotency,
            batch=read.batch,
        )
        await teller.until(queued)
        return queued.outcome()


class CompletionNotifier:
    """Wakes the requests of one event loop, all of a group at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[QueuedSubmission, asyncio.Future[None]] = {}

    async def until(self, queued: QueuedSubmission) -> None:
        """Returns when it is settled. To be called before the loop gets to run anything else."""
        future = self._waiting[queued] = self._loop.create_future()
        await future

    def told(self, settled: Sequence[QueuedSubmission]) -> None:
        # Where the loop has ended nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake, settled)

    def _wake(self, settled: Sequence[QueuedSubmission]) -> None:
        for queued in settled:
            # None: it was told before.
            future = self._waiting.pop(queued, None)
            if future is not None and not future.done():
                future.set_result(None)


def _read(sent: bytes, key: str | None, caller: str) -> _Read:
    body = strict_json.loads(sent, MAX_BYTES)
    idempotency = None
    if key is not None:
        idempotency = Idempotency(caller, key, hashlib.sha256(canonical_json(body)).digest())
    return _Read(parse_submissions(body), idempotency, "events" in body)
