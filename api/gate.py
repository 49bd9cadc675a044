"""The gate: who sends a request, and whether one of its roles allows the route.

A token comes in `Authorization: Bearer …` (RFC 6750), never in a query, which logs would keep. The usual case, a token
that was used before, is answered from memory on the event loop; any other waits in a thread. A server without sign-in
lets every request in as `ANONYMOUS`. Proved by tests/api/access.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import Scope

from api.http.problems import RequestRefused
from api.http.scope import CALLER
from api.metrics import SignIn
from projections.access.rights import ANONYMOUS, RIGHTS, Caller, Need
from projections.access.sign_in import AccessIndex, Session

_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="inforce"'}
_INVALID: Final = {"WWW-Authenticate": 'Bearer realm="inforce", error="invalid_token"'}

Ask = Callable[[Callable[[], Session]], Awaitable[Session]]


class Gate:
    """`access` None: a server without sign-in. `ask`: runs a question in a thread. `count`: counts how sign-ins end."""

    def __init__(self, access: AccessIndex | None, ask: Ask, count: Callable[[SignIn], None]) -> None:
        self._access = access
        self._ask = ask
        self._count = count

    @property
    def signs_in(self) -> bool:
        return self._access is not None

    async def admit(self, scope: Scope, need: Need, *, again: bool = False) -> Caller:
        """The caller, also as `CALLER` in the scope. `again`: a stream that goes on, which is no sign-in.

        Raises `RequestRefused`, and `LedgerUnavailable` where nobody can tell whether the token still holds."""
        caller = ANONYMOUS if self._access is None else await self._signed_in(self._access, scope, again)
        if caller.extent(need) is None:
            raise RequestRefused("forbidden", _refusal(caller, need))
        scope[CALLER] = caller
        return caller

    async def _signed_in(self, access: AccessIndex, scope: Scope, again: bool) -> Caller:
        token = self._bearer(scope)
        session = access.session_nowait(token)
        if session is None:
            session = await self._ask(lambda: access.sign_in(token))
        if session.caller is None:
            self._count(session.refusal or "unknown")
            # One sentence for all four, so that nobody learns which tokens there were.
            detail = "the token is unknown, has expired or was revoked, or its principal is disabled"
            raise RequestRefused("not_signed_in", detail, headers=_INVALID)
        if not again:
            self._count("token")
        return session.caller

    def _bearer(self, scope: Scope) -> str:
        """Raises `RequestRefused`."""
        texts = [value for name, value in scope["headers"] if name == b"authorization"]
        if not texts:
            self._count("missing")
            detail = "this server needs a sign-in: send Authorization: Bearer TOKEN; inforce token create makes a token"
            raise RequestRefused("not_signed_in", detail, headers=_CHALLENGE)
        match = _BEARER.fullmatch(texts[0]) if len(texts) == 1 else None
        if match is None:
            self._count("invalid")
            detail = "Authorization must be sent once, in the form Bearer TOKEN"
            raise RequestRefused("not_signed_in", detail, headers=_CHALLENGE)
        return match[1].decode("ascii")


def _refusal(caller: Caller, need: Need) -> str:
    roles = ", ".join(RIGHTS[need])
    return f"this needs one of the roles {roles}, and {caller.in_words()}"
