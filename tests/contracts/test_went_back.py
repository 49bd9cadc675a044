"""No position is acknowledged twice for different events, whatever happens to the ledger, on both databases."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger.clock import ManualClock
from ledger.diagnosis import acknowledge_head, head_report
from ledger.errors import BadInput, LedgerCorrupt, LedgerUnavailable, LedgerWentBack, NotWritable
from ledger.head_memory import HeadMemory
from ledger.opening import database_file, open_ledger
from ledger.store import Ledger
from tests.support.going_back import copy_of, delete_tail
from tests.support.ledgers import GENESIS, NOW, OPERATOR, ORIGIN, change, key, submit


@pytest.fixture
def server_url(request: pytest.FixtureRequest, database_url: str) -> str | None:
    if database_url.startswith("sqlite:"):
        return None
    url: str = request.getfixturevalue("postgres_server_url")
    return url


def opened(url: str, now: int = NOW) -> Ledger:
    return open_ledger(url, create=True, clock=ManualClock(now), origin=ORIGIN)


@pytest.fixture
def acknowledged(database_url: str) -> dict[int, str]:
    """Position → event id of three events that were acknowledged, in a ledger that is closed again."""
    with opened(database_url) as ledger:
        return {receipt.position: receipt.event_id for _ in range(3) for receipt in submit(ledger, change())}


def refused(ledger: Ledger, position: int, remembered: int) -> None:
    for _ in range(2):
        with pytest.raises(LedgerWentBack) as error:
            submit(ledger, change())
        assert (error.value.members["position"], error.value.members["remembered_position"]) == (position, remembered)
        with pytest.raises(LedgerWentBack):
            ledger.require_writable()
    assert ledger.head().position == position


@pytest.mark.parametrize("lost", [1, 3])
def test_a_deleted_tail_is_noticed_by_the_next_process(
    acknowledged: dict[int, str], database_url: str, lost: int
) -> None:
    delete_tail(database_url, GENESIS + 3 - lost)
    with opened(database_url) as ledger:
        refused(ledger, GENESIS + 3 - lost, GENESIS + 3)
    with open_ledger(database_url) as reader:
        assert reader.head().position == GENESIS + 3 - lost, "questions are answered"


def test_a_deleted_tail_is_noticed_by_a_running_process(database_url: str) -> None:
    with opened(database_url) as ledger:
        submit(ledger, change(), idempotency=key("first"))
        submit(ledger, change())
        changes: list[NotWritable | None] = []
        ledger.recorder.append_guard.on_change = changes.append
        delete_tail(database_url, GENESIS + 1)
        refused(ledger, GENESIS + 1, GENESIS + 2)
        assert [type(one) for one in changes] == [LedgerWentBack]
        # A retry of what is recorded writes nothing.
        assert submit(ledger, change(), idempotency=key("first"))[0].position == GENESIS + 1


def test_another_process_has_recorded_the_event_that_was_lost(database_url: str) -> None:
    """A server remembers what it acknowledged, and also what another process did, by the file that they share."""
    with opened(database_url) as server:
        submit(server, change())
        with open_ledger(database_url, clock=ManualClock(NOW)) as other:
            submit(other, change())
        delete_tail(database_url, GENESIS + 1)
        refused(server, GENESIS + 1, GENESIS + 2)


def test_another_event_at_the_position_is_noticed(database_url: str, tmp_path: Path, server_url: str | None) -> None:
    """An older copy grew elsewhere, past the last position that was acknowledged here, and came back."""
    with opened(database_url) as ledger:
        submit(ledger, change())
    put_older = copy_of(database_url, tmp_path, server_url)
    with opened(database_url) as ledger:
        (lost,) = submit(ledger, change(value=False))
    put_older()
    with opened(database_url) as ledger:
        ledger.recorder.append_guard.memory = HeadMemory()
        for _ in range(3):
            submit(ledger, change())
    with opened(database_url) as ledger:
        refused(ledger, GENESIS + 4, lost.position)


def test_a_copy_that_holds_every_acknowledged_event_goes_on(
    acknowledged: dict[int, str], database_url: str, tmp_path: Path, server_url: str | None
) -> None:
    put_same = copy_of(database_url, tmp_path, server_url)
    put_same()
    with opened(database_url) as ledger:
        assert submit(ledger, change())[0].position == GENESIS + 4


def test_the_operator_goes_on_from_where_the_ledger_ends(acknowledged: dict[int, str], database_url: str) -> None:
    delete_tail(database_url, GENESIS + 1)
    with opened(database_url) as server:
        refused(server, GENESIS + 1, GENESIS + 3)
        with opened(database_url) as operator:
            acknowledge_head(operator, "the tail is lost", OPERATOR)
            report = head_report(operator)
            assert (report.is_held, report.generation, report.head.position) == (True, 2, GENESIS + 3)
            with pytest.raises(BadInput, match="nothing to acknowledge"):
                acknowledge_head(operator, "again", OPERATOR)
        # Without a restart, and in the processes to come.
        assert submit(server, change())[0].position == GENESIS + 4
    with opened(database_url) as ledger:
        submit(ledger, change())
    delete_tail(database_url, GENESIS + 4)
    with opened(database_url) as ledger:
        refused(ledger, GENESIS + 4, GENESIS + 5)


def test_an_older_copy_with_an_older_acknowledgement_is_no_acknowledgement(
    acknowledged: dict[int, str], database_url: str, tmp_path: Path, server_url: str | None
) -> None:
    delete_tail(database_url, GENESIS + 1)
    with opened(database_url) as ledger:
        acknowledge_head(ledger, "the tail is lost", OPERATOR)
    put_older = copy_of(database_url, tmp_path, server_url)
    with opened(database_url) as ledger:
        submit(ledger, change())
    put_older()
    with opened(database_url) as ledger:
        refused(ledger, GENESIS + 3, GENESIS + 4)


def note_of(ledger: Ledger) -> Path:
    path = ledger.recorder.append_guard.memory.path
    assert path is not None
    return path


def test_a_new_ledger_is_not_begun_where_one_was_lost(database_url: str, server_url: str | None) -> None:
    with opened(database_url) as ledger:
        submit(ledger, change())
        note = note_of(ledger)
    path = database_file(database_url)
    if path is None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA inforce CASCADE")
    else:
        path.unlink()
    with pytest.raises(LedgerUnavailable, match=f"remembers one up to position {GENESIS + 1}; bring that ledger back"):
        opened(database_url)
    assert path is None or not path.exists()
    note.unlink()
    opened(database_url).close()


@pytest.mark.parametrize("damage", [b"", b"\0" * 2048, b"nonsense"])
def test_a_note_that_cannot_be_read_is_made_anew(
    acknowledged: dict[int, str], database_url: str, damage: bytes
) -> None:
    with opened(database_url) as ledger:
        note_of(ledger).write_bytes(damage)
    with opened(database_url) as ledger:
        submit(ledger, change())
        assert HeadMemory(note_of(ledger)).newest() == ledger.recorder.append_guard.memory.newest()


def test_a_folder_that_cannot_be_written_leaves_the_note_in_memory(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with opened(database_url) as ledger:
        ledger.recorder.append_guard.memory = HeadMemory(tmp_path / "file" / "note")
        submit(ledger, change())
        submit(ledger, change())
        assert [record.levelname for record in caplog.records if "cannot be kept" in record.message] == ["WARNING"]
        delete_tail(database_url, GENESIS + 1)
        refused(ledger, GENESIS + 1, GENESIS + 2)


def test_an_acknowledged_event_that_is_no_event_any_more_is_noticed(database_url: str) -> None:
    """In SQLite its bytes can become a text: the server answered with a traceback."""
    with opened(database_url) as ledger:
        (acknowledged,) = submit(ledger, change())
        note = note_of(ledger).read_bytes()
    with opened(database_url) as ledger:
        submit(ledger, change())
        path = note_of(ledger)
    path.write_bytes(note)
    damaged = "substr(CAST(state AS TEXT), 1, 20)" if database_url.startswith("sqlite") else "substr(state, 1, 20)"
    alter_event(database_url, f"SET state = {damaged} WHERE position = {acknowledged.position}")
    with opened(database_url) as ledger:
        for _ in range(2):
            with pytest.raises(
                (LedgerWentBack, LedgerCorrupt), match=f"the event at position {acknowledged.position} is"
            ):
                submit(ledger, change())
        assert ledger.head().position == acknowledged.position + 1


def alter_event(url: str, clause: str) -> None:
    path = database_file(url)
    if path is None:
        with psycopg.connect(url) as connection:
            connection.execute("ALTER TABLE inforce.events DISABLE TRIGGER USER")
            connection.execute(f"UPDATE inforce.events {clause}".encode())
            connection.execute("ALTER TABLE inforce.events ENABLE ALWAYS TRIGGER events_immutable")
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        ((trigger,),) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'events_no_update'").fetchall()
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute(f"UPDATE events {clause}")
        connection.execute(trigger)


@pytest.fixture(autouse=True)
def all_positions_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test fails if two events are acknowledged at one position before the operator acknowledges the loss."""
    seen: dict[Any, str] = {}
    submit_to = Ledger.submit

    def submitting(self: Ledger, *arguments: Any, **more: Any) -> Any:
        receipts = submit_to(self, *arguments, **more)
        guard = self.recorder.append_guard
        newest = guard.memory.newest()
        if not guard.acknowledging and guard.memory.path is not None and newest is not None:
            for receipt in receipts:
                where = guard.memory.path, newest.generation, receipt.position
                assert seen.setdefault(where, receipt.event_id) == receipt.event_id
        return receipts

    monkeypatch.setattr(Ledger, "submit", submitting)
