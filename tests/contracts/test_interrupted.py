"""A submitting thread may be interrupted anywhere, as by Ctrl-C: no other waits for ever, and the writer goes on."""

import linecache
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from ledger.append import group_commit as module
from ledger.append.group_commit import QueuedSubmission, Writer
from ledger.append.submissions import parse_submissions
from ledger.errors import LedgerUnavailable
from tests.support.ledgers import OPERATOR, change, key
from tests.support.waiting import GIVE_UP_S

WAIT_S = GIVE_UP_S
LINES_MIN = 40
"""Functions of the writer that the leader runs."""


class Interrupting:
    """Raises KeyboardInterrupt before line number `count` of those that this thread runs in `module`.

    It skips the exit of a `with`, which a tracer sees as the same line again: the interpreter does not interrupt
    between the block and the release of the lock.
    """

    def __init__(self, line: int) -> None:
        self.left = line
        self._entered: set[tuple[FrameType, int]] = set()

    def __call__(self, frame: FrameType, _event: str, _argument: object) -> Any:
        return self._trace if frame.f_code.co_filename == module.__file__ else None

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line" and not self._leaves(frame):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self._trace

    def _leaves(self, frame: FrameType) -> bool:
        if not linecache.getline(module.__file__, frame.f_lineno).lstrip().startswith("with "):
            return False
        visit = (frame, frame.f_lineno)
        leaves = visit in self._entered
        self._entered ^= {visit}
        return leaves


def pending(name: str) -> QueuedSubmission:
    return QueuedSubmission(parse_submissions(change(f"org:{name}")), OPERATOR, key(name), False)


class Scene:
    """A leader, a second submission that waits in its own thread, and a third that was enqueued."""

    def __init__(self) -> None:
        self.writer = Writer(self.commit)
        self.outcomes: list[object] = []
        self.notified = threading.Event()
        self.waiter = threading.Thread(target=self.wait, daemon=True)
        self.groups = 0

    def commit(self, group: list[QueuedSubmission]) -> list[QueuedSubmission]:
        self.groups += 1
        if self.groups == 1:
            self.waiter.start()
            # Interrupt the leader, not the thread that enqueues.
            interrupting = sys.gettrace()
            sys.settrace(None)
            third = pending("third")
            third.on_settled = lambda _settled: self.notified.set()
            self.writer.enqueue(third)
            sys.settrace(interrupting)
            self.wait_for(3)
        for one in group:
            one.receipts = ()
        return []

    def wait_for(self, waiting: int) -> None:
        until = time.monotonic() + WAIT_S
        while self.writer.waiting != waiting:
            assert time.monotonic() < until, f"{self.writer.waiting} wait, not {waiting}"
            time.sleep(0.0001)

    def wait(self) -> None:
        try:
            self.outcomes.append(self.writer.submit(pending("second")))
        except LedgerUnavailable as error:
            self.outcomes.append(error.code)

    def lead(self, line: int) -> bool:
        """Returns whether the leader was interrupted."""
        before = sys.gettrace()
        sys.settrace(Interrupting(line))
        try:
            self.writer.submit(pending("first"))
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    def assert_goes_on(self) -> None:
        if self.groups:
            self.waiter.join(WAIT_S)
            assert not self.waiter.is_alive(), "whoever waited is left waiting"
            assert self.notified.wait(WAIT_S), "what was enqueued is never told of"
        # The second and the third may not have come yet.
        self.groups += 1
        after = threading.Thread(target=lambda: self.outcomes.append(self.writer.submit(pending("first"))), daemon=True)
        after.start()
        after.join(WAIT_S)
        assert not after.is_alive(), "nobody leads, or its key is taken for ever"
        assert self.writer.waiting == 0
        closing = threading.Thread(target=self.writer.close, daemon=True)
        closing.start()
        closing.join(WAIT_S)
        assert not closing.is_alive()


def test_wherever_the_leader_is_interrupted_the_others_are_served() -> None:
    line = 1
    while True:
        scene = Scene()
        interrupted = scene.lead(line)
        try:
            scene.assert_goes_on()
        except AssertionError as error:
            raise AssertionError(f"interrupted before line {line}: {error}") from error
        if not interrupted:
            break
        line += 1
    assert line > LINES_MIN, "hardly anything was interrupted"


def test_wherever_enqueue_is_interrupted_the_writer_goes_on() -> None:
    line = 1
    while True:
        scene = Scene()
        scene.groups = 1
        one = pending("first")
        one.on_settled = lambda _settled: None
        before = sys.gettrace()
        sys.settrace(Interrupting(line))
        try:
            scene.writer.enqueue(one)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(before)
        scene.wait_for(0)
        scene.groups = 0
        scene.assert_goes_on()
        if not interrupted:
            break
        line += 1
    assert line > 10


def test_an_interrupted_commit_fails_only_its_group() -> None:
    started = threading.Event()

    def commit(group: list[QueuedSubmission]) -> list[QueuedSubmission]:
        if not started.is_set():
            started.set()
            raise KeyboardInterrupt
        for one in group:
            one.receipts = ()
        return []

    writer = Writer(commit)
    first = pending("first")
    with pytest.raises(KeyboardInterrupt):
        writer.submit(first)
    assert isinstance(first.error, LedgerUnavailable)
    assert writer.submit(pending("first")) == ()
    assert writer.waiting == 0
    writer.close()
