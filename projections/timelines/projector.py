"""The projector: brings the stored timelines up to the ledger.

It takes events a page at a time. One transaction writes a page's changes and the tracked position, after checking that
no other projector has written that page, so each event is projected exactly once. A page never splits a submission, so
a reader of the timelines sees all of a submission or nothing.
Proved by tests/contracts: test_catching_up.py, test_projectors_at_once.py, test_timelines.py.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from ledger.errors import AheadOfLedger, DamagedEvent, LedgerCorrupt, LedgerUnavailable
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.subjects import kind_of
from ledger.times import BEGINNING
from projections.temporal.changes import Assertion, Change, Retraction, read_entry, without_large_value
from projections.temporal.in_force import extend
from projections.temporal.known_changes import HistoryMissing, KnownChanges
from projections.timelines.checksums import block_sum
from projections.timelines.contract import LIVE, BlockRow, DamagedRows, Side, StoredRow, SubjectRow, Tail, Update
from projections.timelines.encoding import decode_settings, encode_setting, encode_settings, load_suffix
from projections.timelines.heal import heal
from projections.timelines.sql import TimelineWriter
from projections.timelines.store import TimelineStore

PAGE_EVENTS: Final = 5000
PAGE_BYTES: Final = 8 * 1024 * 1024
"""Leaves that are projected in one transaction; one submission may exceed both."""

Progress = Callable[[int, int], None]
"""Called with the position reached and the ledger's head."""


Pair = tuple[str, str]
"""(subject, setting)"""


