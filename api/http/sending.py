"""Sends a response to the client: a small one at once, a large one in pieces that the client must take in time.

granian holds an answer that it got whole until the client has read it, without a limit of time. So a large answer is
passed to it piece by piece: the next one only once the last one is on its way. A client that takes none for
`SECONDS_MAX`, or less than `BYTES_PER_SECOND_MIN` on average, loses its connection. (Small answers and pieces that wait
in the kernel are limited by `api.connections`.)
Proved by tests/api/http/test_shared.py and tests/api/memory/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.types import Message, Send

from api.http.deadlines import Deadlines
from api.http.shared import ByteBudget, HeldBody

SMALL_BYTES: Final = 64 * 1024
"""An answer up to this size is sent at once."""
PIECE_BYTES: Final = 256 * 1024
"""A larger one is sent in pieces of this size: each costs some 50 µs."""
SECONDS_MAX: Final = 30.0
BYTES_PER_SECOND_MIN: Final = 64 * 1024
"""On average, after the first `SECONDS_MAX`."""
_DEADLINES: Final = Deadlines()

Headers = tuple[tuple[bytes, bytes], ...]
_CSP: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
SECURITY_HEADERS: Final[Headers] = (
    (b"x-content-type-options", b"nosniff"),
    _CSP,
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every answer; an answer with a page sets a policy of its own for it. No answer has a header of CORS, so a browser
shows no answer to a page of another origin."""
HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
"""Where callers use TLS."""
_NOT_STORED: Final = (b"cache-control", b"no-store")
_REPLACED: Final = (b"x-request-id", *(name for name, _ in (*SECURITY_HEADERS, HSTS) if name != _CSP[0]))


class AnswerNotTaken(Exception):
    """The client did not read the answer in time. Its connection must end."""


class NoRoomForAnswer(Exception):
    """The answers that wait for their clients hold all memory that answers may have. Nothing was sent."""


class ResponseSender:
    """Sends one response, with the headers that every response carries. `started`: the client got a part of it.
    `status`: of the response; 0: there is none yet."""

    __slots__ = (
        *("_answer_headers", "_budget", "_head_only", "_held_body", "_request_id", "_security_headers", "_send"),
        *("_start", "started", "status"),
    )

    def __init__(
        self,
        send: Send,
        request_id: str,
        held_body: HeldBody,
        budget: ByteBudget,
        *,
        head_only: bool,
        security_headers: Headers = SECURITY_HEADERS,
        answer_headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """`answer_headers`: further ones of this response, as they are once it begins."""
        self.started = False
        self.status = 0
        self._send = send
        self._request_id = request_id
        self._held_body = held_body
        self._budget = budget
        self._head_only = head_only
        self._security_headers = security_headers
        self._answer_headers = answer_headers
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """Raises `NoRoomForAnswer` before anything is sent, and `AnswerNotTaken`."""
        if message["type"] == "http.response.start":
            # Sent with the first part of the body: until then another response can take its place.
            self.status = message["status"]
            self._start = {**message, "headers": self._with_common_headers(message["headers"])}
            return
        if self._head_only and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        start, self._start = self._start, None
        if start is not None:
            self._held_body.release()
            body = message.get("body", b"")
            if len(body) > SMALL_BYTES and not message.get("more_body", False):
                await self._send_large(start, body)
                return
            self.started = True
            await self._send(start)
        await self._send(message)

    async def _send_large(self, start: Message, body: bytes) -> None:
        # The answer to a submission is never refused: it says what was recorded.
        if not self._budget.take(len(body), beyond=start["status"] == 201):
            raise NoRoomForAnswer
        try:
            self.started = True
            await self._send(start)
            now = asyncio.get_running_loop().time
            began = now()
            view = memoryview(body)
            for offset in range(0, len(body), PIECE_BYTES):
                end = offset + PIECE_BYTES
                piece = {"type": "http.response.body", "body": bytes(view[offset:end]), "more_body": end < len(body)}
                try:
                    await _DEADLINES.within(SECONDS_MAX, self._send(piece))
                except TimeoutError:
                    raise AnswerNotTaken from None
                if end < BYTES_PER_SECOND_MIN * (now() - began - SECONDS_MAX):
                    raise AnswerNotTaken
        finally:
            self._budget.give_back(len(body))

    def _with_common_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """`headers`, with lower-case names, and those that every response carries."""
        # One pass over plain pairs, because every request pays for this.
        result: list[tuple[bytes, bytes]] = []
        common = self._security_headers
        has_cache_control = False
        for header in headers:
            name = header[0]
            if name == b"cache-control":
                has_cache_control = True
            elif name == _CSP[0]:
                common = tuple(one for one in common if one[0] != name)
            elif name in _REPLACED:
                continue
            result.append(header)
        result.append((b"x-request-id", self._request_id.encode("ascii")))
        if not has_cache_control:
            result.append(_NOT_STORED)
        result += common
        result += self._answer_headers
        return result
