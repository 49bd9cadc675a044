"""Group commit: one writer per open ledger, and whatever waits when a commit ends is the next group.

There is no idle delay and no thread that must be woken. A submission that finds nobody leading leads: its own thread
commits it, and with it what has arrived, and hands on the lead. So one thread alone pays for no other, and many share
a commit. Submissions that come without a thread of their own (`enqueue`) are led by a worker.
Proved by tests/contracts/test_writer.py.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ledger.append.submissions import Submission
from ledger.drafts import Idempotency
from ledger.errors import LedgerBusy, LedgerUnavailable, SubmissionInFlight
from ledger.receipts import Receipt

GROUP_MAX: Final = 256
"""Submissions in one commit."""
GROUP_EVENTS_MAX: Final = 2000
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of the bodies; so that a group's statement stays small. One submission alone may have more."""
WAITING_MAX: Final = 1024
WAITING_EVENTS_MAX: Final = 20_000
WAITING_BYTES_MAX: Final = 32 * 1024 * 1024
"""What may wait to be committed; more is refused, before memory grows."""
STALE_MAX: Final = 3
"""So often a submission is decided before the append lock is taken. Whoever keeps being overtaken by other processes
then decides under it, where nothing can move."""
CLOSE_SECONDS_MAX: Final = 30.0
EVENT_BYTES: Final = 512
"""What an event is taken for where no body was sent."""

_log = logging.getLogger("inforce.ledger")


class QueuedSubmission:
    """One submission on its way: settled when it has `receipts` or an `error`."""

    __slots__ = (
        *("submissions", "actor", "idempotency", "batch", "bytes", "events", "told"),
        *("stale", "receipts", "error", "turn", "counted"),
    )

    def __init__(
        self,
        submissions: tuple[Submission, ...],
        actor: str,
        idempotency: Idempotency | None,
        batch: bool,
        bytes_: int | None = None,
        told: Callable[[Sequence[QueuedSubmission]], None] | None = None,
    ) -> None:
        """`bytes_`: of the body. `told` is called once for all of a group that name the same one, in the thread that
        committed it, and again where that thread was interrupted: it must neither wait nor raise. None: `submit`
        waits."""
        self.submissions = submissions
        self.actor = actor
        self.idempotency = idempotency
        self.batch = batch
        self.events = len(submissions)
        self.bytes = EVENT_BYTES * self.events if bytes_ is None else bytes_
        self.told = told
        self.stale = 0
        self.receipts: tuple[Receipt, ...] | None = None
        self.error: BaseException | None = None
        self.turn: threading.Event | None = None
        self.counted = False

    @property
    def settled(self) -> bool:
        return self.receipts is not None or self.error is not None

    @property
    def key(self) -> tuple[str, str] | None:
        return None if self.idempotency is None else self.idempotency[:2]

    def outcome(self) -> tuple[Receipt, ...]:
        """Raises the error that it was settled with."""
        if self.receipts is None:
            assert self.error is not None, "it is not settled"
            raise self.error
        return self.receipts


class _Worker:
    """Stands for the worker where it leads."""


_WORKER: Final = _Worker()


