"""Opens the policy index of a ledger: maps the stored one, extends it to the pin, or compiles a new one.

The index lies beside the ledger's file (`<file>.index/`), or, where that is impossible (PostgreSQL, a read-only
folder), in the user's cache folder under the ledger's origin, or in a folder that the caller names. The index in force
and the index of each fixed known_at have folders of their own. An index is only a copy: where it cannot be stored or
used, the audit compiles its own.

One process at a time changes an index, under a lock that ends with the process. Others wait and then use its result.
Proved by tests/audit/index/test_open.py and test_open_processes.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from ledger.private_files import make_private_folder, open_private
from ledger.store import Ledger
from projections.audit.index import storage
from projections.audit.index.compile import Progress, compile_index
from projections.audit.index.extend import NotWorthExtending, extension
from projections.audit.index.pin import pin_of
from projections.audit.index.schema import PolicyIndex
from projections.audit.index.storage import NotUsable, StoredIndex
from projections.temporal.coordinates import IN_FORCE, KnownAt, Pin

Tell = Callable[[str], None]
"""Called with a sentence that says why a stored index is not used."""

KEPT_INSTANTS: Final = 3
"""Stored indexes for fixed known_at: those that were compiled or extended last."""
_FEW_EVENTS: Final = 5_000
_SHARE: Final = 20
"""Extending pays while new events are few, or fewer than one in so many of all events: it reads their subjects one by
one, which costs some twenty times as much for an event as reading all events in order."""
_WAIT_S: Final = 300.0
_PAUSE_S: Final = 0.05
_ATTEMPTS: Final = 3


def open_index(
    ledger: Ledger,
    known_at: KnownAt = IN_FORCE,
    folder: Path | None = None,
    progress: Progress | None = None,
    *,
    pin: Pin | None = None,
    tell: Tell | None = None,
) -> PolicyIndex:
    """The index of `ledger` at `pin` (None: its head): in force, as known at an instant (µs), or now (None).

    `folder`: where to store indexes of this ledger instead of beside it. Raises `LedgerCorrupt`, `LedgerUnavailable`.
    """
    pin = pin or pin_of(ledger)
    tell = tell or (lambda _sentence: None)
    for place in [folder] if folder is not None else folders(ledger):
        opener = _IndexOpener(ledger, known_at, place / axis_name(known_at), pin, progress, tell)
        try:
            return opener.open()
        except OSError as error:
            tell(f"no index can be stored in {place} ({error.strerror or 'it cannot be used'})")
    return compile_index(ledger, known_at, pin, progress)


def folders(ledger: Ledger) -> list[Path]:
    """The folders for the ledger's indexes, the best one first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    by_origin = cache / "inforce" / "index" / hashlib.sha256(ledger.origin.encode()).hexdigest()[:32]
    path = ledger.recorder.file
    if path is not None:
        return [path.with_name(f"{path.name}.index"), by_origin]
    return [by_origin]


def axis_name(known_at: KnownAt) -> str:
    if known_at == IN_FORCE:
        return "in-force"
    return "now" if known_at is None else f"known-at-{known_at}"


