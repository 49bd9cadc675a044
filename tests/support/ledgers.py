"""Shared by tests of the ledger: submissions as dicts, idempotency keys, and ledgers with a clock that tests set."""

import hashlib
from typing import Any

from ledger.append.submissions import parse_submissions
from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.drafts import Idempotency
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from ledger.recorders.contract import KnownSubmission
from ledger.store import Ledger
from ledger.times import parse_time

NOW = parse_time("2026-03-01T12:00:00Z")
ORIGIN = "test.example/ledger"
OPERATOR = "operator:test"
GENESIS = len(BUILT_IN)
"""The number of events in a new ledger."""


def open_with_clock(url: str, now: int = NOW) -> tuple[Ledger, ManualClock]:
    """Creates or opens a ledger whose clock shows `now`. Returns the clock, too."""
    clock = ManualClock(now)
    return open_ledger(url, create=True, clock=clock, origin=ORIGIN), clock


def change(subject: str = "org:acme", value: Any = True, **more: Any) -> dict[str, Any]:
    return {"type": "setting.changed", "subject": subject, "setting": "training.opt_in", "value": value, **more}


def definition(**more: Any) -> dict[str, Any]:
    return {
        "kinds": ["org"],
        "value_type": "bool",
        "default": False,
        "protective": False,
        "writable_by": "admin",
        "title": "Beta search",
        "description": "Whether the new search is used.",
        "source": "Product notes",
        **more,
    }


def define(setting: str = "beta.search", **more: Any) -> dict[str, Any]:
    return {"type": "setting.defined", "setting": setting, "definition": definition(), **more}


def submit(ledger: Ledger, *bodies: dict[str, Any], **more: Any) -> tuple[Receipt, ...]:
    """Submits the bodies together."""
    return ledger.submit(parse_submissions({"events": list(bodies)}), actor=OPERATOR, **more)


def known_submission(ledger: Ledger, caller: str, key: str) -> KnownSubmission | None:
    return ledger.recorder.append_preconditions((), [(caller, key)]).known.get((caller, key))


def key(key: str, body: bytes = b"body", caller: str = "alice") -> Idempotency:
    return Idempotency(caller, key, hashlib.sha256(body).digest())
