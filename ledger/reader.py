"""Reading a ledger: its catalog, its feed, the stream of a subject, one event, the reasons.

A module of its own, so that the ledger (`store`) and the commit of a group (`append.commit`) can both read without
importing each other. Safe to use from many threads. Proved by tests/contracts/test_record_and_feed.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.codec import SOURCE_PREFIX, decode, parse_leaf, position_of
from ledger.drafts import PersonalData
from ledger.errors import AheadOfLedger, DamagedEvent, LedgerCorrupt, NotFound
from ledger.events import SettingDefined
from ledger.follower import AT_LEAST_SECONDS_MAX, Follower
from ledger.receipts import Receipt
from ledger.recorders.contract import SEALED, Entry, Head, Recorder
from ledger.recorders.writability import resolve
from ledger.subjects import CATALOG_SUBJECT

PAGE_MAX: Final = 1000
"""Entries on one page of a feed, unless the caller asks for another number."""
PAGES_BYTES: Final = 4 * 1024 * 1024
"""Leaves that a reader of many pages holds at once, about."""
STREAM_BYTES: Final = 2 * 1024 * 1024
"""Leaves that a reader of a whole stream holds at once, about."""
_LAST: Final = 2**62
"""Behind every position."""
_FEW: Final = 8
"""Events of a stream that need no look at their size."""


UNKNOWN_EVENT: Final = "there is no event with this id in this ledger"
"""Also of an event that the caller may not know."""
NewestOf = Callable[[str], tuple[int, int] | None]
"""Subject → the version and position of its newest event, as noted elsewhere and maybe earlier; None: unknown."""


class LedgerReader:
    """Raises `LedgerUnavailable` from every call where the database cannot answer."""

    def __init__(self, recorder: Recorder, clock: Clock, *, origin: str) -> None:
        """`origin`: the ledger's permanent name. The `source` of its events is `urn:inforce:<origin>`."""
        self.recorder = recorder
        self.clock = clock
        self.origin = origin
        self.source = SOURCE_PREFIX + origin
        self.follower = Follower(recorder)
        self.newest_of: NewestOf | None = None
        """Set by those who keep a record of the subjects elsewhere, such as the stored timelines."""
        self.on_recorded: list[Callable[[Sequence[Receipt]], None]] = []
        """Called with the receipts of each commit of this process, in position order, once it is durable and before its
        callers get them. They must neither wait nor raise."""
        self._catalog = Catalog()
        self._personal_is_placed = False
        """Whether it was found once that all personal data stands at events that have some."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.follower.close()
        self.recorder.close()
        self.recorder.append_guard.memory.close()

    def catalog(self, version: int | None = None) -> Catalog:
        """The definitions known at `version` of the catalog's stream (None: the newest version)."""
        if version is None:
            version = self.recorder.versions([CATALOG_SUBJECT])[CATALOG_SUBJECT]
        # No lock: two threads may read the same definitions twice, but neither waits for the other's database call.
        catalog = self._catalog
        if catalog.version != version:
            events = (decode(entry.leaf) for entry in self.recorder.stream(CATALOG_SUBJECT, until=version))
            self._catalog = catalog = Catalog(
                ((e.setting, e.effective_from, e.definition) for e in events if isinstance(e, SettingDefined)), version
            )
        return catalog

    def head(self) -> Head:
        return self.recorder.head()

    def remember(self, newest: Receipt) -> None:
        """Notes that everything up to the receipt's event is committed."""
        self.follower.advance_to(newest.position)
        self.recorder.append_guard.remember(newest.position, newest.recorded_at, newest.event_id)

    def require_writable(self) -> None:
        """Raises `NotWritable` if nothing may be recorded now."""
        resolve(self.recorder, self.clock.now())

    def require_reached(self, after: int) -> int:
        """The head's position, read now. Raises `AheadOfLedger` if it lies before `after`, where a follower stands."""
        head = self.head().position
        if after > head:
            raise AheadOfLedger(after, head)
        return head

    def at_least(self, position: int, timeout_s: float = AT_LEAST_SECONDS_MAX) -> None:
        """Returns once the ledger has reached `position`, so that every later question sees it.

        Raises `PositionNotReached` if that takes longer than `timeout_s`.
        """
        self.follower.wait_for(position, timeout_s)

    def page(
        self, after: int, limit: int = PAGE_MAX, until: int | None = None, bytes_max: int | None = None
    ) -> list[Entry]:
        """The feed: up to `limit` entries with after < position <= until, in order and without gaps. `bytes_max`: the
        page ends with the entry whose leaf reaches this size, so that it always has one.

        Raises `AheadOfLedger` if the ledger ends before `after`, where a follower would miss the events to come.
        """
        length = limit if bytes_max is None else self.recorder.page_length(after, limit, until, bytes_max)
        entries = self.recorder.page(after, length, until)
        if not entries and limit > 0 and (until is None or after < until):
            self.require_reached(after)
        return entries

    def pages(
        self, after: int, until: int, limit: int = PAGE_MAX, bytes_max: int = PAGES_BYTES
    ) -> Iterator[list[Entry]]:
        """All entries with after < position <= until, in order; `until` at most the head. Up to `limit` at a time, or
        those up to the one that reaches `bytes_max`.

        Raises `DamagedEvent`, after all entries before the damaged one.
        """
        while after < until:
            try:
                page = self.recorder.page(after, self.recorder.page_length(after, limit, until, bytes_max), until)
            except DamagedEvent as error:
                if error.before:
                    yield list(error.before)
                raise
            if not page:
                return
            yield page
            after = page[-1].position

    def subject_page(
        self,
        subject: str,
        after: int,
        limit: int = PAGE_MAX,
        until: int | None = None,
        bytes_max: int | None = None,
    ) -> list[Entry]:
        """The feed of one subject: up to `limit` of its entries with after < position <= until, in order. `bytes_max`:
        as in `page`."""
        version = self.recorder.version_at(subject, after) if after else 0
        length = limit
        if bytes_max is not None:
            length = self.recorder.stream_length(subject, version, None, limit, bytes_max)
        entries = self.recorder.stream(subject, after=version, limit=length)
        if len(entries) < limit:
            # Either the bytes ended the page, or the stream.
            self._require_whole(subject, self.recorder.versions([subject])[subject])
        return entries if until is None else [entry for entry in entries if entry.position <= until]

    def stream(self, subject: str, *, after: int = 0, until: int | None = None) -> list[Entry]:
        """A subject's entries with after < version <= until, oldest first."""
        entries = self.recorder.stream(subject, after=after, until=until)
        if until is None:
            self._require_whole(subject, entries[-1].version if entries else after)
        return entries

    def stream_entries(self, subject: str, *, after: int = 0, until: int | None = None) -> Iterator[Entry]:
        """`stream`, read a page at a time: a long history takes no more memory than `STREAM_BYTES`."""
        if until is None:
            if self.recorder.stream_sizes([subject], _LAST)[subject].bytes <= STREAM_BYTES:
                # Nearly all streams: read at once.
                yield from self.stream(subject, after=after)
                return
            until = self.recorder.versions([subject])[subject]
            self._require_whole(subject, until)
        while after < until:
            length = PAGE_MAX
            if until - after > _FEW:
                length = self.recorder.stream_length(subject, after, until, PAGE_MAX, STREAM_BYTES)
            entries = self.recorder.stream(subject, after=after, until=until, limit=length)
            yield from entries
            after += len(entries)

    def version_at(self, subject: str, position: int) -> int:
        """The version that the subject has at `position`, 0 if it has no event up to there."""
        version = self.recorder.version_at(subject, position)
        self._require_whole(subject, version, position)
        return version

    def _require_whole(self, subject: str, version: int, position: int | None = None) -> None:
        """Raises `DamagedEvent` if the subject is known to have had a later version (at `position`). An event whose
        subject was altered on the disk is missing at the end of a stream without a gap."""
        newest = None if self.newest_of is None else self.newest_of(subject)
        if newest is not None and newest[0] > version and (position is None or newest[1] <= position):
            # Names the difference if the event itself shows it.
            self.recorder.entry(newest[1])
            raise DamagedEvent(newest[1], "its subject does not lead to it")

    def find(self, event_id: str) -> Entry | None:
        """The entry with this event id, looked up by the position that the id carries."""
        position = position_of(event_id)
        entry = self.recorder.entry(position) if position else None
        return entry if entry is not None and parse_leaf(entry.leaf).id == event_id else None

    def event(self, event_id: str) -> Entry:
        """The entry with this event id. Raises `NotFound`."""
        entry = self.find(event_id)
        if entry is None:
            raise NotFound(UNKNOWN_EVENT)
        return entry

    def personal(self, entries: Iterable[Entry]) -> dict[int, PersonalData]:
        """Position → the personal data stored beside the event, for those of the entries that have some.

        Raises `LedgerCorrupt` if it does not match the commitment in its event.
        """
        by_position = {entry.position: entry for entry in entries}
        personal = self.recorder.personal(list(by_position))
        for position, data in personal.items():
            _require_match(position, data, by_position[position])
        if not self._personal_is_placed and any(
            SEALED in entry.leaf for position, entry in by_position.items() if position not in personal
        ):
            # Either it stayed behind when the events were imported, or it stands at another position.
            orphan = self.recorder.orphaned_personal()
            if orphan is not None:
                raise LedgerCorrupt(f"personal data is stored for position {orphan}, whose event has none")
            self._personal_is_placed = True
        return personal

    def reasons(self, positions: Iterable[int]) -> dict[int, str]:
        """Position → reason, for the events that have one.

        Raises `LedgerCorrupt` if a stored reason does not match the commitment in its event.
        """
        reasons: dict[int, str] = {}
        for position, data in self.recorder.personal(list(positions)).items():
            _require_match(position, data, self.recorder.entry(position))
            reasons[position] = data.reason
        return reasons


def _require_match(position: int, data: PersonalData, entry: Entry | None) -> None:
    try:
        sealed = None if entry is None else parse_leaf(entry.leaf).data.personal
        matches = sealed is not None and sealed.commitment == data.commitment
    except (TypeError, ValueError, AttributeError):
        matches = False
    if not matches:
        raise LedgerCorrupt(
            f"the reason stored for the event at position {position} does not match the event's commitment"
        )
