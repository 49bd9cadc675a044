"""The digest of a body is stored under a secret of the ledger, which leaves the database only in its backups."""

import hashlib
import hmac
import io
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.append.submissions import canonical_json, parse_submissions
from ledger.drafts import Idempotency
from ledger.errors import IdempotencyKeyReused
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
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
    assert known.body_sha256 == hmac.new(secret, digest(body("illness")), hashlib.sha256).digest()


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
    with TestClient(create_app(database_url)) as client:
        for path in (
            "/v1/events?limit=1000",
            "/readyz",
            "/healthz",
            "/openapi.json",
            "/v1/subjects/account:anna/state",
        ):
            shown.append(client.get(path).content)
    assert all(secret.encode() not in text for text in shown)
