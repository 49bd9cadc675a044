"""The contract between the ledger and a database. The recorders share it, its tests (tests/contracts) and `common`."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from ledger.clock import Clock
from ledger.drafts import AppendPlan, Idempotency, PersonalData
from ledger.errors import LedgerCorrupt
from ledger.recorders.append_guard import AppendGuard
from ledger.recorders.log_tables import LogTables

EVENTS_TABLE: Final = "events"

IMPORTING: Final = "importing"
"""The name of the fact that an import has begun and not finished. Its value identifies the import, so that an import
finds out if another one has replaced it."""

BODY_KEY: Final = "body_key"
"""The name of the ledger's secret for the digests of idempotency keys: 32 random bytes in hex. It is made with the
ledger, is in backups and dumps, and in no export, answer, log or other fact of `Recorder.meta`."""


INCARNATION: Final = "incarnation"
"""The name of the fact that tells the copies of one ledger apart: a random text, new in each ledger that is created or
imported, and in each backup of a SQLite file."""

ID_TAIL_AT: Final = 41
"""The first of the 23 bytes of a leaf that are the random part of its event id, counted from 1."""


def parsed_body_key(row: Sequence[Any] | None, *, is_older: bool) -> bytes | None:
    """The secret, from the row of `BODY_KEY`. None in an older format, which has none. Raises `LedgerCorrupt`."""
    if row is None and is_older:
        return None
    try:
        secret = bytes.fromhex(row[0]) if row is not None else b""
    except (ValueError, TypeError):
        secret = b""
    if len(secret) != 32:
        raise LedgerCorrupt(
            "the ledger's secret for Idempotency-Keys is lost or damaged, so no key can be stored or compared; restore "
            "the ledger from a backup"
        )
    return secret


ChangeToken = tuple[object, ...]
"""Compare two tokens for equality only."""


class Entry(NamedTuple):
    """A stored event. `leaf` holds the exact exported bytes; `recorded_at` is in µs."""

    position: int
    subject: str
    version: int
    topic: str
    leaf: bytes
    recorded_at: int
    leaf_hash: bytes


RawEvent = tuple[int, str, int, bytes, int]
"""(position, subject, version, leaf, recorded_at) of an `Entry`: a plain tuple, because callers read millions of them.
The subject, the topic and the hash were compared with the leaf; its reader, who parses the leaf, compares the rest."""


class Head(NamedTuple):
    """Position and recorded_at (µs) of the last event; (0, None) for an empty ledger."""

    position: int
    recorded_at: int | None


class StreamSize(NamedTuple):
    """`bytes`: of the leaves."""

    events: int
    bytes: int


class AppendRequest(NamedTuple):
    """One submission to append, whole or not at all."""

    plan: AppendPlan
    templates: Sequence[bytes]
    """The leaf of each draft, with placeholders that are filled in under the append lock (`codec.leaf_template`)."""
    idempotency: Idempotency | None

    @property
    def key(self) -> tuple[str, str] | None:
        """The caller and its key."""
        return None if self.idempotency is None else self.idempotency[:2]


class Placement(NamedTuple):
    """The submission was appended: its events are at positions first, first + 1, …; `recorded_at` in µs."""

    first_position: int
    recorded_at: int


class KnownSubmission(NamedTuple):
    """The submission that an idempotency key was used for before. `body_sha256`: see `Idempotency.sealed`."""

    body_sha256: bytes
    first_position: int
    event_count: int


Outcome = Placement | KnownSubmission | None
"""The outcome of one request. None: it is stale and nothing of it was written; read and decide again."""


class AppendPreconditions(NamedTuple):
    """The state that a group of submissions depends on, read at one moment."""

    head: Head
    versions: Mapping[str, int]
    """Subject → its version, 0 if it has no events."""
    known: Mapping[tuple[str, str], KnownSubmission]
    """(caller, key) → its earlier use, for the keys that were used before."""


class PreconditionFailed(Exception):
    """The ledger, or the time, has moved past the state that the caller relied on. Nothing was written."""


class Watch(Protocol):
    """Observes the growth of the ledger, whoever records. For use by one thread.

    Raises `LedgerUnavailable`; the watch is then broken and must be closed.
    """

    def head(self) -> Head: ...

    def wait(self, timeout_s: float, wakeup: socket.socket) -> None:
        """Returns if there may be news since the last call of `head`, if `wakeup` is readable (it is then emptied), or
        after about `timeout_s`."""

    def close(self) -> None: ...


class LeaderLock(Protocol):
    """Chooses one of all processes that use the ledger, for work that only one of them may do. For one thread."""

    def acquire(self) -> bool:
        """Whether this process holds the lock now; it need not have asked before. Does not wait. Raises
        `LedgerUnavailable`."""

    def release(self) -> None:
        """Lets another process have it. A process that ends has released it."""


SEALED: Final = b'"personal":{"commitment":"'
"""In the leaf of an event that has personal data. Within a text of a leaf, its quotes would be escaped."""


class Recorder(Protocol):
    """Raises `LedgerUnavailable` from every call where the database cannot answer, and `LedgerCorrupt` where the
    database finds that it is damaged. Every event that it reads is what was recorded, and none between the first and
    the last of them is missing; else it raises `DamagedEvent` (see `soundness`)."""

    @property
    def file(self) -> Path | None:
        """The file that holds the whole ledger; None for a ledger on a database server."""

    @property
    def place(self) -> str:
        """The file or the database that holds the ledger, without a user or a password."""

    @property
    def location(self) -> str:
        """Where the ledger is, for a message: "at" a file, or "in database" and its name."""

    @property
    def append_guard(self) -> AppendGuard:
        """Decides at each append whether the ledger may grow."""

    @property
    def events_table(self) -> str:
        """The SQL name of the table of events, with the columns of `Entry`."""

    PLACEHOLDER: ClassVar[str]
    """Of a value in a statement of this database."""

    def table_beside(self, name: str) -> str:
        """The SQL name of a table beside the ledger's own, for `transaction`: it holds nothing of the ledger."""

    def meta(self) -> Mapping[str, str]:
        """Facts about the ledger itself, without its secret; empty before `create`."""

    def body_key(self) -> bytes | None:
        """The secret for `Idempotency.keyed`; None in a ledger of an older format, which cannot be written. Raises
        `LedgerCorrupt` if it is lost or damaged."""

    def create(self, meta: Mapping[str, str]) -> None:
        """Creates the tables, unless they exist."""

    def formats(self) -> tuple[int, int]:
        """The format of the ledger's tables, 0 before `create`, and today's. Raises `NotALedger`."""

    def migrate(self) -> None:
        """Brings the tables of an older inforce to today's format, step by step, each step whole or not at all, under
        the append lock. A ledger that may not be written stays as it is; raises `NotALedger` if today's code cannot
        read it."""

    def require_sound(self, acknowledged: int) -> None:
        """Raises `LedgerCorrupt` if the ledger's tables are not defined as they were made, if the structure of a small
        file is damaged (a large one is checked as it is read), or if commits at the end of its log were lost.
        `acknowledged`: the newest position that is known to have been committed; 0: none is known."""

    def guard(self) -> None:
        """Makes sure that the database itself refuses every change of an event: triggers (and functions) that are
        missing, altered or disabled are made again, with a warning in the log, which also names those that are not
        inforce's. Does nothing for a ledger that is open for reading only. Raises `LedgerUnavailable` if they cannot
        be made."""

    def append(self, requests: Sequence[AppendRequest], clock: Clock) -> list[Outcome]:
        """Appends the requests in one transaction, each with its own recorded_at, and returns the outcome of each once
        they are durable. If it raises, nothing was appended.

        A request is stale if a version that it relies on has moved, if its recorded_at would be later than its
        `recorded_at_max`, if an earlier request has the same key, or if it relies on a subject of an earlier request
        that was not appended. It may rely on the versions that earlier requests make.

        Raises `NotWritable` where the `append_guard` does.
        """

    def latest_leaf(self, position: int) -> bytes | None:
        """The leaf at `position` as it is committed now, also within a transaction that began before: another process
        may have recorded and noted it since."""

    def was_replaced(self) -> bool:
        """Whether the ledger's file was overwritten while it was open, so that reads here may be out of date."""

    def append_preconditions(
        self, subjects: Iterable[str], keys: Iterable[tuple[str, str]] = ()
    ) -> AppendPreconditions: ...

    def add_fact(self, name: str, value: str) -> None:
        """Adds a fact to `meta`, unless it has one of that name or the ledger may not be written."""

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        """Appends entries exactly as they are, in one transaction. With the `last` entries the import is finished.

        Raises `PreconditionFailed` unless the ledger is claimed by the import `importing`."""

    def drop(self, importing: str | None) -> None:
        """Drops all tables, so that an import can start over: those of a ledger without events (None), or of a ledger
        that the import `importing` has claimed. Raises `PreconditionFailed` in every other case."""

    def delete_file(self) -> None:
        """Closes the recorder and deletes the ledger's `file`, if it has one, with the files beside it."""

    def head(self) -> Head: ...

    def change_token(self) -> ChangeToken:
        """A value that changes with every commit, by this process too: between two equal tokens of one recorder,
        nothing was committed to the ledger. Cheaper than `head`."""

    def change_token_nowait(self) -> ChangeToken | None:
        """The token, or None if reading it would wait for a lock or a network."""

    def watch(self) -> Watch:
        """A new watch of the ledger; the caller closes it."""

    def entry(self, position: int) -> Entry | None: ...

    def page(self, after: int, limit: int, until: int | None = None) -> list[Entry]:
        """Up to `limit` entries with after < position <= until, in order."""

    def page_length(self, after: int, limit: int, until: int | None, bytes_max: int) -> int:
        """The number of entries of `page` up to the one that reaches `bytes_max` bytes of leaves, `limit` if none does:
        the limit of a page that is not larger."""

    def stream_length(
        self, subject: str, after: int, until: int | None, limit: int, bytes_max: int, *, newest_first: bool = False
    ) -> int:
        """As `page_length`, of `stream`."""

    def stream(
        self,
        subject: str,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        """Up to `limit` of a subject's entries with after < version <= until, oldest or newest first. `until`: a
        version that the subject has reached."""

    def version_at(self, subject: str, position: int) -> int:
        """The version that the subject has at `position`, by binary search over its versions."""

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        """Subject → its version, 0 if it has no events."""

    def first_positions(self, subjects: Sequence[str]) -> dict[str, int]:
        """Subject → the position of its first event, for the subjects that have one."""

    def submission_recorded_at(self, caller: str, key: str) -> int | None:
        """The recorded_at (µs) of the submission that used the key."""

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]: ...

    def definition_faults(self) -> list[str]:
        """The faults of the database's own structure, and each table, index, trigger and function that is missing, is
        defined otherwise than it was made, or is not ours. One sentence each."""

    def stored_rows(self, after: int, limit: int) -> list[tuple[Any, ...]]:
        """Up to `limit` rows of events with position > after, with the values of `Entry`, sound or not."""

    def wrong_submissions(self) -> list[int]:
        """The first positions of the idempotency keys that are stored with other events than those of a submission."""

    def stored_submissions(self) -> Iterator[tuple[Any, ...]]:
        """Each idempotency key: (caller, key, body_sha256, first position, event count, leaf of its first event), sound
        or not, in any order. The leaf is None if there is no such event."""

    def orphaned_personal(self) -> int | None:
        """The first position with personal data whose event has none, or which has no event. Reads all of them."""

    def log_tables(self) -> LogTables:
        """The stored tiles and heads of the transparency log."""

    def integrator_lock(self) -> LeaderLock:
        """A new lock of the one process that integrates events into the transparency log; the caller releases it."""

    def transaction(self, *, commit: bool) -> AbstractContextManager[Any]:
        """A database cursor within one transaction, for stored projections."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Holds the append lock for the block: nobody else appends, and this thread's reads and appends form one
        transaction, so nothing in it can become stale. Commits at the end, unless an error leaves the block."""

    def optimistic(self) -> AbstractContextManager[None]:
        """Lets this thread's reads and its append form one transaction, which takes the append lock only when it
        appends. If it does so, the append is durable when the block ends, not before. Requests that another writer has
        overtaken are stale, as without this block."""

    def events_in_range(self, after: int, until: int, above: str = "", upto: str | None = None) -> list[RawEvent]:
        """The events with after < position <= until of the subjects with above < subject <= upto (None: no upper
        bound) in byte order, in position order: the input of a rebuilt projection."""

    def leaves(self, after: int, until: int) -> bytes:
        """The leaves with after < position <= until in position order, joined by line feeds, for callers that read
        millions. A leaf contains no line feed."""

    def leaves_of(self, subjects: Sequence[str], until: int) -> bytes:
        """The leaves of these subjects at positions up to `until`, joined by line feeds, in the order of `subjects` and
        then by version."""

    def stream_sizes(self, subjects: Sequence[str], until: int) -> dict[str, StreamSize]:
        """Subject → the size of its stream at positions up to `until`, for all of these subjects, in their order."""

    def subjects_of_kind(self, kind: str, until: int) -> list[str]:
        """The subjects of a kind with events at positions up to `until`, in byte order. May read the whole table."""

    def subjects_at(self, positions: Sequence[int]) -> list[str]:
        """The distinct subjects of the events at these positions, in byte order."""

    def close(self) -> None: ...
