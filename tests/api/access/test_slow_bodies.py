"""A token that is revoked while its request's body is under way records nothing, and starts no audit."""

from collections.abc import MutableMapping
from typing import Any

import pytest
from anyio import to_thread

from ledger.append.submissions import parse_submissions
from projections.access.tokens import revocation
from tests.api.access.world import World, make_token
from tests.support.ledgers import OPERATOR

CHANGE = b'{"type":"setting.changed","subject":"org:acme","setting":"training.opt_in","value":false}'
RECORD = b'{"org_id":"acme","at":"2026-01-01T00:00:00Z"}\n'


@pytest.mark.parametrize(
    ("path", "role", "media_type", "body", "done"),
    [
        ("/v1/events", "operator", b"application/json", CHANGE, 201),
        ("/v1/audits", "auditor", b"application/x-ndjson", RECORD, 202),
    ],
)
@pytest.mark.parametrize("revoked", [False, True])
def test_a_revocation_holds_for_a_body_that_is_under_way(
    fresh_world: World, path: str, role: str, media_type: bytes, body: bytes, done: int, revoked: bool
) -> None:
    world = fresh_world
    token, secret = make_token(world.ledger, "slow", (role,))
    parts = [{"body": body[:9], "more_body": True}, {"body": body[9:], "more_body": False}]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if len(parts) == 1 and revoked:
            clear = parse_submissions(revocation(token))
            await to_thread.run_sync(lambda: world.ledger.submit(clear, actor=OPERATOR))
        return {"type": "http.request", **parts.pop(0)} if parts else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def request() -> None:
        headers = [
            (b"host", b"localhost"),
            (b"content-type", media_type),
            (b"authorization", b"Bearer " + secret.encode()),
        ]
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        more = {"headers": headers, "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http"}
        await world.client.app({**scope, **more, "http_version": "1.1", "root_path": ""}, receive, send)

    assert world.client.portal is not None
    world.client.portal.call(request)
    assert sent[0]["status"] == (401 if revoked else done), sent
    if revoked:
        assert world.get("auditor", "/v1/audits").json() == {"audits": []}
        assert (
            world.ledger.head().position == world.get("auditor", "/v1/subjects/" + token + "/state").json()["position"]
        )
        assert b'"value":false' not in world.get("auditor", "/v1/events?subject=org:acme").content
