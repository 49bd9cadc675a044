"""Rebuilds the stored timelines beside the live ones, compares the two, and swaps the new ones in.

`external_sort` brings each subject's events together, `fold_range` folds them into rows, and `workers` does so in
several processes, up to a fixed position: events never change, so every process reads the same up to there. The
ordinary projector then takes these tables on to the head, the two sides are compared, and at a moment when both are at
one position the new tables take the live ones' place in one transaction. No transaction lasts long, so submissions and
questions go on meanwhile. A rebuild that is killed leaves the live tables as they were.

A rebuild puts its claim on the tables that it fills, and ends if it finds another claim there.
Proved by tests/contracts: test_rebuilding.py, test_rebuilding_in_processes.py, test_projectors_at_once.py.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from contextlib import suppress
from typing import Final, NamedTuple

from ledger.errors import InforceError, LedgerCorrupt, LedgerUnavailable
from ledger.subjects import kind_of
from projections.timelines.contract import LIVE, REBUILD, NotStored, Side, SwapBusy, TablesMissing
from projections.timelines.projector import Progress, Projector
from projections.timelines.rebuild.differences import DIFFERENCES_MAX, RowDifference, SubjectRows, differences, first_of
from projections.timelines.rebuild.external_sort import BUCKET_EVENTS, ranges
from projections.timelines.rebuild.fold_range import FoldedRows, ReadProgress, fold_ranges
from projections.timelines.rebuild.workers import Workers, fold_in_workers
from projections.timelines.sql import TimelineReader
from projections.timelines.store import clear_old, writing_without_old
from projections.timelines.throttle import Throttle

FINISH_ATTEMPTS_MAX: Final = 1000
SWAP_PAUSE_S: Final = 0.2
"""After an attempt at a swap that readers blocked: all attempts together take about five minutes."""
WORKERS_EVENTS_MIN: Final = 200_000
"""In a smaller ledger one process is done before others have started."""
FILLED_ROWS: Final = 2_000
"""Written in one transaction: some megabytes, so that other writers wait for milliseconds."""


class RebuildSuperseded(LedgerUnavailable):
    def __init__(self) -> None:
        super().__init__(
            "another rebuild of these timelines began after this one, which ended for that; the live ones are as they"
            " were"
        )


class RebuildResult(NamedTuple):
    """Both sides were compared as of `position`, so `events` is the same number.

    `differences`: the first ones. None of them and yet `live_equal` false: the live timelines were of another format,
    or at no position of this ledger.
    """

    position: int
    events: int
    subjects: int
    live_equal: bool
    differences: tuple[RowDifference, ...]
    swapped: bool


class _Compared(NamedTuple):
    """`skipped`: the subjects left out because one side was ahead with them; `since`: where that side's lead began."""

    differences: tuple[RowDifference, ...]
    skipped: frozenset[str]
    since: int


def rebuild(
    projector: Projector,
    *,
    check_only: bool = False,
    workers: Workers | None = None,
    progress: Progress | None = None,
    bucket_events: int = BUCKET_EVENTS,
    workers_events_min: int = WORKERS_EVENTS_MIN,
) -> RebuildResult:
    """`check_only`: compares, and deletes the rebuilt tables again. `workers`: several processes, for a large ledger.

    Raises `LedgerCorrupt`, naming the position, at an unreadable event; `RebuildSuperseded`; and `LedgerUnavailable` if
    others keep using the live tables. The live timelines are then as they were.
    """
    run = _Rebuild(projector)
    progress = progress or (lambda _position, _head: None)
    compares = run.begin(check_only, workers_events_min)
    try:
        run.fill(workers, progress, bucket_events, workers_events_min)
        run.catch_up(progress)
        return run.finish(run.compare() if compares else None, check_only)
    except TablesMissing:
        raise RebuildSuperseded from None
    except BaseException:
        # The next rebuild deletes the tables that cannot be deleted now.
        with suppress(InforceError):
            run.set_aside()
        raise
    finally:
        with suppress(InforceError):
            clear_old(run.store)


