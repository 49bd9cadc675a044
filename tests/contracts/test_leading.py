"""The lead of the writer is never lost, whatever happens between passing it on and taking it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from ledger.append.group_commit import QueuedSubmission, Writer
from ledger.append.submissions import parse_submissions
from ledger.drafts import Idempotency
from ledger.errors import InforceError, LedgerUnavailable
from tests.support.ledgers import OPERATOR, change, key
from tests.support.waiting import GIVE_UP_S

WAIT_S = GIVE_UP_S


def pending(
    notified: Callable[[Sequence[QueuedSubmission]], None] | None = None, idempotency: Idempotency | None = None
) -> QueuedSubmission:
    return QueuedSubmission(parse_submissions(change()), OPERATOR, idempotency, False, 100, notified)


def settle(group: list[QueuedSubmission]) -> list[QueuedSubmission]:
    for one in group:
        one.receipts = ()
    return []


class Paused(Writer):
    """A woken submission pauses before it checks why it was woken; `close` pauses before it fails the queue."""

    def __init__(self, commit: Callable[[list[QueuedSubmission]], list[QueuedSubmission]]) -> None:
        super().__init__(commit)
        self.may_look = threading.Event()
        self.woken = threading.Event()

    def _wait(self, pending: QueuedSubmission) -> None:
        assert pending.turn is not None
        assert pending.turn.wait(WAIT_S)
        self.woken.set()
        assert self.may_look.wait(WAIT_S)
        super()._wait(pending)


@contextmanager
def ended(*threads: threading.Thread) -> Iterator[None]:
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_close_returns_at_once_while_the_lead_is_passed_on() -> None:
    free = threading.Event()
    committing = threading.Event()

    def commit(group: list[QueuedSubmission]) -> list[QueuedSubmission]:
        committing.set()
        assert free.wait(WAIT_S)
        return settle(group)

    writer = Paused(commit)
    outcomes: list[object] = []

    def submit() -> None:
        try:
            outcomes.append(writer.submit(pending()))
        except InforceError as error:
            outcomes.append(error.code)

    first, second = threading.Thread(target=submit), threading.Thread(target=submit)
    closing = threading.Thread(target=writer.close, daemon=True)
    with ended(first):
        assert committing.wait(WAIT_S)
        second.start()
        while writer.waiting < 2:
            pass
        free.set()
    assert writer.woken.wait(WAIT_S)
    closing.start()
    while writer.waiting:
        pass
    writer.may_look.set()
    second.join(WAIT_S)
    closing.join(WAIT_S)
    assert not closing.is_alive()
    assert outcomes == [(), "ledger_unavailable"]


def test_the_next_leader_gets_an_error_when_the_writer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(settle)
    lead = writer._lead

    def late(own: QueuedSubmission | None) -> None:
        # Closed in between, as far as closing proceeds without the lead.
        closing.start()
        while writer.waiting:
            pass
        lead(own)

    fail = Writer._fail
    checked = threading.Event()

    def slowly(group: list[QueuedSubmission], error: BaseException) -> None:
        checked.wait(0.2)
        fail(group, error)

    closing = threading.Thread(target=writer.close)
    monkeypatch.setattr(writer, "_lead", late)
    monkeypatch.setattr(writer, "_fail", slowly)
    with pytest.raises(LedgerUnavailable, match="was closed"):
        writer.submit(pending())
    closing.join(WAIT_S)
    assert not closing.is_alive()


def test_without_a_worker_thread_enqueue_fails_and_a_later_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(settle)
    notified = threading.Event()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(LedgerUnavailable, match="nothing was recorded"):
                writer.enqueue(pending(lambda _: notified.set(), key("a")))
        assert writer.waiting == 0
    assert writer.submit(pending()) == ()
    writer.enqueue(pending(lambda _: notified.set(), key("a")))
    assert notified.wait(WAIT_S)
    writer.close()


def test_a_failing_callback_does_not_stop_the_others() -> None:
    notified = threading.Event()
    free = threading.Event()

    def commit(group: list[QueuedSubmission]) -> list[QueuedSubmission]:
        assert free.wait(WAIT_S)
        return settle(group)

    def fails(_: Sequence[QueuedSubmission]) -> None:
        raise ValueError("it must not")

    writer = Writer(commit)
    writer.enqueue(pending(fails))
    writer.enqueue(pending(fails))
    writer.enqueue(pending(lambda _: notified.set()))
    free.set()
    assert notified.wait(WAIT_S)
    assert writer.submit(pending()) == ()
    writer.close()
    assert writer.waiting == 0
