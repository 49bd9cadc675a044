"""The newest head that a server acknowledged, in memory and in a small file outside the ledger.

A ledger that goes back (an older backup is restored, its tail is deleted) looks whole in itself: only a note outside it
can tell. The note is the head's position, event id and recorded_at. In memory it is exact. The file holds it for the
next process: it is written after each commit, so it survives a process that is killed, and flushed to the disk every
`SYNC_S` and at the end, because a flush for each commit would double its cost. After a power cut the note may thus be
some seconds old; it then still finds every ledger that went back further.

The file has two places of fixed size. A writer overwrites the older one, each with its own checksum, so a write that is
cut off leaves the other. Several processes share a file: the newest note of all counts.
Proved by tests/test_head_memory.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ledger.private_files import make_private_folder

SYNC_S: Final = 5.0
_PLACE_BYTES: Final = 1024
_PLACES: Final = 2

_log = logging.getLogger("inforce.ledger")


class RememberedHead(NamedTuple):
    """`recorded_at` in µs. `generation`: see `acknowledgements.GENERATION`."""

    origin: str
    incarnation: str | None
    generation: int
    position: int
    recorded_at: int
    event_id: str

    @property
    def age(self) -> tuple[int, int]:
        """The note with the highest one is the newest."""
        return self.generation, self.position


class HeadMemory:
    """`path`: the file; None: there is none, and the note is lost with the process. `read_only`: the file is never
    written, nor made. Safe to use from many threads."""

    def __init__(self, path: Path | None = None, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._lock = threading.Lock()
        self._head: RememberedHead | None = None
        self._file: int | None = None
        self._bytes = b""
        self._notes: list[RememberedHead | None] = [None] * _PLACES
        self._synced_at = 0.0
        self._is_dirty = False
        self._failed = False

    def newest(self) -> RememberedHead | None:
        """The newest note of this process and of all others that share the file."""
        with self._lock:
            self._read(self._open(os.O_RDONLY if self._read_only else os.O_RDWR))
            return self._head

    def remember(self, head: RememberedHead) -> None:
        """Remembers `head`, unless a newer one is known. Never raises: the head is committed already."""
        with self._lock:
            if self._head is None or head.age > self._head.age:
                self._head = head
            if self._read_only:
                return
            try:
                self._write()
            except OSError as error:
                self._fail(error)

    def close(self) -> None:
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            with suppress(OSError):
                if self._is_dirty:
                    os.fdatasync(file)
            os.close(file)

    def _open(self, flags: int) -> int | None:
        if self.path is None:
            return None
        if self._file is not None:
            if os.fstat(self._file).st_nlink:
                return self._file
            # Somebody deleted the file.
            os.close(self._file)
            self._file, self._bytes, self._notes = None, b"", [None] * _PLACES
        try:
            self._file = os.open(self.path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._fail(error)
            return None
        return self._file

    def _read(self, file: int | None) -> None:
        """Takes over the file's newest note, if it is newer than ours."""
        if file is None:
            return
        content = os.pread(file, _PLACES * _PLACE_BYTES, 0)
        if content == self._bytes:
            return
        self._bytes = content
        self._notes = [_decoded(content[place * _PLACE_BYTES :][:_PLACE_BYTES]) for place in range(_PLACES)]
        for note in self._notes:
            if note is not None and (self._head is None or note.age > self._head.age):
                self._head = note

    def _write(self) -> None:
        if self.path is not None and self._file is None and not self.path.exists():
            make_private_folder(self.path.parent)
        file = self._open(os.O_RDWR | os.O_CREAT)
        if file is None:
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            self._read(file)
            head = self._head
            assert head is not None
            ages = [(0, 0) if note is None else note.age for note in self._notes]
            if head.age > max(ages):
                place = ages.index(min(ages))
                start = place * _PLACE_BYTES
                block = _encoded(head)
                os.pwrite(file, block, start)
                self._bytes = self._bytes[:start].ljust(start, b"\0") + block + self._bytes[start + _PLACE_BYTES :]
                self._notes[place] = head
                self._is_dirty = True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
        now = time.monotonic()
        if self._is_dirty and now - self._synced_at >= SYNC_S:
            os.fdatasync(file)
            self._synced_at, self._is_dirty = now, False

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            _log.warning(
                "the last acknowledged position cannot be kept in %s (%s): until it can, a ledger that went back is "
                "noticed only while this process runs",
                self.path,
                error.strerror,
            )


def _encoded(head: RememberedHead) -> bytes:
    text = msgspec.json.encode(head._asdict())
    return (hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n").ljust(_PLACE_BYTES)


def _decoded(block: bytes) -> RememberedHead | None:
    checksum, _, text = block.rstrip().partition(b" ")
    if hashlib.sha256(text).hexdigest().encode() != checksum:
        return None
    try:
        return RememberedHead(**msgspec.json.decode(text))
    except (msgspec.MsgspecError, TypeError):
        # Another version of inforce wrote it.
        return None
