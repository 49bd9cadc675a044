"""Reserves disk space for the ledger, which by default shares the disk with the audits.

Without this reserve, a few kilobytes of compressed log whose every line is a reject would fill the disk, and the ledger
could record nothing more. Proved by tests/api/audits/test_disk_space.py.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Final

RESERVE_BYTES: Final = 1 << 28
RESERVE_SHARE: Final = 10
"""Audits leave `RESERVE_BYTES` free, or a tenth of a small disk."""


def require_disk_space(folder: Path, bytes_: int = 0) -> None:
    """Raises `OSError` (ENOSPC) unless the disk of `folder` has `bytes_` free beside the reserve."""
    disk = shutil.disk_usage(folder)
    if disk.free - bytes_ < min(RESERVE_BYTES, disk.total // RESERVE_SHARE):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
