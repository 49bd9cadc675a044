"""The feed as Server-Sent Events (WHATWG HTML, section 9.2): each event its position as `id:` and its exact bytes as
`data:`, which hold no line break.

A page is read when the client has taken the one before, and nothing is held meanwhile but the connection: no thread, no
connection of the database's. Proved by tests/api/test_event_stream.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.http.problems import HEAD, RequestRefused, where
from api.service import Service, hung_up
from ledger.errors import InforceError, LedgerUnavailable, PositionNotReached
from ledger.store import Ledger
from ledger.verbatim import exact_before

STREAMS_MAX: Final = 128
PAGE_EVENTS: Final = 256
"""About 150 KB, held for as long as a slow client takes for it."""
PING_S: Final = 15.0
"""Proxies close what is silent for longer, often after 30 or 60 seconds."""
SEND_S_MAX: Final = 60.0
"""A client that takes nothing for so long is gone, or keeps a place from somebody who would."""
RETRY_S: Final = 1.0
LAST_WORDS_S_MAX: Final = 1.0

_OPENING: Final = b"retry: 1000\n: events of the ledger, each with its position as id\n\n"
_PING: Final = b": ping\n\n"

_log = logging.getLogger("inforce.api")


class StreamPage(NamedTuple):
    """Events as they are sent, up to position `last`; none: empty."""

    block: bytes
    last: int


class OpenStreams:
    """The streams that are open in this process: no more than so many, and all ended when the server is to stop."""

    def __init__(self, streams_max: int = STREAMS_MAX) -> None:
        self.streams_max = streams_max
        self._open: set[asyncio.Future[None]] = set()
        self._reading: dict[int, asyncio.Task[StreamPage]] = {}
        self._ended = False

    def __len__(self) -> int:
        return len(self._open)

    def end(self) -> None:
        """On the event loop of the streams."""
        self._ended = True
        for over in self._open:
            if not over.done():
                over.set_result(None)

    @contextmanager
    def place(self) -> Iterator[asyncio.Future[None]]:
        """A place among the streams; the future is done when the stream has to end. Raises `RequestRefused`."""
        if self._ended or len(self._open) >= self.streams_max:
            detail = f"at most {self.streams_max} streams are open at once; try again later, or read GET /v1/events"
            raise RequestRefused("too_many_streams", detail)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open.add(over)
        try:
            yield over
        finally:
            self._open.discard(over)

    async def page(self, service: Service, after: int) -> StreamPage:
        """The page behind position `after`. Those who ask for the same one at once, as all do who wait for the next
        event, share one look at the database; it may be from a moment before, and then they ask again."""
        reading = self._reading.get(after)
        if reading is None:
            reading = asyncio.create_task(service.ask(partial(_read_page, service.ledger, after)))
            self._reading[after] = reading
            reading.add_done_callback(partial(self._read, after))
        return await asyncio.shield(reading)

    def _read(self, after: int, reading: asyncio.Task[StreamPage]) -> None:
        del self._reading[after]
        if not reading.cancelled():
            # Told to those who asked, of whom there may be none left.
            reading.exception()


def _read_page(ledger: Ledger, after: int) -> StreamPage:
    entries = exact_before(ledger.page(after, PAGE_EVENTS))
    block = b"".join([b"id: %d\ndata: %b\n\n" % (entry.position, entry.leaf) for entry in entries])
    return StreamPage(block, entries[-1].position if entries else after)


class EventStreamResponse(Response):
    """Every event behind position `after`, in order, none skipped, for as long as the client listens."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, streams: OpenStreams, after: int) -> None:
        self.status_code = 200
        self.background = None
        # Not Response's own: it would announce the length of a body. nginx keeps answers back unless told not to.
        self.init_headers({"X-Accel-Buffering": "no"})
        self._service = service
        self._streams = streams
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        end = {"type": "http.response.body", "body": b"", "more_body": False}
        follower = self._service.ledger.follower
        with self._streams.place() as over, follower.following():
            # Before anything is sent: a ledger that does not answer is a problem, not a stream.
            block = await self._page()
            await send(start)
            if scope.get(HEAD):
                await send(end)
                return
            sending = asyncio.create_task(self._send_all(block, send, where(scope)))
            leaving = asyncio.create_task(_leave(receive, over))
            try:
                await asyncio.wait({sending, over}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, leaving):
                    task.cancel()
                outcome, _ = await asyncio.gather(sending, leaving, return_exceptions=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S_MAX):
                    await send(end)
            if isinstance(outcome, Exception):
                raise outcome

    async def _send_all(self, block: bytes, send: Send, called: str) -> None:
        try:
            await _send(send, _OPENING + block)
            answers = True
            while True:
                try:
                    await self._service.ledger.follower.reached(self._after + 1, PING_S)
                    block, answers = await self._page(), True
                except PositionNotReached:
                    block = _PING
                except LedgerUnavailable as error:
                    # The client stays: browsers do not come back after an answer that is not 200.
                    if answers:
                        _log.warning("%s: goes on once the ledger answers again: %s", called, error.detail)
                    await asyncio.sleep(RETRY_S)
                    block, answers = _PING, False
                if block:
                    await _send(send, block)
        except TimeoutError:
            _log.info("%s: ended, because the client took nothing for %s s", called, SEND_S_MAX)
        except InforceError as error:
            _log.critical("%s: ended: %s: %s", called, error.code, error.detail)

    async def _page(self) -> bytes:
        """The next page as it is sent, taken for sent; empty where there is none."""
        block, self._after = await self._streams.page(self._service, self._after)
        return block


async def _send(send: Send, block: bytes) -> None:
    """Returns when the server has taken it. Raises `TimeoutError`."""
    async with asyncio.timeout(SEND_S_MAX):
        await send({"type": "http.response.body", "body": block, "more_body": True})


async def _leave(receive: Receive, over: asyncio.Future[None]) -> None:
    await hung_up(receive)
    if not over.done():
        over.set_result(None)
