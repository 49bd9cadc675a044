"""Roles: the values of `access.roles`, their grammar, and who may write a setting. Pure.

A role of the platform is a word (`operator`); a role at one subject is `name@subject` (`admin@org:acme`). A text that
is no role permits nothing. Proved by tests/test_roles.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from ledger.errors import BadSubject
from ledger.subjects import ACTOR_LENGTH_MAX, parse_subject

RoleName = Literal["operator", "auditor", "gateway", "privacy", "corrector", "admin", "member", "self"]

PLATFORM_ROLES: Final[tuple[RoleName, ...]] = ("operator", "auditor", "gateway", "privacy", "corrector")
"""Roles of the whole platform."""
KIND_OF_ROLE: Final[Mapping[RoleName, str]] = {"admin": "org", "member": "org", "self": "account"}
"""Role at one subject → the kind of that subject."""
FORMS: Final = (*PLATFORM_ROLES, *(f"{name}@{kind}:ID" for name, kind in KIND_OF_ROLE.items()))

ROLES: Final = "access.roles"
DISABLED: Final = "access.disabled"
TOKEN_PRINCIPAL: Final = "token.principal"  # noqa: S105 - the name of a setting
TOKEN_SECRET: Final = "token.secret_sha256"  # noqa: S105 - the name of a setting

WRITERS: Final[Mapping[str, tuple[RoleName, ...]]] = {
    "operator": ("operator",),
    "admin": ("operator", "admin", "self"),
    "owner": ("operator", "admin", "self", "member"),
}
"""`writable_by` of a definition → the roles that may write the setting: `operator` of every subject, the others of the
subjects that they reach."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Role(NamedTuple):
    """`subject`: None for a role of the whole platform."""

    name: RoleName
    subject: str | None = None

    def __str__(self) -> str:
        return self.name if self.subject is None else f"{self.name}@{self.subject}"


def parse_role(text: str) -> Role | None:
    """None: the text is no role."""
    for name in PLATFORM_ROLES:
        if text == name:
            return Role(name)
    before, at, subject = text.partition("@")
    for name, kind in KIND_OF_ROLE.items():
        if at and before == name:
            try:
                return Role(name, parse_subject(subject, (kind,)))
            except BadSubject:
                return None
    return None


def fault_of_access(subject: str, setting: str, value: object) -> str | None:
    """Why the value of a setting of access cannot be recorded; None: it can, or is of another setting."""
    if setting == ROLES and isinstance(value, tuple):
        wrong = [number for number, text in enumerate(value) if parse_role(text) is None]
        if wrong:
            return f"the roles are {', '.join(FORMS)}; {len(wrong)} of the {len(value)} texts sent are none of them"
    if setting == TOKEN_SECRET and isinstance(value, str) and _SHA256.fullmatch(value) is None:
        return "the value must be a SHA-256 in hex: 64 of 0-9 a-f. Never record the secret itself"
    if setting in (ROLES, DISABLED) and len(subject) > ACTOR_LENGTH_MAX:
        return f"a principal is the actor of events, so its reference has at most {ACTOR_LENGTH_MAX} characters"
    return None


def parse_roles(texts: Iterable[object]) -> tuple[Role, ...]:
    """The roles among the texts. The others permit nothing."""
    roles = (parse_role(text) for text in texts if isinstance(text, str))
    return tuple(role for role in roles if role is not None)
