"""Rows of stored timelines, compared with their checksums; and the one read that takes the rows of all subjects.

Proved by tests/contracts/test_damaged_timelines.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from projections.timelines.checksums import block_checksum, row_checksum
from projections.timelines.contract import LIVE, Axis, BlockRow, DamagedRows, StoredRow, SubjectChange
from projections.timelines.encoding import changes_at
from projections.timelines.engine import BLOCK, ROW, Engine, Row, subject_range


def sound_rows(rows: Iterable[Row], damaged: set[str]) -> Iterator[StoredRow]:
    """The rows whose checksum is right. The subjects of the others are added to `damaged`."""
    for row in rows:
        stored = StoredRow(*row[:-1])
        try:
            sound = row_checksum(stored) == row[-1]
        except (TypeError, UnicodeEncodeError):
            sound = False
        if sound:
            yield stored
        else:
            damaged.add(str(stored.subject))


def _is_sound(row: Row) -> bool:
    try:
        return bool(block_checksum(BlockRow(*row[:-1])) == row[-1])
    except (TypeError, UnicodeEncodeError):
        return False


def sound_block(row: Row) -> BlockRow:
    """Raises `DamagedRows`."""
    if not _is_sound(row):
        raise DamagedRows([str(row[0])])
    return BlockRow(*row[:-1])


def with_row_checksums(rows: Iterable[StoredRow]) -> list[Row]:
    return [(*row, row_checksum(row)) for row in rows]


def with_block_checksums(rows: Iterable[BlockRow]) -> list[Row]:
    return [(*row, block_checksum(row)) for row in rows]


class ChangesAt:
    """Reads the change of every subject (of a kind) and setting at an instant. Once it is read to its end, `damaged`
    holds the subjects that were left out, because their rows are damaged or missing."""

    def __init__(
        self, engine: Engine, axis: Axis, at: int, kind: str | None, missing: Callable[[str | None, int], list[str]]
    ) -> None:
        """`missing`: the subjects without a row, from the kind and the sum of the versions of all rows read."""
        self.damaged: set[str] = set()
        self._engine = engine
        self._missing = missing
        self._axis: Axis = axis
        self._at = at
        self._kind = kind
        self._versions = 0

    def __iter__(self) -> Iterator[SubjectChange]:
        bounds = subject_range(self._kind, None)
        if bounds is None:
            return
        low, high, _ = bounds
        blocks = f"{self._engine.prefix}{LIVE}_blocks"
        among = "subject >= ? AND subject <= ?"
        summed = self._engine.execute(
            f"SELECT subject, sum(checksum) FROM {blocks} WHERE {among} GROUP BY subject", (low, high)
        )
        sums = {subject: int(checksums) for subject, checksums in summed}
        rows = self._engine.stream(
            f"SELECT {ROW} FROM {self._engine.prefix}{LIVE}_subjects WHERE {among} ORDER BY subject", (low, high)
        )
        covering = self._engine.stream(
            f"SELECT {BLOCK} FROM {blocks} WHERE {among} AND start_us <= ? AND until_us > ?"
            " ORDER BY subject, setting, axis, number",
            (low, high, self._at, self._at),
        )
        yield from changes_at(
            self._sound(rows, sums), map(self._covering, covering), self._axis, self._at, self.damaged
        )
        missing = self._missing(self._kind, self._versions)
        self.damaged.update(subject for subject in missing if low <= subject <= high)

    def _sound(self, rows: Iterable[Row], sums: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        for row in sound_rows(rows, self.damaged):
            self._versions += row.version
            if row.block_sum == sums.get(row.subject, 0):
                yield row.subject, row.settings
            else:
                self.damaged.add(row.subject)

    def _covering(self, row: Row) -> tuple[str, str, Axis, bytes]:
        if not _is_sound(row):
            self.damaged.add(str(row[0]))
        return row[0], row[1], row[2], row[6]
