"""The digest of a body is stored under a secret of the ledger, which leaves the database only in its backups."""

import hashlib
import hmac
import io
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.append.submissions import canonical_json, parse_submissions
from ledger.drafts import Idempotency
from ledger.errors import IdempotencyKeyReused, LedgerCorrupt
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from tests.support.checking import all_faults
from tests.support.ledgers import change, key, known_submission, submit

REASONS = ["divorce", "illness", "bankruptcy", "pregnancy"]
"""The guesses of an attacker."""


def digest(body: dict[str, Any]) -> bytes:
    return hashlib.sha256(canonical_json(body)).digest()


def body(reason: str) -> dict[str, Any]:
    return change("account:anna", reason=reason)


def submit_body(ledger: Ledger, reason: str) -> object:
    idempotency = Idempotency("alice", "k", digest(body(reason)))
    return ledger.submit(parse_submissions(body(reason)), actor="operator:test", idempotency=idempotency)


def facts(ledger: Ledger) -> dict[str, str]:
    """Everything in the table of facts, the secret included."""
    schema = "inforce." if ledger.recorder.file is None else ""
    with ledger.recorder.transaction(commit=False) as cursor:
        return dict(cursor.execute(f"SELECT name, value FROM {schema}ledger_meta").fetchall())


def test_the_stored_digest_gives_no_reason_away(ledger: Ledger) -> None:
    submit_body(ledger, "illness")
    known = known_submission(ledger, "alice", "k")
    assert known is not None
    assert known.body_sha256 not in [digest(body(reason)) for reason in REASONS]
    secret = bytes.fromhex(facts(ledger)["body_key"])
    assert len(secret) == 32
    keyed = hmac.new(secret, digest(body("illness")), hashlib.sha256).digest()
    assert known.body_sha256[:32] == keyed
    leaf = json.loads(ledger.page(known.first_position - 1)[0].leaf)
    message = keyed + leaf["id"][13:].encode() + b"1\0alice\0k"
    assert known.body_sha256[32:] == hmac.new(secret, message, hashlib.sha256).digest()[:16]


def test_a_retry_gets_its_receipts_and_another_body_is_refused(ledger: Ledger, database_url: str) -> None:
    first = submit_body(ledger, "illness")
    assert submit_body(ledger, "illness") == first
    with open_ledger(database_url, clock=ledger.clock) as another:
        assert submit_body(another, "illness") == first
        for reason in REASONS:
            if reason != "illness":
                with pytest.raises(IdempotencyKeyReused):
                    submit_body(another, reason)


def test_a_digest_of_an_older_inforce_that_was_not_stopped_still_counts(ledger: Ledger) -> None:
    first = submit_body(ledger, "illness")
    schema, mark = ("inforce.", "%s") if ledger.recorder.file is None else ("", "?")
    with ledger.recorder.transaction(commit=True) as cursor:
        cursor.execute(f"UPDATE {schema}submissions SET body_sha256 = {mark}", (digest(body("illness")),))
    assert submit_body(ledger, "illness") == first
    with pytest.raises(IdempotencyKeyReused):
        submit_body(ledger, "divorce")


def test_every_ledger_has_its_own_secret_and_shows_it_nowhere(ledger: Ledger, database_url: str, tmp_path: Any) -> None:
    submit_body(ledger, "illness")
    secret = facts(ledger)["body_key"]
    exported, personal = b"".join(export_lines(ledger)), b"".join(export_personal(ledger))
    import_ledger(f"sqlite:///{tmp_path}/copy.db", io.BytesIO(exported), personal=io.BytesIO(personal))
    with open_ledger(f"sqlite:///{tmp_path}/copy.db") as copy:
        assert facts(copy)["body_key"] not in ("", secret)
        submit(copy, change(), idempotency=key("k"))
    assert "body_key" not in ledger.recorder.meta()
    shown = [exported, personal, repr(ledger.recorder.meta()).encode()]
    with TestClient(create_app(database_url, sign_in=False)) as client:
        for path in (
            "/v1/events?limit=1000",
            "/readyz",
            "/healthz",
            "/openapi.json",
            "/v1/subjects/account:anna/state",
        ):
            shown.append(client.get(path).content)
    assert all(secret.encode() not in text for text in shown)


