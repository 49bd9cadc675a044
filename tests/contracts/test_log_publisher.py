"""A server's thread keeps the log up to the ledger, wakes those who wait, and hands over to another server."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transparency import publisher as module
from ledger.transparency.publisher import LogPublisher
from tests.support.ledgers import GENESIS
from tests.support.log_ledger import execute, grow, integrator_of, require_published
from tests.support.waiting import until


def start(ledger: Ledger) -> LogPublisher:
    return LogPublisher(ledger.recorder, integrator_of(ledger))


def wait(publisher: LogPublisher, size: int, timeout_s: float = 60) -> bool:
    return asyncio.run(publisher.wait_for_async(size, timeout_s))


def test_events_are_published_soon_after_they_are_recorded(ledger: Ledger) -> None:
    publisher = start(ledger)
    try:
        assert wait(publisher, GENESIS)
        grow(ledger, 300)
        assert wait(publisher, GENESIS + 300)
        require_published(ledger, GENESIS + 300)
        grow(ledger, 1)
        until(lambda: publisher.status.size == GENESIS + 301)
        assert publisher.status == (GENESIS + 301, True, None)
        assert not wait(publisher, GENESIS + 302, timeout_s=0.05)
    finally:
        publisher.close()


def test_many_wait_at_once(ledger: Ledger) -> None:
    publisher = start(ledger)

    async def all_of_them() -> list[bool]:
        waiting = [asyncio.create_task(publisher.wait_for_async(GENESIS + number, 60)) for number in range(1, 9)]
        await asyncio.to_thread(grow, ledger, 8)
        return await asyncio.gather(*waiting)

    try:
        assert asyncio.run(all_of_them()) == [True] * 8
    finally:
        publisher.close()


def test_another_server_takes_over_and_sees_what_was_published(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEADER_RETRY_S", 0.1)
    first = start(ledger)
    try:
        assert wait(first, GENESIS)
        with open_ledger(database_url, write=True) as other:
            second = start(other)
            try:
                grow(ledger, 5)
                assert wait(second, GENESIS + 5), "it looks while somebody waits"
                assert not second.status.integrates
                first.close()
                until(lambda: second.status.integrates)
                grow(other, 5)
                assert wait(second, GENESIS + 10)
                require_published(other, GENESIS + 10)
            finally:
                second.close()
    finally:
        first.close()


def test_a_refusal_is_logged_once_and_so_is_its_end(
    ledger: Ledger, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "inforce.ledger")
    grow(ledger, 300)
    integrator_of(ledger).catch_up()
    whole = ledger.recorder.log_tables().tiles([(0, 1)])[0, 1]
    execute(database_url, "UPDATE {}log_tiles SET hashes = ? WHERE level = 0 AND number = 1", bytes(len(whole)))
    grow(ledger, 1)
    publisher = start(ledger)
    try:
        until(lambda: publisher.status.problem is not None)
        assert not wait(publisher, GENESIS + 301, timeout_s=1.5)
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        assert errors[0].startswith("log_damaged: no checkpoint of the log is signed: ")
        execute(database_url, "UPDATE {}log_tiles SET hashes = ? WHERE level = 0 AND number = 1", whole)
        assert wait(publisher, GENESIS + 301)
        until(lambda: publisher.status.problem is None)
        assert "checkpoints of the log are signed again" in caplog.text
    finally:
        publisher.close()


def test_a_checkpoint_that_is_published_while_somebody_begins_to_wait_is_not_missed(ledger: Ledger) -> None:
    publisher = start(ledger)
    publisher.close()

    class PublishedMeanwhile:
        """Stands for the lock: right before a caller is noted, the thread has looked at those who wait."""

        def __enter__(self) -> None:
            publisher.status = publisher.status._replace(size=1_000_000)

        def __exit__(self, *error: object) -> None: ...

    publisher._lock = PublishedMeanwhile()  # type: ignore[assignment]  # a stand-in for this moment
    assert asyncio.run(asyncio.wait_for(publisher.wait_for_async(1_000_000, 3600), 60))


def test_an_unexpected_error_stops_nothing_else_and_its_words_are_in_no_log(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    broken = True

    def lines(_size: int) -> list[str]:
        if broken:
            raise RuntimeError("somebody's data")
        return []

    publisher = LogPublisher(ledger.recorder, integrator_of(ledger, extension_lines=lines))
    try:
        until(lambda: publisher.status.problem is not None)
        assert publisher.status.problem is not None
        assert publisher.status.problem.code == "log_unavailable"
        assert "RuntimeError at lines:" in publisher.status.problem.detail
        assert "somebody" not in caplog.text + publisher.status.problem.detail
        broken = False
        assert wait(publisher, GENESIS)
    finally:
        publisher.close()
