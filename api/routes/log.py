"""GET /log/…: the ledger as a transparency log (c2sp.org/tlog-tiles), and the proof of one event.

Paths, media types and cache headers are those of the specification, so any client of tiled logs reads them. A tile and
a bundle never change; the checkpoint is for a moment only. Hashes and checkpoints say nothing about anybody, so shared
caches may keep them; bundles hold the events, so only the client's own cache may.
Proved by tests/api/routes/test_log.py.
"""

from __future__ import annotations

import gzip
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api import within_reach
from api.http.parameters import read_query
from api.http.problems import RequestRefused
from api.routes.parameters import AT_LEAST, EVENT_ID, TILE_PATH
from api.routing import AT_LEAST_PROBLEMS, LEDGER_PROBLEMS, RouteSpec, caller_of, service_of, wait_for_position
from api.schemas import log as models
from ledger.transparency.tiles import EntryBundle, parse_path
from projections.access.rights import Need

TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
_MOMENT: Final = "public, max-age=1"
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_FOR_EVER_OF_CLIENT: Final = "private, max-age=31536000, immutable"
_GZIP_LEVEL: Final = 5


async def checkpoint(request: Request) -> Response:
    """Read the last published checkpoint: the size and the root of the tree of all events, signed by the log.

    404: none was published yet, because no server has a signing key.
    """
    read_query(request)
    service = service_of(request)
    signed = await service.ask(service.log.checkpoint)
    if signed is None:
        raise RequestRefused("not_found", "no checkpoint was published yet; a server with a signing key publishes them")
    return _response(bytes(signed.note), TEXT, _MOMENT)


async def tile(request: Request) -> Response:
    """Read a tile of the tree, `tile/<L>/<N>[.p/<W>]`. 404: the published tree has none there."""
    read_query(request)
    service = service_of(request)
    resource = parse_path(f"tile/{request.path_params['path']}")
    if resource is None or isinstance(resource, EntryBundle):
        raise _no_tile()
    return _response(_or_not_found(await service.ask(lambda: service.log.tile(resource))), BYTES, _FOR_EVER)


async def bundle(request: Request) -> Response:
    """Read a bundle of events, `tile/entries/<N>[.p/<W>]`. 404: the published tree has none there.

    A bundle with an event of more than 65,535 bytes has the form and the path `tile/large-entries/<N>[.p/<W>]`, with
    lengths of 32 bits. Bundles are compressed with gzip where the client accepts that.
    """
    return await _bundle(request, "entries")


async def large_bundle(request: Request) -> Response:
    """Read a bundle with large events, `tile/large-entries/<N>[.p/<W>]`. 404: the published tree has none there."""
    return await _bundle(request, "large-entries")


async def _bundle(request: Request, form: str) -> Response:
    read_query(request)
    service = service_of(request)
    resource = parse_path(f"tile/{form}/{request.path_params['path']}")
    if not isinstance(resource, EntryBundle):
        raise _no_tile()
    packed = _accepts_gzip(request)

    def read() -> bytes | None:
        leaves = service.log.bundle(resource)
        return gzip.compress(leaves, _GZIP_LEVEL, mtime=0) if leaves is not None and packed else leaves

    content = await service.ask_large(read)
    headers = {"Vary": "Accept-Encoding"} | ({"Content-Encoding": "gzip"} if packed else {})
    return _response(_or_not_found(content), BYTES, _FOR_EVER_OF_CLIENT, headers)


async def verifier_keys(request: Request) -> Response:
    """List the verifier keys that have signed published checkpoints, one a line, by the size of the first.

    A reader who must not trust this server takes the key from elsewhere.
    """
    read_query(request)
    service = service_of(request)
    keys = await service.ask(service.log.verifier_keys)
    return _response("".join(f"{key}\n" for key in keys).encode(), TEXT, _MOMENT)


async def event_proof(request: Request) -> Response:
    """Read the proof that an event is under the last published checkpoint (c2sp.org/tlog-proof@v1).

    The event's exact bytes, as `GET /v1/events/{event_id}` serves them, are the leaf. 404 also while the event is not
    under a published checkpoint: that takes about a second.
    """
    at_least = read_query(request, AT_LEAST)["at_least"]
    service, caller = service_of(request), caller_of(request)
    event_id = request.path_params["event_id"]
    await wait_for_position(request, at_least)
    proof = await service.ask(lambda: service.log.proof(within_reach.event(service, caller, event_id).position))
    if proof is None:
        raise RequestRefused("not_found", "the event is not under a published checkpoint yet; ask again in a second")
    return _response(proof, TEXT, "no-store")


def _or_not_found(content: bytes | None) -> bytes:
    if content is None:
        raise _no_tile()
    return content


def _no_tile() -> RequestRefused:
    return RequestRefused("not_found", "the published tree has no tile or bundle at this path")


def _response(content: bytes, media_type: str, cache: str, headers: dict[str, str] | None = None) -> Response:
    return Response(content, 200, {"Cache-Control": cache, **(headers or {})}, media_type)


def _accepts_gzip(request: Request) -> bool:
    for coding in request.headers.get("accept-encoding", "").split(","):
        name, _, quality = coding.strip().partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return quality.replace(" ", "").rstrip("0").rstrip(".") not in ("q=", "q=0")
    return False


ROUTES = [
    RouteSpec(
        method="GET",
        path="/log/checkpoint",
        need=Need.OPEN,
        endpoint=checkpoint,
        tag="log",
        response_models=(models.LogCheckpoint,),
        media_type=TEXT,
        problems=("not_found", "bad_parameter", *LEDGER_PROBLEMS),
    ),
    RouteSpec(
        method="GET",
        path="/log/vkeys",
        need=Need.OPEN,
        endpoint=verifier_keys,
        tag="log",
        response_models=(models.VerifierKeys,),
        media_type=TEXT,
        problems=("bad_parameter", *LEDGER_PROBLEMS),
    ),
    # Before the tiles, whose path would match these two.
    *(
        RouteSpec(
            method="GET",
            path=f"/log/tile/{form}/{{path:path}}",
            need=Need.LOG,
            endpoint=endpoint,
            tag="log",
            response_models=(models.LogTile,),
            media_type=BYTES,
            parameters=(TILE_PATH,),
            problems=("not_found", "bad_parameter", *LEDGER_PROBLEMS),
        )
        for form, endpoint in (("entries", bundle), ("large-entries", large_bundle))
    ),
    RouteSpec(
        method="GET",
        path="/log/tile/{path:path}",
        need=Need.OPEN,
        endpoint=tile,
        tag="log",
        response_models=(models.LogTile,),
        media_type=BYTES,
        parameters=(TILE_PATH,),
        problems=("not_found", "bad_parameter", *LEDGER_PROBLEMS),
    ),
    # Before the route of one event, whose path would match this one too.
    RouteSpec(
        method="GET",
        path="/v1/events/{event_id}/proof",
        need=Need.FEED,
        endpoint=event_proof,
        tag="log",
        response_models=(models.EventProof,),
        media_type=TEXT,
        parameters=(EVENT_ID, AT_LEAST),
        problems=("not_found", *AT_LEAST_PROBLEMS),
    ),
]
