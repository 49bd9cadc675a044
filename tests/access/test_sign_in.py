"""Signing in: at every microsecond what the ledger says then, from memory or not, on this server or another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.clock import ManualClock
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.roles import Role
from ledger.store import Ledger
from ledger.times import format_time
from projections.access import sign_in
from projections.access.rights import Caller
from projections.access.sign_in import AccessIndex
from projections.query.query import Query
from tests.access.support import clear, deciding, digest, give_token, grant, secret, set_
from tests.support.ledgers import NOW, change, define, definition, submit

HOUR = 3_600_000_000
DAY = 24 * HOUR


class Server:
    """A ledger, its clock, and the index of a server over it."""

    def __init__(self, url: str, now: int = NOW) -> None:
        self.clock = ManualClock(now)
        self.ledger = open_ledger(url, create=True, clock=self.clock, origin="test.example/ledger")
        self.uses: list[tuple[str, int]] = []
        self.index = AccessIndex(Query(self.ledger), lambda token, day: self.uses.append((token, day)))

    def who(self, number: int, at: int | None = None) -> Caller | None:
        """The caller with this secret; the same from memory as from the ledger."""
        if at is not None:
            self.clock.now_us = at
        session = self.index.session_nowait(secret(number))
        fresh = self.index.sign_in(secret(number))
        if session is not None:
            assert session.caller == fresh.caller
        again = self.index.session_nowait(secret(number))
        assert again is not None
        assert again.caller == fresh.caller
        return fresh.caller

    def roles(self, number: int, at: int | None = None) -> set[str] | None:
        caller = self.who(number, at)
        return None if caller is None else set(map(str, caller.roles))


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    server = Server(database_url)
    with server.ledger:
        yield server


def test_a_token_signs_in_its_principal_with_its_roles(server: Server) -> None:
    grant(server.ledger, "anna", "operator", "admin@org:acme")
    give_token(server.ledger, "anna", 1)
    give_token(server.ledger, "nobody", 2)
    assert server.who(1) == Caller("principal:anna", (Role("admin", "org:acme"), Role("operator")))
    assert server.who(2) == Caller("principal:nobody", ())
    assert server.who(3) is None


@pytest.mark.parametrize(("offset", "valid"), [(-1, True), (0, False), (1, False)])
def test_a_token_expires_in_its_microsecond(server: Server, offset: int, valid: bool) -> None:
    grant(server.ledger, "anna", "operator")
    give_token(server.ledger, "anna", 1, effective_until=format_time(NOW + HOUR))
    assert server.who(1, NOW + HOUR // 2) is not None
    assert (server.who(1, NOW + HOUR + offset) is not None) == valid


@pytest.mark.parametrize(("offset", "valid"), [(-1, False), (0, True), (1, True)])
def test_a_scheduled_token_begins_in_its_microsecond(server: Server, offset: int, valid: bool) -> None:
    grant(server.ledger, "anna", "operator")
    give_token(server.ledger, "anna", 1, effective_from=format_time(NOW + HOUR))
    assert server.who(1, NOW + 1000) is None
    assert (server.who(1, NOW + HOUR + offset) is not None) == valid


@pytest.mark.parametrize(("offset", "roles"), [(-1, {"operator"}), (0, {"auditor"}), (1, {"auditor"})])
def test_a_grant_ends_in_its_microsecond(server: Server, offset: int, roles: set[str]) -> None:
    grant(server.ledger, "anna", "auditor")
    grant(server.ledger, "anna", "operator", effective_until=format_time(NOW + HOUR))
    give_token(server.ledger, "anna", 1)
    assert server.roles(1, NOW + 1000) == {"operator"}
    assert server.roles(1, NOW + HOUR + offset) == roles


@pytest.mark.parametrize(("offset", "valid"), [(-1, True), (0, False), (1, False)])
def test_a_scheduled_block_holds_from_its_microsecond(server: Server, offset: int, valid: bool) -> None:
    grant(server.ledger, "anna", "auditor")
    give_token(server.ledger, "anna", 1)
    block = set_("principal:anna", "access.disabled", True, effective_from=format_time(NOW + HOUR))
    submit(server.ledger, block)
    assert server.who(1, NOW + 1000) is not None
    assert (server.who(1, NOW + HOUR + offset) is not None) == valid


@pytest.mark.parametrize(
    ("event", "roles"),
    [
        (clear("token:t1", "token.secret_sha256"), None),
        (clear("token:t1", "token.principal"), None),
        (set_("token:t1", "token.secret_sha256", digest(9)), None),
        (set_("token:t1", "token.principal", "principal:bert"), {"auditor"}),
        (set_("principal:anna", "access.disabled", True), None),
        (clear("principal:anna", "access.roles"), set()),
        (set_("principal:anna", "access.roles", ["gateway"]), {"gateway"}),
    ],
)
def test_a_change_holds_at_once_on_the_server_that_took_it(
    server: Server, event: dict[str, Any], roles: set[str] | None
) -> None:
    grant(server.ledger, "anna", "operator")
    grant(server.ledger, "bert", "auditor")
    give_token(server.ledger, "anna", 1)
    server.clock.now_us += 1000
    assert server.roles(1) == {"operator"}
    submit(server.ledger, event)
    # Never from memory: it would say what was.
    assert server.index.session_nowait(secret(1)) is None
    assert server.roles(1) == roles


def test_a_retraction_brings_back_what_was(server: Server) -> None:
    grant(server.ledger, "anna", "auditor")
    give_token(server.ledger, "anna", 1)
    receipt = grant(server.ledger, "anna", "operator")
    assert server.roles(1) == {"operator"}
    submit(server.ledger, {"type": "change.retracted", "event_id": receipt.event_id, "reason": "wrong person"})
    assert server.roles(1) == {"auditor"}


def test_another_process_is_noticed_before_the_first_request_after_the_pause(
    server: Server, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(sign_in, "monotonic", lambda: now)
    grant(server.ledger, "anna", "operator")
    give_token(server.ledger, "anna", 1)
    assert server.roles(1) == {"operator"}
    with open_ledger(database_url, write=True, clock=server.clock) as other:
        submit(other, clear("token:t1", "token.secret_sha256"))
    now += sign_in.FRESH_S
    assert server.index.session_nowait(secret(1)) is not None
    now += 0.001
    assert server.index.session_nowait(secret(1)) is None
    assert server.index.sign_in(secret(1)).caller is None
    assert sign_in.FRESH_S < 1


def test_events_about_others_cost_no_look_at_the_ledger(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(server.ledger, "anna", "operator")
    give_token(server.ledger, "anna", 1)
    monkeypatch.setattr(sign_in, "monotonic", lambda: 0.0)
    server.index.sign_in(secret(1))
    for value in (True, False):
        submit(server.ledger, change("org:acme", value), change("org:globex", value))
        assert server.index.session_nowait(secret(1)) is not None
    submit(server.ledger, change("org:acme"), set_("principal:bert", "access.roles", ["auditor"]))
    assert server.index.session_nowait(secret(1)) is None
    submit(server.ledger, change("org:acme"))
    assert server.index.session_nowait(secret(1)) is None
    server.index.refresh()
    assert server.index._position == server.ledger.head().position


def test_a_redefined_default_counts(server: Server) -> None:
    give_token(server.ledger, "anna", 1)
    assert server.roles(1) == set()
    roles = definition(kinds=["principal"], value_type="set_of", default=["gateway"], protective=[])
    submit(server.ledger, define("access.roles", definition={**roles, "writable_by": "operator"}))
    assert server.roles(1) == {"gateway"}
    stop = definition(kinds=["principal"], value_type="bool", default=True, protective=True, writable_by="operator")
    submit(server.ledger, define("access.disabled", definition=stop))
    assert server.who(1) is None


def test_a_secret_of_two_principals_is_nobodys(server: Server) -> None:
    grant(server.ledger, "anna", "operator")
    give_token(server.ledger, "anna", 1)
    submit(
        server.ledger,
        set_("token:copy", "token.principal", "principal:bert"),
        set_("token:copy", "token.secret_sha256", digest(1)),
    )
    assert server.who(1) is None
    submit(server.ledger, clear("token:copy", "token.secret_sha256"))
    assert server.roles(1) == {"operator"}


def test_a_clock_behind_the_ledger_keeps_no_revoked_token_alive(server: Server, database_url: str) -> None:
    grant(server.ledger, "anna", "operator")
    give_token(server.ledger, "anna", 1)
    with open_ledger(database_url, write=True, clock=ManualClock(NOW + HOUR)) as ahead:
        submit(ahead, clear("token:t1", "token.secret_sha256"))
    server.index._looked_at = float("-inf")
    assert server.who(1, NOW + 1000) is None


def test_nobody_signs_in_where_the_ledger_cannot_be_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(server.ledger, "anna", "operator")
    give_token(server.ledger, "anna", 1)
    assert server.who(1) is not None
    server.index._looked_at = float("-inf")

    def refuse(*_: Any) -> Any:
        raise LedgerUnavailable("the database is gone")

    monkeypatch.setattr(server.ledger.recorder, "head", refuse)
    assert server.index.session_nowait(secret(1)) is None
    with pytest.raises(LedgerUnavailable):
        server.index.sign_in(secret(1))


def test_the_first_use_of_each_day_is_noted(server: Server) -> None:
    grant(server.ledger, "anna", "operator")
    give_token(server.ledger, "anna", 1)
    midnight = (NOW // DAY + 1) * DAY
    for at in (NOW + 1000, NOW + HOUR, midnight - 1):
        session = server.index.session_nowait(secret(1))
        server.clock.now_us = at
        if session is None or not session.start <= at < session.until:
            server.index.sign_in(secret(1))
    assert server.uses == [("token:t1", NOW // DAY)]
    server.clock.now_us = midnight
    assert server.index.session_nowait(secret(1)) is None
    server.index.sign_in(secret(1))
    assert server.uses[-1] == ("token:t1", NOW // DAY + 1)
    server.index.sign_in(secret(7))
    assert len(server.uses) == 2


def test_beyond_the_bound_the_oldest_session_is_read_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "SESSIONS_MAX", 2)
    for number in (1, 2, 3):
        grant(server.ledger, f"p{number}", "auditor")
        give_token(server.ledger, f"p{number}", number)
    for number in (1, 2, 3, 1):
        assert server.index.sign_in(secret(number)).caller is not None
        assert len(server.index._sessions) <= 2


def test_an_index_that_begins_late_knows_all_tokens(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "_TOKENS_AT_ONCE", 2)
    for number in range(5):
        grant(server.ledger, f"p{number}", "auditor")
        give_token(server.ledger, f"p{number}", number)
    late = AccessIndex(Query(server.ledger))
    assert [late.sign_in(secret(number)).caller is not None for number in range(6)] == [True] * 5 + [False]
    # After more events than it reads one by one, too.
    monkeypatch.setattr(sign_in, "_SKIPPED_MAX", 3)
    give_token(server.ledger, "p0", 7)
    submit(server.ledger, *(change(f"org:o{number}") for number in range(5)))
    assert late.sign_in(secret(7)).caller is not None
    assert late.sign_in(secret(3)).caller is not None


STEP = 1000
TIMES = st.integers(-3, 12)
CHANGES = st.tuples(
    st.sampled_from(["secret", "principal", "roles", "disabled"]),
    st.integers(0, 2),
    TIMES,
    st.none() | st.integers(1, 6),
)


@settings(max_examples=60)
@given(changes=st.lists(CHANGES, min_size=1, max_size=12), at=st.integers(0, 14), offset=st.sampled_from([-1, 0, 1]))
def test_random_histories_sign_in_as_the_law_of_time_says(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Any], at: int, offset: int
) -> None:
    """One token and one principal with random changes; the oracle folds each setting naively."""
    values: dict[str, tuple[str, str, list[Any]]] = {
        "secret": ("token:t1", "token.secret_sha256", [digest(1), digest(2), None]),
        "principal": ("token:t1", "token.principal", ["principal:anna", "principal:bert", None]),
        "roles": ("principal:anna", "access.roles", [["operator"], ["auditor", "gateway"], None]),
        "disabled": ("principal:anna", "access.disabled", [True, False, None]),
    }
    server = Server(f"sqlite:///{tmp_path_factory.mktemp('random')}/ledger.db")
    with server.ledger:
        logs: dict[str, list[dict[str, Any]]] = {name: [] for name in values}
        for name, choice, start, length in changes:
            subject, setting, choices = values[name]
            begin = NOW + start * STEP
            until = None if length is None else begin + length * STEP
            period = {"effective_from": format_time(begin), "effective_until": until and format_time(until)}
            value = choices[choice]
            event = clear(subject, setting) if value is None else set_(subject, setting, value)
            submit(server.ledger, {**event, **period, "reason": "a test"})
            logs[name].append({"from": begin, "until": until, "value": value})
        instant = max(NOW + at * STEP + offset, server.ledger.head().recorded_at or 0)
        decided = {name: deciding(log, instant) for name, log in logs.items()}
        holds = {name: one["value"] if one else None for name, one in decided.items()}
        for number in (1, 2):
            caller = server.who(number, instant)
            if holds["secret"] != digest(number) or holds["principal"] is None:
                assert caller is None
            elif holds["principal"] == "principal:bert":
                assert caller == Caller("principal:bert")
            elif holds["disabled"]:
                assert caller is None
            else:
                assert caller is not None
                assert sorted(map(str, caller.roles)) == sorted(holds["roles"] or [])


def test_the_index_is_of_the_ledger_and_not_of_a_folder(tmp_path: Path) -> None:
    first, second = Server(f"sqlite:///{tmp_path}/a.db"), Server(f"sqlite:///{tmp_path}/b.db")
    with first.ledger, second.ledger:
        grant(first.ledger, "anna", "operator")
        give_token(first.ledger, "anna", 1)
        assert first.who(1) is not None
        assert second.who(1) is None
        assert isinstance(first.ledger, Ledger)
