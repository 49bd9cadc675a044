"""The state of each token at any moment, and secrets that nobody can guess."""

import hashlib
import re
from functools import partial

import pytest

from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.entropy import random_bytes
from ledger.opening import open_ledger
from ledger.times import format_time
from projections.access.tokens import (
    digest_of,
    is_secret,
    needs_first_token,
    new_token,
    revocation,
    tokens,
    tokens_with_digest,
)
from projections.query.query import Query
from tests.access.support import set_
from tests.support.ledgers import NOW, OPERATOR, submit

HOUR = 3_600_000_000


def test_a_secret_holds_256_random_bits_and_only_its_hash_is_recorded() -> None:
    new = new_token("principal:anna", ["operator"], None, random_bytes)
    assert re.fullmatch(r"ift_[A-Za-z0-9_-]{43}", new.secret)
    assert is_secret(new.secret)
    assert digest_of(new.secret) == hashlib.sha256(new.secret.encode()).hexdigest()
    assert new.secret not in str(new.events)
    assert digest_of(new.secret) in str(new.events)
    assert len({new_token("principal:a", None, None, random_bytes).secret for _ in range(1000)}) == 1000
    # Every bit of the random bytes is in the secret.
    secrets = set()
    for bit in range(64):
        secrets.add(new_token("principal:a", None, None, partial(one_bit, bit)).secret)
    assert len(secrets) == 64


def one_bit(bit: int, length: int) -> bytes:
    return (1 << bit).to_bytes(length, "big")


@pytest.mark.parametrize(
    ("at", "states"),
    [
        (HOUR - 1, {"lasting": "valid", "ending": "valid", "revoked": "revoked", "scheduled": "scheduled"}),
        (HOUR, {"lasting": "valid", "ending": "expired", "revoked": "revoked", "scheduled": "valid"}),
        (HOUR + 1, {"lasting": "valid", "ending": "expired", "revoked": "revoked", "scheduled": "valid"}),
    ],
)
def test_the_state_of_each_token(database_url: str, at: int, states: dict[str, str]) -> None:
    clock = ManualClock(NOW)
    with open_ledger(database_url, create=True, clock=clock) as ledger:
        query = Query(ledger)
        assert needs_first_token(query, "principal:first")
        names = {}
        for name in ("lasting", "ending", "revoked", "scheduled"):
            until = NOW + HOUR if name in ("ending", "revoked") else None
            new = new_token(f"principal:{name}", ["auditor"], until, random_bytes)
            if name == "scheduled":
                new.events[-1]["effective_from"] = format_time(NOW + HOUR)
            ledger.submit(parse_submissions({"events": new.events}), actor=OPERATOR)
            names[new.token] = name
            if name == "revoked":
                submit(ledger, revocation(new.token))
            has_it = name in ("lasting", "ending")
            assert tokens_with_digest(query, digest_of(new.secret)) == ([new.token] if has_it else [])
        clock.now_us = NOW + at
        rows = {names[row.token]: row for row in tokens(query)}
        assert {name: row.state for name, row in rows.items()} == states
        assert {row.created_by for row in rows.values()} == {OPERATOR}
        assert not needs_first_token(query, "principal:first")
        submit(ledger, set_("principal:lasting", "access.disabled", True))
        assert {row.principal for row in tokens(query) if row.disabled} == {"principal:lasting"}


def test_a_revocation_also_cancels_what_was_scheduled(database_url: str) -> None:
    clock = ManualClock(NOW)
    with open_ledger(database_url, create=True, clock=clock) as ledger:
        new = new_token("principal:a", ["auditor"], None, random_bytes)
        new.events[-1]["effective_from"] = format_time(NOW + HOUR)
        ledger.submit(parse_submissions({"events": new.events}), actor=OPERATOR)
        submit(ledger, revocation(new.token))
        clock.now_us = NOW + 2 * HOUR
        assert [row.state for row in tokens(Query(ledger))] == ["revoked"]


def test_only_a_ledger_for_which_nobody_made_a_token_needs_a_first_one(database_url: str) -> None:
    clock = ManualClock(NOW)
    with open_ledger(database_url, create=True, clock=clock) as ledger:
        query = Query(ledger)
        first = new_token("principal:first", ["operator"], NOW + HOUR, random_bytes)
        ledger.submit(parse_submissions({"events": first.events}), actor=OPERATOR)
        for at, needed in ((HOUR - 1, False), (HOUR, True), (HOUR + 1, True)):
            clock.now_us = NOW + at
            assert needs_first_token(query, "principal:first") == needed
        own = new_token("principal:anna", ["operator"], None, random_bytes)
        ledger.submit(parse_submissions({"events": own.events}), actor=OPERATOR)
        submit(ledger, revocation(own.token))
        # Somebody revoked every token on purpose, so a restart opens no door.
        assert not needs_first_token(query, "principal:first")
