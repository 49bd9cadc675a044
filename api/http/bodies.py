"""Reads request bodies within bounds of size and time, before `ledger.strict_json` parses them.

The size bound holds for chunked bodies too: bytes are counted as they arrive, and none beyond the bound is kept. All
bodies that are read or worked on share one budget of memory (`api.http.shared`).
granian limits slow headers but not slow bodies, so this module limits those.
Proved by tests/api/http/test_problems.py and tests/api/test_server.py.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import ClientDisconnect, Request

from api.http.deadlines import Deadlines
from api.http.problems import ParameterFault, RequestRefused
from api.http.scope import HELD_BODY
from api.http.shared import HeldBody

SECONDS_MAX: Final = 30.0
DRAIN_MAX: Final = 32 * 1024 * 1024
"""Bytes of a too large body that are read and dropped, so that the client gets to read the response."""
CHUNKS_MAX: Final = 256
_DEADLINES: Final = Deadlines()


async def read_json_body(request: Request, bytes_max: int) -> bytes:
    """The body of a request that announces JSON; a thread parses it later. Raises `RequestRefused`."""
    _check_type(header(request, b"content-type"), header(request, b"content-encoding"))
    return await read_body(request, bytes_max)


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Raises `RequestRefused` if the body is larger than `bytes_max`, takes longer than `SECONDS_MAX`, or finds no
    memory beside the others."""
    try:
        chunks, size = await _DEADLINES.within(SECONDS_MAX, _receive(request, bytes_max))
    except TimeoutError:
        raise RequestRefused("body_too_slow", f"the body took longer than {SECONDS_MAX:.0f} seconds") from None
    if size > bytes_max:
        raise RequestRefused("body_too_large", f"a body may have at most {bytes_max} bytes; send it in parts")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _receive(request: Request, bytes_max: int) -> tuple[list[bytes], int]:
    """(the first `bytes_max` bytes, the number of bytes received)."""
    chunks: list[bytes] = []
    size = 0
    length = content_length(request)
    held: HeldBody | None = request.scope.get(HELD_BODY)
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= bytes_max:
            if held is not None and not held.grow(size):
                raise RequestRefused("server_busy", "the bodies of other requests hold all memory that bodies may have")
            chunks.append(chunk)
            if len(chunks) == CHUNKS_MAX:
                # Many small chunks would need many times their size.
                chunks = [b"".join(chunks)]
        elif size > DRAIN_MAX:
            break
        # Stop at Content-Length: to receive granian's empty last message costs as much as the body did.
        if size == length or not message.get("more_body", False):
            break
    return chunks, size


def body_bytes_max(request: Request, bytes_max: int) -> int:
    """How much memory the body may need: its Content-Length, or `bytes_max` without one."""
    return min(content_length(request) or bytes_max, bytes_max)


def content_length(request: Request) -> int | None:
    """The Content-Length, which the server enforces; None for a chunked body. Also None for 0: an empty body must be
    received once, so that a client that hung up is noticed."""
    value = header(request, b"content-length")
    return int(value) or None if value is not None and value.isdigit() else None


def header(request: Request, name: bytes) -> bytes | None:
    """The first header of that lower-case name. Reads the raw scope, because every request pays for this."""
    for key, value in request.scope["headers"]:
        if key == name:
            text: bytes = value
            return text
    return None


def _check_type(content_type: bytes | None, content_encoding: bytes | None) -> None:
    if content_type == b"application/json" and content_encoding is None:
        return
    media_type, *parameters = (part.strip().lower() for part in (content_type or b"").decode("latin-1").split(";"))
    if media_type != "application/json" or not {"", "charset=utf-8", 'charset="utf-8"'}.issuperset(parameters):
        raise unsupported_media_type(
            "Content-Type", "the body must be sent with Content-Type: application/json, in UTF-8", "application/json"
        )
    if is_encoded(content_encoding):
        raise unsupported_media_type("Content-Encoding", "the body must not be compressed", "application/json")


def is_encoded(content_encoding: bytes | None) -> bool:
    return content_encoding is not None and content_encoding.strip().lower() != b"identity"


def unsupported_media_type(header_name: str, detail: str, accept: str) -> RequestRefused:
    """`accept`: the media types that the call accepts (RFC 9110 section 15.5.16)."""
    fault = ParameterFault("header", header_name, detail)
    return RequestRefused("unsupported_media_type", detail, [fault], {"Accept": accept})
