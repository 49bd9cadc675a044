"""An event that was altered on the disk is refused wherever it is read, with its position; so is one that is missing.

Each column is altered by itself, without our code, and with the triggers off.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.codec import leaf_hash
from ledger.errors import DamagedEvent, LedgerCorrupt
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transfer.export import export_lines
from projections.audit.index.compile import compile_index
from projections.query.history import history
from projections.query.query import Query
from projections.timelines.projector import Projector
from projections.timelines.rebuild.external_sort import SubjectRange
from projections.timelines.rebuild.fold_range import fold_ranges
from projections.timelines.store import open_timelines
from tests.contracts.test_immutability import raw
from tests.support.ledgers import GENESIS, change, submit

DAMAGED = GENESIS + 2
SUBJECT = "org:acme"

OTHER_VALUES: dict[str, Any] = {
    "originator_id": "org:acmd",
    "originator_version": 66,
    "topic": "setting.cleared",
    "state": b"",
    "recorded_at": 1,
    "leaf_hash": bytes(32),
}

READS: dict[str, Callable[[Ledger], object]] = {
    "the feed": lambda ledger: ledger.page(0),
    "the event": lambda ledger: ledger.recorder.entry(DAMAGED),
    "the subject's stream": lambda ledger: ledger.stream(SUBJECT),
    "its history": lambda ledger: history(ledger, SUBJECT),
    "an export": lambda ledger: list(export_lines(ledger)),
    "the projector": lambda ledger: Projector(ledger, open_timelines(ledger)).catch_up(),
    "a rebuild": lambda ledger: list(fold_ranges(ledger.recorder, ledger.head().position, [SubjectRange("", None)])),
    "a question": lambda ledger: Query(ledger).state(SUBJECT, at=ledger.clock.now(), known_at=ledger.clock.now()),
    "a policy index": compile_index,
    "the library's feed": lambda ledger: _library(ledger).select_notifications(1, 100, topics=["setting.changed"]),
}
"""Every way to read the event."""


def _library(ledger: Ledger) -> Any:
    return ledger.recorder


def alter(url: str, column: str, value: object, position: int = DAMAGED) -> None:
    sqlite = url.startswith("sqlite")
    with closing(raw(url)) as connection:
        if sqlite:
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {name}")
        else:
            connection.execute("ALTER TABLE inforce.events DISABLE TRIGGER ALL")
        table, place = ("events", "?") if sqlite else ("inforce.events", "%s")
        connection.execute(f"UPDATE {table} SET {column} = {place} WHERE position = {place}", (value, position))
        connection.commit()


@pytest.fixture
def ledger(ledger: Ledger) -> Ledger:
    for _ in range(3):
        submit(ledger, change(SUBJECT))
    submit(ledger, change("org:beta"))
    return ledger


def refusal(read: str, ledger: Ledger) -> str:
    with pytest.raises(LedgerCorrupt) as refused:
        READS[read](ledger)
    return refused.value.detail


@pytest.mark.parametrize("column", OTHER_VALUES)
def test_a_column_that_differs_from_its_leaf_is_named_with_its_position(
    ledger: Ledger, database_url: str, column: str
) -> None:
    alter(database_url, column, OTHER_VALUES[column])
    for read in READS:
        if read == "a policy index" and column not in ("state", "leaf_hash"):
            # It is made of the leaves alone.
            continue
        # An event that its subject does not lead to is missed beside the one after it.
        moved = column.startswith("originator") and read in ("the subject's stream", "its history", "a question")
        named = [f" at position {position} " for position in ((DAMAGED, DAMAGED + 1) if moved else (DAMAGED,))]
        assert any(which in refusal(read, ledger) for which in named), read


def test_a_missing_event_is_named_with_its_position(ledger: Ledger, database_url: str) -> None:
    alter(database_url, "position", 10_000)
    for read in READS:
        assert "position " in refusal(read, ledger), read


def test_the_first_and_the_last_event_are_missed(ledger: Ledger, database_url: str) -> None:
    head = ledger.head().position
    alter(database_url, "position", -1, position=1)
    with pytest.raises(DamagedEvent, match="the event at position 1 is not as it was recorded: it is missing"):
        ledger.page(0)
    alter(database_url, "position", head + 256, position=head)
    with pytest.raises(DamagedEvent, match=f"the event at position {head + 256} is not as it was recorded"):
        ledger.page(head - 2)
    for read in (lambda: ledger.page(head - 2, until=head), ledger.head):
        # The newest row is no head either.
        with pytest.raises(DamagedEvent, match=f"the event at position {head + 256} is not as it was recorded"):
            read()


def test_a_bit_of_the_leaf_that_still_makes_an_event_is_noticed(ledger: Ledger, database_url: str) -> None:
    leaf = ledger.page(DAMAGED - 1, 1)[0].leaf
    alter(database_url, "state", leaf.replace(b'"value":true', b'"value":false'))
    with pytest.raises(DamagedEvent, match=f"position {DAMAGED} .* its bytes do not match its hash"):
        ledger.page(0)


def test_the_leaf_of_another_event_with_its_hash_is_noticed(ledger: Ledger, database_url: str) -> None:
    leaf = ledger.page(DAMAGED, 1)[0].leaf
    alter(database_url, "state", leaf)
    alter(database_url, "leaf_hash", leaf_hash(leaf))
    for read in READS:
        assert f"position {DAMAGED}" in refusal(read, ledger), read


def test_the_events_before_a_damaged_one_are_read(ledger: Ledger, database_url: str) -> None:
    before = [entry.leaf + b"\n" for entry in ledger.page(0, DAMAGED - 1)]
    alter(database_url, "recorded_at", 1)
    lines = export_lines(ledger)
    assert [next(lines) for _ in before] == before
    with pytest.raises(DamagedEvent, match=f"position {DAMAGED} "):
        next(lines)
    with pytest.raises(LedgerCorrupt):
        Projector(ledger, open_timelines(ledger)).catch_up()
    assert open_timelines(ledger).tracked() == DAMAGED - 1


def test_a_column_of_another_type_or_that_is_no_text_is_noticed(tmp_path: Path) -> None:
    """SQLite stores any value in any column."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url, create=True) as ledger:
        submit(ledger, change(SUBJECT), change(SUBJECT), change("org:beta"))
        for column, value in (
            ("topic", "x'73'"),
            ("topic", "CAST(x'ff' AS TEXT)"),
            ("originator_id", "CAST(x'ff' AS TEXT)"),
            ("originator_id", "7"),
            ("originator_version", "'two'"),
            ("recorded_at", "1.5"),
            ("recorded_at", "'soon'"),
            ("state", "'a text'"),
        ):
            with closing(raw(url)) as connection:
                for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
                    connection.execute(f"DROP TRIGGER {name}")
                ((before,),) = connection.execute(f"SELECT {column} FROM events WHERE position = {DAMAGED}").fetchall()
                connection.execute(f"UPDATE events SET {column} = {value} WHERE position = {DAMAGED}")
                connection.commit()
                with pytest.raises(DamagedEvent, match=f"position {DAMAGED} "):
                    ledger.page(0)
                connection.execute(f"UPDATE events SET {column} = ? WHERE position = {DAMAGED}", (before,))
                connection.commit()
        assert len(ledger.page(0)) == GENESIS + 3


@pytest.mark.parametrize("column", ["originator_id", "originator_version"])
def test_the_newest_event_of_a_subject_is_missed_too(ledger: Ledger, database_url: str, column: str) -> None:
    """No gap shows it: the stored timelines know of it."""
    Query(ledger).context()
    alter(database_url, column, OTHER_VALUES[column] if column == "originator_version" else "org:zeta", GENESIS + 3)
    for read in (
        lambda: ledger.stream(SUBJECT),
        lambda: ledger.subject_page(SUBJECT, 0),
        lambda: history(ledger, SUBJECT),
        lambda: Query(ledger).state(SUBJECT, at=ledger.clock.now()),
        lambda: Query(ledger).state(SUBJECT, at=ledger.clock.now(), known_at=ledger.clock.now() - 1),
    ):
        with pytest.raises(LedgerCorrupt, match=f"position {GENESIS + 3} "):
            read()
