"""A small ledger and a log of four lines, for the tests of `audit`."""

import json
from typing import Any

from tests.support.command import Inforce

BEGUN = "2026-01-01T00:00:00Z"


AT = "2026-01-02T00:00:00Z"


def fill(inforce: Inforce) -> Inforce:
    """org:acme opted in to training; recorded at the beginning of 2026."""
    change = {"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": True}
    assert inforce("import", "-", stdin=json.dumps(change | {"recorded_at": BEGUN})).code == 0
    return inforce


def record(org: str, **more: Any) -> str:
    return json.dumps({"at": AT, "org_id": org, "handling": {"trained": True}} | more)


LOG = "\n".join([record("acme"), record("beta"), "nonsense", record("beta", request_id="r4")])
