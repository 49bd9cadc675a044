"""What audits leave of a disk: the ledger lies on the same one by default, and has to go on taking submissions.

Without this a few kilobytes of packed log, whose every line is a reject, fill it. Proved by
tests/api/audits/test_disk_space.py.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Final

SPARED_BYTES: Final = 1 << 28
SPARED_SHARE: Final = 10
"""That much, or of a small disk a tenth."""


def require_disk_space(folder: Path, wanted: int = 0) -> None:
    """Raises `OSError` (ENOSPC) where the disk of `folder` has less than `wanted` bytes beside what is spared."""
    disk = shutil.disk_usage(folder)
    if disk.free - wanted < min(SPARED_BYTES, disk.total // SPARED_SHARE):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
