"""The upload of a log: into a file, hashed, within bounds of size and time, never wholly in memory.

The event loop only waits for bytes; threads write the file. Proved by tests/api/audits/test_upload.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from starlette.requests import ClientDisconnect, Request

from api.audits.folder import require_disk_space
from api.http.bodies import DRAIN_MAX, SECONDS_MAX, content_length, header, is_encoded, unsupported_media_type
from api.http.deadlines import Deadlines
from api.http.problems import RequestRefused
from ledger.private_files import open_private

PIECE: Final = 1 << 20
"""Bytes that are collected before they are written."""
BYTES_PER_SECOND_MIN: Final = 16 * 1024
"""On average: a slower client blocks an upload for others."""
MEDIA_TYPES: Final = (
    *("application/octet-stream", "application/x-ndjson", "application/jsonl", "application/json", "text/csv"),
    *("application/vnd.apache.parquet", "application/gzip", "application/zstd"),
    *("application/x-bzip2", "application/x-xz", "text/tab-separated-values"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)
"""Accepted for a log; its first bytes decide the actual format. A web page can send none of these without a CORS
preflight."""
_ACCEPT: Final = ", ".join(MEDIA_TYPES)
_DEADLINES: Final = Deadlines()


class StoredLog(NamedTuple):
    bytes: int
    sha256: str


async def receive(body: UploadBody, path: Path, bytes_max: int, threads: Executor) -> StoredLog:
    """Writes the body to a new file at `path`. Raises `RequestRefused` if it is too large or too slow, `OSError` if it
    cannot be stored, and `ClientDisconnect` if the client hung up before the end."""
    loop = asyncio.get_running_loop()
    file = await loop.run_in_executor(threads, _create, path)
    try:
        return await _receive(body, file, bytes_max, threads)
    finally:
        await asyncio.shield(loop.run_in_executor(threads, file.close))


def check_type(request: Request) -> None:
    """Raises `RequestRefused`."""
    media_type = (header(request, b"content-type") or b"").decode("latin-1").partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        detail = f"a log must be sent with one of these values of Content-Type: {_ACCEPT}"
        raise unsupported_media_type("Content-Type", detail, _ACCEPT)
    if is_encoded(header(request, b"content-encoding")):
        detail = "send a compressed log as a file, without Content-Encoding"
        raise unsupported_media_type("Content-Encoding", detail, _ACCEPT)


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
        await loop.run_in_executor(threads, _store, file, digest, piece)
    return StoredLog(body.bytes, digest.hexdigest())


def _too_large(bytes_max: int) -> RequestRefused:
    detail = f"a log may have at most {bytes_max:,} bytes here; compress it, or send it in parts"
    return RequestRefused("body_too_large", detail)


class UploadBody:
    """The body of an upload as it arrives. `length`: its Content-Length, if any; `ended`: nothing more is read from it.

    A client that is still sending does not read the response, so a refused upload must be drained."""

    def __init__(self, request: Request) -> None:
        self.length = content_length(request)
        self.bytes = 0
        self.ended = False
        self._request = request
        self._began: float | None = None
        """When the first bytes were requested, on the event loop's clock."""

    async def piece(self) -> bytes:
        """The next bytes: at least one unless the body has ended."""
        chunks: list[bytes] = []
        size = 0
        while not self.ended and size < PIECE:
            chunk = await self._next()
            chunks.append(chunk)
            size += len(chunk)
        return b"".join(chunks)

    async def drain(self, bytes_max: int) -> None:
        """Reads and drops the rest, up to the size of the largest log. Reads nothing if the client waits for
        `100 Continue` (RFC 9110 section 10.1.1) and did not get it, because then it sends nothing."""
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
            raise self._too_slow(f"no bytes of the log arrived for {SECONDS_MAX:.0f} seconds") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        self.bytes += len(chunk)
        self.ended = self.bytes == self.length or not message.get("more_body", False)
        if not self.ended and self.bytes < BYTES_PER_SECOND_MIN * (now() - self._began - SECONDS_MAX):
            raise self._too_slow(f"the log arrived at less than {BYTES_PER_SECOND_MIN:,} bytes a second")
        return chunk

    def _too_slow(self, detail: str) -> RequestRefused:
        self.ended = True
        return RequestRefused("body_too_slow", detail)


def _create(path: Path) -> BinaryIO:
    return open_private(path, "xb", 0)


def _store(file: BinaryIO, digest: hashlib._Hash, piece: bytes) -> None:
    require_disk_space(Path(file.name).parent, len(piece))
    rest = memoryview(piece)
    while rest:
        # An unbuffered file may write only a part.
        rest = rest[file.write(rest) :]
    digest.update(piece)
