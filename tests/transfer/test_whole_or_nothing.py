"""An import needs an empty ledger, and succeeds completely or changes nothing."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger.errors import BadImport, LedgerUnavailable
from ledger.opening import open_ledger, open_recorder
from ledger.store import Ledger
from ledger.times import format_time
from ledger.transfer import import_ledger as importing
from tests.support.ledgers import GENESIS, ORIGIN, change, open_with_clock, submit
from tests.support.programs import start_programs
from tests.support.transfers import AT_US, at, entries, import_lines, is_untouched, jsonl


def test_a_ledger_with_events_is_left_alone(database_url: str, exported: bytes) -> None:
    ledger, _ = open_with_clock(database_url)
    with ledger:
        submit(ledger, change())
        before = ledger.page(0)
    with pytest.raises(BadImport, match=f"this ledger holds {GENESIS + 1} events"):
        import_lines(database_url, exported)
    assert entries(database_url) == before


def test_a_ledger_with_tables_but_no_events_is_filled(database_url: str, exported: bytes) -> None:
    with closing(open_recorder(database_url)) as recorder:
        recorder.create({"origin": "never.begun"})
    assert import_lines(database_url, exported).origin == ORIGIN


def test_an_interrupted_import_leaves_nothing(
    database_url: str, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 5)

    def interrupt(events: int, _bytes: int) -> None:
        if events >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_lines(database_url, exported, progress=interrupt)
    assert is_untouched(database_url)
    import_lines(database_url, exported)


def test_nobody_else_opens_the_ledger_during_an_import(
    database_url: str, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 5)
    refusals: list[str] = []

    def try_to_open(_events: int, _bytes: int) -> None:
        try:
            open_ledger(database_url, create=True).close()
        except LedgerUnavailable as error:
            refusals.append(error.detail)

    summary = import_lines(database_url, exported, progress=try_to_open)
    # The last call comes after the last batch, when the import is finished.
    assert len(refusals) == summary.events // 5
    assert "import" in refusals[0]


def test_an_import_that_another_one_replaced_gives_up_and_harms_nothing(
    database_url: str, original: Ledger, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 5)
    overtaken = False

    def overtake(_events: int, _bytes: int) -> None:
        nonlocal overtaken
        if not overtaken:
            overtaken = True
            import_lines(database_url, exported)

    with pytest.raises(LedgerUnavailable, match="another import"):
        import_lines(database_url, exported, progress=overtake)
    assert entries(database_url) == original.page(0)


def test_an_import_killed_in_the_middle_is_refused_and_starts_over(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "submissions.jsonl"
    lines = [jsonl(at(format_time(AT_US + number), change(f"org:{number % 99}"))) for number in range(30_000)]
    file.write_bytes(b"".join(lines))
    with start_programs(("import", database_url, file)) as (process,):
        assert process.stdout is not None
        assert process.stdout.readline() == "10000\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    for create in (False, True):
        with pytest.raises(LedgerUnavailable, match="import into this ledger is running or was cut off"):
            open_ledger(database_url, create=create)
    assert stored_events(database_url) >= 10_000
    assert import_lines(database_url, b"".join(lines[:50])).events == GENESIS + 50
    assert len(entries(database_url)) == GENESIS + 50


def stored_events(url: str) -> int:
    connection: Any = (
        sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)
    )
    with closing(connection):
        (count,) = connection.execute(f"SELECT count(*) FROM {'' if 'sqlite' in url else 'inforce.'}events").fetchone()
        return int(count)


def test_a_failure_of_the_database_leaves_nothing(
    database_url: str, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 5)
    real = open_recorder

    def failing(url: str) -> Any:
        recorder = real(url)
        restore = recorder.restore
        calls: list[int] = []

        def fails_the_third_time(*arguments: Any, **more: Any) -> None:
            calls.append(1)
            if len(calls) == 3:
                raise LedgerUnavailable("the disk is full")
            restore(*arguments, **more)

        monkeypatch.setattr(recorder, "restore", fails_the_third_time)
        return recorder

    monkeypatch.setattr(importing, "open_recorder", failing)
    with pytest.raises(LedgerUnavailable, match="disk is full"):
        import_lines(database_url, exported)
    monkeypatch.undo()
    assert is_untouched(database_url)
