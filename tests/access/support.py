"""Principals and tokens of tests, and a naive oracle of signing in that shares no code with the source."""

import hashlib
from collections.abc import Iterable
from typing import Any

from ledger.receipts import Receipt
from ledger.store import Ledger
from tests.support.ledgers import change, submit


def secret(number: int) -> str:
    return "ift_" + f"{number:043d}"


def digest(number: int) -> str:
    return hashlib.sha256(secret(number).encode()).hexdigest()


def set_(subject: str, setting: str, value: Any, **more: Any) -> dict[str, Any]:
    return {**change(subject, value), "setting": setting, **more}


def clear(subject: str, setting: str, **more: Any) -> dict[str, Any]:
    return {"type": "setting.cleared", "subject": subject, "setting": setting, **more}


def grant(ledger: Ledger, name: str, *roles: str, **more: Any) -> Receipt:
    return submit(ledger, set_(f"principal:{name}", "access.roles", list(roles), **more))[0]


def give_token(ledger: Ledger, name: str, number: int, **more: Any) -> None:
    token = f"token:t{number}"
    submit(
        ledger,
        set_(token, "token.principal", f"principal:{name}"),
        set_(token, "token.secret_sha256", digest(number), **more),
    )


def deciding(changes: Iterable[dict[str, Any]], at: int) -> dict[str, Any] | None:
    """The law of time, naively: of changes with `from`, `until` and `value`, in the order of recording."""
    known = list(changes)
    best: dict[str, Any] | None = None
    for index, one in enumerate(known):
        if one["until"] is None:
            continue
        ends = [later["from"] for later in known[index + 1 :] if later["until"] is None]
        cut = min([one["until"], *(end for end in ends if one["from"] <= end < one["until"])])
        if one["from"] <= at < cut:
            best = one
    if best is not None:
        return best
    for one in known:
        if one["until"] is None and one["from"] <= at and (best is None or one["from"] >= best["from"]):
            best = one
    return best
