"""The checksums of stored timelines: of every row, over the form, the row's place, its position and its bytes. Pure.

CRC-32, because it notices every change of up to 32 neighbouring bits and costs a third of a microsecond, at every read
of a row; a changed row that is longer passes once in four thousand million. It is no protection against a person: only
the events, with their hashes and signed heads, are. So a row whose checksum is right is compared with the ledger, too
(see `sql.TimelineReader`).
Proved by tests/contracts/test_damaged_timelines.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from zlib import crc32

from projections.timelines.contract import FORMAT, BlockRow, StoredRow

_ROW: Final = crc32(f"{FORMAT} subject ".encode())
_BLOCK: Final = crc32(f"{FORMAT} block ".encode())
_TRACKING: Final = crc32(f"{FORMAT} tracking ".encode())


def row_checksum(row: StoredRow) -> int:
    subject, version, position, settings, block_sum = row
    return crc32(settings, crc32(f"{subject} {version} {position} {block_sum} ".encode(), _ROW))


def block_checksum(row: BlockRow) -> int:
    subject, setting, axis, number, start, until, steps = row
    return crc32(steps, crc32(f"{subject} {setting} {axis} {number} {start} {until} ".encode(), _BLOCK))


def tracking_checksum(name: str, position: int) -> int:
    return crc32(f"{name} {position}".encode(), _TRACKING)


def block_sum(blocks: Iterable[BlockRow]) -> int:
    """The sum that a subject's row holds over the checksums of all its blocks: one that is missing, or an older one in
    its place, changes it."""
    return sum(map(block_checksum, blocks))