class _Rebuild:
    def __init__(self, projector: Projector) -> None:
        self.projector = projector
        self.ledger = projector.ledger
        self.store = projector.store
        self.claim = secrets.token_hex(8)

    def begin(self, check_only: bool, events_min: int) -> bool:
        """Whether to compare. Live timelines still at position 0 are not worth projecting first, which takes longer."""
        with self.store.writing(LIVE) as tables:
            tables.create(LIVE)
        with writing_without_old(self.store, LIVE, REBUILD) as tables:
            # The tables of an earlier rebuild, which was killed or will find this claim.
            tables.set_aside(REBUILD)
            tables.begin(REBUILD, self.claim)
            begun = _tracked(tables) != 0
        return begun or check_only or self.ledger.head().position < events_min

    def set_aside(self) -> None:
        with writing_without_old(self.store, LIVE, REBUILD) as tables:
            if tables.claim(REBUILD) == self.claim:
                tables.set_aside(REBUILD)

    def _check_own(self, tables: TimelineReader) -> None:
        if tables.claim(REBUILD) != self.claim:
            raise RebuildSuperseded

    def fill(self, workers: Workers | None, progress: Progress, bucket_events: int, workers_events_min: int) -> None:
        head = self.ledger.head().position
        cut = ranges(self.ledger.recorder, head, bucket_events)
        if workers is None or workers.processes < 2 or head < workers_events_min:
            messages, readers = fold_ranges(self.ledger.recorder, head, cut), 1
        else:
            messages, readers = fold_in_workers(workers, head, cut), min(workers.processes, len(cut))
        read = positions = folded = 0
        events: Counter[str] = Counter()
        throttle = self.store.throttle()
        for message in messages:
            if isinstance(message, ReadProgress):
                read += message.events
                positions += message.positions
            else:
                folded += message.events
                for row in message.rows:
                    events[kind_of(row.subject)] += row.version
                self._write(message, throttle)
            # Reading everything is half of the work.
            progress((positions // readers + folded) // 2, head)
        if read != head or folded != head:
            raise LedgerCorrupt(f"the ledger ends at position {head} and holds {read} events up to there")
        with self.store.writing(REBUILD) as tables:
            self._check_own(tables)
            tables.complete(REBUILD, head, events)

    def _write(self, folded: FoldedRows, throttle: Throttle) -> None:
        rows, blocks = folded.rows, folded.blocks
        for at in range(0, max(len(rows), len(blocks)), FILLED_ROWS):
            with throttle, self.store.writing(REBUILD) as tables:
                self._check_own(tables)
                tables.fill(REBUILD, rows[at : at + FILLED_ROWS], blocks[at : at + FILLED_ROWS])

    def catch_up(self, progress: Progress | None = None) -> int:
        with self.store.reading(REBUILD) as tables:
            self._check_own(tables)
        try:
            return self.projector.catch_up_side(REBUILD, progress=progress)
        except NotStored:
            # They were complete before, so another rebuild is filling its own by now.
            raise RebuildSuperseded from None

    def compare(self) -> _Compared | None:
        """Compares the bulk while others read and write. None: there is nothing to compare with."""
        self._live_caught_up()
        with self.store.reading(LIVE, REBUILD) as tables:
            self._check_own(tables)
            try:
                live, rebuilt = tables.tracked(LIVE), tables.tracked(REBUILD)
            except NotStored:
                return None
            since = min(live, rebuilt)
            skipped = self._subjects_between(since, max(live, rebuilt))
            return _Compared(self._differences(tables, None, skipped), skipped, since)

    def _subjects_between(self, after: int, until: int) -> frozenset[str]:
        """The subjects with events in (after, until]."""
        subjects: set[str] = set()
        for page in self.ledger.pages(after, until):
            subjects.update(entry.subject for entry in page)
        return frozenset(subjects)

    def _live_caught_up(self) -> bool:
        """False: the live timelines cannot be brought up to the ledger, which a rebuild is for."""
        try:
            self.projector.catch_up()
        except (LedgerCorrupt, NotStored):
            return False
        return True

    def finish(self, compared: _Compared | None, check_only: bool) -> RebuildResult:
        """Compares the subjects with news since, at one position of both sides and without other writers, and swaps."""
        for _attempt in range(FINISH_ATTEMPTS_MAX):
            sound = compared is not None and self._live_caught_up()
            position = self.catch_up()
            among = compared and compared.skipped | self._subjects_between(compared.since, position)
            with self.store.reading(REBUILD) as tables:
                subjects = tables.count_subjects(REBUILD)
            first: tuple[RowDifference, ...] = ()
            try:
                with writing_without_old(self.store, LIVE, REBUILD) as tables:
                    self._check_own(tables)
                    live = _tracked(tables)
                    if live is not None and (live != position if sound else compared is None and live > position):
                        continue
                    if compared is not None and among is not None and live is not None:
                        first = first_of(compared.differences, self._differences(tables, among))
                    if check_only:
                        tables.set_aside(REBUILD)
                    else:
                        tables.swap()
            except SwapBusy:
                time.sleep(SWAP_PAUSE_S)
                continue
            return RebuildResult(position, position, subjects, sound and not first, first, not check_only)
        raise LedgerUnavailable(
            "the rebuilt timelines could not replace the live ones, because others kept using these"
        )

    def _differences(
        self, tables: TimelineReader, among: frozenset[str] | None, but: frozenset[str] = frozenset()
    ) -> tuple[RowDifference, ...]:
        subjects = tables.differing(DIFFERENCES_MAX, among=among, but=but)

        def stored(side: Side) -> list[SubjectRows]:
            return [SubjectRows(*tables.stored(side, subject)) for subject in subjects]

        return first_of(*map(differences, subjects, stored(LIVE), stored(REBUILD)))


def _tracked(tables: TimelineReader) -> int | None:
    try:
        return tables.tracked(LIVE)
    except NotStored:
        return None
