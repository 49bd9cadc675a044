"""The reach of a role at one subject, at every microsecond of an owner's change and in hindsight."""

from collections.abc import Iterator
from typing import Any

import pytest

from ledger.clock import ManualClock
from ledger.errors import OutOfReach
from ledger.opening import open_ledger
from ledger.roles import Role, RoleName
from ledger.store import Ledger
from ledger.times import format_time
from projections.access.reach import Reach, require_records
from projections.access.rights import Caller
from projections.decisions.model import RequestRecord
from projections.query.query import Query
from projections.query.snapshots import IN_FORCE, KnownAt
from tests.access.support import set_
from tests.support.ledgers import NOW, submit

HOUR = 3_600_000_000
ADMIN = Caller("principal:a", (Role("admin", "org:acme"), Role("member", "org:acme")))
SELF = Caller("principal:s", (Role("self", "account:u1"),))


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with open_ledger(database_url, create=True, clock=ManualClock(NOW)) as ledger:
        submit(
            ledger,
            set_("project:p1", "owner", "org:acme"),
            set_("key:k1", "owner", "project:p1"),
            set_("key:k2", "owner", "account:u1"),
            set_("key:k3", "owner", "org:globex"),
            set_("account:u1", "attached_to", "org:acme"),
        )
        yield ledger


def roles(ledger: Ledger, caller: Caller, subject: str, at: int, known_at: KnownAt = None) -> frozenset[RoleName]:
    return Reach(caller, Query(ledger).context(), at, known_at).roles_at(subject)


def test_a_role_at_an_org_reaches_it_its_projects_and_their_keys(ledger: Ledger) -> None:
    at = NOW + HOUR
    for subject in ("org:acme", "project:p1", "key:k1"):
        assert roles(ledger, ADMIN, subject, at) == {"admin", "member"}
    # Not the accounts attached to it, nor their keys; nor what nobody owns, or another org.
    for subject in ("account:u1", "key:k2", "key:k3", "key:nobody", "org:globex", "principal:a", "ledger:self"):
        assert roles(ledger, ADMIN, subject, at) == frozenset()


def test_a_role_at_an_account_reaches_the_account_only(ledger: Ledger) -> None:
    assert roles(ledger, SELF, "account:u1", NOW + HOUR) == {"self"}
    assert roles(ledger, SELF, "key:k2", NOW + HOUR) == frozenset()
    reach = Reach(SELF, Query(ledger).context())
    assert [reach.may_read(one) for one in ("model:m", "region:r", "provider:p", "catalog:settings", "org:acme")] == [
        *(True, True, True, True, False)
    ]


@pytest.mark.parametrize(("offset", "reached"), [(-1, True), (0, False), (1, False)])
def test_a_project_that_moves_takes_its_keys_along_in_its_microsecond(
    ledger: Ledger, offset: int, reached: bool
) -> None:
    submit(ledger, set_("project:p1", "owner", "org:globex", effective_from=format_time(NOW + HOUR)))
    for subject in ("project:p1", "key:k1"):
        assert bool(roles(ledger, ADMIN, subject, NOW + HOUR + offset)) == reached
        assert bool(roles(ledger, ADMIN, subject, NOW + HOUR + offset, IN_FORCE)) == reached


def test_a_circle_of_owners_is_nobodys(ledger: Ledger) -> None:
    submit(
        ledger,
        set_("project:a", "owner", "org:acme"),
        set_("key:c", "owner", "project:a"),
    )
    for number in range(9):
        submit(ledger, set_(f"key:c{number}", "owner", "project:a"))
    assert roles(ledger, ADMIN, "key:c8", NOW + HOUR)


def record(at: int, **ids: Any) -> RequestRecord:
    return RequestRecord(at, **ids)


def test_a_record_needs_every_id_within_reach_then_and_by_what_is_known_now(ledger: Ledger) -> None:
    context = Query(ledger).context()
    require_records(ADMIN, context, [record(NOW + 1, key_id="k1", project_id="p1", org_id="acme")], IN_FORCE, True)
    for ids in ({"key_id": "k3"}, {"key_id": "k1", "account_id": "u1"}, {"org_id": "nobody"}):
        with pytest.raises(OutOfReach) as refused:
            require_records(ADMIN, context, [record(NOW + 1, org_id="acme"), record(NOW + 1, **ids)], IN_FORCE, True)
        assert [fault.pointer for fault in refused.value.faults] == ["/requests/1"]
    # In force the key was acme's; by what is known now it was not, and the decision's hindsight would say whose.
    ledger.clock = ManualClock(NOW + HOUR)
    require_records(ADMIN, Query(ledger).context(), [record(NOW + 1000, key_id="k1")], IN_FORCE, False)
    correction = set_("key:k1", "owner", "org:globex", effective_from=format_time(NOW + 1000), reason="entered wrongly")
    submit(ledger, correction)
    with pytest.raises(OutOfReach):
        require_records(ADMIN, Query(ledger).context(), [record(NOW + 1000, key_id="k1")], IN_FORCE, False)
