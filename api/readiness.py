"""How far the stored timelines are behind the ledger, and the free space of the disks that the server writes to: for
`/readyz`, `/metrics` and `inforce doctor`.

Proved by tests/api/test_readiness.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

from ledger.store import Ledger
from projections.timelines.store import TimelineStore

DISK_SHARE: Final = 10
"""Of a small disk, a tenth suffices."""


class ReadyBounds(NamedTuple):
    """A server is not ready while its stored timelines are more than `lag_max` events behind the ledger, or a disk has
    less than `disk_free_min` bytes free (0: no bound), or less than a tenth if that is smaller."""

    lag_max: int = 100_000
    disk_free_min: int = 256 * 1024**2


class LedgerFigures(NamedTuple):
    """The ledger's head, with its time of recording in µs, and the position up to which the timelines are stored."""

    position: int
    recorded_at: int | None
    tracked: int

    @property
    def lag(self) -> int:
        return max(0, self.position - self.tracked)


class Disk(NamedTuple):
    """`place`: the use of the disk. Sizes in bytes."""

    place: str
    free: int
    total: int

    def least(self, free_min: int) -> int:
        """The bytes that must be free."""
        return min(free_min, self.total // DISK_SHARE)


def ledger_figures(ledger: Ledger, store: TimelineStore) -> LedgerFigures:
    """Raises `LedgerUnavailable`."""
    tracked = store.tracked()
    # Read later than the tracked position, so that a commit in between gives no negative lag.
    head = ledger.head()
    return LedgerFigures(head.position, head.recorded_at, tracked)


def disks(ledger_file: Path | None, audits_folder: Path) -> list[Disk]:
    """The disks of the ledger's file, if it is a file, and of the audits' folder."""
    places = {"ledger": ledger_file.parent if ledger_file is not None else None, "audits": _existing(audits_folder)}
    rows = []
    for place, folder in places.items():
        if folder is not None and folder.exists():
            usage = shutil.disk_usage(folder)
            rows.append(Disk(place, usage.free, usage.total))
    return rows


def low_disk(disks: list[Disk], free_min: int) -> Disk | None:
    """The first disk with less room than it must have."""
    return next((disk for disk in disks if disk.free < disk.least(free_min)), None)


def _existing(folder: Path) -> Path:
    """The folder, else the nearest folder above it that exists."""
    return next((one for one in (folder, *folder.parents) if one.exists()), folder)
