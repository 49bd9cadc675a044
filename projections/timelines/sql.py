"""The tables of stored timelines within a transaction, on either database (see `engine`).

Proved by tests/contracts/test_timelines.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Protocol

from ledger.errors import DamagedEvent, LedgerCorrupt
from ledger.recorders.contract import EVENTS_TABLE
from projections.temporal.in_force import Timelines
from projections.timelines.checksums import block_sum, tracking_checksum
from projections.timelines.contract import (
    FORMAT,
    LIVE,
    REBUILD,
    Axis,
    BlockRow,
    DamagedRows,
    Listing,
    OtherFormat,
    Side,
    StoredRow,
    SubjectRow,
    TrackingDamaged,
    Update,
)
from projections.timelines.encoding import decode_timelines
from projections.timelines.engine import BLOCK, ROW, TABLES, Engine, Row, drop, existing, subject_range
from projections.timelines.sound_rows import (
    ChangesAt,
    sound_block,
    sound_rows,
    with_block_checksums,
    with_row_checksums,
)
from projections.timelines.turns import require_turn

EVENTS_SUMMED_MAX: Final = 20_000
"""Up to so many events of a kind, a page of a listing is compared with the number of all of them, too."""

_KEY: Final = "b.subject = a.subject AND b.setting = a.setting AND b.axis = a.axis AND b.number = a.number"
_NO_LIMIT: Final = 2**62
_CLAIMS: Final = "rebuild %"
_EVENTS_OF: Final = "events "
"""Before a kind of subject: the name of the number of its events, in the table of the tracked position."""


class TimelineReader:
    """The tables within one transaction: everything read through it is of one moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def exists(self, side: Side) -> bool:
        return len(existing(self._engine, side, TABLES)) == len(TABLES)

    def has_format(self, side: Side) -> bool:
        """Whether the side has tables and rows of today's format."""
        if not self._engine.is_as_made(side):
            return False
        statement = f"SELECT count(*) FROM {self._table(side, 'tracking')} WHERE name = ?"
        return bool(self._engine.execute(statement, (FORMAT,)).fetchone()[0])

    def tracked(self, side: Side = LIVE) -> int:
        """The position up to which events are projected. Raises `NotStored`."""
        position = self._tracking(side, FORMAT)
        if position is None:
            raise OtherFormat
        return position

    def _tracking(self, side: Side, name: str) -> int | None:
        statement = f"SELECT position, checksum FROM {self._table(side, 'tracking')} WHERE name = ?"
        row = self._engine.execute(statement, (name,)).fetchone()
        if row is None:
            return None
        if row[1] != tracking_checksum(name, row[0]):
            raise TrackingDamaged
        position: int = row[0]
        return position

    def claim(self, side: Side) -> str | None:
        """The claim of the rebuild that fills the side. Raises `TablesMissing`."""
        statement = f"SELECT name FROM {self._table(side, 'tracking')} WHERE name LIKE ?"
        row = self._engine.execute(statement, (_CLAIMS,)).fetchone()
        return None if row is None else str(row[0]).partition(" ")[2]

    def timelines(self, subjects: Iterable[str]) -> dict[str, dict[str, Timelines]]:
        """Subject → setting → live timelines; subjects and settings without any step are absent.

        Raises `DamagedRows` if the rows are not what was written, or not those of the ledger at the tracked position.
        """
        wanted = list(subjects)
        by_subject: dict[str, dict[str, Timelines]] = {}
        damaged: set[str] = set()
        rows = self._load(LIVE, wanted, damaged)
        tracked = self.tracked()
        for subject in wanted:
            row = rows.get(subject)
            if subject in damaged or not self._is_of_the_ledger(subject, row, tracked):
                damaged.add(subject)
            elif row is not None:
                require_turn(row.version)
                try:
                    timelines = decode_timelines(subject, row.settings, partial(self._all_blocks, row))
                except LedgerCorrupt:
                    damaged.add(subject)
                else:
                    if timelines:
                        by_subject[subject] = timelines
        if damaged:
            raise DamagedRows(damaged)
        return by_subject

    def _is_of_the_ledger(self, subject: str, row: StoredRow | None, tracked: int) -> bool:
        """Whether the row (None: no row) is at the subject's last event up to the tracked position. An older row in its
        place has a right checksum, too. Raises `DamagedEvent` if the ledger does not find the row's event."""
        statement = (
            f"SELECT originator_version, position FROM {self._engine.prefix}{EVENTS_TABLE} WHERE originator_id = ?"
            " AND originator_version >= ? ORDER BY originator_version LIMIT 2"
        )
        if row is None:
            events = self._engine.execute(statement, (subject, 1)).fetchall()
            return not events or events[0][1] > tracked
        events = self._engine.execute(statement, (subject, row.version)).fetchall()
        if events and tuple(events[0]) == (row.version, row.position):
            return len(events) < 2 or events[1][1] > tracked
        at_position = f"SELECT originator_id FROM {self._engine.prefix}{EVENTS_TABLE} WHERE position = ?"
        event = self._engine.execute(at_position, (row.position,)).fetchone()
        if event is not None and event[0] == subject:
            raise DamagedEvent(row.position, "its subject does not lead to it")
        return False

    def changes_at(self, axis: Axis, at: int, kind: str | None = None) -> ChangesAt:
        """The change at `at` (µs) of every subject (of `kind`) and setting, by subject and setting in byte order."""
        return ChangesAt(self._engine, axis, at, kind, self._missing_among)

    def subjects(
        self, kind: str | None = None, prefix: str | None = None, after: str | None = None, limit: int | None = None
    ) -> Listing:
        """Subjects that have a history; `prefix` is of the whole reference, `after` a subject."""
        bounds = subject_range(kind, prefix, after)
        if bounds is None:
            return Listing([], frozenset())
        damaged: set[str] = set()
        rows = self._engine.execute(
            f"SELECT {ROW} FROM {self._table(LIVE, 'subjects')}"
            " WHERE subject >= ? AND subject <= ? AND subject > ? ORDER BY subject LIMIT ?",
            (*bounds, _NO_LIMIT if limit is None else limit),
        )
        sound = list(sound_rows(rows, damaged))
        whole = not (prefix or after or damaged) and (limit is None or len(sound) < limit)
        if damaged or not self._has_all_events(kind, sum(row.version for row in sound) if whole else None):
            low, high, above = bounds
            missing = self.missing(self.tracked())
            damaged |= {subject for subject in missing if low <= subject <= high and subject > above}
        return Listing([SubjectRow(*row[:3]) for row in sound], frozenset(damaged))

    def _has_all_events(self, kind: str | None, versions: int | None) -> bool:
        """Whether the rows of `kind` (None: any) are all there: the sum of their versions is the number of the events
        about them, because versions are dense. `versions`: that sum; None: it is not known, and asked for if there are
        few events."""
        expected = self.tracked() if kind is None else self._events_of(LIVE, kind)
        if versions is None:
            if expected is None or expected > EVENTS_SUMMED_MAX:
                return True
            versions = self._summed_versions(LIVE, kind)
        return versions == expected or (versions == 0 and expected is None)

    def _events_of(self, side: Side, kind: str) -> int | None:
        """None: the number is not there, or is not what was written."""
        try:
            return self._tracking(side, f"{_EVENTS_OF}{kind}")
        except TrackingDamaged:
            return None

    def _summed_versions(self, side: Side, kind: str | None) -> int:
        bounds = subject_range(kind, None)
        statement = (
            f"SELECT coalesce(sum(version), 0) FROM {self._table(side, 'subjects')} WHERE subject >= ? AND subject <= ?"
        )
        return 0 if bounds is None else int(self._engine.execute(statement, bounds[:2]).fetchone()[0])

    def _missing_among(self, kind: str | None, versions: int) -> list[str]:
        """The missing subjects, of any kind, unless the rows of `kind` whose versions have this sum are all of them."""
        return [] if self._has_all_events(kind, versions) else self.missing(self.tracked())

    def missing(self, tracked: int) -> list[str]:
        """The subjects whose row is not there, or is not at their last event up to the tracked position: reads all
        events, so only ask once something is known to be wrong."""
        rows = self._engine.execute(
            "SELECT e.subject FROM (SELECT originator_id AS subject, max(originator_version) AS version"
            f" FROM {self._engine.prefix}{EVENTS_TABLE} WHERE position <= ? GROUP BY originator_id) e"
            f" LEFT JOIN {self._table(LIVE, 'subjects')} s ON s.subject = e.subject AND s.version = e.version"
            " WHERE s.subject IS NULL",
            (tracked,),
        )
        return sorted(subject for (subject,) in rows)

    def rows(self, side: Side = LIVE) -> Iterator[StoredRow]:
        """Every subject's row as it is, in byte order."""
        statement = f"SELECT {ROW} FROM {self._table(side, 'subjects')} ORDER BY subject"
        return (StoredRow(*row[:-1]) for row in self._engine.stream(statement))

    def blocks(self, side: Side = LIVE) -> Iterator[BlockRow]:
        """Every block as it is, in the order of its key."""
        statement = f"SELECT {BLOCK} FROM {self._table(side, 'blocks')} ORDER BY subject, setting, axis, number"
        return (BlockRow(*row[:-1]) for row in self._engine.stream(statement))

    def load(self, side: Side, subjects: Iterable[str]) -> dict[str, StoredRow]:
        """The rows of those of these subjects that have one. Raises `DamagedRows`."""
        damaged: set[str] = set()
        rows = self._load(side, list(subjects), damaged)
        if damaged:
            raise DamagedRows(damaged)
        return rows

    def _load(self, side: Side, wanted: list[str], damaged: set[str]) -> dict[str, StoredRow]:
        # A question about one subject is the most frequent one, and a list costs SQLite more than the row.
        one = len(wanted) == 1
        rows = self._engine.execute(
            f"SELECT {ROW} FROM {self._table(side, 'subjects')} WHERE subject {'= ?' if one else self._engine.in_list}",
            (wanted[0] if one else self._engine.list_parameter(wanted),),
        )
        return {row.subject: row for row in sound_rows(rows, damaged)}

    def stored(self, side: Side, subject: str) -> tuple[StoredRow | None, list[BlockRow]]:
        """All that the side stores of a subject, sound or not."""
        row = self._engine.execute(
            f"SELECT {ROW} FROM {self._table(side, 'subjects')} WHERE subject = ?", (subject,)
        ).fetchone()
        return None if row is None else StoredRow(*row[:-1]), [
            BlockRow(*row[:-1]) for row in self._blocks(side, subject)
        ]

    def load_blocks(self, side: Side, row: StoredRow | None, setting: str, first: int = 0) -> list[BlockRow]:
        """The blocks of one of the row's settings with number `first` or higher, in the order of their key.

        Raises `DamagedRows`, also if one of the subject's other blocks is missing or another one."""
        if row is None:
            return []
        summed = f"SELECT coalesce(sum(checksum), 0) FROM {self._table(side, 'blocks')} WHERE subject = ?"
        blocks = [sound_block(block) for block in self._blocks(side, row.subject, setting, first)]
        if int(self._engine.execute(summed, (row.subject,)).fetchone()[0]) != row.block_sum:
            raise DamagedRows([row.subject])
        return blocks

    def _all_blocks(self, row: StoredRow) -> list[BlockRow]:
        blocks = [sound_block(block) for block in self._blocks(LIVE, row.subject)]
        if block_sum(blocks) != row.block_sum:
            raise DamagedRows([row.subject])
        return blocks

    def _blocks(self, side: Side, subject: str, setting: str | None = None, first: int = 0) -> Iterable[Row]:
        which = "" if setting is None else " AND setting = ?"
        return self._engine.execute(
            f"SELECT {BLOCK} FROM {self._table(side, 'blocks')} WHERE subject = ? AND number >= ?{which}"
            " ORDER BY subject, setting, axis, number",
            (subject, first) if setting is None else (subject, first, setting),
        )

    def differing(self, limit: int, *, among: Iterable[str] | None = None, but: Iterable[str] = ()) -> list[str]:
        """The first subjects, in byte order, with a row that differs between the live and the rebuilt side.

        Compares the subjects `among` (None: all) without those in `but`.
        """
        which = f" AND NOT a.subject {self._engine.in_list}"
        parameters = [self._engine.list_parameter(but)]
        if among is not None:
            which += f" AND a.subject {self._engine.in_list}"
            parameters.append(self._engine.list_parameter(among))
        subjects: set[str] = set()
        for statement in self._differing():
            rows = self._engine.execute(f"{statement}{which} ORDER BY a.subject LIMIT ?", (*parameters, limit))
            subjects.update(subject for (subject,) in rows)
        return sorted(subjects)[:limit]

    def _differing(self) -> Iterator[str]:
        """SELECTs of subjects with rows that differ between the sides, each ending in a condition."""
        for name, distinct, key, values in (
            ("subjects", "", "b.subject = a.subject", ("version", "position", "settings", "block_sum", "checksum")),
            ("blocks", "DISTINCT ", _KEY, ("start_us", "until_us", "steps", "checksum")),
        ):
            live, rebuilt = self._table(LIVE, name), self._table(REBUILD, name)
            unlike = " OR ".join(f"b.{column} {self._engine.unlike} a.{column}" for column in values)
            yield f"SELECT {distinct}a.subject FROM {live} a LEFT JOIN {rebuilt} b ON {key} WHERE ({unlike})"
            yield f"SELECT {distinct}a.subject FROM {rebuilt} a WHERE NOT EXISTS (SELECT 1 FROM {live} b WHERE {key})"

    def count_subjects(self, side: Side) -> int:
        count: int = self._engine.execute(f"SELECT count(*) FROM {self._table(side, 'subjects')}").fetchone()[0]
        return count

    def _table(self, side: Side, name: str) -> str:
        return f"{self._engine.prefix}{side}_{name}"


