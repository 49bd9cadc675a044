"""Opening a ledger by its database URL: `sqlite:///path`, `sqlite:///path?mode=ro` or `postgresql://…`.

This module parses the URL and chooses the recorder. Proved by tests/test_opening.py.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ledger.clock import Clock, SystemClock
from ledger.codec import is_of_origin
from ledger.errors import BadInput, LedgerCorrupt, LedgerUnavailable
from ledger.head_memory import HeadMemory, RememberedHead
from ledger.recorders.append_guard import CLOCK_BEHIND_MAX_S, CLOCK_BEHIND_S_MAX, CLOCK_BEHIND_S_MIN
from ledger.recorders.contract import IMPORTING, INCARNATION, Recorder
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.recorders.sqlite_file import SQLiteLedgerDatastore
from ledger.recorders.sqlite_place import require_no_orphans
from ledger.store import Ledger
from ledger.subjects import is_origin
from ledger.times import SECOND

NOTE_SUFFIX: Final = "-head"
"""Of the file beside a SQLite ledger that holds the last acknowledged head."""
_log = logging.getLogger("inforce.ledger")
_NOT_BEGUN: Final = "there is no ledger in this database yet; inforce serve, submit or import creates one"


def open_recorder(url: str, *, lock_timeout: int = 5) -> Recorder:
    """Raises `BadInput` for a malformed URL, `LedgerUnavailable` if the database cannot be reached."""
    scheme = url.partition(":")[0]
    if scheme in ("postgresql", "postgres"):
        try:
            from ledger.recorders.postgres import PostgresLedgerRecorder
            from ledger.recorders.postgres_server import PostgresLedgerDatastore
        except ImportError:
            raise LedgerUnavailable("PostgreSQL needs the extra: pip install 'inforce[postgres]'") from None
        return PostgresLedgerRecorder(PostgresLedgerDatastore(url))
    if scheme != "sqlite":
        raise BadInput("a database is named sqlite:///path/to/file or postgresql://user@host/name")
    path, read_only = sqlite_path(url)
    return SQLiteLedgerRecorder(SQLiteLedgerDatastore(path, read_only=read_only, lock_timeout=lock_timeout))


def open_ledger(
    url: str,
    *,
    create: bool = False,
    write: bool = False,
    clock: Clock | None = None,
    origin: str | None = None,
    clock_behind_max_s: float = CLOCK_BEHIND_MAX_S,
    announce: Callable[[str], None] | None = None,
) -> Ledger:
    """The ledger at `url`. With `create`, a missing ledger is created and gets the built-in catalog; `announce` then
    gets one line that says where, because the URL may be mistyped.

    `write`, which `create` implies: the caller means to record. A ledger of an older inforce then gets the built-in
    definitions that it never had.

    `origin` is the permanent name of a new ledger (its events' source is urn:inforce:<origin>); None makes a unique
    one. A ledger of an older inforce is migrated to today's format. `clock_behind_max_s`: nothing is recorded while the
    clock is further behind the last event.
    Raises `BadInput`, `LedgerUnavailable`, and `LedgerCorrupt` where the damage shows at once.
    """
    if origin is not None:
        require_origin(origin)
    if not CLOCK_BEHIND_S_MIN <= clock_behind_max_s <= CLOCK_BEHIND_S_MAX:
        raise BadInput(
            f"clock_behind_max_s is a number of seconds from {CLOCK_BEHIND_S_MIN:g} to {CLOCK_BEHIND_S_MAX:.0f}"
        )
    _check_place(url, create)
    recorder = open_recorder(url)
    try:
        recorder.append_guard.behind_max_us = round(clock_behind_max_s * SECOND)
        recorder.append_guard.memory = HeadMemory(_note_of(recorder), read_only=_is_read_only(url))
        newest = recorder.append_guard.memory.newest()
        recorder.require_sound(0 if newest is None else newest.position)
        meta = recorder.meta()
        if not meta:
            if not create:
                raise LedgerUnavailable(_NOT_BEGUN)
            # The note was read before the facts: a process that makes the ledger meanwhile writes its note after them.
            _require_no_note(recorder.append_guard.memory, newest)
            recorder.create({"origin": origin or new_origin(), INCARNATION: new_incarnation()})
            meta = recorder.meta()
            if announce is not None:
                announce(f"began a new ledger {recorder.location}")
        elif (create or write) and INCARNATION not in meta and not _is_read_only(url):
            recorder.add_fact(INCARNATION, new_incarnation())
        # SQLite stores a value of any type in any column.
        if not isinstance(meta.get("origin"), str):
            raise LedgerCorrupt("the ledger's origin is lost; restore it from a backup or an export")
        if IMPORTING in meta:
            raise LedgerUnavailable(
                "an import into this ledger is running or was cut off; wait for it, or run it again: it starts over"
            )
        recorder.migrate()
        recorder.guard()
        ledger = Ledger(recorder, clock or SystemClock(), origin=meta["origin"])
        _require_origin_of_events(ledger)
        if create:
            ledger.ensure_genesis()
        elif not ledger.head().position:
            # Its creator was interrupted between the tables and the catalog; `create` continues from there.
            raise LedgerUnavailable(_NOT_BEGUN)
        if (create or write) and not _is_read_only(url):
            ledger.add_built_in()
        _log.debug("opened the ledger %s with the origin %s", recorder.location, ledger.origin)
        return ledger
    except BaseException:
        recorder.close()
        recorder.append_guard.memory.close()
        raise


def _check_place(url: str, create: bool) -> None:
    """Raises `LedgerUnavailable` if `url` names a file that is not there, or, with `create`, that must not be begun."""
    path = database_file(url)
    if path is not None and not path.exists():
        # First, because these files may hold the last events.
        require_no_orphans(path)
        if not create:
            raise LedgerUnavailable(
                f"there is no ledger at {path}; name one with --db, or create one with inforce submit"
            )
        memory = HeadMemory(_note_beside(path))
        newest = memory.newest()
        memory.close()
        # Looked at again: another process may have made the ledger, and then its note.
        if not path.exists():
            _require_no_note(memory, newest)


def _require_origin_of_events(ledger: Ledger) -> None:
    """Raises `LedgerCorrupt` unless the ledger's first event names the ledger's origin, too."""
    first = ledger.recorder.entry(1)
    if first is not None and not is_of_origin(first.leaf, ledger.origin):
        raise LedgerCorrupt("the ledger's origin is not that of its events; restore it from a backup or an export")


def _is_read_only(url: str) -> bool:
    return url.startswith("sqlite:") and sqlite_path(url)[1]


def _note_of(recorder: Recorder) -> Path:
    """The file that holds the last acknowledged head (see `head_memory`)."""
    if recorder.file is not None:
        return _note_beside(recorder.file)
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "inforce" / "heads" / hashlib.sha256(recorder.place.encode()).hexdigest()[:32]


def _note_beside(file: Path) -> Path:
    return file.absolute().with_name(file.name + NOTE_SUFFIX)


def _require_no_note(memory: HeadMemory, newest: RememberedHead | None) -> None:
    """Raises `LedgerUnavailable` if `newest` says that there was a ledger where a new one is to begin."""
    if newest is not None:
        raise LedgerUnavailable(
            f"there is no ledger here any more, and {memory.path} remembers one up to position {newest.position}; "
            "bring that ledger back, or delete this file to begin a new one"
        )


def open_for_check(url: str) -> Ledger:
    """The ledger at `url` to be read as it is, damaged or not: nothing is compared, mended or written.

    Raises `BadInput`, `LedgerUnavailable` and `LedgerCorrupt`.
    """
    path = database_file(url)
    if path is None:
        recorder = open_recorder(url)
    elif not path.is_file():
        raise LedgerUnavailable(f"there is no file {path}; name a ledger or a backup of one")
    else:
        has_log = path.with_name(path.name + "-wal").exists()
        recorder = SQLiteLedgerRecorder(SQLiteLedgerDatastore(path, read_only=True, untouched=not has_log))
    try:
        meta = recorder.meta()
        if not meta:
            raise LedgerUnavailable(_NOT_BEGUN)
        return Ledger(recorder, SystemClock(), origin=str(meta.get("origin", "")))
    except BaseException:
        recorder.close()
        raise


def ledger_exists(url: str) -> bool:
    """Whether there is a ledger with events at `url`. Creates nothing. Raises `BadInput` and `LedgerUnavailable`."""
    if (path := database_file(url)) is not None and not path.exists():
        require_no_orphans(path)
        return False
    recorder = open_recorder(url)
    try:
        return bool(recorder.meta()) and recorder.head().position > 0
    finally:
        recorder.close()


def new_incarnation() -> str:
    """A unique mark of one copy of a ledger."""
    return secrets.token_hex(16)


def new_origin() -> str:
    """A unique origin, for a ledger whose creator names none."""
    return f"inforce.local/{secrets.token_hex(4)}"


def require_origin(origin: str) -> None:
    """Raises `BadInput` if `origin` may not name a ledger."""
    if not is_origin(origin):
        raise BadInput("an origin is written like a host and a path in lower case: ledger.example.com/eu")


def absolute_url(url: str) -> str:
    """A URL of the same database that does not depend on the current folder. Raises `BadInput`."""
    if database_file(url) is None:
        return url
    path, read_only = sqlite_path(url)
    return f"sqlite:///{quote(str(path.absolute()))}" + ("?mode=ro" if read_only else "")


def database_file(url: str) -> Path | None:
    """The file that holds the whole database, which need not exist; None for a database server. Raises `BadInput`."""
    return sqlite_path(url)[0] if url.startswith("sqlite:") else None


def sqlite_path(url: str) -> tuple[Path, bool]:
    """The file of a SQLite URL, and whether the URL says to open it read-only. Raises `BadInput`."""
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    if not url.startswith("sqlite:///") or len(parts.path) < 2 or parts.fragment or not set(options) <= {"mode"}:
        raise BadInput(
            "a SQLite ledger is named sqlite:///relative/path or sqlite:////absolute/path, with ?mode=ro for read-only"
        )
    mode = options.get("mode", ["rw"])
    if mode not in (["ro"], ["rw"]):
        raise BadInput("the mode of a SQLite ledger is rw or ro")
    return Path(unquote(parts.path[1:])), mode == ["ro"]
