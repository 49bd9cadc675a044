"""Committing a group of submissions: one read of their preconditions, one decision each, one transaction.

Each submission is decided on the ledger as the members before it in the group will leave it, and gets its own answer.
A submission is decided again, in a later group, in two cases: the transaction found its plan stale, or an earlier
member caused its refusal, and that member is not recorded yet.
Proved by tests/contracts/test_groups.py: a group gives the same outcome as the same submissions one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

from ledger.append.authority import require
from ledger.append.decide import RetractionTarget, SubmissionContext, decide
from ledger.append.group_commit import GROUP_EVENTS_MAX, QueuedSubmission
from ledger.append.submissions import ChangeSetting, DefineSetting, RetractChange, is_reference
from ledger.codec import decode, leaf_template, parse_leaf
from ledger.drafts import DIGEST_BYTES, ID_TAIL_LENGTH, AppendPlan, Draft, Idempotency
from ledger.entropy import EntropySource
from ledger.errors import (
    BadSubmission,
    Forbidden,
    IdempotencyKeyReused,
    InforceError,
    LedgerCorrupt,
    LedgerUnavailable,
    NotWritable,
    OutOfReach,
    VersionConflict,
)
from ledger.events import ChangeRetracted
from ledger.reader import LedgerReader
from ledger.receipts import Receipt, receipt_of_leaf, receipts_of_drafts
from ledger.recorders.contract import AppendPreconditions, AppendRequest, Entry, Head, KnownSubmission, Placement
from ledger.recorders.writability import resolve
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import parse_time

DECIDE_AGAIN = None
_SUBMISSION_EVENTS_MAX: Final = 1_000_000
"""Far more than any submission has: a damaged number must not read the whole ledger."""
Result = tuple[Receipt, ...] | Exception | KnownSubmission | None
"""Receipts, an error, the earlier use of the idempotency key, or `DECIDE_AGAIN`."""


class _Member(NamedTuple):
    """A submission of the group, the events that it retracts, the subjects whose streams it adds to, and those of them
    of which it cancels what is scheduled; and the values that may name further subjects."""

    queued: QueuedSubmission
    targets: dict[str, RetractionTarget]
    subjects: set[str]
    cancels: set[str]
    references: set[str]


class _Streams(NamedTuple):
    """The streams that the group depends on, as far as it needs them: see `SubmissionContext`. `unreadable`: subject →
    its error."""

    retracted: set[str]
    changes: dict[tuple[str, str], list[RetractionTarget]]
    unreadable: dict[str, InforceError]


class Committer:
    def __init__(self, reader: LedgerReader, entropy: EntropySource) -> None:
        self._reader = reader
        self.entropy = entropy
        self._secret: bytes | None = None

    def commit(self, group: list[QueuedSubmission]) -> list[QueuedSubmission]:
        """Settles the members of the group; answers those that must be decided again, in their order.

        Raises `LedgerUnavailable` if nothing of the group could be recorded.
        """
        recorder = self._reader.recorder
        if recorder.append_guard.identity is None:
            # Before the transaction: another process may have noted a head that the transaction does not see yet. The
            # append finds a true problem again.
            with suppress(NotWritable):
                resolve(recorder, self._reader.clock.now())
        with recorder.exclusive() if group[0].needs_lock else recorder.optimistic():
            results, newest = self._record(group)
        # The transaction is durable only from here on.
        if newest:
            for listener in self._reader.on_recorded:
                listener(newest)
            self._reader.remember(newest[-1])
        for queued, result in results.items():
            # Read only now, because a failure to read old receipts must not affect what the others just recorded.
            outcome = self._first_receipts(result, queued) if isinstance(result, KnownSubmission) else result
            if isinstance(outcome, Exception):
                queued.error = outcome
            else:
                queued.receipts = outcome
        return [queued for queued in group if not queued.settled]

    def _record(self, group: list[QueuedSubmission]) -> tuple[dict[QueuedSubmission, Result], list[Receipt]]:
        """The result of each submission, and the receipts of what was appended, in position order."""
        results: dict[QueuedSubmission, Result] = {}
        members: list[_Member] = []
        for queued in group:
            try:
                members.append(self._member(queued))
            except LedgerUnavailable:
                raise
            except InforceError as error:
                # Nothing wider: a database error under the append lock is not the fault of this submission.
                results[queued] = error
        preconditions = self._preconditions(members)
        targets = {event_id: target for member in members for event_id, target in member.targets.items()}
        streams = self._streams(members, preconditions)
        state = _GroupState(self._reader, self.entropy, preconditions, targets, streams)
        appends: list[tuple[QueuedSubmission, AppendRequest]] = []
        problem = self._problem(preconditions.head)
        for member in members:
            queued = member.queued
            known = None if queued.key is None else preconditions.known.get(queued.key)
            if known is not None:
                results[queued] = known
                continue
            if problem is not None:
                results[queued] = problem.again()
                continue
            if streams.unreadable:
                read = {target.subject for target in member.targets.values()} | member.cancels
                errors = [streams.unreadable[subject] for subject in sorted(read & streams.unreadable.keys())]
                if errors:
                    results[queued] = state.refusal(queued) or errors[0]
                    continue
            plan = state.decide(member)
            if isinstance(plan, AppendPlan):
                templates = [leaf_template(draft, self._reader.source) for draft in plan.drafts]
                appends.append((queued, AppendRequest(plan, templates, self._sealed(queued, plan.drafts))))
            else:
                results[queued] = plan
        return results, self._append(appends, results) if appends else []

    def _problem(self, head: Head) -> NotWritable | None:
        """The reason for which a clock that is far behind records nothing. Before anything is decided, because the
        submissions would be judged by a moment that has not come."""
        recorder, now = self._reader.recorder, self._reader.clock.now()
        if not recorder.append_guard.clock_allows(*head, now):
            try:
                resolve(recorder, now)
            except NotWritable as problem:
                return problem
        return None

    def _append(
        self, appends: Sequence[tuple[QueuedSubmission, AppendRequest]], results: dict[QueuedSubmission, Result]
    ) -> list[Receipt]:
        """The receipts of what was appended, in position order."""
        try:
            outcomes = self._reader.recorder.append([request for _, request in appends], self._reader.clock)
        except NotWritable as error:
            # Only those that would write: a retry of a recorded submission still gets its receipts.
            results.update((queued, error.again()) for queued, _ in appends)
            return []
        appended: list[Receipt] = []
        for (queued, request), outcome in zip(appends, outcomes, strict=True):
            if isinstance(outcome, Placement):
                drafts = request.plan.drafts
                receipts = results[queued] = receipts_of_drafts(drafts, *outcome)
                appended += receipts
            elif outcome is not None:
                results[queued] = outcome
            else:
                queued.stale_count += 1
                results[queued] = DECIDE_AGAIN
        return appended

    def _body_key(self) -> bytes:
        """The secret for idempotency keys. Raises `LedgerCorrupt`."""
        self._secret = self._secret or self._reader.recorder.body_key()
        assert self._secret is not None, "a ledger of an older format is migrated before it is written"
        return self._secret

    def _sealed(self, queued: QueuedSubmission, drafts: Sequence[Draft]) -> Idempotency | None:
        """Its idempotency key, as it is stored. `_member` has made sure that there is a secret."""
        if queued.idempotency is None:
            return None
        secret = self._body_key()
        return queued.idempotency.keyed(secret).sealed(secret, len(drafts), drafts[0].id_tail)

    def _member(self, queued: QueuedSubmission) -> _Member:
        if queued.key is not None:
            self._body_key()
        targets: dict[str, RetractionTarget] = {}
        subjects: set[str] = set()
        cancels: set[str] = set()
        references: set[str] = set()
        for submission in queued.submissions:
            if isinstance(submission, RetractChange):
                target = self._target(submission.event_id)
                # An unknown event id is refused by `decide`.
                if target is not None:
                    targets[submission.event_id] = target
                    subjects.add(target.subject)
            elif isinstance(submission, DefineSetting):
                subjects.add(CATALOG_SUBJECT)
            else:
                subjects.add(submission.subject)
                if submission.cancels_scheduled:
                    cancels.add(submission.subject)
                if isinstance(submission, ChangeSetting) and is_reference(submission.value):
                    references.add(submission.value)
        return _Member(queued, targets, subjects, cancels, references)

    def _target(self, event_id: str) -> RetractionTarget | None:
        entry = self._reader.find(event_id)
        return None if entry is None else _retraction_target(entry)

    def _preconditions(self, members: Iterable[_Member]) -> AppendPreconditions:
        subjects = {CATALOG_SUBJECT}
        keys: list[tuple[str, str]] = []
        for member in members:
            subjects |= member.subjects | member.references
            if member.queued.key is not None:
                keys.append(member.queued.key)
        return self._reader.recorder.append_preconditions(subjects, keys)

    def _streams(self, members: Sequence[_Member], preconditions: AppendPreconditions) -> _Streams:
        """Reads the subjects of retractions, and those of which what is scheduled is cancelled."""
        cancels = {subject for member in members for subject in member.cancels}
        streams = _Streams(set(), {}, {})
        for subject in cancels.union(target.subject for member in members for target in member.targets.values()):
            entries = self._reader.recorder.stream(subject, until=preconditions.versions[subject])
            try:
                events = [decode(entry.leaf) for entry in entries if entry.topic == ChangeRetracted.TOPIC]
                retracted = {event.retracts for event in events if isinstance(event, ChangeRetracted)}
                changes = map(_retraction_target, entries) if subject in cancels else ()
                for target in changes:
                    if target.topic != ChangeRetracted.TOPIC and target.event_id not in retracted:
                        streams.changes.setdefault((subject, target.setting), []).append(target)
            except InforceError as error:
                streams.unreadable[subject] = error
            else:
                streams.retracted.update(retracted)
        return streams

    def _first_receipts(self, known: KnownSubmission, queued: QueuedSubmission) -> tuple[Receipt, ...] | Exception:
        """The receipts of the first submission with this key, or the error of this one."""
        try:
            # SQLite stores a value of any type in any column.
            if tuple(map(type, known)) != (bytes, int, int):
                raise LedgerCorrupt(
                    "an Idempotency-Key is stored with values of another type; run inforce backup --check"
                )
            last = known.first_position + known.event_count - 1
            if not 0 < known.event_count <= _SUBMISSION_EVENTS_MAX:
                raise LedgerCorrupt("an Idempotency-Key is stored with another number of events than a submission has")
            assert queued.idempotency is not None
            caller, key, digest = queued.idempotency
            entries = self._reader.recorder.page(max(known.first_position - 2, 0), known.event_count + 2, last + 1)
            recorded_at = self._reader.recorder.submission_recorded_at(caller, key)
            # A recorded_at belongs to one submission.
            own = [entry for entry in entries if entry.recorded_at == recorded_at]
            if [entry.position for entry in own] != list(range(known.first_position, last + 1)):
                raise LedgerCorrupt(
                    f"an Idempotency-Key is stored with {known.event_count} events from position "
                    f"{known.first_position} on, which are no submission of that moment; run inforce backup --check"
                )
            receipts = tuple(receipt_of_leaf(parse_leaf(entry.leaf)) for entry in own)
            stored, secret = Idempotency(caller, key, known.body_sha256), self._body_key()
            if not stored.is_sealed(secret, len(own), receipts[0].event_id[-ID_TAIL_LENGTH:]):
                raise LedgerCorrupt(
                    f"the Idempotency-Key of the submission at position {known.first_position} is not stored as it was "
                    "recorded; run inforce backup --check"
                )
            # A process of an older inforce may still write digests without the secret.
            if stored.body_sha256[:DIGEST_BYTES] not in (queued.idempotency.keyed(secret).body_sha256, digest):
                return IdempotencyKeyReused()
            return receipts
        except Exception as error:
            return error


def _retraction_target(entry: Entry) -> RetractionTarget:
    leaf = parse_leaf(entry.leaf)
    start = leaf.data.effective_from
    return RetractionTarget(
        event_id=leaf.id,
        subject=entry.subject,
        topic=entry.topic,
        setting=leaf.data.setting,
        effective_from=parse_time(start) if isinstance(start, str) else None,
    )


class _GroupState:
    """The ledger as the members of the group so far will leave it."""

    def __init__(
        self,
        reader: LedgerReader,
        entropy: EntropySource,
        preconditions: AppendPreconditions,
        targets: Mapping[str, RetractionTarget],
        streams: _Streams,
    ) -> None:
        self._reader = reader
        self._entropy = entropy
        # Both grow with each decision, and with them the context.
        self._versions = dict(preconditions.versions)
        self._retracted = streams.retracted
        catalog = reader.catalog(self._versions[CATALOG_SUBJECT])
        self._context = SubmissionContext(catalog, self._versions, targets, streams.retracted, streams.changes)
        self._recorded_at = preconditions.head.recorded_at
        self._changed: set[str] = set()
        self._deferred: set[str] = set()
        self._events = 0

    def decide(self, member: _Member) -> AppendPlan | Exception | None:
        """The plan for the next member, its error, or `DECIDE_AGAIN`."""
        subjects = member.subjects
        # A changed catalog ends the group, because the definitions that count are known once they are recorded. After
        # a deferred submission all later ones on the same subjects wait too, which keeps their order; every submission
        # depends on the catalog.
        if (
            CATALOG_SUBJECT in self._changed
            or not self._deferred.isdisjoint((CATALOG_SUBJECT, *subjects, *member.references))
            or (CATALOG_SUBJECT in subjects and self._deferred)
            # The changes that an earlier member makes have no ids yet, so they cannot be retracted.
            or not self._changed.isdisjoint(member.cancels)
            # Retractions of what was scheduled are not counted before.
            or self._events > GROUP_EVENTS_MAX
        ):
            self._deferred |= subjects
            return DECIDE_AGAIN
        # A clock that was set back does not go behind the ledger's head.
        now = self._reader.clock.now()
        if self._recorded_at is not None:
            now = max(now, self._recorded_at + 1)
        queued = member.queued
        if queued.authority is not None and (refusal := self.refusal(queued, now)) is not None:
            return refusal
        context = self._context
        if member.references:
            unknown = {subject for subject in member.references if not self._versions[subject]}
            context = replace(context, unknown_references=unknown)
        try:
            plan = decide(
                queued.submissions,
                context,
                now=now,
                actor=queued.actor,
                entropy=self._entropy,
                batch=queued.batch,
            )
        except (BadSubmission, VersionConflict) as error:
            if self._changed.isdisjoint(subjects):
                return error
            self._deferred |= subjects
            return DECIDE_AGAIN
        except Exception as error:
            return error
        self._recorded_at = now
        self._events += len(plan.drafts)
        for draft in plan.drafts:
            self._apply(draft)
        return plan

    def refusal(self, queued: QueuedSubmission, now: int | None = None) -> InforceError | None:
        """Why the caller may not record this at `now` (µs; None: the present)."""
        authority = queued.authority
        if authority is None or authority.may_everything:
            return None
        targets = {event_id: (target.subject, target.setting) for event_id, target in self._context.targets.items()}
        moment = self._reader.clock.now() if now is None else now
        is_batch = queued.batch or len(queued.submissions) > 1
        try:
            require(queued.submissions, authority, self._context.catalog, targets, now=moment, batch=is_batch)
        except (OutOfReach, Forbidden, BadSubmission) as error:
            return error
        return None

    def _apply(self, draft: Draft) -> None:
        self._versions[draft.subject] = draft.version
        self._changed.add(draft.subject)
        if draft.topic == ChangeRetracted.TOPIC:
            self._retracted.add(draft.body["retracts"])
