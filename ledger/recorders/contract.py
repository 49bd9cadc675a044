"""What the ledger asks of a database. Back ends share this contract and its tests, not a base class."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol

from ledger.clock import Clock
from ledger.drafts import Decided, Idempotency, PersonalData

EVENTS_TABLE: Final = "events"

IMPORTING: Final = "importing"
"""The name of the fact that an import into the ledger has begun and not ended. Its value is the import's own, so that
one that was overtaken by another finds out."""


ChangeToken = tuple[object, ...]
"""Compared for being equal, and for nothing else."""


class Entry(NamedTuple):
    """One event as it is stored. `leaf` holds the exact exported bytes; `recorded_at` is in µs."""

    position: int
    subject: str
    version: int
    topic: str
    leaf: bytes
    recorded_at: int
    leaf_hash: bytes


RawEvent = tuple[int, str, int, bytes]
"""(position, subject, version, leaf) of an `Entry`: plain, because who asks for these asks for millions."""


class Head(NamedTuple):
    """The last event's place and time; (0, None) where there is none."""

    position: int
    recorded_at: int | None


class Proposal(NamedTuple):
    """One submission as decided, to be recorded whole or not at all."""

    decided: Decided
    marked: Sequence[bytes]
    """The bytes of each draft, with marks for what the append lock decides (`codec.draft_bytes`)."""
    idempotency: Idempotency | None

    @property
    def key(self) -> tuple[str, str] | None:
        """The caller and its key."""
        return None if self.idempotency is None else self.idempotency[:2]


class Recorded(NamedTuple):
    """A submission's events stand at positions first, first + 1, …; `recorded_at` in µs."""

    first_position: int
    recorded_at: int


class KnownSubmission(NamedTuple):
    """What an idempotency key was used for before."""

    body_sha256: bytes
    first_position: int
    event_count: int


Outcome = Recorded | KnownSubmission | None
"""Of one proposal. None: it is stale, so nothing of it was written; read and decide again."""


class AppendPreconditions(NamedTuple):
    """What a group of submissions depends on, as one moment of the ledger shows it."""

    head: Head
    versions: Mapping[str, int]
    """Subject → its version, 0 where it has no events."""
    known: Mapping[tuple[str, str], KnownSubmission]
    """(caller, key) → what it was used for, of those keys that were used."""


class Stale(Exception):
    """What was decided rests on a ledger or a moment that has passed: read and decide again. Nothing was written."""


class Watch(Protocol):
    """Sees the ledger grow, whoever records. For one thread. Raises `LedgerUnavailable`, and then is of no more use."""

    def head(self) -> Head: ...

    def wait(self, timeout_s: float, woken: socket.socket) -> None:
        """Returns where there may be news since `head` was called, when `woken` can be read (which is then emptied), or
        after about `timeout_s`."""

    def close(self) -> None: ...


class Recorder(Protocol):
    """Raises `LedgerUnavailable` from every call where the database cannot answer."""

    def meta(self) -> Mapping[str, str]:
        """Facts about the ledger itself; empty before `create`."""

    def create(self, meta: Mapping[str, str]) -> None:
        """Makes the tables, unless they are there already."""

    def migrate(self) -> None:
        """Brings the tables that an older inforce made to today's format: step by step, each whole or not at all,
        under the append lock. Where nothing may be written they stay as they are; raises `NotALedger` if today's code
        cannot read those."""

    def append(self, proposals: Sequence[Proposal], clock: Clock) -> list[Outcome]:
        """Records the proposals in one transaction, each with a recorded_at of its own, and answers what became of
        each once that is durable. If it raises, none is recorded.

        A proposal is stale if a version that it relies on has moved, if its recorded_at would be later than its
        `recorded_at_max`, if its key is that of one before it, or if it relies on a subject of one before it that was
        not recorded. It may rely on the versions that those before it make.
        """

    def append_preconditions(
        self, subjects: Iterable[str], keys: Iterable[tuple[str, str]] = ()
    ) -> AppendPreconditions: ...

    def restore(
        self, entries: Sequence[Entry], personal: Sequence[tuple[int, PersonalData]], *, importing: str, last: bool
    ) -> None:
        """Records entries as they are, in one transaction, behind those that are there; with the `last` ones the
        import is over. Raises `Stale` where the ledger is not (any more) in the hands of the import `importing`."""

    def drop(self, importing: str | None) -> None:
        """Takes every table away, for an import to start over: of a ledger without any event (None), or of one in
        the hands of the import `importing`. Raises `Stale` where it is neither."""

    def head(self) -> Head: ...

    def change_token(self) -> ChangeToken:
        """A value that is another one after every commit by anybody, this process included: between two equal marks
        of one recorder nothing was committed to the ledger. Cheaper than `head`, and says nothing else."""

    def change_token_at_once(self) -> ChangeToken | None:
        """The mark, if it can be had without waiting for a lock or a network; else None."""

    def watch(self) -> Watch:
        """A new watch of the ledger, for the caller to close."""

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
        topic: str | None = None,
    ) -> list[Entry]:
        """Up to `limit` of a subject's entries with after < version <= until, of one topic or all, oldest or newest
        first."""

    def version_at(self, subject: str, position: int) -> int:
        """The version that the subject has at `position`, found in as many steps as its version has binary digits."""

    def versions(self, subjects: Iterable[str]) -> dict[str, int]:
        """Subject → its version, 0 where it has no events."""

    def known_submission(self, caller: str, key: str) -> KnownSubmission | None: ...

    def personal(self, positions: Sequence[int]) -> dict[int, PersonalData]: ...

    def transaction(self, *, commit: bool) -> AbstractContextManager[Any]:
        """A database cursor within one transaction: the way in for stored projections."""

    def exclusive(self) -> AbstractContextManager[None]:
        """The append lock, for the block: nobody else appends, and what this thread reads and appends is one
        transaction, so that nothing in it is stale for another's sake. Commits at its end, unless an error leaves it.
        """

    def deciding(self) -> AbstractContextManager[None]:
        """For the block: what this thread reads and then appends may be one transaction, which takes the append lock
        when it appends. Where it is one, it is durable when the block ends, not before. Nothing else changes: what
        somebody else has moved meanwhile is stale."""

    def events_in_range(self, after: int, until: int, above: str = "", upto: str | None = None) -> list[RawEvent]:
        """The events with after < position <= until of the subjects with above < subject <= upto (None: to the last)
        in byte order, in position order: what a projection that is made anew reads."""

    def leaves(self, after: int, until: int) -> bytes:
        """The leaves with after < position <= until in position order, a line feed between each two: for who reads
        millions of them. A leaf holds no line feed."""

    def leaves_of(self, subjects: Sequence[str], until: int) -> bytes:
        """The same of all that was said about these subjects at positions up to `until`, by subject in the order given
        and by version."""

    def subjects_at(self, positions: Sequence[int]) -> list[str]:
        """The subjects of the events at these positions, each once, in byte order."""

    def close(self) -> None: ...
