"""Tokens: making one, and what the ledger says about all of them.

A secret is `ift_` and 256 random bits in base64url. Only its SHA-256 is recorded: with that many random bits nobody can
guess it, so a slow hash would add nothing. Making a token is a batch of ordinary submissions. Proved by
tests/access/test_tokens.py.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from ledger.codec import parse_leaf
from ledger.entropy import EntropySource
from ledger.roles import ROLES, TOKEN_PRINCIPAL, TOKEN_SECRET
from ledger.times import END, format_time
from projections.query.as_of_view import AsOfView
from projections.query.query import Query

SECRET_PREFIX: Final = "ift_"  # noqa: S105 - the beginning of every secret
SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(r"ift_[A-Za-z0-9_-]{43}")
_PAGE: Final = 1000

TokenState = Literal["valid", "scheduled", "expired", "revoked"]


class NewToken(NamedTuple):
    """`secret`: to be shown once. `events`: the submissions that record the token."""

    token: str
    secret: str
    events: list[dict[str, Any]]


class TokenRow(NamedTuple):
    """A token as the ledger knows it now. Instants in µs; `until` None: without end."""

    token: str
    principal: str | None
    roles: tuple[str, ...]
    disabled: bool
    state: TokenState
    created_at: int
    created_by: str
    until: int | None


def new_token(
    principal: str,
    roles: Sequence[str] | None,
    until: int | None,
    entropy: EntropySource,
    *,
    roles_until: int | None = None,
) -> NewToken:
    """`roles`: of the principal from now on; None: as they are. `until` (µs): when the token expires."""
    token = f"token:{entropy(8).hex()}"
    secret = SECRET_PREFIX + base64.urlsafe_b64encode(entropy(SECRET_BYTES)).rstrip(b"=").decode()
    events = [] if roles is None else [_change(principal, ROLES, sorted(roles), roles_until)]
    events.append(_change(token, TOKEN_PRINCIPAL, principal, None))
    events.append(_change(token, TOKEN_SECRET, digest_of(secret), until))
    return NewToken(token, secret, events)


def revocation(token: str) -> dict[str, Any]:
    return {"type": "setting.cleared", "subject": token, "setting": TOKEN_SECRET, "cancels_scheduled": True}


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret(text: str) -> bool:
    return _SECRET.fullmatch(text) is not None


def _change(subject: str, setting: str, value: Any, until: int | None) -> dict[str, Any]:
    change = {"type": "setting.changed", "subject": subject, "setting": setting, "value": value}
    return change if until is None else {**change, "effective_until": format_time(until)}


def tokens(query: Query) -> Iterator[TokenRow]:
    """All tokens that the ledger ever had, by their references in byte order. Raises `LedgerUnavailable`."""
    context = query.context()
    view = AsOfView(context, context.now, None)
    after: str | None = None
    while rows := query.subjects("token", None, after, _PAGE)[1]:
        for row in rows:
            yield _row(query, view, row.subject)
        after = rows[-1].subject


def _row(query: Query, view: AsOfView, token: str) -> TokenRow:
    state, until = _state(view, token)
    first = query.ledger.recorder.stream(token, limit=1)[0]
    principal = view.setting(token, TOKEN_PRINCIPAL).value
    roles: Any = ()
    disabled = False
    if isinstance(principal, str):
        roles = view.setting(principal, ROLES).value or ()
        disabled = view.setting(principal, "access.disabled").value is not False
    return TokenRow(
        token=token,
        principal=principal if isinstance(principal, str) else None,
        roles=tuple(map(str, roles)),
        disabled=disabled,
        state=state,
        created_at=first.recorded_at,
        created_by=parse_leaf(first.leaf).data.actor,
        until=until,
    )


def _state(view: AsOfView, token: str) -> tuple[TokenState, int | None]:
    """(the state now, when the secret ends or ended)."""
    timeline = view.timeline(token, TOKEN_SECRET)
    step = timeline.step(view.at)
    if step.change is not None and step.change.value is not None:
        return "valid", None if step.until == END else step.until
    if any((change := timeline.at(start)) is not None and change.value for start in timeline.starts_after(view.at)):
        return "scheduled", None
    ended = None if step.start <= 0 else step.start
    return ("revoked" if step.change is not None else "expired"), ended


def needs_first_token(query: Query, first_principal: str) -> bool:
    """Whether nobody ever made a token: all that there are were printed for `first_principal`, and have expired.

    A ledger whose tokens were all revoked, or have expired, gets none by a restart, whose output a journal may keep:
    the person who revoked them would not know. The command makes one."""
    return all(row.principal == first_principal and row.state == "expired" for row in tokens(query))


def tokens_with_digest(query: Query, digest: str) -> list[str]:
    """The tokens that have this hash of a secret now. Reads all tokens. Raises `LedgerUnavailable`."""
    context = query.context()
    view = AsOfView(context, context.now, None)
    return [row.token for row in tokens(query) if view.setting(row.token, TOKEN_SECRET).value == digest]
