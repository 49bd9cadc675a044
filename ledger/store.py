"""The ledger: append submissions, read events back. One object per database, safe to use from many threads.

How a submission goes: it waits with others for the writer, which reads what they depend on, decides (pure), and appends
under the lock. If the ledger moved in between, nothing was written and the decision is made again on what is there now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from ledger.append.commit import Recording
from ledger.append.decide import Entropy, genesis
from ledger.append.group_commit import QueuedSubmission, Writer
from ledger.append.submissions import Submission
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.codec import SOURCE_PREFIX, decode, draft_bytes, parse_leaf, position_of
from ledger.drafts import Decided, Idempotency
from ledger.entropy import fresh
from ledger.errors import (
    BadInput,
    BadSubmission,
    Fault,
    LedgerCorrupt,
    NotFound,
)
from ledger.events import SettingDefined
from ledger.following import AT_LEAST_SECONDS_MAX, Follower
from ledger.receipts import Receipt
from ledger.recorders.contract import Entry, Head, Proposal, Recorder
from ledger.subjects import ACTOR_LENGTH_MAX, CATALOG_SUBJECT, is_actor, is_text

PAGE_MAX: Final = 1000
KEY_LENGTH_MAX: Final = 256
"""Of an idempotency key and of its caller: together they must fit PostgreSQL's index entries."""


class Ledger:
    """Raises `LedgerUnavailable` from every call where the database cannot answer."""

    def __init__(self, recorder: Recorder, clock: Clock, *, origin: str, entropy: Entropy = fresh) -> None:
        self.recorder = recorder
        self.clock = clock
        self.origin = origin
        self.entropy = entropy
        self.follower = Follower(recorder)
        self._source = SOURCE_PREFIX + origin
        self._catalog = Catalog()
        self.writer = Writer(Recording(self, self._source).commit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.writer.close()
        self.follower.close()
        self.recorder.close()

    def begin(self) -> None:
        """Records the built-in catalog, unless the ledger has begun already."""
        if self.head().position:
            return
        decided = Decided(genesis(self.entropy), {CATALOG_SUBJECT: 0}, None)
        marked = [draft_bytes(draft, self._source) for draft in decided.drafts]
        # Stale where somebody else has begun it meanwhile.
        self.recorder.append([Proposal(decided, marked, None)], self.clock)

    def submit(
        self,
        submissions: Sequence[Submission],
        *,
        actor: str,
        idempotency: Idempotency | None = None,
        batch: bool = False,
    ) -> tuple[Receipt, ...]:
        """Records all submissions as one, durably, or none of them. `batch`: see `decide`.

        Raises `BadSubmission`, `VersionConflict`, `IdempotencyKeyReused`, `SubmissionInFlight`, `LedgerBusy`, and
        `BadInput` for an actor or a key that is none. A retry with the same idempotency key and body answers the first
        receipts.
        """
        return self.writer.submit(_pending(submissions, actor, idempotency, batch))

    def enqueue(
        self,
        submissions: Sequence[Submission],
        *,
        actor: str,
        told: Callable[[Sequence[QueuedSubmission]], None],
        bytes_: int,
        idempotency: Idempotency | None = None,
        batch: bool = False,
    ) -> QueuedSubmission:
        """The same without waiting. `told` is called once for all of a group that name the same one, when they are
        settled, in another thread: it must neither wait nor raise. `bytes_`: of the body.

        Raises what says that it was not taken: `BadInput`, `BadSubmission`, `SubmissionInFlight`, `LedgerBusy`.
        """
        queued = _pending(submissions, actor, idempotency, batch, bytes_, told)
        self.writer.enqueue(queued)
        return queued

    def catalog(self, version: int | None = None) -> Catalog:
        """The definitions known at `version` of the catalog's stream (None: now)."""
        if version is None:
            version = self.recorder.versions([CATALOG_SUBJECT])[CATALOG_SUBJECT]
        # No lock: two threads may read the same definitions twice, but neither waits for the other's database.
        catalog = self._catalog
        if catalog.version != version:
            events = (decode(entry.leaf) for entry in self.recorder.stream(CATALOG_SUBJECT, until=version))
            self._catalog = catalog = Catalog(
                ((e.setting, e.effective_from, e.definition) for e in events if isinstance(e, SettingDefined)), version
            )
        return catalog

    def head(self) -> Head:
        return self.recorder.head()

    def page(self, after: int, limit: int = PAGE_MAX, until: int | None = None) -> list[Entry]:
        """The feed: up to `limit` entries with after < position <= until, in order, none skipped."""
        return self.recorder.page(after, limit, until)

    def at_least(self, position: int, timeout_s: float = AT_LEAST_SECONDS_MAX) -> None:
        """Returns once the ledger has reached `position`, so that whatever is asked next has seen it.

        Raises `PositionNotReached` where that takes longer than `timeout_s`.
        """
        self.follower.wait_for(position, timeout_s)

    def subject_page(self, subject: str, after: int, limit: int = PAGE_MAX, until: int | None = None) -> list[Entry]:
        """The feed of one subject: up to `limit` of its entries with after < position <= until, in order."""
        version = self.recorder.version_at(subject, after) if after else 0
        entries = self.recorder.stream(subject, after=version, limit=limit)
        return entries if until is None else [entry for entry in entries if entry.position <= until]

    def stream(self, subject: str, *, after: int = 0, until: int | None = None) -> list[Entry]:
        """A subject's entries with after < version <= until, oldest first."""
        return self.recorder.stream(subject, after=after, until=until)

    def find(self, event_id: str) -> Entry | None:
        """The entry with this event id, found by the position that the id carries."""
        position = position_of(event_id)
        entry = self.recorder.entry(position) if position else None
        return entry if entry is not None and parse_leaf(entry.leaf).id == event_id else None

    def event(self, event_id: str) -> Entry:
        """Raises `NotFound`."""
        entry = self.find(event_id)
        if entry is None:
            raise NotFound("there is no event with this id in this ledger")
        return entry

    def reasons(self, positions: Iterable[int]) -> dict[int, str]:
        """Position → the reason that was given, for the events that have one. Raises `LedgerCorrupt` where the
        reason kept is not the one that the event is bound to."""
        found: dict[int, str] = {}
        for position, personal in self.recorder.personal(list(positions)).items():
            entry = self.recorder.entry(position)
            commitment = parse_leaf(entry.leaf).data.personal if entry is not None else None
            if commitment is None or commitment.commitment != personal.commitment:
                raise LedgerCorrupt(
                    f"the reason kept for the event at position {position} is not the one it commits to"
                )
            found[position] = personal.reason
        return found


def _pending(
    submissions: Sequence[Submission],
    actor: str,
    idempotency: Idempotency | None,
    batch: bool,
    bytes_: int | None = None,
    told: Callable[[Sequence[QueuedSubmission]], None] | None = None,
) -> QueuedSubmission:
    if not is_actor(actor):
        raise BadInput(f"an actor is a text of 1 to {ACTOR_LENGTH_MAX} characters")
    if not submissions:
        raise BadSubmission((Fault("", "there must be at least one submission"),))
    if idempotency is not None:
        _check_key(idempotency)
    return QueuedSubmission(tuple(submissions), actor, idempotency, batch, bytes_, told)


def _check_key(idempotency: Idempotency) -> None:
    for name, text in (("caller", idempotency.caller), ("Idempotency-Key", idempotency.key)):
        if not 1 <= len(text) <= KEY_LENGTH_MAX or not is_text(text) or "\0" in text:
            raise BadInput(f"the {name} must have 1 to {KEY_LENGTH_MAX} characters, none of them U+0000")
