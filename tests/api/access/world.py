"""A ledger with two organizations, and a client that signs in with a token of each role."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import httpx2
from starlette.testclient import TestClient

from api.app import create_app
from api.service import Service
from ledger.append.submissions import parse_submissions
from ledger.entropy import random_bytes
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transparency.note import SigningKey
from projections.access.tokens import new_token
from tests.support.ledgers import OPERATOR

ROLES: dict[str, tuple[str, ...]] = {
    "operator": ("operator",),
    "auditor": ("auditor",),
    "gateway": ("gateway",),
    "privacy": ("privacy",),
    "corrector": ("corrector",),
    "admin": ("admin@org:acme",),
    "member": ("member@org:acme",),
    "self": ("self@account:u1",),
    "nothing": (),
}
"""Name of a principal → its roles."""

OWN: dict[str, tuple[str, ...]] = {
    "admin": ("org:acme", "project:p1", "key:k1", "key:k2"),
    "member": ("org:acme", "project:p1", "key:k1", "key:k2"),
    "self": ("account:u1",),
}
FOREIGN = ("org:globex", "project:g1", "key:gk", "account:u2", "principal:operator", "key:lost")
"""Beyond the reach of every role at one subject; `key:lost` has no owner."""
UNKNOWN = ("org:nobody", "project:nobody", "key:nobody", "account:nobody", "principal:nobody")
PUBLISHED = ("model:house", "region:eu", "provider:deep")

PRINCIPALS = list(ROLES)
SAME_ID = {"X-Request-ID": "same"}


ORIGIN = "log.example/eu"
KEY = SigningKey(ORIGIN, b"k" * 32)


def change(subject: str, setting: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "setting.changed", "subject": subject, "setting": setting, "value": value, **more}


HISTORY = [
    change("org:acme", "training.opt_in", True, reason="personal reason of acme"),
    change("org:globex", "training.opt_in", True, reason="personal reason of globex"),
    change("project:p1", "owner", "org:acme"),
    change("project:g1", "owner", "org:globex"),
    change("key:k1", "owner", "project:p1"),
    change("key:k2", "owner", "org:acme"),
    change("key:gk", "owner", "project:g1"),
    change("key:lost", "owner", "account:u2"),
    change("account:u1", "training.opt_in", True),
    change("account:u2", "training.opt_in", False),
    change("model:house", "model.hosting", "hosted"),
    change("region:eu", "region.names", ["Europe"]),
    change("provider:deep", "provider.names", ["Deep"]),
    {"type": "setting.defined", "setting": "beta.theme", "definition": {
        "kinds": ["account", "org", "project", "key"], "value_type": "text", "default": None, "protective": None,
        "writable_by": "owner", "title": "Theme", "description": "The colours.", "source": "Product notes"}},
]  # fmt: skip


class World(NamedTuple):
    """`tokens`: name of a principal → its secret; `events`: subject → the id of its first event."""

    client: TestClient
    ledger: Ledger
    tokens: Mapping[str, str]
    events: Mapping[str, str]

    def send(self, who: str | None, method: str, path: str, **more: Any) -> httpx2.Response:
        headers = {**SAME_ID, **more.pop("headers", {})}
        if who is not None:
            headers["Authorization"] = f"Bearer {self.tokens.get(who, who)}"
        return self.client.request(method, path, headers=headers, **more)

    def get(self, who: str | None, path: str) -> httpx2.Response:
        return self.send(who, "GET", path)

    def submit(self, who: str, *events: dict[str, Any], **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send(who, "POST", "/v1/events", json={"events": list(events)}, headers=named)


def make_token(ledger: Ledger, name: str, roles: tuple[str, ...] | None, until: int | None = None) -> tuple[str, str]:
    """(the token, its secret)."""
    new = new_token(f"principal:{name}", roles, until, random_bytes)
    ledger.submit(parse_submissions({"events": new.events}), actor=OPERATOR)
    return new.token, new.secret


@contextmanager
def new_world(url: str) -> Iterator[World]:
    with open_ledger(url, create=True, origin=ORIGIN) as ledger:
        receipts = ledger.submit(parse_submissions({"events": HISTORY}), actor=OPERATOR)
        events: dict[str, str] = {}
        for receipt in receipts:
            events.setdefault(receipt.subject, receipt.event_id)
        tokens = {name: make_token(ledger, name, roles)[1] for name, roles in ROLES.items()}
    service = Service.open(url, signing_keys=[KEY])
    with closing(service), TestClient(create_app(service)) as client:
        world = World(client, service.ledger, tokens, events)
        while b"\n%d\n" % service.ledger.head().position not in world.get(None, "/log/checkpoint").content:
            time.sleep(0.05)
        yield world