class TimelineWriter(TimelineReader):
    """The tables of some sides within a transaction in which nothing else writes them."""

    def create(self, side: Side) -> None:
        """Makes the side's tables, empty and at position 0, unless they are there."""
        if not self.exists(side):
            self.drop(side)
            self._make(side, FORMAT)

    def begin(self, side: Side, claim: str) -> None:
        """Makes the side's tables, which must not be there, for the rebuild with this claim to fill.

        No position is tracked until `complete`.
        """
        self._make(side, f"rebuild {claim}")

    def _make(self, side: Side, name: str) -> None:
        for statement in self._engine.make:
            self._engine.execute(statement.format(side=side))
        self._track(side, name, 0)

    def complete(self, side: Side, position: int, events: Mapping[str, int]) -> None:
        """Records that everything up to `position` is filled in. `events`: see `Update.events`."""
        self._track(side, FORMAT, position)
        self._count(side, events)

    def _count(self, side: Side, events: Mapping[str, int]) -> None:
        """Adds to the numbers of events, once their rows are written."""
        for kind, number in events.items():
            before = self._events_of(side, kind)
            total = self._summed_versions(side, kind) if before is None else before + number
            self._track(side, f"{_EVENTS_OF}{kind}", total)

    def _track(self, side: Side, name: str, position: int) -> None:
        self._engine.execute(
            f"INSERT INTO {self._table(side, 'tracking')} (name, position, checksum) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET position = excluded.position, checksum = excluded.checksum",
            (name, position, tracking_checksum(name, position)),
        )

    def drop(self, side: Side) -> None:
        """Drops the side's tables, if they are there; on SQLite at a cost that grows with them."""
        drop(self._engine, side)

    def fill(self, side: Side, subjects: Sequence[StoredRow], blocks: Sequence[BlockRow]) -> None:
        self._engine.fill(side, with_row_checksums(subjects), with_block_checksums(blocks))

    def write(self, side: Side, update: Update) -> None:
        subjects, blocks = with_row_checksums(update.subjects), with_block_checksums(update.blocks)
        self._engine.write(side, update.removed, blocks, subjects)
        self._track(side, FORMAT, update.position)
        self._count(side, update.events)

    def replace(self, side: Side, subject: str, row: StoredRow | None, blocks: Sequence[BlockRow]) -> None:
        """Writes all rows of the subject anew; None: it has none."""
        for table in ("blocks", "subjects"):
            self._engine.execute(f"DELETE FROM {self._table(side, table)} WHERE subject = ?", (subject,))
        self.fill(side, [] if row is None else [row], blocks)

    def set_aside(self, side: Side) -> None:
        self._engine.set_aside(side)

    def clear_old(self, rows: int) -> bool:
        return self._engine.clear_old(rows)

    def swap(self) -> None:
        self._engine.swap()
        self._engine.execute(f"DELETE FROM {self._table(LIVE, 'tracking')} WHERE name LIKE ?", (_CLAIMS,))


class Backend(Protocol):
    """Every call raises `LedgerUnavailable` if the database cannot answer, and `NotStored`."""

    def reading(self, *sides: Side) -> AbstractContextManager[TimelineReader]: ...

    def writing(self, *sides: Side, patience_s: float | None = None) -> AbstractContextManager[TimelineWriter]:
        """Waits until nothing else writes these sides: at most about `patience_s` for each lock, if given, else as long
        as the database is configured to. Commits unless an error leaves it.

        Do not read the ledger inside: on SQLite, another thread that waits to write blocks this one's reads.
        """

    def write_probe(self) -> Callable[[], object] | None:
        """A function whose value changes when another writer has recorded events; None if a writer of timelines blocks
        no other writer."""
