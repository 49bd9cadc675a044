"""A damaged ledger makes no backup, and the check of a backup names what is damaged in it."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ledger.backup import back_up
from ledger.errors import InforceError, LedgerCorrupt, LedgerUnavailable
from ledger.opening import open_ledger
from tests.life.backups import refused, url
from tests.support.checking import all_faults
from tests.support.ledgers import GENESIS, change, submit

HARMED = GENESIS + 1


def leaf_changed(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_no_update")
    connection.execute(
        f"UPDATE events SET state = CAST(replace(state, '\"value\":', '\"valve\":') AS BLOB) WHERE position = {HARMED}"
    )


def leaf_made_a_text(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_no_update")
    connection.execute(f"UPDATE events SET state = CAST(state AS TEXT) WHERE position = {HARMED}")


def event_lost(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_no_delete")
    connection.execute(f"DELETE FROM events WHERE position = {HARMED}")


def version_lost(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_no_update")
    connection.execute(f"UPDATE events SET originator_version = 7 WHERE position = {HARMED}")


def time_turned_back(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_no_update")
    connection.execute(f"UPDATE events SET recorded_at = 0 WHERE position = {HARMED}")


def index_damaged(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'ledger_meta')"
        " WHERE name = 'sqlite_autoindex_events_1'"
    )


def topic_changed(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_no_update")
    connection.execute(f"UPDATE events SET topic = 'setting.cleared' WHERE position = {HARMED}")


def subject_changed(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER events_no_update")
    connection.execute(f"UPDATE events SET originator_id = 'org:elsewhere' WHERE position = {HARMED}")


def reason_changed(connection: sqlite3.Connection) -> None:
    connection.execute('UPDATE personal_data SET content = \'{"reason":"another"}\'')


def reason_misplaced(connection: sqlite3.Connection) -> None:
    connection.execute(f"UPDATE personal_data SET position = {HARMED + 3}")


def key_changed(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE submissions SET key = 'second'")


def table_redefined(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'topic TEXT NOT NULL', 'topic TEXT') WHERE name = 'events'"
    )


def origin_changed(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE ledger_meta SET value = 'x.example/y' WHERE name = 'origin'")


def origin_lost(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM ledger_meta WHERE name = 'origin'")


def origin_made_a_blob(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE ledger_meta SET value = x'00' WHERE name = 'origin'")


def fact_made_unreadable(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE ledger_meta SET value = CAST(x'ff' AS TEXT) WHERE name = 'incarnation'")


HARM: dict[Callable[[sqlite3.Connection], None], str] = {
    leaf_changed: "its bytes do not match its hash",
    leaf_made_a_text: "its column leaf holds another type of value",
    event_lost: f"the event at position {HARMED - 1} is followed by {HARMED + 1}",
    version_lost: "its version is not that of its row",
    time_turned_back: "its time is not that of its row",
    topic_changed: "its type is not that of its row",
    subject_changed: "its subject is not that of its row",
    reason_changed: f"the reason stored for the event at position {HARMED} does not match",
    reason_misplaced: f"personal data is stored for position {HARMED + 3}",
    key_changed: f"the Idempotency-Key of the submission at position {HARMED} is not stored as it was",
    origin_changed: "the ledger's origin is not that of its events",
    origin_lost: "the ledger's origin is lost",
    origin_made_a_blob: "the ledger's origin is lost",
    fact_made_unreadable: "is damaged",
    table_redefined: "its table events is not defined as it was made",
    index_damaged: "is damaged",
}


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
def test_a_damaged_ledger_is_reported_and_makes_no_backup(
    path: Path, target: Path, harm: Callable[[sqlite3.Connection], None]
) -> None:
    back_up(url(path), target)
    for harmed in (path, target):
        with closing(sqlite3.connect(harmed, isolation_level=None)) as connection:
            harm(connection)
    another = target.with_name("another.db")
    message = refused(LedgerCorrupt, lambda: back_up(url(path), another))
    assert HARM[harm] in message
    assert str(path) in message
    assert list(target.parent.iterdir()) == [target]
    words = (str(HARMED), "damaged", HARM[harm].removeprefix("its "))
    assert any(word in fault for fault in found_in(target) for word in words)
    if harm in (origin_changed, origin_lost, origin_made_a_blob):
        with pytest.raises(LedgerCorrupt, match="the ledger's origin"):
            open_ledger(url(path))


def test_a_truncated_backup_is_reported(path: Path, target: Path) -> None:
    back_up(url(path), target)
    os.truncate(target, target.stat().st_size - 4096)
    assert "damaged" in " ".join(found_in(target))
    os.truncate(target, 50)
    assert found_in(target)
    assert "no file" in refused(LedgerUnavailable, lambda: all_faults(url(target.with_name("no.db"))))


def found_in(target: Path) -> list[str]:
    try:
        return all_faults(url(target))
    except InforceError as error:
        return [error.detail]


def test_checking_changes_nothing(path: Path, target: Path) -> None:
    back_up(url(path), target)
    before = target.read_bytes()
    target.chmod(0o400)
    assert all_faults(url(target)) == []
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


def test_checking_a_backup_that_was_written_to_sees_the_new_events(path: Path, target: Path) -> None:
    back_up(url(path), target)
    with open_ledger(url(target)) as ledger:
        submit(ledger, change("org:later"))
        assert all_faults(url(target)) == []