ALTERED = {
    "the digest": "body_sha256 = {other}",
    "the seal": "body_sha256 = {seal}",
    "the caller": "caller = 'bob'",
    "the key": "key = 'm'",
}


@pytest.mark.parametrize("part", ALTERED)
def test_an_altered_row_is_no_answer_to_a_retry(ledger: Ledger, part: str) -> None:
    """It was answered with 422 idempotency_key_reused, or with the receipts of another key."""
    first = submit_body(ledger, "illness")
    known = known_submission(ledger, "alice", "k")
    assert known is not None
    stored, schema = known.body_sha256, "inforce." if ledger.recorder.file is None else ""
    literal = "decode('{}', 'hex')" if schema else "x'{}'"
    other = literal.format((bytes([stored[0] ^ 1]) + stored[1:]).hex())
    seal = literal.format((stored[:-1] + bytes([stored[-1] ^ 1])).hex())
    with ledger.recorder.transaction(commit=True) as cursor:
        cursor.execute(f"UPDATE {schema}submissions SET {ALTERED[part].format(other=other, seal=seal)}")
    head = ledger.head()
    caller, name = ("bob" if part == "the caller" else "alice"), ("m" if part == "the key" else "k")
    for text in ("illness", "divorce"):
        idempotency = Idempotency(caller, name, digest(body(text)))
        with pytest.raises(LedgerCorrupt, match=r"position \d+ is not stored as it was recorded"):
            ledger.submit(parse_submissions(body(text)), actor="operator:test", idempotency=idempotency)
    assert ledger.head() == head
    with ledger.recorder.transaction(commit=True) as cursor:
        cursor.execute(
            f"UPDATE {schema}submissions SET caller = 'alice', key = 'k', body_sha256 = {literal.format(stored.hex())}"
        )
    assert submit_body(ledger, "illness") == first


@pytest.mark.parametrize("value", [None, "", "ab", "zz" * 32])
def test_without_its_secret_a_ledger_stores_no_key(ledger: Ledger, database_url: str, value: str | None) -> None:
    """It stored the digest of the body as it is, or answered with a traceback."""
    submit_body(ledger, "illness")
    schema = "inforce." if ledger.recorder.file is None else ""
    with ledger.recorder.transaction(commit=True) as cursor:
        if value is None:
            cursor.execute(f"DELETE FROM {schema}ledger_meta WHERE name = 'body_key'")
        else:
            cursor.execute(f"UPDATE {schema}ledger_meta SET value = '{value}' WHERE name = 'body_key'")
    with open_ledger(database_url, clock=ledger.clock) as another:
        for reason in ("illness", "divorce"):
            with pytest.raises(LedgerCorrupt, match="secret for Idempotency-Keys is lost or damaged"):
                submit_body(another, reason)
        with pytest.raises(LedgerCorrupt, match="secret for Idempotency-Keys"):
            submit(another, change(), idempotency=key("k2"))
        # A submission without a key is recorded.
        assert submit(another, change())
    assert any("secret for Idempotency-Keys" in fault for fault in all_faults(database_url))


def test_a_secret_that_was_altered_is_named_once(ledger: Ledger, database_url: str) -> None:
    submit_body(ledger, "illness")
    submit(ledger, change(), idempotency=key("k2"))
    assert all_faults(database_url) == []
    schema = "inforce." if ledger.recorder.file is None else ""
    with ledger.recorder.transaction(commit=True) as cursor:
        cursor.execute(f"UPDATE {schema}ledger_meta SET value = '{'ab' * 32}' WHERE name = 'body_key'")
    assert [fault for fault in all_faults(database_url) if "Idempotency" in fault] == [
        "none of the 2 Idempotency-Keys is stored as it was recorded: the ledger's secret was altered"
    ]
