"""What becomes of a group of submissions: one read of what they depend on, a decision each, one transaction.

Each is decided on the ledger as those before it in the group will leave it, and answered for itself. What was decided
on something that did not come to be is decided again: where the transaction found a proposal stale, and where a
submission was refused on account of one before it in the group, which might not be recorded after all.
Proved by tests/contracts/test_groups.py: a group comes to what the same submissions come to one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ledger.append.decide import RetractionTarget, Streams, decide
from ledger.append.group_commit import STALE_MAX, QueuedSubmission
from ledger.append.submissions import DefineSetting, RetractChange
from ledger.codec import decode, draft_bytes, parse_leaf
from ledger.drafts import Decided, Draft
from ledger.errors import BadSubmission, IdempotencyKeyReused, InforceError, LedgerUnavailable, VersionConflict
from ledger.events import ChangeRetracted
from ledger.receipts import Receipt, receipt, receipt_of
from ledger.recorders.contract import AppendPreconditions, Head, KnownSubmission, Proposal, Recorded
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import parse_time

if TYPE_CHECKING:
    from ledger.store import Ledger

AGAIN = None
Result = tuple[Receipt, ...] | Exception | KnownSubmission | None
"""Receipts, or why there are none, or what the key was used for before, or `AGAIN`."""


class Recording:
    def __init__(self, ledger: Ledger, source: str) -> None:
        """`source`: `urn:inforce:<origin>`."""
        self._ledger = ledger
        self._source = source

    def commit(self, group: list[QueuedSubmission]) -> list[QueuedSubmission]:
        """Settles the group's members, but for those to be decided again, which it answers in their order.

        Raises `LedgerUnavailable` for all of them.
        """
        locked = group[0].stale >= STALE_MAX
        recorder = self._ledger.recorder
        with recorder.exclusive() if locked else recorder.deciding():
            results, head = self._record(group)
        # Only now is it durable, whatever the transaction was.
        if head is not None:
            self._ledger.follower.grown(head)
        for queued, result in results.items():
            # Read only now, too: where it cannot be read, what the others were told of their own stands.
            outcome = self._first(result, queued) if isinstance(result, KnownSubmission) else result
            if isinstance(outcome, Exception):
                queued.error = outcome
            else:
                queued.receipts = outcome
        return [queued for queued in group if not queued.settled]

    def _record(self, group: list[QueuedSubmission]) -> tuple[dict[QueuedSubmission, Result], Head | None]:
        """What becomes of each, and the ledger's head if it has grown."""
        results: dict[QueuedSubmission, Result] = {}
        targets: dict[str, RetractionTarget] = {}
        asking: list[QueuedSubmission] = []
        for queued in group:
            try:
                targets.update(self._targets(queued))
                asking.append(queued)
            except LedgerUnavailable:
                raise
            except InforceError as error:
                # Nothing wider: what a database raises under the append lock must not be taken for one's own fault.
                results[queued] = error
        preconditions = self._preconditions(asking, targets)
        retracted, unread = self._retracted_of({target.subject for target in targets.values()}, preconditions)
        deciding = _Deciding(self._ledger, preconditions, targets, retracted)
        proposed: list[tuple[QueuedSubmission, Proposal]] = []
        for queued in asking:
            idempotency = queued.idempotency
            known = None if idempotency is None else preconditions.known.get(idempotency[:2])
            if known is not None and idempotency is not None:
                results[queued] = known
                continue
            beside = self._retracts_of(queued, targets) & unread.keys()
            if beside:
                results[queued] = unread[beside.pop()]
                continue
            decided = deciding.take(queued)
            if isinstance(decided, Decided):
                marked = [draft_bytes(draft, self._source) for draft in decided.drafts]
                proposed.append((queued, Proposal(decided, marked, idempotency)))
            else:
                results[queued] = decided
        return results, self._append(proposed, results) if proposed else None

    def _append(
        self, proposed: list[tuple[QueuedSubmission, Proposal]], results: dict[QueuedSubmission, Result]
    ) -> Head | None:
        outcomes = self._ledger.recorder.append([proposal for _, proposal in proposed], self._ledger.clock)
        head: Head | None = None
        for (queued, proposal), outcome in zip(proposed, outcomes, strict=True):
            if isinstance(outcome, Recorded):
                drafts = proposal.decided.drafts
                results[queued] = receipts_of(drafts, outcome)
                head = Head(outcome.first_position + len(drafts) - 1, outcome.recorded_at)
            elif outcome is not None:
                results[queued] = outcome
            else:
                queued.stale += 1
                results[queued] = AGAIN
        return head

    def _preconditions(
        self, group: Iterable[QueuedSubmission], targets: Mapping[str, RetractionTarget]
    ) -> AppendPreconditions:
        subjects = {CATALOG_SUBJECT}
        keys: list[tuple[str, str]] = []
        for queued in group:
            for submission in queued.submissions:
                if isinstance(submission, RetractChange):
                    target = targets.get(submission.event_id)
                    if target is not None:
                        subjects.add(target.subject)
                elif not isinstance(submission, DefineSetting):
                    subjects.add(submission.subject)
            if queued.idempotency is not None:
                keys.append(queued.idempotency[:2])
        return self._ledger.recorder.append_preconditions(subjects, keys)

    def _first(self, known: KnownSubmission, queued: QueuedSubmission) -> tuple[Receipt, ...] | Exception:
        assert queued.idempotency is not None
        if known.body_sha256 != queued.idempotency.body_sha256:
            return IdempotencyKeyReused()
        last = known.first_position + known.event_count - 1
        try:
            entries = self._ledger.recorder.page(known.first_position - 1, known.event_count, last)
            return tuple(receipt(parse_leaf(entry.leaf)) for entry in entries)
        except Exception as error:
            return error

    def _targets(self, queued: QueuedSubmission) -> dict[str, RetractionTarget]:
        """The events that the submissions retract, as far as there are such events."""
        return {
            submission.event_id: target
            for submission in queued.submissions
            if isinstance(submission, RetractChange) and (target := self._target(submission.event_id)) is not None
        }

    def _target(self, event_id: str) -> RetractionTarget | None:
        entry = self._ledger.find(event_id)
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
        )

    def _retracted_of(
        self, subjects: Iterable[str], preconditions: AppendPreconditions
    ) -> tuple[set[str], dict[str, InforceError]]:
        """The ids of the subjects' changes that are retracted; and why this cannot be said of some subjects."""
        retracted: set[str] = set()
        unread: dict[str, InforceError] = {}
        for subject in subjects:
            entries = self._ledger.recorder.stream(subject, until=preconditions.versions[subject])
            try:
                events = [decode(entry.leaf) for entry in entries if entry.topic == ChangeRetracted.TOPIC]
            except InforceError as error:
                unread[subject] = error
            else:
                retracted.update(event.retracts for event in events if isinstance(event, ChangeRetracted))
        return retracted, unread

    @staticmethod
    def _retracts_of(queued: QueuedSubmission, targets: Mapping[str, RetractionTarget]) -> set[str]:
        """The subjects of whose changes some are to be retracted."""
        return {
            targets[submission.event_id].subject
            for submission in queued.submissions
            if isinstance(submission, RetractChange) and submission.event_id in targets
        }


