"""The subjects that a caller reaches by a role at one subject, at one (at, known_at).

A role at an org reaches the org, and the projects and keys whose `owner` leads to it at that moment; a role at an
account reaches the account. A key that moves to another org leaves the reach of the first one when it moves.
Proved by tests/access/test_reach.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final

from ledger.errors import Fault, OutOfReach
from ledger.roles import RoleName
from ledger.subjects import kind_of
from projections.access.rights import PUBLISHED_KINDS, Caller, Need
from projections.decisions.model import RequestRecord
from projections.decisions.scope import CHAIN_MAX, OWNER
from projections.query.as_of_view import AsOfView
from projections.query.query import Query
from projections.query.snapshots import KnownAt, ReadContext

OWNED_KINDS: Final = ("key", "project")
"""Kinds of subject that an owner leads to a caller."""
UNKNOWN_IN_RECORD: Final = "the record names a subject that is not among those that you may ask about"
_NONE: Final[frozenset[RoleName]] = frozenset()


class Reach:
    """For the questions of one caller at one read context. Each owner is looked up once."""

    def __init__(self, caller: Caller, context: ReadContext, at: int | None = None, known_at: KnownAt = None) -> None:
        """`at` (µs) None: the present."""
        self._own = caller.own()
        self._view = AsOfView(context, context.now if at is None else at, known_at)
        self._by_owned: dict[str, frozenset[RoleName]] = {}

    def roles_at(self, subject: str) -> frozenset[RoleName]:
        """The caller's roles at the subject; empty: the subject is beyond its reach."""
        own = self._own.get(subject)
        if own is not None:
            return own
        if kind_of(subject) not in OWNED_KINDS:
            return _NONE
        roles = self._by_owned.get(subject)
        if roles is None:
            roles = self._by_owned[subject] = self._roles_by_owner(subject)
        return roles

    @property
    def until(self) -> int:
        """When the next owner begins (µs) of a subject that was looked up, as known at the question's known_at."""
        return self._view.until

    def may_read(self, subject: str) -> bool:
        return kind_of(subject) in PUBLISHED_KINDS or bool(self.roles_at(subject))

    def _roles_by_owner(self, subject: str) -> frozenset[RoleName]:
        for _ in range(CHAIN_MAX):
            if kind_of(subject) not in OWNED_KINDS:
                # A role at an account reaches the account only.
                return self._own.get(subject, _NONE) if kind_of(subject) == "org" else _NONE
            owner = self._view.setting(subject, OWNER).value
            if not isinstance(owner, str):
                return _NONE
            subject = owner
        return _NONE


def reach_of(caller: Caller, need: Need, query: Query) -> Reach | None:
    """The reach at present; None: the caller may do this everywhere."""
    return None if caller.extent(need) == "all" else Reach(caller, query.context())


def reached_since(caller: Caller, context: ReadContext, starts: Mapping[str, int]) -> Mapping[str, frozenset[RoleName]]:
    """The subjects within the caller's reach → its roles there. `starts`: subject → the first instant (µs) that it
    writes about: the roles are those of all of [start, present], so nobody rewrites what another owner had set."""
    reached: dict[str, frozenset[RoleName]] = {}
    for subject, start in starts.items():
        present = Reach(caller, context)
        roles, instant = present.roles_at(subject), start
        while roles and instant < context.now:
            then = Reach(caller, context, instant)
            roles &= then.roles_at(subject)
            instant = then.until
        if roles:
            reached[subject] = roles
    return reached


def subjects_of(record: RequestRecord) -> list[str]:
    """Every subject that a request record names, but the model."""
    ids = {"key": record.key_id, "account": record.account_id, "org": record.org_id, "project": record.project_id}
    return [f"{kind}:{id_}" for kind, id_ in ids.items() if id_ is not None]


def require_records(
    caller: Caller, context: ReadContext, records: Sequence[RequestRecord], known_at: KnownAt, batch: bool
) -> None:
    """Raises `OutOfReach` if a record names a subject beyond the caller's reach, as known at the question's moment or
    as known now, which its hindsight may show."""
    reaches: dict[tuple[int, KnownAt], Reach] = {}
    for index, record in enumerate(records):
        # The settings of tomorrow show those of today, so a later instant is for those who reach its subjects now, too.
        for at, known in product({record.at, min(record.at, context.now)}, {known_at, None}):
            reach = reaches.setdefault((at, known), Reach(caller, context, at, known))
            if not all(map(reach.roles_at, subjects_of(record))):
                pointer = f"/requests/{index}" if batch else ""
                raise OutOfReach(UNKNOWN_IN_RECORD, (Fault(pointer, UNKNOWN_IN_RECORD),))
