"""The policy index of a ledger, kept from audit to audit: mapped as it is, brought up to the pin, or compiled anew.

It lies beside the ledger's file (`<file>.index/`), or where that cannot be (PostgreSQL, a folder that may not be
written) in the user's cache folder under the ledger's origin, or in a folder that the caller names. In force, and each
fixed known_at, have folders of their own. It is only ever a copy: where it cannot be kept or used, the audit compiles
its own.

One process at a time changes it, under a lock that ends with whoever holds it; the others wait, and then use what it
made. Proved by tests/audit/index/test_store.py and test_store_processes.py.
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

from ledger.store import Ledger
from projections.audit.index import storage as files
from projections.audit.index.compile import Progress, compile_index
from projections.audit.index.extend import NotWorthExtending, extension
from projections.audit.index.pin import pin_of
from projections.audit.index.schema import PolicyIndex
from projections.audit.index.storage import NotUsable, StoredIndex
from projections.temporal.coordinates import IN_FORCE, KnownAt, Pin

Tell = Callable[[str], None]
"""Told, in a sentence, why an index that was there is not used."""

KEPT_INSTANTS: Final = 3
"""Indexes for so many fixed known_at are kept: those that were made or extended last."""
_FEW_EVENTS: Final = 5_000
_SHARE: Final = 20
"""News are worth extending for while they are few, or less than one part in so many of all events: their subjects are
read one by one, which costs some twenty times as much as to read an event among all."""
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

    `folder`: where indexes of this ledger are kept instead of beside it. Raises `LedgerCorrupt`, `LedgerUnavailable`.
    """
    pin = pin or pin_of(ledger)
    tell = tell or (lambda _sentence: None)
    for place in [folder] if folder is not None else folders(ledger):
        opening = _Opening(ledger, known_at, place / axis_name(known_at), pin, progress, tell)
        try:
            return opening.open()
        except OSError as error:
            tell(f"no index can be kept in {place} ({error.strerror or 'it cannot be used'})")
    return compile_index(ledger, known_at, pin, progress)


def folders(ledger: Ledger) -> list[Path]:
    """Where the ledger's indexes may lie, the best place first."""
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


class _Opening:
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
                # Between looking at it and mapping it another process made it anew, or took it away.
                self._verified = None
        return compile_index(self._ledger, self._known_at, self._pin, self._progress)

    def _opened(self) -> PolicyIndex:
        stored = self._usable(self._tell)
        if stored is not None and stored.pin == self._pin:
            return stored.index()
        if stored is not None and stored.pin.position > self._pin.position:
            # It knows what was not known yet. It stays for who asks later.
            return compile_index(self._ledger, self._known_at, self._pin, self._progress)
        self._folder.mkdir(parents=True, exist_ok=True)
        with _claimed(self._folder / "lock") as claimed:
            if not claimed:
                self._tell("another process has been making this index for long; this audit makes its own")
                return compile_index(self._ledger, self._known_at, self._pin, self._progress)
            return self._brought_up()

    def _brought_up(self) -> PolicyIndex:
        """Under the lock, where somebody else may have done it meanwhile."""
        stored = self._usable(lambda _sentence: None)
        if stored is not None:
            if stored.pin == self._pin:
                return stored.index()
            if stored.pin.position > self._pin.position:
                return compile_index(self._ledger, self._known_at, self._pin, self._progress)
            extended = self._extended(stored)
            if extended is not None:
                return extended
        made = compile_index(self._ledger, self._known_at, self._pin, self._progress)
        stored = files.write(self._folder, made)
        files.clear_others(stored)
        self._forget_instants()
        # From the files, so that the arrays made here can go.
        return stored.index()

    def _usable(self, tell: Tell) -> StoredIndex | None:
        """What is stored, if it is sound and of this ledger."""
        why = NotUsable()
        for _attempt in range(2):
            try:
                stored = files.load(self._folder)
                if stored is None:
                    return None
                if stored.known_at != self._known_at or not self._of_this_ledger(stored.pin):
                    raise NotUsable("it is of another ledger")
                if self._verified is None or stored.body != self._verified.body:
                    stored.verify()
            except NotUsable as reason:
                # A generation may have gone between its manifest and its files: then there is another manifest.
                why = reason
                continue
            self._verified = stored
            return stored
        tell(f"the index in {self._folder} is not used: {why}; it is made anew")
        return None

    def _of_this_ledger(self, pin: Pin) -> bool:
        if pin.origin != self._ledger.origin:
            return False
        if pin.position == 0:
            return True
        entry = self._ledger.recorder.entry(pin.position)
        return entry is not None and entry.leaf_hash.hex() == pin.leaf_hash

    def _extended(self, stored: StoredIndex) -> PolicyIndex | None:
        """None: it is better made anew."""
        news = self._pin.position - stored.pin.position
        patched = stored.rows("patches.subjects")
        if news > max(_FEW_EVENTS, stored.pin.position // _SHARE):
            return None
        if patched > max(10 * _FEW_EVENTS, stored.rows("subjects.kinds") // 4):
            return None
        try:
            found = extension(self._ledger, stored.index(), self._pin)
        except (NotWorthExtending, NotUsable):
            return None
        return files.append(stored, found.more, found.pin, found.catalogs).index()

    def _forget_instants(self) -> None:
        """Of the indexes for fixed instants, all but those made or extended last."""
        if not isinstance(self._known_at, int):
            return
        kept = sorted(
            self._folder.parent.glob("known-at-*"), key=lambda folder: folder.stat().st_mtime_ns, reverse=True
        )
        for folder in kept[KEPT_INSTANTS:]:
            # Not from under who is making it, and another process may have taken it away already.
            with suppress(FileNotFoundError), _claimed(folder / "lock", wait_s=0) as claimed:
                if claimed:
                    files.remove(folder)


@contextmanager
def _claimed(path: Path, wait_s: float = _WAIT_S) -> Iterator[bool]:
    """Whether nobody else holds the lock for the block; waited for, but not for ever."""
    until = time.monotonic() + wait_s
    while True:
        with path.open("ab") as file:
            if _locked(file):
                # Closing the file ends it.
                yield True
                return
        if time.monotonic() >= until:
            yield False
            return
        time.sleep(_PAUSE_S)


def _locked(file: IO[bytes]) -> bool:
    """Whether the lock is ours now, and is still the one that others would ask for."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except (BlockingIOError, FileNotFoundError):
        return False
