"""A crash between any two writes of the integrator leaves a log that verifies and goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transparency import checkpoint_memory
from ledger.transparency.checkpoint import SignedCheckpoint
from ledger.transparency.checkpoint_memory import memory_of
from ledger.transparency.published_log import PublishedLog
from tests.support.ledgers import GENESIS, NOW, ORIGIN
from tests.support.log_ledger import KEY, grow, integrator_of, require_published

EVENTS = 300


class Crash(BaseException):
    """Ends the process at this point, as far as the ledger can tell: transactions that are open are rolled back."""


class Crashing:
    """Counts the integrator's writes, and crashes right before the write number `at`."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.writes = 0

    def write(self) -> None:
        self.writes += 1
        if self.writes == self.at:
            raise Crash

    def cursor(self, cursor: Any) -> Any:
        crashing = self

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(cursor, name)

            def execute(self, statement: str, *parameters: Any, **more: Any) -> Any:
                if not statement.startswith("SELECT"):
                    crashing.write()
                return cursor.execute(statement, *parameters, **more)

            def executemany(self, statement: str, rows: Any) -> Any:
                for row in rows:
                    crashing.write()
                    cursor.execute(statement, row)

        return Counting()

    def install(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        begin = ledger.recorder.transaction

        @contextmanager
        def transaction(*, commit: bool) -> Iterator[Any]:
            with begin(commit=commit) as cursor:
                yield self.cursor(cursor)
                if commit:
                    self.write()
            if commit:
                self.write()

        monkeypatch.setattr(ledger.recorder, "transaction", transaction)
        write = checkpoint_memory._write

        def note(path: Path, content: bytes) -> None:
            self.write()
            write(path, content)
            self.write()

        monkeypatch.setattr(checkpoint_memory, "_write", note)


def opened(url: str) -> Ledger:
    return open_ledger(url, create=True, clock=ManualClock(NOW), origin=ORIGIN)


def test_a_crash_at_every_write_is_survived(
    database_url: str, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    with opened(database_url) as ledger:
        integrator_of(ledger).catch_up()
    size, crashes, noted = GENESIS, 0, 0
    for at in range(1, 1000):
        with opened(database_url) as ledger:
            grow(ledger, EVENTS)
            before = PublishedLog(ledger.recorder).checkpoint()
            assert before is not None
            with monkeypatch.context() as patch:
                crashing = Crashing(at)
                crashing.install(ledger, patch)
                try:
                    integrator_of(ledger, page_events=200).catch_up()
                    finished = True
                except Crash:
                    finished = False
        size += EVENTS
        with opened(database_url) as ledger:
            now = PublishedLog(ledger.recorder).checkpoint()
            assert now is not None
            require_published(ledger, now.head.size)
            remembered = memory_of(ledger).newest()
            assert remembered is not None
            assert remembered.head.size >= now.head.size >= before.head.size
            # Noted and not published: the next round publishes these very bytes, if nothing has been recorded since.
            if not finished and remembered.head.size > now.head.size:
                noted += 1
                integrator = integrator_of(ledger)
                integrator.catch_up()
                assert PublishedLog(ledger.recorder).checkpoint() == remembered
            integrator = integrator_of(ledger)
            assert integrator.catch_up() == size
            assert integrator.problem is None
            require_published(ledger, size)
        if finished:
            break
        crashes += 1
    assert crashes > 10
    assert noted > 0
    record_property("figure", f"crashes of the integrator: {crashes}, {noted} between note and publication")


PROGRAM = """
import sys, time
from ledger.opening import open_ledger
from tests.support.log_ledger import grow, integrator_of
ledger = open_ledger(sys.argv[1], write=True)
integrator = integrator_of(ledger, page_events=37)
print("begun", flush=True)
while True:
    grow(ledger, 100)
    integrator.catch_up()
"""


def test_a_killed_process_leaves_a_log_that_goes_on(database_url: str) -> None:
    with open_ledger(database_url, create=True, origin=ORIGIN) as ledger:
        integrator_of(ledger).catch_up()
    before: SignedCheckpoint | None = None
    for number in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, database_url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.2 + 0.13 * number)
            process.send_signal(signal.SIGKILL)
        with open_ledger(database_url, write=True) as ledger:
            log = PublishedLog(ledger.recorder)
            signed = log.checkpoint()
            assert signed is not None
            signed.note.verified_by([KEY.verifier])
            if before is not None:
                assert log.root_of(before.head.size) == before.head.root
            integrator = integrator_of(ledger)
            integrator.catch_up()
            assert integrator.problem is None
            before = require_published(ledger, ledger.head().position)
