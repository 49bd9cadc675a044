"""Commits that SQLite no longer sees, because the write-ahead log before them is damaged.

Each frame of the log has a checksum that continues the one before it. SQLite reads up to the first frame whose checksum
fails, and takes the rest for a commit that a power cut left half written. If a bit flips in a frame, all commits from
there on vanish without a word. Frames behind that place tell the two apart: a commit of events is flushed to the disk
before the next one begins, so a lost event that another commit follows was acknowledged.
(https://www.sqlite.org/fileformat2.html#walformat.) Proved by tests/faults/test_corruption.py.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ledger.errors import LedgerCorrupt

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_SEQUENCE: Final = re.compile(rb'"sequence":"(\d{20})"')
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.05
"""Another process may be between writing a commit and letting others see it."""

_log = logging.getLogger("inforce.ledger")


def require_whole_log(path: Path, frames_seen: Callable[[], int | None], head: int, acknowledged: int) -> None:
    """Raises `LedgerCorrupt` if commits of events behind position `head` are in the log of the ledger at `path` and
    SQLite does not see them.

    `frames_seen`: the number of frames that it sees (None: not known now). `acknowledged`: the newest position that is
    known to have been committed; 0: none is known.
    """
    log = path.with_name(path.name + "-wal")
    try:
        descriptor = os.open(log, os.O_RDONLY)
    except OSError:
        return
    try:
        for attempt in range(_ATTEMPTS):
            lost = _lost(descriptor, frames_seen, head, acknowledged)
            if lost is None:
                return
            if lost:
                raise LedgerCorrupt(
                    f"the log {log} is damaged: commits behind position {head} are in it and cannot be read; keep a "
                    "copy of all files of the ledger, and restore it from a backup or an export"
                )
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE_S)
    finally:
        os.close(descriptor)
    _log.warning(
        "the log %s ends in a commit that cannot be read: it was cut off before it was acknowledged, or it is damaged; "
        "the ledger ends at position %d",
        log,
        head,
    )


def _lost(descriptor: int, frames_seen: Callable[[], int | None], head: int, acknowledged: int) -> bool | None:
    """True: acknowledged commits are lost; False: one commit, of which that is not sure; None: none."""
    header = os.pread(descriptor, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return None
    magic, _version, page_bytes, _checkpoint, *salts, _sum_1, _sum_2 = _HEADER.unpack(header)
    if not _has_checksum(header):
        return _is_damaged_header(descriptor, header) or None
    frame_bytes = _FRAME.size + page_bytes
    seen = frames_seen()
    if seen is None or magic >> 1 != 0x377F0682 >> 1 or not page_bytes:
        return None
    frames = (os.fstat(descriptor).st_size - _HEADER.size) // frame_bytes
    lost_event = False
    commits = 0
    for frame in range(seen, frames):
        start = _HEADER.size + frame * frame_bytes
        _page, pages_after, *of_frame, _, _ = _FRAME.unpack(os.pread(descriptor, _FRAME.size, start))
        if frame > seen and of_frame != salts:
            # Of an earlier round: the log is written over from its start.
            continue
        if lost_event and pages_after and of_frame == salts:
            commits += 1
        elif not lost_event:
            content = os.pread(descriptor, page_bytes, start + _FRAME.size)
            lost_event = any(int(sequence) > head for sequence in _SEQUENCE.findall(content))
            commits += bool(lost_event and pages_after)
    if not lost_event or not commits or frames_seen() != seen:
        # Nothing of events, nothing whole, or something was committed meanwhile.
        return None if not lost_event or not commits else False
    return commits > 1 or acknowledged > head


def _has_checksum(header: bytes) -> bool:
    return _checksum(header) == struct.unpack(">2I", header[24:])


def _checksum(header: bytes) -> tuple[int, int]:
    order = ">" if header[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", header[:24])
    first = second = 0
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


def _is_damaged_header(descriptor: int, header: bytes) -> bool:
    """Whether the log has frames that belong to this header, whose checksum fails: SQLite ignores all of them then."""
    frame = os.pread(descriptor, _FRAME.size, _HEADER.size)
    if len(frame) < _FRAME.size:
        return False
    return frame[8:16] == header[16:24] or _has_checksum(header[:16] + frame[8:16] + header[24:])
