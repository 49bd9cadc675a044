"""The stored timelines made anew beside the live ones, compared with them, and swapped in.

The bulk is folded up to a fixed position: events never change, so whoever reads up to there reads the same. Then the
ordinary projector takes the tables beside the live ones on from there, the two are compared, and at a moment when both
are at one position the new ones take their place in one transaction. No transaction lasts long, so submissions and
questions go on meanwhile. Killed, it leaves the live ones alone.

Whoever begins a rebuild puts a claim on the tables that it fills. One that finds another's claim gives way: the other
may be what was started after this one was taken for dead.
Proved by tests/contracts: test_rebuilding.py, test_rebuilding_in_processes.py, test_projectors_at_once.py.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from ledger.errors import InforceError, LedgerCorrupt, LedgerUnavailable
from projections.timelines.contract import LIVE, OLD, REBUILD, NotStored, NotThere, Reading, SwapBusy, Writing
from projections.timelines.projector import Progress, Projector
from projections.timelines.rebuild.differences import Difference, Rows, differences, first_of
from projections.timelines.rebuild.external_sort import BUCKET_EVENTS, ranges
from projections.timelines.rebuild.fold_range import Folded, Read, fold_ranges
from projections.timelines.rebuild.workers import Workers, fold_in_workers
from projections.timelines.store import CLEARED_ROWS, clear_old
from projections.timelines.throttle import Pace

DIFFERENCES_MAX: Final = 10
FINISH_ATTEMPTS_MAX: Final = 1000
SWAP_PAUSE_S: Final = 0.2
"""After an attempt at a swap that readers were in the way of: all attempts together take about five minutes."""
WORKERS_EVENTS_MIN: Final = 200_000
"""In a smaller ledger one process is through before others have started."""
FILLED_ROWS: Final = 2_000
"""Written in one transaction: some megabytes, so that others who write wait for milliseconds."""


class GaveWay(LedgerUnavailable):
    def __init__(self) -> None:
        super().__init__(
            "another rebuild of these timelines was begun after this one, which gives way to it; the live ones are as"
            " they were"
        )


class Rebuilt(NamedTuple):
    """What a rebuild found. Both sides were compared as of `position`, so `events` is as many.

    `differences` are the first that were found. Where there are none and yet `live_equal` is false, the live timelines
    were of another format, or at no position of this ledger.
    """

    position: int
    events: int
    subjects: int
    live_equal: bool
    differences: tuple[Difference, ...]
    swapped: bool


class _Compared(NamedTuple):
    """`unsettled`: the subjects left out because one side was ahead with them; `since`: it had events after that."""

    differences: tuple[Difference, ...]
    unsettled: frozenset[str]
    since: int


def rebuild(
    projector: Projector,
    *,
    check_only: bool = False,
    workers: Workers | None = None,
    progress: Progress | None = None,
    bucket_events: int = BUCKET_EVENTS,
    workers_events_min: int = WORKERS_EVENTS_MIN,
) -> Rebuilt:
    """`check_only`: compares, and takes its own away again. `workers`: for large ledgers, several processes.

    Raises `LedgerCorrupt`, naming the position, where an event cannot be read, `GaveWay`, and `LedgerUnavailable` where
    others never let it come to an end. The live timelines are then as they were.
    """
    return _Rebuild(projector, secrets.token_hex(8)).run(
        check_only, workers, progress or (lambda _position, _head: None), (bucket_events, workers_events_min)
    )


class _Rebuild:
    def __init__(self, projector: Projector, claim: str) -> None:
        self.projector = projector
        self.ledger = projector.ledger
        self.store = projector.store
        self.claim = claim

    def run(self, check_only: bool, workers: Workers | None, progress: Progress, sizes: tuple[int, int]) -> Rebuilt:
        compares = self._begin(check_only, sizes[1])
        try:
            self._fill(workers, progress, *sizes)
            self._catch_up(progress)
            return self._finish(self._compare(compares), check_only)
        except NotThere:
            raise GaveWay from None
        except BaseException:
            # What cannot be taken away now is taken away by the next rebuild.
            with suppress(InforceError):
                self._set_aside()
            raise
        finally:
            with suppress(InforceError):
                clear_old(self.store)

    def _begin(self, check_only: bool, worth_it: int) -> bool:
        """Whether there is anything to compare with: live timelines that nobody has begun to project are not first
        made in the slower way, where that takes long."""
        with self.store.writing(LIVE) as tables:
            tables.create(LIVE)
        with self._beside() as tables:
            # An earlier one's, which was killed or will give way.
            tables.set_aside(REBUILD)
            tables.begin(REBUILD, self.claim)
            try:
                begun = tables.tracked(LIVE) > 0
            except NotStored:
                begun = True
        return begun or check_only or self.ledger.head().position < worth_it

    @contextmanager
    def _beside(self) -> Iterator[Writing]:
        """All tables, with nothing left of what was replaced before."""
        while True:
            clear_old(self.store)
            with self.store.writing(LIVE, REBUILD, OLD) as tables:
                # Somebody else may have set theirs aside since.
                if tables.clear_old(CLEARED_ROWS):
                    yield tables
                    return

    def _set_aside(self) -> None:
        with self._beside() as tables:
            if tables.claim(REBUILD) == self.claim:
                tables.set_aside(REBUILD)

    def _check_own(self, tables: Reading) -> None:
        if tables.claim(REBUILD) != self.claim:
            raise GaveWay

    def _fill(self, workers: Workers | None, progress: Progress, bucket_events: int, workers_events_min: int) -> None:
        head = self.ledger.head().position
        cut = ranges(self.ledger.recorder, head, bucket_events)
        if workers is None or workers.processes < 2 or head < workers_events_min:
            messages, readers = fold_ranges(self.ledger.recorder, head, cut), 1
        else:
            messages, readers = fold_in_workers(workers, head, cut), min(workers.processes, len(cut))
        read = looked_through = folded = 0
        pace = self.store.pace()
        for message in messages:
            if isinstance(message, Read):
                read += message.events
                looked_through += message.positions
            else:
                folded += message.events
                self._write(message, pace)
            # Reading it all is half of the work.
            progress((looked_through // readers + folded) // 2, head)
        if read != head or folded != head:
            raise LedgerCorrupt(f"the ledger ends at position {head} and holds {read} events up to there")
        with self.store.writing(REBUILD) as tables:
            self._check_own(tables)
            tables.complete(REBUILD, head)

    def _write(self, folded: Folded, pace: Pace) -> None:
        rows, blocks = folded.rows, folded.blocks
        for at in range(0, max(len(rows), len(blocks)), FILLED_ROWS):
            with pace, self.store.writing(REBUILD) as tables:
                self._check_own(tables)
                tables.fill(REBUILD, rows[at : at + FILLED_ROWS], blocks[at : at + FILLED_ROWS])

    def _catch_up(self, progress: Progress | None = None) -> int:
        with self.store.reading(REBUILD) as tables:
            self._check_own(tables)
        try:
            return self.projector.catch_up_side(REBUILD, progress=progress).position
        except NotStored:
            # They were whole: another one is filling its own by now.
            raise GaveWay from None

    def _compare(self, compares: bool) -> _Compared | None:
        """The bulk of the comparison, while everything goes on. None: there is nothing to compare with."""
        if not compares:
            return None
        self._live_caught_up()
        with self.store.reading(LIVE, REBUILD) as tables:
            self._check_own(tables)
            try:
                live, rebuilt = tables.tracked(LIVE), tables.tracked(REBUILD)
            except NotStored:
                return None
            since = min(live, rebuilt)
            unsettled = self._moved(since, max(live, rebuilt))
            return _Compared(self._differences(tables, None, unsettled), unsettled, since)

    def _moved(self, after: int, until: int) -> frozenset[str]:
        """The subjects with events in (after, until]."""
        found: set[str] = set()
        while page := self.ledger.page(after, until=until):
            found.update(entry.subject for entry in page)
            after = page[-1].position
        return frozenset(found)

    def _live_caught_up(self) -> bool:
        """False: the live timelines cannot be brought up to the ledger, which is what a rebuild is for."""
        try:
            self.projector.catch_up()
        except (LedgerCorrupt, NotStored):
            return False
        return True

    def _finish(self, compared: _Compared | None, check_only: bool) -> Rebuilt:
        """Compares what has moved since, at one position of both sides and with no other writer, and swaps."""
        for _attempt in range(FINISH_ATTEMPTS_MAX):
            sound = compared is not None and self._live_caught_up()
            position = self._catch_up()
            among = compared and compared.unsettled | self._moved(compared.since, position)
            with self.store.reading(REBUILD) as tables:
                subjects = tables.count_subjects(REBUILD)
            found: tuple[Difference, ...] = ()
            try:
                with self._beside() as tables:
                    self._check_own(tables)
                    live = _tracked(tables)
                    if live is not None and (live != position if sound else compared is None and live > position):
                        continue
                    if compared is not None and among is not None and live is not None:
                        found = first_of(compared.differences, self._differences(tables, among), limit=DIFFERENCES_MAX)
                    if check_only:
                        tables.set_aside(REBUILD)
                    else:
                        tables.swap()
            except SwapBusy:
                time.sleep(SWAP_PAUSE_S)
                continue
            return Rebuilt(position, position, subjects, sound and not found, found, not check_only)
        raise LedgerUnavailable("the rebuilt timelines could not take their place: others kept using those there are")

    def _differences(
        self, tables: Reading, among: frozenset[str] | None, but: frozenset[str] = frozenset()
    ) -> tuple[Difference, ...]:
        subjects = tables.differing(DIFFERENCES_MAX, among=among, but=but)
        sides = [tables.load(side, subjects) for side in (LIVE, REBUILD)]
        found = (
            differences(
                subject,
                Rows(sides[0].get(subject), tables.load_blocks(LIVE, subject)),
                Rows(sides[1].get(subject), tables.load_blocks(REBUILD, subject)),
            )
            for subject in subjects
        )
        return first_of(*found, limit=DIFFERENCES_MAX)


def _tracked(tables: Reading) -> int | None:
    try:
        return tables.tracked(LIVE)
    except NotStored:
        return None