class Writer:
    """`commit` settles the members of a group it is given, but for those to be decided again, which it answers in their
    order; nobody else calls it meanwhile. Where it raises, the whole group fails with that.

    A thread can be interrupted anywhere (KeyboardInterrupt), and then goes through `_abandon`. So every step can be
    begun again: what others go by is changed last, in one assignment, and whoever is woken looks again under the lock.
    """

    def __init__(
        self, commit: Callable[[list[QueuedSubmission]], list[QueuedSubmission]], *, group_max: int = GROUP_MAX
    ) -> None:
        self.group_max = group_max
        self._commit = commit
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: deque[QueuedSubmission] = deque()
        self._in_flight: set[tuple[str, str]] = set()
        # Of all that is not settled, whether it waits or is being committed.
        self._count = self._events = self._bytes = 0
        self._leader: QueuedSubmission | _Worker | None = None
        self._closed = False
        # The group that is being committed, and what is settled and not told yet: both the leader's.
        self._group: list[QueuedSubmission] = []
        self._settled: list[QueuedSubmission] = []
        self._worker: threading.Thread | None = None
        self._worker_turn = threading.Event()

    def submit(self, queued: QueuedSubmission) -> tuple[Receipt, ...]:
        """Returns when it is recorded. Raises what it was settled with, and `LedgerBusy` and `SubmissionInFlight`."""
        try:
            with self._lock:
                self._admit(queued)
                if self._leader is None:
                    self._leader = queued
                else:
                    queued.turn = threading.Event()
            if queued.turn is None:
                self._lead(queued)
            else:
                self._wait(queued)
        except BaseException as error:
            self._abandon(queued, error)
            raise
        return queued.outcome()

    def enqueue(self, queued: QueuedSubmission) -> None:
        """Returns at once; `queued.told` is called when it is settled. Raises `LedgerBusy`, `SubmissionInFlight`."""
        assert queued.told is not None
        try:
            with self._lock:
                if not self._closed:
                    # Before it is admitted: what was admitted must find somebody to lead.
                    self._keep_worker()
                self._admit(queued)
                if self._leader is None:
                    self._worker_turn.set()
                    self._leader = _WORKER
        except BaseException as error:
            self._abandon(queued, error)
            raise

    @property
    def waiting(self) -> int:
        """How many submissions are not settled yet."""
        return self._count

    def room_for(self, bytes_: int, events: int = 1) -> bool:
        """Whether a body of so many bytes would be taken now. One that is alone always is."""
        return self._count == 0 or (
            self._count < WAITING_MAX
            and self._events + events <= WAITING_EVENTS_MAX
            and self._bytes + bytes_ <= WAITING_BYTES_MAX
        )

    def close(self) -> None:
        """Fails what waits, and returns when nothing is being committed any more."""
        with self._lock:
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
            self._forget(waiting)
            # With the lock: whoever finds the queue empty must find its own settled.
            self._fail(waiting, LedgerUnavailable("the ledger was closed; nothing was recorded"))
            worker = self._worker
            self._worker_turn.set()
        self._tell(waiting)
        with self._lock:
            self._idle.wait_for(lambda: self._leader is None, CLOSE_SECONDS_MAX)
        if worker is not None and worker is not threading.current_thread():
            worker.join(CLOSE_SECONDS_MAX)

    def _admit(self, queued: QueuedSubmission) -> None:
        if self._closed:
            raise LedgerUnavailable("the ledger was closed; nothing was recorded")
        if not self.room_for(queued.bytes, queued.events):
            raise LedgerBusy(self._count)
        key = queued.key
        if key is not None and key in self._in_flight:
            raise SubmissionInFlight
        # From here on `_abandon` finds it.
        self._queue.append(queued)
        sums = (self._count + 1, self._events + queued.events, self._bytes + queued.bytes)
        # At once, so that nothing is counted by halves.
        (self._count, self._events, self._bytes), queued.counted = sums, True
        if key is not None:
            self._in_flight.add(key)

    def _forget(self, settled: Iterable[QueuedSubmission]) -> None:
        for queued in settled:
            if not queued.counted:
                continue
            if (key := queued.key) is not None:
                self._in_flight.discard(key)
            sums = (self._count - 1, self._events - queued.events, self._bytes - queued.bytes)
            (self._count, self._events, self._bytes), queued.counted = sums, False

    def _wait(self, queued: QueuedSubmission) -> None:
        turn = queued.turn
        assert turn is not None
        while True:
            turn.wait()
            turn.clear()
            with self._lock:
                leads = self._leader is queued
            if leads:
                # Also where it was settled since, by a closing: then there is only the lead to be handed on.
                self._lead(queued)
                return
            if queued.settled:
                return

    def _lead(self, own: QueuedSubmission | None) -> None:
        """Commits group after group: until `own` is settled, then hands on the lead; None: until nothing waits."""
        while (own is None or not own.settled) and self._take_group():
            again: list[QueuedSubmission] = []
            try:
                again = self._commit(self._group)
            except Exception as error:
                self._fail(self._group, error)
            self._end_group(again)
        self._hand_on()

    def _abandon(self, whose: QueuedSubmission | _Worker, error: BaseException) -> None:
        """Interrupted. It is not waited for any longer, nor may it be left to lead."""
        with self._lock:
            if isinstance(whose, QueuedSubmission) and whose in self._queue:
                self._queue.remove(whose)
                self._forget((whose,))
            leads = self._leader is whose
        if leads:
            self._fail(self._group, error)
            self._end_group([])
            self._hand_on()

    def _take_group(self) -> bool:
        """Whether anything waits: then it is taken for the next group."""
        group = self._group
        events = bytes_ = 0
        with self._lock:
            queue = self._queue
            while queue and len(group) < self.group_max:
                queued = queue[0]
                if queued.settled:
                    queue.popleft()
                    continue
                events += queued.events
                bytes_ += queued.bytes
                if group and (
                    events > GROUP_EVENTS_MAX
                    or bytes_ > GROUP_BYTES_MAX
                    # What must get through is decided under the append lock, and nothing else.
                    or (queued.stale >= STALE_MAX) != (group[0].stale >= STALE_MAX)
                ):
                    break
                group.append(queued)
                queue.popleft()
        return bool(group)

    def _end_group(self, again: list[QueuedSubmission]) -> None:
        with self._lock:
            if self._closed and again:
                self._fail(again, LedgerUnavailable("the ledger was closed; nothing was recorded"))
                again = []
            settled = [queued for queued in self._group if queued.settled]
            self._settled += settled
            self._forget(settled)
            self._queue.extendleft(reversed(again))
            self._group = []
        self._tell(self._settled)
        self._settled = []

    @staticmethod
    def _fail(group: Iterable[QueuedSubmission], error: BaseException) -> None:
        for queued in group:
            if queued.settled:
                continue
            if isinstance(error, LedgerUnavailable):
                # One each, because a raised error collects the traces of all who raise it.
                queued.error = LedgerUnavailable(error.detail)
                queued.error.__cause__ = error
            elif isinstance(error, Exception):
                queued.error = error
            else:
                queued.error = LedgerUnavailable(
                    f"the writer was interrupted by {type(error).__name__}; it may or may not be recorded, so send it "
                    "again with the same Idempotency-Key"
                )

    @staticmethod
    def _tell(settled: Iterable[QueuedSubmission]) -> None:
        told: dict[Callable[[Sequence[QueuedSubmission]], None], list[QueuedSubmission]] = {}
        for queued in settled:
            if queued.told is not None:
                told.setdefault(queued.told, []).append(queued)
            elif (turn := queued.turn) is not None:
                turn.set()
        for tell, group in told.items():
            try:
                tell(group)
            except Exception as error:
                # Not the fault of those who are told next, nor of who leads, whose own is recorded.
                _log.critical(
                    "%d who submitted could not be told what became of it: %s", len(group), type(error).__name__
                )

    def _hand_on(self) -> None:
        """The lead to somebody who waits in a thread of their own, else to the worker, else to nobody."""
        with self._lock:
            for queued in self._queue:
                if queued.turn is not None:
                    queued.turn.set()
                    self._leader = queued
                    return
            if self._queue:
                try:
                    self._keep_worker()
                except LedgerUnavailable as error:
                    # Whatever was enqueued began it, so these were left by threads that were interrupted: nobody waits.
                    self._forget(self._queue)
                    self._fail(self._queue, error)
                    self._queue.clear()
                else:
                    self._worker_turn.set()
                    self._leader = _WORKER
                    return
            self._idle.notify_all()
            self._leader = None

    def _keep_worker(self) -> None:
        """Raises `LedgerUnavailable`."""
        if self._worker is None:
            worker = threading.Thread(target=self._work, name="inforce-write", daemon=True)
            try:
                worker.start()
            except (RuntimeError, MemoryError):
                raise LedgerUnavailable("no thread is to be had to record it; nothing was recorded") from None
            self._worker = worker

    def _work(self) -> None:
        while True:
            self._worker_turn.wait()
            with self._lock:
                self._worker_turn.clear()
                leads = self._leader is _WORKER
                closed = self._closed
            if leads:
                try:
                    self._lead(None)
                except BaseException as error:
                    # Whatever it was, those whom it concerned are told of it.
                    self._abandon(_WORKER, error)
            elif closed:
                return
            if closed:
                self._worker_turn.set()
