"""The ledger: append submissions, read events. One object per database, safe to use from many threads.

A submission goes through four steps. It waits with others in the queue of the writer (`append.group_commit`); the
writer reads what the group depends on, decides each submission with a pure function (`append.commit`,
`append.decide`), and appends under the lock (`recorders`). If the ledger has moved in between, nothing is written and
the submission is decided again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.append.commit import Committer
from ledger.append.decide import genesis
from ledger.append.group_commit import QueuedSubmission, Writer
from ledger.append.submissions import Submission
from ledger.clock import Clock
from ledger.codec import leaf_template
from ledger.drafts import AppendPlan, Idempotency
from ledger.entropy import EntropySource, random_bytes
from ledger.reader import LedgerReader
from ledger.receipts import Receipt
from ledger.recorders.contract import AppendRequest, Recorder
from ledger.subjects import CATALOG_SUBJECT


class Ledger(LedgerReader):
    """Raises `LedgerUnavailable` from every call where the database cannot answer."""

    def __init__(self, recorder: Recorder, clock: Clock, *, origin: str, entropy: EntropySource = random_bytes) -> None:
        super().__init__(recorder, clock, origin=origin)
        self.committer = Committer(self, entropy)
        self.writer = Writer(self.committer.commit)

    def close(self) -> None:
        self.writer.close()
        super().close()

    def ensure_genesis(self) -> None:
        """Records the built-in catalog, unless the ledger has events already."""
        if self.head().position:
            return
        plan = AppendPlan(genesis(self.committer.entropy), {CATALOG_SUBJECT: 0}, None)
        templates = [leaf_template(draft, self.source) for draft in plan.drafts]
        # Refused as stale, and rightly so, if another process has recorded its catalog meanwhile.
        self.recorder.append([AppendRequest(plan, templates, None)], self.clock)

    def submit(
        self,
        submissions: Sequence[Submission],
        *,
        actor: str,
        idempotency: Idempotency | None = None,
        batch: bool = False,
    ) -> tuple[Receipt, ...]:
        """Records all submissions durably as one unit, or none of them, and waits for that.

        To submit without waiting, pass a `QueuedSubmission` to `writer.enqueue`. `batch`: see `decide`.
        Raises `BadSubmission`, `VersionConflict`, `IdempotencyKeyReused`, `SubmissionInFlight`, `LedgerBusy`, and
        `BadInput` for a malformed actor or key. A retry with the same idempotency key and body answers the first
        receipts.
        """
        return self.writer.submit(QueuedSubmission(tuple(submissions), actor, idempotency, batch))
