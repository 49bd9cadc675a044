"""The ledger: append submissions, read events back. One object per database, safe to use from many threads.

How a submission goes: read what it depends on, decide (pure), append under the lock. If the ledger moved in between,
nothing was written and the decision is made again on what is there now.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.codec import SOURCE_PREFIX, Leaf, LedgerMapper, decode, parse_leaf, position_of
from ledger.deciding import Entropy, RetractionTarget, Streams, decide, genesis
from ledger.drafts import Decided, Idempotency
from ledger.errors import (
    BadInput,
    BadSubmission,
    Fault,
    IdempotencyKeyReused,
    LedgerCorrupt,
    LedgerUnavailable,
    NotFound,
    SubmissionInFlight,
    VersionConflict,
)
from ledger.events import ChangeRetracted, SettingDefined
from ledger.recorders.contract import Entry, Head, KnownSubmission, Recorded, Recorder, Stale
from ledger.subjects import ACTOR_LENGTH_MAX, CATALOG_SUBJECT, is_actor, is_text
from ledger.submissions import DefineSetting, RetractChange, Submission
from ledger.times import parse_time

ATTEMPTS_MAX: Final = 100
ATTEMPTS_UNLOCKED: Final = 3
"""So often a submission is decided before the append lock is taken. Whoever keeps being overtaken by faster writers on
the same subject then decides under it, where nothing can move."""
PAGE_MAX: Final = 1000
KEY_LENGTH_MAX: Final = 256
"""Of an idempotency key and of its caller: together they must fit PostgreSQL's index entries."""


class Receipt(NamedTuple):
    """What an accepted submission is told of one of its events. Instants in µs."""

    event_id: str
    position: int
    subject: str
    version: int
    recorded_at: int
    effective_from: int | None
    effective_until: int | None