class _HistoriesMissing(Exception):
    """A page cannot be written without the histories of `pairs`."""

    def __init__(self, pairs: list[Pair]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class _Page(NamedTuple):
    """A page of the ledger, with everything from the ledger that projecting it needs."""

    position: int
    """Of the last event."""
    last: bool
    """Whether the ledger ended there when it was read."""
    assertions: dict[str, dict[str, list[Assertion]]]
    """Subject → setting → changes and retractions, in the order of subjects."""
    histories: dict[Pair, list[Assertion]]
    """The changes and retractions before the page, of pairs that need them to be extended (see `known_changes`)."""
    with_history: list[str]
    """The subjects that have events before the page."""
    heads: dict[str, SubjectRow]
    events: dict[str, int]
    """Kind of subject → the number of events in the page."""


class Projector:
    """One ledger's projector. Safe to use from many threads, and beside those of other processes."""

    def __init__(self, ledger: Ledger, store: TimelineStore, *, page_events: int = PAGE_EVENTS) -> None:
        self.ledger = ledger
        self.store = store
        self.page_events = page_events
        # One thread of a process does the work: the others would repeat it and throw it away.
        self._lock = threading.Lock()

    def catch_up(self, limit: int | None = None, *, patience_s: float | None = None) -> int:
        """Projects the ledger's new events, or about `limit` of them, ending with a whole submission.

        Returns the position up to which the ledger is projected now.

        Raises `LedgerCorrupt`, naming the position, at an unreadable event; the submissions before it stay projected.
        Raises `LedgerUnavailable` if there are new events and the ledger cannot be written, or if another writer holds
        a lock longer than `patience_s`.
        """
        if not self._lock.acquire(timeout=-1 if patience_s is None else patience_s):
            raise LedgerUnavailable("another thread is bringing the stored timelines up to the ledger; try again")
        try:
            return self.catch_up_side(LIVE, limit, patience_s=patience_s)
        finally:
            self._lock.release()

    def catch_up_side(
        self, side: Side, limit: int | None = None, progress: Progress | None = None, *, patience_s: float | None = None
    ) -> int:
        """`catch_up` for the tables of a side that nothing else in this process projects."""
        with self.store.reading(side) as tables:
            begin = after = tables.tracked(side)
        while limit is None or after - begin < limit:
            page_events = self.page_events if limit is None else min(self.page_events, limit - (after - begin))
            page = self._next_page(after, page_events)
            if page is None:
                self._check_not_beyond(after)
                break
            try:
                after = self._write_with_histories(side, after, page, patience_s)
            except DamagedRows as damaged:
                if side != LIVE or not heal(self.ledger, self.store, damaged.subjects, patience_s=patience_s):
                    raise
                after = self._write_with_histories(side, after, page, patience_s)
            if progress is not None:
                progress(after, self.ledger.head().position)
            if page.last and after == page.position:
                break
        return after

    def _write_with_histories(self, side: Side, after: int, page: _Page, patience_s: float | None) -> int:
        try:
            return self._write(side, after, page, patience_s)
        except _HistoriesMissing as missing:
            # Read outside the transaction, which others wait for. A page needs no more than these.
            page.histories.update((pair, self._history(page, pair)) for pair in missing.pairs)
            return self._write(side, after, page, patience_s)

    def _write(self, side: Side, after: int, page: _Page, patience_s: float | None) -> int:
        """Writes the page if it follows the tracked position `after`. Returns the position tracked now.

        Raises `_HistoriesMissing`, and has then written nothing.
        """
        with self.store.writing(side, patience_s=patience_s) as tables:
            tracked = tables.tracked(side)
            if tracked != after:
                return tracked
            _write_page(tables, side, page)
            return page.position

    def _check_not_beyond(self, position: int) -> None:
        head = self.ledger.head().position
        if head < position:
            raise LedgerCorrupt(
                f"the stored timelines are at position {position} and the ledger ends at {head}; run inforce rebuild"
            )

    def _next_page(self, after: int, limit: int) -> _Page | None:
        entries, last = self._whole_submissions(after, limit)
        readable = _readable(entries)
        if not readable:
            return None
        assertions: dict[str, dict[str, list[Assertion]]] = {}
        heads: dict[str, SubjectRow] = {}
        with_history: list[str] = []
        retracting: set[Pair] = set()
        for entry, assertion in readable:
            subject = entry.subject
            settings = assertions.get(subject)
            if settings is None:
                settings = assertions[subject] = {}
                if entry.version > 1:
                    with_history.append(subject)
            settings.setdefault(assertion.setting, []).append(assertion)
            heads[subject] = SubjectRow(subject, entry.version, entry.position)
            if isinstance(assertion, Retraction):
                retracting.add((subject, assertion.setting))
        page = _Page(
            position=readable[-1][0].position,
            last=last and len(readable) == len(entries),
            # In the order of the key, because neighbours are on the same page of the table.
            assertions=dict(sorted(assertions.items())),
            histories={},
            with_history=with_history,
            heads=heads,
            events=Counter(kind_of(entry.subject) for entry, _ in readable),
        )
        # These are sure to need it: that saves them the first try.
        page.histories.update((pair, self._history(page, pair)) for pair in retracting)
        return page

    def _whole_submissions(self, after: int, limit: int) -> tuple[Sequence[Entry], bool]:
        """At most `limit` entries, or one submission; and whether the ledger ends there.

        A recorded_at belongs to one submission only.
        """
        bytes_max = PAGE_BYTES
        # One more entry than the limit shows whether the last submission ends at the limit.
        try:
            entries = self.ledger.page(after, limit + 1, bytes_max=bytes_max)
        except AheadOfLedger:
            # `_check_not_beyond` says what to do.
            return [], True
        except DamagedEvent as error:
            if error.before:
                return error.before, False
            raise LedgerCorrupt(
                f"the event at position {after + 1} cannot be projected, and so nothing after it: {error.detail}"
            ) from error
        if len(entries) <= limit and sum(len(entry.leaf) for entry in entries) < bytes_max:
            return entries, True
        cut = entries[-1].recorded_at
        whole = [entry for entry in entries if entry.recorded_at != cut]
        if whole:
            return whole, False
        length = 0
        while len(entries) > length and entries[-1].recorded_at == cut:
            length = len(entries)
            entries = self.ledger.page(after, 2 * length)
        return [entry for entry in entries if entry.recorded_at == cut], False

    def _history(self, page: _Page, pair: Pair) -> list[Assertion]:
        """The changes and retractions of a setting before the page."""
        subject, setting = pair
        until = page.assertions[subject][setting][0].version - 1
        before = map(_read, self.ledger.stream_entries(subject, until=until))
        return [assertion for assertion in before if assertion.setting == setting]


def _read(entry: Entry) -> Assertion:
    return without_large_value(read_entry(entry.position, entry.version, entry.leaf))


def _readable(entries: Sequence[Entry]) -> list[tuple[Entry, Assertion]]:
    """The entries with their changes and retractions: all, or those of the submissions before an unreadable entry.

    Raises `LedgerCorrupt` if there are none before it.
    """
    readable: list[tuple[Entry, Assertion]] = []
    for entry in entries:
        try:
            readable.append((entry, _read(entry)))
        except LedgerCorrupt:
            before = [pair for pair in readable if pair[0].recorded_at != entry.recorded_at]
            if not before:
                raise
            return before
    return readable


def _write_page(tables: TimelineWriter, side: Side, page: _Page) -> None:
    rows_before = tables.load(side, page.with_history) if page.with_history else {}
    removed: list[Tail] = []
    blocks: list[BlockRow] = []
    rows: list[StoredRow] = []
    missing: list[Pair] = []
    for subject, by_setting in page.assertions.items():
        row = rows_before.get(subject)
        version = 0 if row is None else row.version
        if version != min(assertions[0].version for assertions in by_setting.values()) - 1:
            raise DamagedRows([subject])
        blocks_summed = 0 if row is None else row.block_sum
        settings = {} if row is None else decode_settings(subject, row.settings)
        for setting, assertions in by_setting.items():
            load_blocks = partial(tables.load_blocks, side, row, setting)
            suffix = load_suffix(subject, settings.pop(setting, None), _reach(assertions), load_blocks)
            known = KnownChanges(page.histories.get((subject, setting)))
            try:
                timelines = extend(suffix.timelines, known, assertions)
            except HistoryMissing:
                missing.append((subject, setting))
                continue
            stored, new_blocks = encode_setting(subject, setting, suffix._replace(timelines=timelines))
            if suffix.blocks:
                removed.append(Tail(subject, setting, suffix.first))
            blocks_summed += block_sum(new_blocks) - block_sum(suffix.blocks)
            if stored is not None:
                settings[setting] = stored
            blocks += new_blocks
        rows.append(StoredRow(*page.heads[subject], encode_settings(settings), blocks_summed))
    if missing:
        raise _HistoriesMissing(missing)
    tables.write(side, Update(removed, blocks, rows, page.position, page.events))


def _reach(assertions: list[Assertion]) -> int:
    """The earliest instant (µs) at which these can change a step."""
    if any(isinstance(assertion, Retraction) for assertion in assertions):
        return BEGINNING
    return min(min(change.effective_from, change.recorded_at) for change in assertions if isinstance(change, Change))
