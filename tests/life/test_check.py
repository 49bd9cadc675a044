"""`inforce backup --check` names every fault of what is stored, on both databases, and changes nothing."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from tests.contracts.test_immutability import raw
from tests.faults.corruption import make
from tests.support.checking import all_faults
from tests.support.command import run

HARM: dict[str, tuple[str, str]] = {
    "a leaf": ("UPDATE {events} SET state = leaf_hash WHERE position = 40", "position 40 .* do not match its hash"),
    "a hash": (
        "UPDATE {events} SET leaf_hash = (SELECT leaf_hash FROM {events} WHERE position = 41) WHERE position = 40",
        "position 40 .* do not match its hash",
    ),
    "a subject": (
        "UPDATE {events} SET originator_id = 'org:x' WHERE position = 40",
        "position 40 .* its subject is not",
    ),
    "a topic": ("UPDATE {events} SET topic = 'x' WHERE position = 40", "position 40 .* its type is not"),
    "a time": ("UPDATE {events} SET recorded_at = 1 WHERE position = 40", "position 40 .* its time is not"),
    "a version": (
        "UPDATE {events} SET originator_version = 777 WHERE position = 40",
        "position 40 .* its version is not",
    ),
    "a lost event": ("DELETE FROM {events} WHERE position = 40", "the event at position 40 is missing"),
    "lost events": ("DELETE FROM {events} WHERE position IN (40, 41)", "the events at positions 40 to 41 are missing"),
    "a reason": ('UPDATE {personal_data} SET content = \'{{"reason":"x"}}\'', "not match the event's commitment"),
    "the place of a reason": (
        "UPDATE {personal_data} SET position = 2 WHERE position = (SELECT max(position) FROM {personal_data})",
        "personal data is stored for position 2, whose event has none",
    ),
    "a key's event": (
        "UPDATE {submissions} SET first_position = first_position - 1",
        "an Idempotency-Key is stored for",
    ),
    "a key's events": ("UPDATE {submissions} SET event_count = event_count + 1", "an Idempotency-Key is stored for"),
    "a key's time": ("UPDATE {submissions} SET recorded_at = 1", "an Idempotency-Key is stored for position"),
    "a key": (
        "UPDATE {submissions} SET key = key || 'x' WHERE key = 'k1'",
        "the Idempotency-Key of the submission at position .* is not stored",
    ),
    "a key's caller": (
        "UPDATE {submissions} SET caller = caller || 'x' WHERE key = 'k1'",
        "the Idempotency-Key of the submission at position",
    ),
    "a key's digest": (
        "UPDATE {submissions} SET body_sha256 = {zeros} WHERE key = 'k1'",
        "the Idempotency-Key of the submission at",
    ),
    "the origin": ("UPDATE {ledger_meta} SET value = 'x.example/y' WHERE name = 'origin'", "origin is not that of its"),
    "a lost origin": ("DELETE FROM {ledger_meta} WHERE name = 'origin'", "the ledger's origin is lost"),
    "the incarnation": ("UPDATE {ledger_meta} SET value = 'x' WHERE name = 'incarnation'", "incarnation is not what"),
    "the format": ("{lower_format}", "the ledger's tables are newer than its format number says"),
    "a timeline": (
        "UPDATE {timelines_subjects} SET version = 1",
        "the stored timelines of the subject of the event at",
    ),
    "a lost timeline": ("DELETE FROM {timelines_subjects} WHERE subject = 'org:acme'", "are missing or older"),
    "a lost block": ("DELETE FROM {timelines_blocks}", "the stored timelines of the subject of the event at position"),
    "a tracked position": (
        "UPDATE {timelines_tracking} SET position = 3 WHERE name LIKE 'subjects.v_'",
        "the position of the stored timelines is not what was written",
    ),
    "a lost trigger": ("DROP TRIGGER {immutable}", "is missing.* so events could be changed"),
}


def alter(url: str, statement: str) -> None:
    sqlite = url.startswith("sqlite")
    names = ["events", "personal_data", "submissions", "ledger_meta"]
    names += ["timelines_subjects", "timelines_blocks", "timelines_tracking"]
    tables = {name: name if sqlite else f"inforce.{name}" for name in names}
    immutable = "events_no_update" if sqlite else "events_immutable ON inforce.events"
    with closing(raw(url)) as connection:
        triggers: list[tuple[str, str]] = []
        if sqlite:
            triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            if "TRIGGER" in statement:
                triggers = []
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
        else:
            connection.execute("ALTER TABLE inforce.events DISABLE TRIGGER ALL")
        zeros = "zeroblob(48)" if sqlite else "decode(repeat('00', 48), 'hex')"
        lower = "UPDATE inforce.ledger_meta SET value = '2' WHERE name = 'format'"
        lower = "PRAGMA user_version=1" if sqlite else lower
        connection.execute(statement.format(immutable=immutable, zeros=zeros, lower_format=lower, **tables))
        if not sqlite and "TRIGGER" not in statement:
            connection.execute("ALTER TABLE inforce.events ENABLE ALWAYS TRIGGER events_immutable")
        for _, definition in triggers:
            connection.execute(definition)
        connection.commit()


@pytest.fixture
def url(database_url: str) -> str:
    make(database_url)
    return database_url


def test_a_whole_ledger_has_no_fault(url: str) -> None:
    assert all_faults(url) == []


@pytest.mark.parametrize("harm", HARM)
def test_every_kind_of_fault_is_named(url: str, harm: str) -> None:
    statement, words = HARM[harm]
    alter(url, statement)
    named = all_faults(url)
    assert any(re.search(words, fault) for fault in named), named
    assert not any(name in fault for fault in named for name in ("acme", "org:x", "ticket"))


def test_the_command_prints_a_line_for_each_fault_and_exits_1(url: str) -> None:
    assert run("backup", "--check", "--db", url).code == 0
    alter(url, "UPDATE {events} SET topic = 'x' WHERE position IN (40, 44)")
    result = run("backup", "--check", "--db", url)
    assert (result.code, result.out) == (1, "")
    assert [line.split(" is not ")[0] for line in result.err.splitlines()] == [
        f"inforce: the event at position {position}" for position in (40, 44)
    ]
    document = run("backup", "--check", "--db", url, "--format", "json")
    assert (document.code, len(document.json()["faults"])) == (1, 2)


def test_a_foreign_index_or_trigger_and_an_altered_table_are_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    make(url)
    with closing(raw(url)) as connection:
        connection.execute("CREATE INDEX theirs ON events (topic)")
        connection.execute("CREATE TRIGGER theirs_too AFTER INSERT ON events BEGIN SELECT 1; END")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'topic TEXT NOT NULL', 'topic TEXT') WHERE name = 'events'"
        )
        connection.commit()
    before = (tmp_path / "ledger.db").read_bytes()
    named = all_faults(url)
    assert "the table events is not defined as it was made" in named
    assert "the trigger theirs_too is not inforce's" in named
    assert "the index theirs of the table events is not inforce's" in named
    assert (tmp_path / "ledger.db").read_bytes() == before
