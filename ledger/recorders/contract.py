"""What the ledger asks of a database. Back ends share this contract and its tests, not a base class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

from eventsourcing.persistence import StoredEvent

from ledger.clock import Clock
from ledger.drafts import Decided, Idempotency, PersonalData

FORMAT: Final = 1
"""The version of our tables. A database with a higher one was written by a newer inforce and is left alone."""

EVENTS_TABLE: Final = "events"

IMPORTING: Final = "importing"
"""The name of the fact that an import into the ledger has begun and not ended. Its value is the import's own, so that
one that was overtaken by another finds out."""


class Entry(NamedTuple):
    """One event as it is stored. `leaf` holds the exact exported bytes; `recorded_at` is in µs."""

    position: int
    subject: str
    version: int
    topic: str
    leaf: bytes
    recorded_at: int
    leaf_hash: bytes


class Head(NamedTuple):
    """The last event's place and time; (0, None) where there is none."""

    position: int
    recorded_at: int | None


class Recorded(NamedTuple):
    """A submission's events: `leaves` at positions first, first + 1, …"""

    first_position: int
    recorded_at: int
    leaves: tuple[bytes, ...]


class KnownSubmission(NamedTuple):
    """What an idempotency key was used for before."""

    body_sha256: bytes
    first_position: int
    event_count: int


class Stale(Exception):
    """What was decided rests on a ledger or a moment that has passed: read and decide again. Nothing was written."""


class Recorder(Protocol):
    """Raises `LedgerUnavailable` from every call where the database cannot answer."""

    def meta(self) -> Mapping[str, str]:
        """Facts about the ledger itself; empty before `create`."""

    def create(self, meta: Mapping[str, str]) -> None:
        """Makes the tables, unless they are there already."""

    def append(
        self, stored_events: Sequence[StoredEvent], decided: Decided, clock: Clock, idempotency: Idempotency | None
    ) -> Recorded | KnownSubmission:
        """Records all of it, durably, or nothing. Raises `Stale`."""

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        """Records entries as they are, in one transaction, behind those that are there; with the `last` ones the
        import is over. Raises `Stale` where the ledger is not (any more) in the hands of the import `importing`."""

    def drop(self, importing: str | None) -> None:
        """Takes every table away, for an import to start over: of a ledger without any event (None), or of one in
        the hands of the import `importing`. Raises `Stale` where it is neither."""

    def head(self) -> Head: ...

    def entry(self, position: int) -> Entry | None: ...

    def page(self, after: int, limit: int, until: int | None = None) -> list[Entry]:
        """Up to `limit` entries with after < position <= until, in order."""

    def stream(
        self,
        subject: str,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        """Up to `limit` of a subject's entries with after < version <= until, oldest or newest first."""

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        """Subject → its version, 0 where it has no events."""

    def known_submission(self, caller: str, key: str) -> KnownSubmission | None: ...

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]: ...

    def transaction(self, *, commit: bool) -> AbstractContextManager[Any]:
        """A database cursor within one transaction: the way in for stored projections."""

    def exclusive(self) -> AbstractContextManager[None]:
        """The append lock, for the block: nobody else appends, and what this thread reads and appends is one
        transaction. Commits at its end, unless an error leaves it."""

    def close(self) -> None: ...
