"""The feed as Server-Sent Events (WHATWG HTML, section 9.2): `id:` is the event's position, `data:` its exact bytes,
which hold no line break.

A stream reads the next page once the client has taken the last one. Between pages it holds the connection only: no
thread, and no database connection.
Proved by tests/api/test_event_stream.py and tests/api/test_event_stream_in_process.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.http.problems import RequestRefused
from api.http.scope import HEAD_ONLY, log_label
from api.service import Service, wait_for_disconnect
from ledger.errors import (
    AheadOfLedger,
    DamagedEvent,
    InforceError,
    LedgerCorrupt,
    LedgerUnavailable,
    PositionNotReached,
)
from ledger.store import Ledger
from ledger.verbatim import valid_prefix
from projections.access.reach import reach_of
from projections.access.rights import ANONYMOUS, Caller, Need

STREAMS_MAX: Final = 128
PAGE_EVENTS: Final = 256
PAGE_BYTES: Final = 128 * 1024
"""Held for as long as a slow client needs to read it. A page ends with the event that reaches this size."""
PING_S: Final = 15.0
"""Proxies close connections that are silent for longer, often after 30 or 60 seconds."""
SEND_S_MAX: Final = 60.0
"""A client that reads nothing for this long has gone, or blocks another client."""
ADMIT_S: Final = 0.5
"""Between two questions to the gate while nothing is sent: a stream of a revoked token ends within a second."""
RETRY_S: Final = 1.0
LAST_SEND_S_MAX: Final = 1.0

_OPENING: Final = b"retry: 1000\n: events of the ledger, each with its position as id\n\n"
_PING: Final = b": ping\n\n"

_log = logging.getLogger("inforce.api")


class StreamPage(NamedTuple):
    """Encoded events up to position `last`, whose event has the hash `last_hash`; empty if there are none.

    `before_hash`: of the event before the page. It must be the one that the stream sent last; else the ledger went back
    and has grown again, and the page is not the next one. None: there is none, or it cannot be read."""

    block: bytes
    last: int
    last_hash: bytes | None
    before_hash: bytes | None


class OpenStreams:
    """The open streams of this process: limits their number, and ends all of them when the server stops."""

    def __init__(self, streams_max: int = STREAMS_MAX) -> None:
        self.streams_max = streams_max
        self._stops: set[asyncio.Future[None]] = set()
        self._reads: dict[int, asyncio.Task[StreamPage]] = {}
        self._ended = False

    def __len__(self) -> int:
        return len(self._stops)

    def end(self) -> None:
        """Ends all streams. Call it on their event loop."""
        self._ended = True
        for stop in self._stops:
            if not stop.done():
                stop.set_result(None)

    @contextmanager
    def admit(self) -> Iterator[asyncio.Future[None]]:
        """Counts one stream within the block. The future is done when the stream must end. Raises `RequestRefused`."""
        if self._ended or len(self._stops) >= self.streams_max:
            detail = f"at most {self.streams_max} streams are open at once; try again later, or read GET /v1/events"
            raise RequestRefused("too_many_streams", detail)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stops.add(stop)
        try:
            yield stop
        finally:
            self._stops.discard(stop)

    async def page(self, service: Service, after: int) -> StreamPage:
        """The page after position `after`. Streams that need the same page at once, as all do that wait for the next
        event, share one database read. That read may have begun before the event; then a stream reads again."""
        read = self._reads.get(after)
        if read is None:
            read = asyncio.create_task(service.ask(partial(_read_page, service.ledger, after)))
            self._reads[after] = read
            read.add_done_callback(partial(self._on_read, after))
        return await asyncio.shield(read)

    def _on_read(self, after: int, read: asyncio.Task[StreamPage]) -> None:
        del self._reads[after]
        if not read.cancelled():
            # Marks the error as retrieved: all streams that waited for it may be gone.
            read.exception()


def _read_own_page(service: Service, after: int, caller: Caller) -> StreamPage:
    reach = reach_of(caller, Need.FEED, service.query)
    return _read_page(service.ledger, after, None if reach is None else reach.may_read)


def _read_page(ledger: Ledger, after: int, may_read: Callable[[str], bool] | None = None) -> StreamPage:
    """`may_read`: of the subject of an event; the others are left out."""
    try:
        page = ledger.page(after, PAGE_EVENTS, bytes_max=PAGE_BYTES)
    except DamagedEvent as error:
        if not error.before:
            raise
        page = list(error.before)
    entries = valid_prefix(page)
    if not entries:
        ledger.require_reached(after)
    before = None
    with suppress(LedgerCorrupt):
        before = ledger.recorder.entry(after)
    before_hash = None if before is None else before.leaf_hash
    if not entries:
        return StreamPage(b"", after, before_hash, before_hash)
    shown = entries if may_read is None else [entry for entry in entries if may_read(entry.subject)]
    block = b"".join([b"id: %d\ndata: %b\n\n" % (entry.position, entry.leaf) for entry in shown])
    return StreamPage(block, entries[-1].position, entries[-1].leaf_hash, before_hash)


class EventStreamResponse(Response):
    """Sends every event after position `after`, in order, for as long as the client listens."""

    media_type = "text/event-stream"

    def __init__(
        self,
        service: Service,
        streams: OpenStreams,
        after: int,
        caller: Caller = ANONYMOUS,
        admit: Callable[[], Awaitable[Caller]] | None = None,
    ) -> None:
        """`admit`: asks the gate again whether the stream's caller may go on; None: always."""
        self.status_code = 200
        self.background = None
        # Not Response.__init__, which would send a Content-Length. The header stops nginx from buffering the stream.
        self.init_headers({"X-Accel-Buffering": "no"})
        self._service = service
        self._streams = streams
        self._after = after
        self._caller = caller
        self._admit = admit
        self._last_hash: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        end = {"type": "http.response.body", "body": b"", "more_body": False}
        follower = self._service.ledger.follower
        with self._streams.admit() as stop, follower.keep_watching():
            # Reads before it sends anything, so that an unavailable ledger, or one that ends before the position, is
            # answered with a problem.
            block = await self._next_block()
            await send(start)
            if scope.get(HEAD_ONLY):
                await send(end)
                return
            sending = asyncio.create_task(self._send_all(block, send, log_label(scope)))
            leaving = asyncio.create_task(_stop_on_disconnect(receive, stop))
            try:
                await asyncio.wait({sending, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, leaving):
                    task.cancel()
                outcome, _ = await asyncio.gather(sending, leaving, return_exceptions=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_SEND_S_MAX):
                    await send(end)
            if isinstance(outcome, Exception):
                raise outcome

    async def _send_all(self, block: bytes, send: Send, label: str) -> None:
        try:
            await _send(send, _OPENING + block)
            ledger_answers = True
            while True:
                try:
                    # Reads after a ping all the same: nobody announces that a ledger went back.
                    idle = await self._wait()
                    block, ledger_answers = await self._next_block() or idle, True
                except LedgerUnavailable as error:
                    # Keeps the stream open: browsers do not reconnect after a response other than 200.
                    if ledger_answers:
                        _log.warning("%s: waits until the ledger answers again: %s", label, error.detail)
                    await asyncio.sleep(RETRY_S)
                    block, ledger_answers = _PING, False
                if block:
                    await _send(send, block)
        except TimeoutError:
            _log.info("%s: ended, because the client read nothing for %s s", label, SEND_S_MAX)
        except RequestRefused as error:
            _log.info("%s: ended: %s", label, error.code)
        except AheadOfLedger as error:
            _log.warning("%s: ended: %s: %s", label, error.code, error.detail)
        except InforceError as error:
            _log.critical("%s: ended: %s: %s", label, error.code, error.detail)

    async def _wait(self) -> bytes:
        """Returns when there are events, or with a ping when there were none for `PING_S`. Raises `RequestRefused` as
        soon as the caller may not go on."""
        loop = asyncio.get_running_loop()
        ping_at = loop.time() + PING_S
        while (left := ping_at - loop.time()) > 0:
            try:
                seconds = left if self._admit is None else min(left, ADMIT_S)
                await self._service.ledger.follower.wait_for_async(self._after + 1, seconds)
                return b""
            except PositionNotReached:
                await self._admit_again()
        return _PING

    async def _admit_again(self) -> None:
        """Raises `RequestRefused` if the token was revoked or has expired, or its principal lost its role."""
        if self._admit is not None:
            self._caller = await self._admit()

    async def _next_block(self) -> bytes:
        """The next page, encoded, and moves on behind it; empty if there are no events. Raises `AheadOfLedger`, and
        `RequestRefused` as `_admit_again`: after the page was read, so that none follows what ends the caller's right.
        """
        page = await self._next_page()
        if self._last_hash is not None and page.before_hash not in (None, self._last_hash):
            raise AheadOfLedger(self._after, self._after - 1)
        self._after, self._last_hash = page.last, page.last_hash
        return page.block

    async def _next_page(self) -> StreamPage:
        if self._caller.extent(Need.FEED) == "all":
            page = await self._streams.page(self._service, self._after)
            await self._admit_again()
            if self._caller.extent(Need.FEED) == "all":
                return page
        else:
            await self._admit_again()
        # A page of its own, of what is within the caller's reach at this moment.
        return await self._service.ask(partial(_read_own_page, self._service, self._after, self._caller))


async def _send(send: Send, block: bytes) -> None:
    """Returns when the server has taken the block. Raises `TimeoutError`."""
    async with asyncio.timeout(SEND_S_MAX):
        await send({"type": "http.response.body", "body": block, "more_body": True})


async def _stop_on_disconnect(receive: Receive, stop: asyncio.Future[None]) -> None:
    await wait_for_disconnect(receive)
    if not stop.done():
        stop.set_result(None)
