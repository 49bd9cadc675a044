"""Request bodies: bounded in size and time, before `ledger.strict_json` reads them.

The bound holds for chunked bodies too: bytes are counted as they arrive, and nothing beyond the bound is kept.
Servers cut slow headers but not slow bodies, so that is done here.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import ClientDisconnect, Request

from api.http.deadlines import Deadlines
from api.http.problems import ParameterFault, RequestRefused

SECONDS_MAX: Final = 30.0
DRAIN_MAX: Final = 32 * 1024 * 1024
"""So much of a body that is too large is read and dropped, so that its sender gets to read the answer."""
_DEADLINES: Final = Deadlines()


async def read_json_body(request: Request, bytes_max: int) -> bytes:
    """The body of a request that announces JSON; a thread parses it later. Raises `RequestRefused`."""
    _check_type(header(request, b"content-type"), header(request, b"content-encoding"))
    return await read_body(request, bytes_max)


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Raises `RequestRefused` if the body is larger than `bytes_max` or takes longer than `SECONDS_MAX`."""
    try:
        chunks, size = await _DEADLINES.within(SECONDS_MAX, _received(request, bytes_max))
    except TimeoutError:
        raise RequestRefused("body_too_slow", f"the body took longer than {SECONDS_MAX:.0f} seconds") from None
    if size > bytes_max:
        raise RequestRefused("body_too_large", f"a body may have {bytes_max} bytes; send it in parts")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _received(request: Request, bytes_max: int) -> tuple[list[bytes], int]:
    """What came, up to `bytes_max` bytes of it, and how many bytes came."""
    chunks: list[bytes] = []
    size = 0
    length = content_length(request)
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= bytes_max:
            chunks.append(chunk)
        elif size > DRAIN_MAX:
            break
        # Not one look more than needed: the server's word that this was all costs as much as the body did.
        if size == length or not message.get("more_body", False):
            break
    return chunks, size


def declared_bytes(request: Request, bytes_max: int) -> int:
    """So many bytes the body may come to have in memory: what it says, or `bytes_max` where it says nothing."""
    return min(content_length(request) or bytes_max, bytes_max)


def content_length(request: Request) -> int | None:
    """As the request says and the server holds it to; None where the body comes in chunks. Never 0: that one has to be
    asked for, so that a caller who is gone is noticed."""
    value = header(request, b"content-length")
    return int(value) or None if value is not None and value.isdigit() else None


def header(request: Request, wanted: bytes) -> bytes | None:
    """The first header of that name: as it came, because every request pays for this."""
    for name, value in request.scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return None


def _check_type(content_type: bytes | None, content_encoding: bytes | None) -> None:
    if content_type == b"application/json" and content_encoding is None:
        return
    said = (content_type or b"").decode("latin-1")
    media_type, *parameters = (part.strip().lower() for part in said.split(";"))
    wrong = media_type != "application/json" or any(
        parameter not in ("", "charset=utf-8", 'charset="utf-8"') for parameter in parameters
    )
    if wrong:
        detail = "the body must be sent with Content-Type: application/json, in UTF-8"
        raise RequestRefused(
            "unsupported_media_type", detail, [ParameterFault("header", "Content-Type", detail)], _ACCEPT
        )
    if content_encoding is not None and content_encoding.strip().lower() != b"identity":
        detail = "the body must not be compressed"
        raise RequestRefused(
            "unsupported_media_type", detail, [ParameterFault("header", "Content-Encoding", detail)], _ACCEPT
        )


_ACCEPT: Final = {"Accept": "application/json"}
"""RFC 9110 section 15.5.16: a 415 may say what would have been taken."""