class Ledger:
    """Raises `LedgerUnavailable` from every call where the database cannot answer."""

    def __init__(
        self, recorder: Recorder, clock: Clock, *, origin: str, entropy: Entropy = secrets.token_bytes
    ) -> None:
        self.recorder = recorder
        self.clock = clock
        self.origin = origin
        self.entropy = entropy
        self._mapper = LedgerMapper(SOURCE_PREFIX + origin)
        self._catalog = Catalog()
        self._in_flight: set[tuple[str, str]] = set()
        self._in_flight_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.recorder.close()

    def begin(self) -> None:
        """Records the built-in catalog, unless the ledger has begun already."""
        if self.head().position:
            return
        with suppress(Stale):
            self._append(Decided(genesis(self.entropy), {CATALOG_SUBJECT: 0}, None), None)

    def submit(
        self,
        submissions: Sequence[Submission],
        *,
        actor: str,
        idempotency: Idempotency | None = None,
        batch: bool = False,
    ) -> tuple[Receipt, ...]:
        """Records all submissions as one, durably, or none of them. `batch`: see `decide`.

        Raises `BadSubmission`, `VersionConflict`, `IdempotencyKeyReused`, `SubmissionInFlight`, and `BadInput` for an
        actor or a key that is none. A retry with the same idempotency key and body answers the first receipts.
        """
        if not is_actor(actor):
            raise BadInput(f"an actor is a text of 1 to {ACTOR_LENGTH_MAX} characters")
        if not submissions:
            raise BadSubmission((Fault("", "there must be at least one submission"),))
        if idempotency is None:
            return self._submit(tuple(submissions), actor, None, batch)
        _check_key(idempotency)
        flight = (idempotency.caller, idempotency.key)
        with self._in_flight_lock:
            if flight in self._in_flight:
                raise SubmissionInFlight
            self._in_flight.add(flight)
        try:
            known = self.recorder.known_submission(*flight)
            if known is not None:
                return self._first_receipts(known, idempotency)
            try:
                return self._submit(tuple(submissions), actor, idempotency, batch)
            except (BadSubmission, VersionConflict):
                # Another process may have recorded this very submission since: then that is what it conflicts with.
                known = self.recorder.known_submission(*flight)
                if known is None:
                    raise
                return self._first_receipts(known, idempotency)
        finally:
            with self._in_flight_lock:
                self._in_flight.discard(flight)

    def _submit(
        self, submissions: tuple[Submission, ...], actor: str, idempotency: Idempotency | None, batch: bool
    ) -> tuple[Receipt, ...]:
        for attempt in range(ATTEMPTS_MAX):
            try:
                with nullcontext() if attempt < ATTEMPTS_UNLOCKED else self.recorder.exclusive():
                    streams = self._streams(submissions)
                    decided = decide(
                        submissions, streams, now=self._now(), actor=actor, entropy=self.entropy, batch=batch
                    )
                    outcome = self._append(decided, idempotency)
            except Stale:
                continue
            if isinstance(outcome, KnownSubmission):
                assert idempotency is not None
                return self._first_receipts(outcome, idempotency)
            return tuple(receipt(parse_leaf(leaf)) for leaf in outcome.leaves)
        raise LedgerUnavailable("what was decided kept being overtaken; nothing was written, try again")

    def _now(self) -> int:
        """The moment of recording, were it now: a clock that was set back does not reach behind the ledger's head."""
        recorded_at = self.head().recorded_at
        return self.clock.now() if recorded_at is None else max(self.clock.now(), recorded_at + 1)

    def _append(self, decided: Decided, idempotency: Idempotency | None) -> Recorded | KnownSubmission:
        stored_events = [self._mapper.to_stored_event(draft) for draft in decided.drafts]
        return self.recorder.append(stored_events, decided, self.clock, idempotency)

    def _first_receipts(self, known: KnownSubmission, idempotency: Idempotency) -> tuple[Receipt, ...]:
        if known.body_sha256 != idempotency.body_sha256:
            raise IdempotencyKeyReused
        last = known.first_position + known.event_count - 1
        entries = self.recorder.page(known.first_position - 1, known.event_count, last)
        return tuple(receipt(parse_leaf(entry.leaf)) for entry in entries)

    def _streams(self, submissions: tuple[Submission, ...]) -> Streams:
        targets: dict[str, RetractionTarget] = {}
        subjects: set[str] = {CATALOG_SUBJECT}
        for submission in submissions:
            if isinstance(submission, RetractChange):
                target = self._retraction_target(submission.event_id)
                if target is not None:
                    targets[target.event_id] = target
                    subjects.add(target.subject)
            elif not isinstance(submission, DefineSetting):
                subjects.add(submission.subject)
        # Versions last: whatever moved since the targets were read makes the append stale, not wrong.
        versions = self.recorder.versions(sorted(subjects))
        retracted = {
            subject: self._retracted(subject, versions[subject])
            for subject in {target.subject for target in targets.values()}
        }
        targets = {
            event_id: target._replace(retracted=event_id in retracted[target.subject])
            for event_id, target in targets.items()
        }
        return Streams(self.catalog(versions[CATALOG_SUBJECT]), versions, targets)

    def _retraction_target(self, event_id: str) -> RetractionTarget | None:
        entry = self.find(event_id)
        if entry is None:
            return None
        leaf = parse_leaf(entry.leaf)
        start = leaf.data.effective_from
        return RetractionTarget(
            event_id=leaf.id,
            subject=entry.subject,
            topic=entry.topic,
            setting=leaf.data.setting,
            effective_from=parse_time(start) if isinstance(start, str) else None,
            retracted=False,
        )

    def _retracted(self, subject: str, version: int) -> set[object]:
        """The ids of the subject's changes that are retracted at `version`."""
        entries = self.recorder.stream(subject, until=version)
        return {parse_leaf(entry.leaf).data.retracts for entry in entries if entry.topic == ChangeRetracted.TOPIC}

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


def _check_key(idempotency: Idempotency) -> None:
    for name, text in (("caller", idempotency.caller), ("Idempotency-Key", idempotency.key)):
        if not 1 <= len(text) <= KEY_LENGTH_MAX or not is_text(text) or "\0" in text:
            raise BadInput(f"the {name} must have 1 to {KEY_LENGTH_MAX} characters, none of them U+0000")


def receipt(leaf: Leaf) -> Receipt:
    """The receipt of a recorded event."""
    data = leaf.data
    start, until = data.effective_from, data.effective_until
    return Receipt(
        event_id=leaf.id,
        position=data.position,
        subject=leaf.subject,
        version=data.version,
        recorded_at=parse_time(leaf.time),
        effective_from=parse_time(start) if isinstance(start, str) else None,
        effective_until=parse_time(until) if isinstance(until, str) else None,
    )
