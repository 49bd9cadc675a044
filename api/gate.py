"""The gate: who sends a request, whether one of its roles allows the route, and whether it sends too many.

A token comes in `Authorization: Bearer …` (RFC 6750), never in a query, which logs would keep. The usual case, a token
that was used before, is answered from memory on the event loop; any other waits in a thread. A token that is not one of
inforce is a JSON Web Token of a configured provider. A server without sign-in lets every request in as `ANONYMOUS`.
Proved by tests/api/access and tests/api/oidc/test_gate.py.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from starlette.types import Scope

from api.http.problems import RequestRefused
from api.http.scope import ANSWER_HEADERS, CALLER
from api.metrics import SignIn
from api.oidc.faults import KeysUnavailable, TokenRefused
from api.sign_in import NO_MEANS, SignInMeans
from projections.access.rights import ANONYMOUS, RIGHTS, Caller, Need
from projections.access.sign_in import AccessIndex, Session
from projections.access.tokens import SECRET_PREFIX

if TYPE_CHECKING:
    from api.oidc.sign_in import OidcSignIn
    from api.rate_limits.limiter import RateAllowance

_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="inforce"'}
_INVALID: Final = {"WWW-Authenticate": 'Bearer realm="inforce", error="invalid_token"'}

Ask = Callable[[Callable[[], Session]], Awaitable[Session]]
Address = Callable[[Scope], str]


class Gate:
    """`access` None: a server without sign-in. `ask`: runs a question in a thread. `count`: counts how sign-ins end.
    `address`: the key under which failed sign-ins of a request's address count."""

    def __init__(
        self,
        access: AccessIndex | None,
        ask: Ask,
        count: Callable[[SignIn], None],
        means: SignInMeans = NO_MEANS,
        address: Address = lambda _: "unknown",
    ) -> None:
        self._access = access
        self._ask = ask
        self._count = count
        self._means = means
        self._address = address

    @property
    def signs_in(self) -> bool:
        return self._access is not None

    async def enter(self, scope: Scope, need: Need) -> Caller:
        """As `admit`, and counts the request against the caller's limit, also one that no role allows."""
        caller = await self._caller(scope)
        limiter = self._means.requests
        if limiter is not None and not caller.unlimited:
            allowance = limiter.take(caller.actor)
            scope[ANSWER_HEADERS].extend(allowance.headers)
            if allowance.retry_after_s is not None:
                raise _too_many(f"{caller.actor} has sent as many requests as it may", allowance)
        return _allowed(caller, scope, need)

    async def admit(self, scope: Scope, need: Need, *, again: bool = False) -> Caller:
        """The caller, also as `CALLER` in the scope. `again`: a stream that goes on, which is no sign-in.

        Raises `RequestRefused`, and `LedgerUnavailable` where nobody can tell whether the token still holds."""
        return _allowed(await self._caller(scope, again), scope, need)

    async def _caller(self, scope: Scope, again: bool = False) -> Caller:
        return ANONYMOUS if self._access is None else await self._signed_in(self._access, scope, again)

    async def _signed_in(self, access: AccessIndex, scope: Scope, again: bool) -> Caller:
        token = self._bearer(scope)
        oidc = self._means.oidc
        if oidc is not None and not token.startswith(SECRET_PREFIX):
            return await self._vouched_for(access, oidc, scope, token.encode("ascii"), again)
        session = access.session_nowait(token)
        if session is None:
            session = await self._ask(lambda: access.sign_in(token))
        if session.caller is None:
            # One sentence for all four, so that nobody learns which tokens there were.
            detail = "the token is unknown, has expired or was revoked, or its principal is disabled"
            raise self._failed(scope, session.refusal or "unknown", detail)
        if not again:
            self._count("token")
        return session.caller

    async def _vouched_for(
        self, access: AccessIndex, oidc: OidcSignIn, scope: Scope, token: bytes, again: bool
    ) -> Caller:
        """The caller that a provider vouches for: its roles on the ledger, and those of the token's groups."""
        verified = oidc.remembered(token)
        if verified is None:
            self._refuse_blocked(scope)
            try:
                verified = await oidc.verify(token)
            except TokenRefused as refused:
                outcome: SignIn = "expired" if refused.reason == "expired" else "invalid"
                raise self._failed(scope, outcome, refused.detail) from None
            except KeysUnavailable as error:
                self._count("keys_unavailable")
                raise RequestRefused("sign_in_unavailable", str(error)) from None
        principal = verified.principal
        session = access.principal_nowait(principal)
        if session is None:
            session = await self._ask(lambda: access.sign_in_principal(principal))
        caller = session.caller
        if caller is None:
            raise self._failed(scope, "disabled", "the principal of the token is disabled")
        if not again:
            self._count("oidc")
        if verified.roles:
            return caller._replace(roles=tuple(dict.fromkeys((*caller.roles, *verified.roles))))
        return caller

    def _refuse_blocked(self, scope: Scope) -> None:
        """Raises `RequestRefused` if the address has failed too often: to verify its next token costs a signature."""
        failures = self._means.failures
        allowance = None if failures is None else failures.look(self._address(scope))
        if allowance is not None and allowance.retry_after_s is not None:
            self._count("rate_limited")
            raise self._blocked(scope, allowance)

    def _failed(self, scope: Scope, outcome: SignIn, detail: str) -> RequestRefused:
        """The refusal of a sign-in, which counts against the limit of its address."""
        failures = self._means.failures
        allowance = None if failures is None else failures.take(self._address(scope))
        if allowance is not None and allowance.retry_after_s is not None:
            self._count("rate_limited")
            return self._blocked(scope, allowance)
        self._count(outcome)
        return RequestRefused("not_signed_in", detail, headers=_INVALID)

    @staticmethod
    def _blocked(scope: Scope, allowance: RateAllowance) -> RequestRefused:
        scope[ANSWER_HEADERS].extend(allowance.headers)
        return _too_many("too many tokens that were refused came from this address", allowance)

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


def _allowed(caller: Caller, scope: Scope, need: Need) -> Caller:
    """Raises `RequestRefused`."""
    if caller.extent(need) is None:
        raise RequestRefused("forbidden", _refusal(caller, need))
    scope[CALLER] = caller
    return caller


def _too_many(fact: str, allowance: RateAllowance) -> RequestRefused:
    seconds = allowance.retry_after_s
    return RequestRefused("rate_limited", f"{fact}; retry after {seconds} s", headers={"Retry-After": str(seconds)})


def _refusal(caller: Caller, need: Need) -> str:
    roles = ", ".join(RIGHTS[need])
    return f"this needs one of the roles {roles}, and {caller.in_words()}"
