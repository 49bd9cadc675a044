"""A log as it comes in: to a file, hashed, bounded in size and time, never wholly in memory.

The event loop waits for bytes only; files are written in threads. Proved by tests/api/audits/test_upload.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from starlette.requests import ClientDisconnect, Request

from api.audits.disk_space import require_disk_space
from api.http.bodies import DRAIN_MAX, SECONDS_MAX, content_length, header
from api.http.deadlines import Deadlines
from api.http.problems import ParameterFault, RequestRefused

PIECE: Final = 1 << 20
"""Bytes that are gathered before they are written."""
RATE_MIN: Final = 16 * 1024
"""Bytes a second, on average: a sender that is slower holds a place that others want."""
MEDIA_TYPES: Final = (
    *("application/octet-stream", "application/x-ndjson", "application/jsonl", "application/json", "text/csv"),
    *("application/vnd.apache.parquet", "application/gzip", "application/zstd"),
)
"""What a log may be sent as; what it is, its first bytes say. None is a type that a web page may send unasked."""
_DEADLINES: Final = Deadlines()


class StoredLog(NamedTuple):
    bytes: int
    sha256: str


async def receive(body: UploadBody, path: Path, bytes_max: int, threads: Executor) -> StoredLog:
    """Writes the body to a new file at `path`. Raises `RequestRefused` if it is too large or too slow; `OSError` if it
    cannot be kept; `ClientDisconnect` where the caller hung up before its end."""
    loop = asyncio.get_running_loop()
    file = await loop.run_in_executor(threads, _created, path)
    try:
        return await _receive(body, file, bytes_max, threads)
    finally:
        await asyncio.shield(loop.run_in_executor(threads, file.close))


def check_type(request: Request) -> None:
    """Raises `RequestRefused`."""
    said = (header(request, b"content-type") or b"").decode("latin-1").partition(";")[0].strip().lower()
    if said not in MEDIA_TYPES:
        detail = f"a log must be sent with a Content-Type of its own: {', '.join(MEDIA_TYPES)}"
        raise RequestRefused(
            "unsupported_media_type", detail, [ParameterFault("header", "Content-Type", detail)], _ACCEPT
        )
    encoding = header(request, b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        detail = "a compressed log is sent as the file it is, without Content-Encoding"
        raise RequestRefused(
            "unsupported_media_type", detail, [ParameterFault("header", "Content-Encoding", detail)], _ACCEPT
        )


_ACCEPT: Final = {"Accept": ", ".join(MEDIA_TYPES)}


async def _receive(body: UploadBody, file: BinaryIO, bytes_max: int, threads: Executor) -> StoredLog:
    loop = asyncio.get_running_loop()
    if body.length is not None and body.length > bytes_max:
        raise _too_large(bytes_max)
    digest = hashlib.sha256()
    require_disk_space(Path(file.name).parent, body.length or 0)
    while not body.ended:
        piece = await body.piece()
        if body.bytes > bytes_max:
            raise _too_large(bytes_max)
        await loop.run_in_executor(threads, _take, file, digest, piece)
    return StoredLog(body.bytes, digest.hexdigest())


def _too_large(bytes_max: int) -> RequestRefused:
    return RequestRefused(
        "body_too_large", f"a log may have {bytes_max:,} bytes here; compress it, or send it in parts"
    )


class UploadBody:
    """The bytes of a request as they come; so many of them that whoever sends them must be let finish, or he does not
    get to read why they are refused. `length`: as he says; `ended`: no more of it is read."""

    def __init__(self, request: Request) -> None:
        self.length = content_length(request)
        self.bytes = 0
        self.ended = False
        self._request = request
        self._began: float | None = None
        """When it was first asked for, on the event loop's clock."""

    async def piece(self) -> bytes:
        """Some of them, at least one unless the body has ended."""
        chunks: list[bytes] = []
        size = 0
        while not self.ended and size < PIECE:
            chunk = await self._next()
            chunks.append(chunk)
            size += len(chunk)
        return b"".join(chunks)

    async def drain(self, bytes_max: int) -> None:
        """Reads on, as far as a log may go, and drops it. Who asks before he sends (RFC 9110 section 10.1.1), and has
        not been told to go on, sends nothing and needs none of it."""
        if self._began is None and b"100-continue" in (header(self._request, b"expect") or b"").lower():
            return
        end = self.bytes + max(DRAIN_MAX, bytes_max)
        with suppress(RequestRefused):
            while not self.ended and self.bytes <= end:
                await self._next()

    async def _next(self) -> bytes:
        now = asyncio.get_running_loop().time
        self._began = now() if self._began is None else self._began
        try:
            message = await _DEADLINES.within(SECONDS_MAX, self._request.receive())
        except TimeoutError:
            raise self._too_slow(f"nothing of the log came for {SECONDS_MAX:.0f} seconds") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        self.bytes += len(chunk)
        self.ended = self.bytes == self.length or not message.get("more_body", False)
        if not self.ended and self.bytes < RATE_MIN * (now() - self._began - SECONDS_MAX):
            raise self._too_slow(f"the log came at less than {RATE_MIN:,} bytes a second")
        return chunk

    def _too_slow(self, detail: str) -> RequestRefused:
        self.ended = True
        return RequestRefused("body_too_slow", detail)


def _created(path: Path) -> BinaryIO:
    return path.open("xb", buffering=0)


def _take(file: BinaryIO, digest: hashlib._Hash, piece: bytes) -> None:
    require_disk_space(Path(file.name).parent, len(piece))
    rest = memoryview(piece)
    while rest:
        # Without a buffer a file may take less than it is given.
        rest = rest[file.write(rest) :]
    digest.update(piece)
