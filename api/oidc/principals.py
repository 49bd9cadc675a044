"""The principal and the roles of a verified token's claims. Pure.

A principal is `principal:<alias>/<sub>`. Each character of `sub` that a subject's id cannot hold is written as `~` and
two hex digits for each of its UTF-8 bytes, and so are `~` itself and a `.` or `/` that a URL would lose. Therefore two
subjects of a provider never become one principal. Proved by tests/api/oidc/test_principals.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from api.oidc.faults import TokenRefused
from ledger.roles import Role, parse_roles
from ledger.subjects import ACTOR_LENGTH_MAX, is_text

KIND: Final = "principal"
_UNFIT: Final = re.compile(
    r"[^A-Za-z0-9._@/+:-]"
    # The segments `.` and `..`, and empty segments: clients and proxies remove them from paths.
    r"|(?<![^/])\.(?=\.?(?:/|\Z))"
    r"|(?<![^/])/|/\Z"
)


def principal_of(alias: str, sub: object) -> str:
    """The principal's subject reference. Raises `TokenRefused`."""
    if not isinstance(sub, str) or not sub or not is_text(sub):
        raise TokenRefused("subject", "the token's sub must be a text that is not empty")
    # Before the regular expression: it bounds its work.
    if len(sub) <= ACTOR_LENGTH_MAX:
        principal = f"{KIND}:{alias}/{_UNFIT.sub(_escape, sub)}"
        if len(principal) <= ACTOR_LENGTH_MAX:
            return principal
    raise TokenRefused(
        "subject", f"the token's sub is too long: as {KIND}:{alias}/… it has more than {ACTOR_LENGTH_MAX} characters"
    )


def _escape(match: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in match[0].encode())


def roles_of(claims: Mapping[str, Any], claim: str, group_roles: Mapping[str, tuple[str, ...]]) -> tuple[Role, ...]:
    """The roles of the groups in the claim. A claim that is absent, or no text or list, gives none."""
    if not group_roles:
        return ()
    groups = _member(claims, claim)
    if isinstance(groups, str):
        groups = [groups]
    if not isinstance(groups, list):
        return ()
    texts = {role for group in groups if isinstance(group, str) for role in group_roles.get(group, ())}
    return parse_roles(sorted(texts))


def _member(claims: Mapping[str, Any], claim: str) -> Any:
    if not claim.startswith("/"):
        return claims.get(claim)
    value: Any = claims
    for name in claim[1:].split("/"):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name.replace("~1", "/").replace("~0", "~"))
    return value
