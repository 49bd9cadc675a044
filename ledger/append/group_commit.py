"""Group commit: one writer per open ledger. Everything that waits when a commit ends forms the next group.

There is no idle delay and no mandatory thread. A submission that finds no leader becomes the leader: its own thread
commits it together with what has arrived, and then passes the lead on. So a single thread pays for no switch, and many
threads share a commit. Submissions without a thread of their own (`enqueue`) are led by a worker thread.
Proved by tests/contracts/test_writer.py, test_leading.py and test_interrupted.py.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from time import perf_counter
from typing import Final

from ledger.append.authority import Authority
from ledger.append.submissions import Submission
from ledger.drafts import KEY_LENGTH_MAX, Idempotency
from ledger.errors import BadInput, BadSubmission, Fault, LedgerBusy, LedgerUnavailable, NotWritable, SubmissionInFlight
from ledger.receipts import Receipt
from ledger.subjects import ACTOR_LENGTH_MAX, is_actor, is_text

GROUP_MAX: Final = 256
"""Submissions in one commit."""
GROUP_EVENTS_MAX: Final = 2000
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024
"""Events and body bytes in one commit, so that its statement stays small. A single submission may exceed both."""
WAITING_MAX: Final = 1024
WAITING_EVENTS_MAX: Final = 20_000
WAITING_BYTES_MAX: Final = 32 * 1024 * 1024
"""Submissions, events and body bytes that may be unsettled at once. More are refused, before memory grows."""
OPTIMISTIC_ATTEMPTS_MAX: Final = 3
"""Decisions of one submission before the append lock is taken. A submission that other processes have overtaken this
often is decided under the lock, where nothing can move."""
CLOSE_SECONDS_MAX: Final = 30.0
EVENT_BYTES: Final = 512
"""Assumed size of an event where no body was sent."""

_log = logging.getLogger("inforce.ledger")


@dataclass(eq=False, slots=True)
class QueuedSubmission:
    """A submission on its way into the ledger. It is settled when it has `receipts` or an `error`.

    `batch`: see `decide`. `authority`: the caller's right to record; None: to everything.
    `bytes_`: size of the body. `on_settled` is called once for all members of a group that share
    the same callback, in the thread that committed the group (and again if that thread was interrupted): it must
    neither block nor raise. None: `Writer.submit` waits instead.
    Raises `BadInput` for a malformed actor or key, `BadSubmission` if there are no submissions.
    """

    submissions: tuple[Submission, ...]
    actor: str
    idempotency: Idempotency | None = None
    batch: bool = False
    bytes_: InitVar[int | None] = None
    on_settled: Callable[[Sequence[QueuedSubmission]], None] | None = None
    authority: Authority | None = None
    key: tuple[str, str] | None = field(default=None, init=False)
    events: int = field(init=False)
    bytes: int = field(init=False)
    stale_count: int = field(default=0, init=False)
    receipts: tuple[Receipt, ...] | None = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)
    turn: threading.Event | None = field(default=None, init=False)
    in_totals: bool = field(default=False, init=False)

    def __post_init__(self, bytes_: int | None) -> None:
        if not is_actor(self.actor):
            raise BadInput(f"an actor is a text of 1 to {ACTOR_LENGTH_MAX} characters")
        if not self.submissions:
            raise BadSubmission((Fault("", "there must be at least one submission"),))
        if self.idempotency is not None:
            _check_text("caller", self.idempotency.caller, ACTOR_LENGTH_MAX)
            _check_text("Idempotency-Key", self.idempotency.key, KEY_LENGTH_MAX)
            self.key = self.idempotency[:2]
        self.events = len(self.submissions)
        self.bytes = EVENT_BYTES * self.events if bytes_ is None else bytes_

    @property
    def settled(self) -> bool:
        return self.receipts is not None or self.error is not None

    @property
    def needs_lock(self) -> bool:
        """Whether it must be decided under the append lock."""
        return self.stale_count >= OPTIMISTIC_ATTEMPTS_MAX

    def outcome(self) -> tuple[Receipt, ...]:
        """The receipts. Raises the error if the submission was settled with one."""
        if self.receipts is None:
            assert self.error is not None, "the submission is not settled yet"
            raise self.error
        return self.receipts


def _check_text(name: str, text: str, length_max: int) -> None:
    if not 1 <= len(text) <= length_max or not is_text(text) or "\0" in text:
        raise BadInput(f"the {name} must have 1 to {length_max} characters, none of them U+0000")


_WORKER: Final = object()
"""Marks the worker thread as the leader."""


class Writer:
    """The queue of one ledger and its leader.

    `commit` settles the members of a group, except those that must be decided again, which it returns in their order.
    Only the leader calls it. If it raises, the whole group fails with that error.

    A thread can be interrupted anywhere (KeyboardInterrupt); it then runs `_abandon`. So every step can be repeated:
    state that others depend on changes last, in one assignment, and a woken thread checks it again under the lock.
    """

    def __init__(
        self, commit: Callable[[list[QueuedSubmission]], list[QueuedSubmission]], *, group_max: int = GROUP_MAX
    ) -> None:
        self.group_max = group_max
        self.on_commit: Callable[[float, int], None] | None = None
        """Called after each commit, also one that failed: its seconds, and the number of submissions. Must not raise.
        """
        self._commit = commit
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: deque[QueuedSubmission] = deque()
        self._in_flight: set[tuple[str, str]] = set()
        # Totals of all unsettled submissions, queued or being committed.
        self._count = self._events = self._bytes = 0
        self._leader: object = None
        self._closed = False
        # Both belong to the leader: the group that is being committed, and settled members that wait to be notified.
        self._group: list[QueuedSubmission] = []
        self._settled: list[QueuedSubmission] = []
        self._worker: threading.Thread | None = None
        self._worker_turn = threading.Event()

    def submit(self, queued: QueuedSubmission) -> tuple[Receipt, ...]:
        """Returns when the submission is recorded.

        Raises the error that it was settled with, `LedgerBusy` or `SubmissionInFlight`.
        """
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
        """Returns at once; `queued.on_settled` is called when the submission is settled.

        Raises `LedgerBusy`, `SubmissionInFlight` or `LedgerUnavailable` if it was not queued.
        """
        assert queued.on_settled is not None
        try:
            with self._lock:
                if not self._closed:
                    # Before it is admitted: an admitted submission must find a thread that leads.
                    self._start_worker()
                self._admit(queued)
                if self._leader is None:
                    self._worker_turn.set()
                    self._leader = _WORKER
        except BaseException as error:
            self._abandon(queued, error)
            raise

    @property
    def waiting(self) -> int:
        """How many submissions are unsettled."""
        return self._count

    def has_capacity(self, bytes_: int, events: int = 1) -> bool:
        """Whether a body of this size would be queued now. A submission that is alone always is."""
        return self._count == 0 or (
            self._count < WAITING_MAX
            and self._events + events <= WAITING_EVENTS_MAX
            and self._bytes + bytes_ <= WAITING_BYTES_MAX
        )

    def close(self) -> None:
        """Fails the queued submissions, and returns when no commit is under way any more."""
        with self._lock:
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
            self._remove_from_totals(waiting)
            # Under the lock: a thread that finds the queue empty must find its own submission settled.
            self._fail(waiting, LedgerUnavailable("the ledger was closed; nothing was recorded"))
            worker = self._worker
            self._worker_turn.set()
        self._notify(waiting)
        with self._lock:
            self._idle.wait_for(lambda: self._leader is None, CLOSE_SECONDS_MAX)
        if worker is not None and worker is not threading.current_thread():
            worker.join(CLOSE_SECONDS_MAX)

    def _admit(self, queued: QueuedSubmission) -> None:
        if self._closed:
            raise LedgerUnavailable("the ledger was closed; nothing was recorded")
        if not self.has_capacity(queued.bytes, queued.events):
            raise LedgerBusy(self._count)
        key = queued.key
        if key is not None and key in self._in_flight:
            raise SubmissionInFlight
        # From here on `_abandon` finds the submission in the queue.
        self._queue.append(queued)
        totals = (self._count + 1, self._events + queued.events, self._bytes + queued.bytes)
        # One assignment, so that an interruption cannot leave the totals half updated.
        (self._count, self._events, self._bytes), queued.in_totals = totals, True
        if key is not None:
            self._in_flight.add(key)

    def _remove_from_totals(self, settled: Iterable[QueuedSubmission]) -> None:
        for queued in settled:
            if not queued.in_totals:
                continue
            if (key := queued.key) is not None:
                self._in_flight.discard(key)
            totals = (self._count - 1, self._events - queued.events, self._bytes - queued.bytes)
            (self._count, self._events, self._bytes), queued.in_totals = totals, False

    def _wait(self, queued: QueuedSubmission) -> None:
        turn = queued.turn
        assert turn is not None
        while True:
            turn.wait()
            turn.clear()
            with self._lock:
                leads = self._leader is queued
            if leads:
                # Even if `close` has settled it meanwhile: then only the lead must be passed on.
                self._lead(queued)
                return
            if queued.settled:
                return

    def _lead(self, own: QueuedSubmission | None) -> None:
        """Commits groups until `own` is settled (None: until the queue is empty), then passes the lead on."""
        while (own is None or not own.settled) and self._form_group():
            again: list[QueuedSubmission] = []
            began = perf_counter()
            try:
                again = self._commit(self._group)
            except Exception as error:
                self._fail(self._group, error)
            if self.on_commit is not None:
                self.on_commit(perf_counter() - began, len(self._group) - len(again))
            self._end_group(again)
        self._pass_lead()

    def _abandon(self, interrupted: object, error: BaseException) -> None:
        """Cleans up after an interrupted thread: nobody waits for its submission, and it must not stay the leader."""
        with self._lock:
            if isinstance(interrupted, QueuedSubmission) and interrupted in self._queue:
                self._queue.remove(interrupted)
                self._remove_from_totals((interrupted,))
            leads = self._leader is interrupted
        if leads:
            self._fail(self._group, error)
            self._end_group([])
            self._pass_lead()

    def _form_group(self) -> bool:
        """Moves the next group out of the queue. False if the queue is empty."""
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
                    # Submissions that are decided under the append lock form groups of their own.
                    or queued.needs_lock != group[0].needs_lock
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
            self._remove_from_totals(settled)
            self._queue.extendleft(reversed(again))
            self._group = []
        self._notify(self._settled)
        self._settled = []

    @staticmethod
    def _fail(group: Iterable[QueuedSubmission], error: BaseException) -> None:
        for queued in group:
            if queued.settled:
                continue
            if isinstance(error, NotWritable):
                queued.error = error.again()
            elif isinstance(error, LedgerUnavailable):
                # One instance each, because an error collects the tracebacks of all threads that raise it.
                queued.error = LedgerUnavailable(error.detail)
                queued.error.__cause__ = error
            elif isinstance(error, Exception):
                queued.error = error
            else:
                queued.error = LedgerUnavailable(
                    f"the writer was interrupted by {type(error).__name__}; the submission may or may not be recorded, "
                    "so send it again with the same Idempotency-Key"
                )

    @staticmethod
    def _notify(settled: Iterable[QueuedSubmission]) -> None:
        by_callback: dict[Callable[[Sequence[QueuedSubmission]], None], list[QueuedSubmission]] = {}
        for queued in settled:
            if queued.on_settled is not None:
                by_callback.setdefault(queued.on_settled, []).append(queued)
            elif (turn := queued.turn) is not None:
                turn.set()
        for on_settled, group in by_callback.items():
            try:
                on_settled(group)
            except Exception as error:
                # Must stop neither the other callbacks nor the leader, whose own submission is recorded.
                name = type(error).__name__
                _log.critical("%d settled submissions could not be reported to their submitters: %s", len(group), name)

    def _pass_lead(self) -> None:
        """Makes a submission with a waiting thread the leader, else the worker, else nobody."""
        with self._lock:
            for queued in self._queue:
                if queued.turn is not None:
                    queued.turn.set()
                    self._leader = queued
                    return
            if self._queue:
                try:
                    self._start_worker()
                except LedgerUnavailable as error:
                    # `enqueue` would have started the worker, so the queue holds only submissions of interrupted
                    # threads: nobody waits for them.
                    self._remove_from_totals(self._queue)
                    self._fail(self._queue, error)
                    self._queue.clear()
                else:
                    self._worker_turn.set()
                    self._leader = _WORKER
                    return
            self._idle.notify_all()
            self._leader = None

    def _start_worker(self) -> None:
        """Starts the worker unless it runs. Raises `LedgerUnavailable`."""
        if self._worker is None:
            worker = threading.Thread(target=self._work, name="inforce-write", daemon=True)
            try:
                worker.start()
            except (RuntimeError, MemoryError):
                raise LedgerUnavailable("no thread can be started to record it; nothing was recorded") from None
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
                    # Of any kind: the submitters that it concerns receive it.
                    self._abandon(_WORKER, error)
            elif closed:
                return
            if closed:
                self._worker_turn.set()
