"""Passes submissions to the ledger's group commit, without a thread for each and with bounded memory.

A small body is parsed on the event loop, because a thread switch costs more; a large one is parsed in a thread. The
submission then waits in the group commit, which commits all waiting submissions together and notifies the event loop
once for all of them. Their number and size is bounded: beyond a bound a submission is refused before its body is read.
(`api.http.shared` bounds the memory of all bodies.) Proved by tests/api/test_submit_queue.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from ledger import strict_json
from ledger.append.authority import Authority
from ledger.append.group_commit import QueuedSubmission
from ledger.append.submissions import Submission, canonical_json, parse_submissions
from ledger.drafts import Idempotency
from ledger.errors import LedgerBusy
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.strict_json import MAX_BYTES

SMALL_BYTES: Final = 4096
"""A body up to this size is parsed on the event loop: some 50 µs."""


class ParsedBody(NamedTuple):
    """`bytes`: the size of the body."""

    submissions: tuple[Submission, ...]
    idempotency: Idempotency | None
    batch: bool
    bytes: int


class RecordedSubmissions(NamedTuple):
    """The submissions of one body, and their receipts: one each, and then those of the retractions that they caused."""

    submissions: tuple[Submission, ...]
    receipts: tuple[Receipt, ...]


class SubmitQueue:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._notifiers: WeakKeyDictionary[asyncio.AbstractEventLoop, CompletionNotifier] = WeakKeyDictionary()
        self._parser = ThreadPoolExecutor(1, "inforce-read-body")

    def close(self) -> None:
        self._parser.shutdown(wait=True, cancel_futures=True)

    def require_capacity(self, bytes_: int) -> None:
        """Raises `LedgerBusy` if a body of this size would not be accepted now, so that it need not be read."""
        if not self._ledger.writer.has_capacity(bytes_):
            raise LedgerBusy(self._ledger.writer.waiting)

    async def parse(self, body: bytes, key: str | None, caller: str) -> ParsedBody:
        """`caller`: the owner of the idempotency key. Raises the errors of parsing the body."""
        if len(body) <= SMALL_BYTES:
            return _parse(body, key, caller)
        return await asyncio.get_running_loop().run_in_executor(self._parser, _parse, body, key, caller)

    async def submit(self, parsed: ParsedBody, actor: str, authority: Authority | None = None) -> RecordedSubmissions:
        """`authority`: the actor's right to record this; None: to everything. Raises the errors of `Ledger.submit`, and
        those of `append.authority`."""
        loop = asyncio.get_running_loop()
        notifier = self._notifiers.get(loop)
        if notifier is None:
            notifier = self._notifiers[loop] = CompletionNotifier(loop)
        queued = QueuedSubmission(
            parsed.submissions,
            actor,
            parsed.idempotency,
            parsed.batch,
            authority=authority,
            bytes_=parsed.bytes,
            on_settled=notifier.notify,
        )
        self._ledger.writer.enqueue(queued)
        await notifier.wait(queued)
        return RecordedSubmissions(parsed.submissions, queued.outcome())


class CompletionNotifier:
    """Wakes the requests of one event loop when their submissions are settled: once for a whole group."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[QueuedSubmission, asyncio.Future[None]] = {}

    async def wait(self, queued: QueuedSubmission) -> None:
        """Returns when the submission is settled. Call it before the event loop runs anything else, or a notification
        may be missed."""
        future = self._waiting[queued] = self._loop.create_future()
        await future

    def notify(self, settled: Sequence[QueuedSubmission]) -> None:
        # RuntimeError: the event loop has ended, so no request waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake, settled)

    def _wake(self, settled: Sequence[QueuedSubmission]) -> None:
        for queued in settled:
            # None: an earlier notification named this submission.
            future = self._waiting.pop(queued, None)
            if future is not None and not future.done():
                future.set_result(None)


def _parse(body: bytes, key: str | None, caller: str) -> ParsedBody:
    value = strict_json.loads(body, MAX_BYTES)
    idempotency = None
    if key is not None:
        idempotency = Idempotency(caller, key, hashlib.sha256(canonical_json(value)).digest())
    return ParsedBody(parse_submissions(value), idempotency, "events" in value, len(body))