class _IndexOpener:
    def __init__(
        self, ledger: Ledger, known_at: KnownAt, folder: Path, pin: Pin, progress: Progress | None, tell: Tell
    ) -> None:
        self._ledger = ledger
        self._known_at = known_at
        self._folder = folder
        self._pin = pin
        self._progress = progress
        self._tell = tell
        self._verified: StoredIndex | None = None

    def open(self) -> PolicyIndex:
        for _attempt in range(_ATTEMPTS):
            try:
                return self._opened()
            except (NotUsable, FileNotFoundError):
                # Another process replaced or removed the index between the check and the mapping.
                self._verified = None
        return compile_index(self._ledger, self._known_at, self._pin, self._progress)

    def _opened(self) -> PolicyIndex:
        stored = self._usable(self._tell)
        if stored is not None and stored.pin == self._pin:
            return stored.index()
        if stored is not None and stored.pin.position > self._pin.position:
            # Newer than our pin: compile a temporary index and keep this one for later audits.
            return compile_index(self._ledger, self._known_at, self._pin, self._progress)
        make_private_folder(self._folder)
        with _exclusive(self._folder / "lock") as locked:
            if not locked:
                self._tell("another process has been compiling this index for minutes; this audit compiles its own")
                return compile_index(self._ledger, self._known_at, self._pin, self._progress)
            return self._update()

    def _update(self) -> PolicyIndex:
        """Extends or compiles the stored index, under the lock, unless another process has done so meanwhile."""
        stored = self._usable(lambda _sentence: None)
        if stored is not None:
            if stored.pin == self._pin:
                return stored.index()
            if stored.pin.position > self._pin.position:
                return compile_index(self._ledger, self._known_at, self._pin, self._progress)
            extended = self._extended(stored)
            if extended is not None:
                return extended
        index = compile_index(self._ledger, self._known_at, self._pin, self._progress)
        stored = storage.write(self._folder, index)
        storage.clear_others(stored)
        self._forget_instants()
        # Mapped from the files, so that the arrays in memory are freed.
        return stored.index()

    def _usable(self, tell: Tell) -> StoredIndex | None:
        """The stored index, if it is sound and of this ledger."""
        why = NotUsable()
        for _attempt in range(2):
            try:
                stored = storage.load(self._folder)
                if stored is None:
                    return None
                if stored.known_at != self._known_at or not self._of_this_ledger(stored.pin):
                    raise NotUsable("it is of another ledger")
                if self._verified is None or stored.body != self._verified.body:
                    stored.verify()
            except NotUsable as reason:
                # If another process removed the generation after we read the manifest, there is a new manifest.
                why = reason
                continue
            self._verified = stored
            return stored
        tell(f"the index in {self._folder} is not used: {why}; it is compiled anew")
        return None

    def _of_this_ledger(self, pin: Pin) -> bool:
        if pin.origin != self._ledger.origin:
            return False
        if pin.position == 0:
            return True
        entry = self._ledger.recorder.entry(pin.position)
        return entry is not None and entry.leaf_hash.hex() == pin.leaf_hash

    def _extended(self, stored: StoredIndex) -> PolicyIndex | None:
        """The index extended to the pin. None: compile it anew."""
        news = self._pin.position - stored.pin.position
        patched = stored.rows("patches.subjects")
        if news > max(_FEW_EVENTS, stored.pin.position // _SHARE):
            return None
        if patched > max(10 * _FEW_EVENTS, stored.rows("subjects.kinds") // 4):
            return None
        try:
            extended = extension(self._ledger, stored.index(), self._pin)
        except (NotWorthExtending, NotUsable):
            return None
        return storage.append(stored, extended.more, extended.pin, extended.catalogs, extended.directory).index()

    def _forget_instants(self) -> None:
        """Removes indexes for fixed instants, all but those compiled or extended last."""
        if not isinstance(self._known_at, int):
            return
        newest_first = sorted(
            self._folder.parent.glob("known-at-*"), key=lambda folder: folder.stat().st_mtime_ns, reverse=True
        )
        for folder in newest_first[KEPT_INSTANTS:]:
            # Never while another process compiles it; and another process may have removed it already.
            with suppress(FileNotFoundError), _exclusive(folder / "lock", wait_s=0) as locked:
                if locked:
                    storage.remove(folder)


@contextmanager
def _exclusive(path: Path, wait_s: float = _WAIT_S) -> Iterator[bool]:
    """Holds the lock during the block. Yields False if another process holds it for longer than `wait_s`."""
    until = time.monotonic() + wait_s
    while True:
        with open_private(path, "ab") as file:
            if _locked(file):
                # Closing the file releases the lock.
                yield True
                return
        if time.monotonic() >= until:
            yield False
            return
        time.sleep(_PAUSE_S)


def _locked(file: IO[bytes]) -> bool:
    """Whether we hold the lock now, on the file that other processes lock, too."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except (BlockingIOError, FileNotFoundError):
        return False