class _Deciding:
    """The ledger as the group so far will leave it."""

    def __init__(
        self,
        ledger: Ledger,
        preconditions: AppendPreconditions,
        targets: Mapping[str, RetractionTarget],
        retracted: set[str],
    ) -> None:
        self._ledger = ledger
        self._versions = dict(preconditions.versions)
        self._retracted = retracted
        self._streams = Streams(
            ledger.catalog(self._versions[CATALOG_SUBJECT]), self._versions, targets, self._retracted
        )
        self._recorded_at = preconditions.head.recorded_at
        self._changed: set[str] = set()
        self._held: set[str] = set()

    def take(self, queued: QueuedSubmission) -> Decided | Exception | None:
        """What it comes to, or its error, or `AGAIN`."""
        subjects = self._subjects(queued)
        # By which definitions it is judged is known when those of this group are recorded; and on each subject the
        # first to come is the first to be decided. All depend on the catalog.
        if (
            CATALOG_SUBJECT in self._changed
            or not self._held.isdisjoint((CATALOG_SUBJECT, *subjects))
            or (CATALOG_SUBJECT in subjects and self._held)
        ):
            self._held |= subjects
            return AGAIN
        # A clock that was set back does not reach behind the ledger's head.
        now = self._ledger.clock.now()
        if self._recorded_at is not None:
            now = max(now, self._recorded_at + 1)
        try:
            decided = decide(
                queued.submissions,
                self._streams,
                now=now,
                actor=queued.actor,
                entropy=self._ledger.entropy,
                batch=queued.batch,
            )
        except (BadSubmission, VersionConflict) as error:
            if self._changed.isdisjoint(subjects):
                return error
            self._held |= subjects
            return AGAIN
        except Exception as error:
            return error
        self._recorded_at = now
        for draft in decided.drafts:
            self._take(draft)
        return decided

    def _take(self, draft: Draft) -> None:
        self._versions[draft.subject] = draft.version
        self._changed.add(draft.subject)
        if draft.topic == ChangeRetracted.TOPIC:
            self._retracted.add(draft.body["retracts"])

    def _subjects(self, queued: QueuedSubmission) -> set[str]:
        """Those whose streams it would add to."""
        subjects: set[str] = set()
        for submission in queued.submissions:
            if isinstance(submission, RetractChange):
                target = self._streams.targets.get(submission.event_id)
                if target is not None:
                    subjects.add(target.subject)
            else:
                subjects.add(CATALOG_SUBJECT if isinstance(submission, DefineSetting) else submission.subject)
        return subjects


def receipts_of(drafts: Iterable[Draft], recorded: Recorded) -> tuple[Receipt, ...]:
    recorded_at = recorded.recorded_at
    return tuple(
        [receipt_of(draft, position, recorded_at) for position, draft in enumerate(drafts, recorded.first_position)]
    )
