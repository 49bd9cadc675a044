"""The one table of rights: what each role may do over HTTP, everywhere or within its reach. Pure.

Each route names its `Need`. `RIGHTS` gives the roles that meet it. api/README.md shows the table, generated from here.
Proved by tests/api/access.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, Literal, NamedTuple

from ledger.append.authority import Authority
from ledger.roles import KIND_OF_ROLE, Role, RoleName

PUBLISHED_KINDS: Final = ("model", "region", "provider", "catalog")
"""Kinds of subject that say what the platform publishes: every caller that may read subjects may read these."""

Extent = Literal["all", "own"]
"""`own`: the role's subject, and for an org its projects and keys; and the published subjects."""


class Need(Enum):
    """The right that a route needs. `OPEN`: none, not even a sign-in; `SIGNED_IN`: a known caller, of any role."""

    OPEN = "open"
    SIGNED_IN = "signed in"
    SUBMIT = "submit"
    CHECK = "check"
    STATE = "state"
    FEED = "feed"
    LOG = "log"
    SUBJECTS = "subjects"
    HISTORY = "history"
    AUDIT = "audit"


_OWN: Final[dict[RoleName, Extent]] = dict.fromkeys(KIND_OF_ROLE, "own")

RIGHTS: Final[Mapping[Need, Mapping[RoleName, Extent]]] = {
    Need.SUBMIT: {"operator": "all", **_OWN},
    Need.CHECK: {"operator": "all", "auditor": "all", "gateway": "all", **_OWN},
    Need.STATE: {"operator": "all", "auditor": "all", "gateway": "all", **_OWN},
    Need.FEED: {"operator": "all", "auditor": "all", "gateway": "all", **_OWN},
    # The bundles of the log hold the events of all.
    Need.LOG: {"operator": "all", "auditor": "all", "gateway": "all"},
    Need.SUBJECTS: {"operator": "all", "auditor": "all", "privacy": "all", **_OWN},
    Need.HISTORY: {"operator": "all", "auditor": "all", "privacy": "all", **_OWN},
    Need.AUDIT: {"operator": "all", "auditor": "all"},
}

_ROLES_SHOWN_MAX: Final = 5


class Caller(NamedTuple):
    """The principal behind a request: the actor of its events, and the owner of its idempotency keys and audits.

    `unlimited`: everything is allowed, as on a server without sign-in."""

    actor: str
    roles: tuple[Role, ...] = ()
    unlimited: bool = False

    def extent(self, need: Need) -> Extent | None:
        """How far the caller may do this; None: not at all."""
        if self.unlimited or need in (Need.OPEN, Need.SIGNED_IN):
            return "all"
        granted = RIGHTS[need]
        extents = {granted[role.name] for role in self.roles if role.name in granted}
        return "all" if "all" in extents else "own" if extents else None

    def has(self, name: RoleName) -> bool:
        return self.unlimited or any(role.name == name for role in self.roles)

    @property
    def reads_personal_data(self) -> bool:
        return self.has("privacy")

    def own(self) -> dict[str, frozenset[RoleName]]:
        """The subjects of the caller's roles at one subject → the names of these roles."""
        own: dict[str, frozenset[RoleName]] = {}
        for role in self.roles:
            if role.subject is not None:
                own[role.subject] = own.get(role.subject, frozenset()) | {role.name}
        return own

    def authority(self, reached: Mapping[str, frozenset[RoleName]]) -> Authority | None:
        """The caller's right to record; None: to everything. `reached`: see `Authority`."""
        if self.unlimited:
            return None
        return Authority(self.in_words(), self.has("operator"), self.has("corrector"), reached)

    def in_words(self) -> str:
        """The caller and its roles, for an error of its own request."""
        return f"{self.actor} has {roles_in_words(self.roles)}"


ANONYMOUS: Final = Caller("anonymous", unlimited=True)
"""Every caller of a server without sign-in."""


def roles_in_words(roles: Iterable[Role]) -> str:
    texts = sorted(map(str, roles))
    if not texts:
        return "no role"
    more = f" and {len(texts) - _ROLES_SHOWN_MAX} more" if len(texts) > _ROLES_SHOWN_MAX else ""
    return f"the role{'s' if len(texts) > 1 else ''} {', '.join(texts[:_ROLES_SHOWN_MAX])}{more}"
