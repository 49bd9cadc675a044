"""The database refuses to change an event, and a change of a stored reason is detected."""

import hashlib
import json
import sqlite3
from contextlib import closing
from typing import Any

import psycopg
import pytest

from ledger.codec import parse_leaf
from ledger.errors import (
    LedgerCorrupt,
)
from ledger.store import Ledger
from tests.support.ledgers import change, submit


def raw(url: str) -> Any:
    """A connection that uses none of our code."""
    return sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)


# Immutability

FORBIDDEN = [
    "UPDATE {events} SET state = state",
    "UPDATE {events} SET recorded_at = 0 WHERE position = 1",
    "DELETE FROM {events}",
    "DELETE FROM {events} WHERE position = (SELECT max(position) FROM {events})",
]
FORBIDDEN_SQLITE = [
    "INSERT OR REPLACE INTO {events} SELECT * FROM {events} WHERE position = 1",
    "REPLACE INTO {events} SELECT position + 1, originator_id, originator_version, topic, state, recorded_at, leaf_hash"
    " FROM {events} ORDER BY position DESC LIMIT 1",
    "INSERT INTO {events} SELECT * FROM {events} WHERE position = 1"
    " ON CONFLICT (position) DO UPDATE SET recorded_at = 0",
    "INSERT INTO {events} SELECT 1000, 'org:x', 1, topic, state, recorded_at, leaf_hash FROM {events} LIMIT 1",
    "UPDATE OR REPLACE {events} SET position = 1 WHERE position = 2",
]
FORBIDDEN_POSTGRESQL = [
    "TRUNCATE {events}",
    "TRUNCATE {events} CASCADE",
    "INSERT INTO {events} SELECT * FROM {events} WHERE position = 1"
    " ON CONFLICT (position) DO UPDATE SET recorded_at = 0",
    "MERGE INTO {events} a USING {events} b ON a.position = b.position WHEN MATCHED THEN DELETE",
]


def test_the_database_itself_refuses_to_change_an_event(database_url: str, ledger: Ledger) -> None:
    submit(ledger, change())
    before = ledger.page(0)
    sqlite = database_url.startswith("sqlite")
    table = "events" if sqlite else "inforce.events"
    with closing(raw(database_url)) as connection:
        for statement in FORBIDDEN + (FORBIDDEN_SQLITE if sqlite else FORBIDDEN_POSTGRESQL):
            with pytest.raises((sqlite3.IntegrityError, psycopg.errors.IntegrityError), match="immutable"):
                connection.execute(statement.format(events=table))
            connection.rollback()
    assert ledger.page(0) == before


# Reasons


def test_a_reason_is_stored_beside_the_event_and_bound_to_it(ledger: Ledger) -> None:
    reason = 'because "quoted" – ünïcode 🙂 \x00 \x01T \\ and a\nnew line'
    with_reason, without = submit(ledger, change(reason=reason), change())
    assert ledger.reasons([1, with_reason.position, without.position]) == {with_reason.position: reason}
    leaf = ledger.event(with_reason.event_id).leaf
    assert b"because" not in leaf
    personal = ledger.recorder.personal([with_reason.position])[with_reason.position]
    commitment = hashlib.sha256(personal.salt + personal.content.encode()).hexdigest()
    assert json.loads(leaf)["data"]["personal"] == {"commitment": commitment}
    assert "personal" not in json.loads(ledger.event(without.event_id).leaf)["data"]


def test_equal_reasons_have_different_commitments(ledger: Ledger) -> None:
    receipts = submit(ledger, change(reason="same"), change(reason="same"))
    commitments = {parse_leaf(ledger.event(receipt.event_id).leaf).data.personal for receipt in receipts}
    assert len(commitments) == 2


@pytest.mark.parametrize("stolen_by", ["another reason", "another event"])
def test_a_changed_reason_is_detected(database_url: str, ledger: Ledger, stolen_by: str) -> None:
    first, second = submit(ledger, change(reason="one"), change())
    table = "personal_data" if database_url.startswith("sqlite") else "inforce.personal_data"
    with closing(raw(database_url)) as connection:
        if stolen_by == "another reason":
            connection.execute(f'UPDATE {table} SET content = \'{{"reason":"two"}}\'')
        else:
            connection.execute(f"UPDATE {table} SET position = {second.position}")
        connection.commit()
    with pytest.raises(LedgerCorrupt):
        ledger.reasons([first.position, second.position])
