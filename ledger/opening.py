"""From a database URL to an open ledger: `sqlite:///path`, `sqlite:///path?mode=ro` or `postgresql://…`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ledger.clock import Clock, SystemClock
from ledger.errors import BadInput, LedgerUnavailable
from ledger.recorders.contract import IMPORTING, Recorder
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.recorders.sqlite_file import SQLiteLedgerDatastore
from ledger.store import Ledger
from ledger.subjects import is_origin

_NOT_BEGUN: Final = "there is no ledger in this database yet; inforce serve, submit or import begins one"


def open_recorder(url: str, *, lock_timeout: int = 5) -> Recorder:
    """Raises `BadInput` for a URL that is none, `LedgerUnavailable` where the database is not to be had."""
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


def open_ledger(url: str, *, create: bool = False, clock: Clock | None = None, origin: str | None = None) -> Ledger:
    """The ledger at `url`, begun with the built-in catalog if `create` and there is none.

    `origin` names a new ledger for ever (its events' source is urn:inforce:<origin>); None makes a unique one. One that
    an older inforce made is brought to today's format.
    Raises `BadInput` and `LedgerUnavailable`.
    """
    if origin is not None and not is_origin(origin):
        raise BadInput("an origin is written like a host and a path in lower case: ledger.example.com/eu")
    if not create:
        _require_file(url)
    recorder = open_recorder(url)
    try:
        meta = recorder.meta()
        if not meta:
            if not create:
                raise LedgerUnavailable(_NOT_BEGUN)
            recorder.create({"origin": origin or new_origin()})
            meta = recorder.meta()
        if IMPORTING in meta:
            raise LedgerUnavailable(
                "an import into this ledger is running or was cut off; wait for it, or run it again: it starts over"
            )
        recorder.migrate()
        ledger = Ledger(recorder, clock or SystemClock(), origin=meta["origin"])
        if create:
            ledger.begin()
        elif not ledger.head().position:
            # Whoever began it was cut off between the tables and the catalog; create takes it up from there.
            raise LedgerUnavailable(_NOT_BEGUN)
        return ledger
    except BaseException:
        recorder.close()
        raise


def new_origin() -> str:
    """A name that no other ledger has, for one that was given none."""
    return f"inforce.local/{secrets.token_hex(4)}"


def absolute_url(url: str) -> str:
    """The same database, whatever folder it is opened from. Raises `BadInput`."""
    if not url.startswith("sqlite:"):
        return url
    path, read_only = sqlite_path(url)
    return f"sqlite:///{quote(str(path.absolute()))}" + ("?mode=ro" if read_only else "")


def sqlite_path(url: str) -> tuple[Path, bool]:
    """The file that a SQLite URL names, and whether it is only to be read. Raises `BadInput`."""
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    if not url.startswith("sqlite:///") or len(parts.path) < 2 or parts.fragment or not set(options) <= {"mode"}:
        raise BadInput(
            "a SQLite ledger is named sqlite:///relative/path or sqlite:////absolute/path, with ?mode=ro to only read"
        )
    mode = options.get("mode", ["rw"])
    if mode not in (["ro"], ["rw"]):
        raise BadInput("the mode of a SQLite ledger is rw or ro")
    return Path(unquote(parts.path[1:])), mode == ["ro"]


def _require_file(url: str) -> None:
    if not url.startswith("sqlite:"):
        return
    path, _ = sqlite_path(url)
    if not path.exists():
        raise LedgerUnavailable(f"there is no ledger at {path}; name one with --db, or begin one with inforce submit")
