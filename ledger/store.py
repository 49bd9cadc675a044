"""The ledger: append submissions, read events. One object per database, safe to use from many threads.

A submission goes through four steps. It waits with others in the queue of the writer (`append.group_commit`); the
writer reads what the group depends on, decides each submission with a pure function (`append.commit`,
`append.decide`), and appends under the lock (`recorders`). If the ledger has moved in between, nothing is written and
the submission is decided again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ledger.append.built_in import additions, genesis, type_conflicts
from ledger.append.commit import Committer
from ledger.append.group_commit import QueuedSubmission, Writer
from ledger.append.submissions import Submission
from ledger.clock import Clock
from ledger.codec import leaf_template
from ledger.drafts import AppendPlan, Idempotency
from ledger.entropy import EntropySource, random_bytes
from ledger.errors import LedgerCorrupt, LedgerUnavailable
from ledger.reader import LedgerReader
from ledger.receipts import Receipt
from ledger.recorders.contract import AppendRequest, Placement, Recorder
from ledger.subjects import CATALOG_SUBJECT

_log = logging.getLogger("inforce.ledger")


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

    def add_built_in(self) -> None:
        """Records the built-in definitions that a ledger of an older inforce never had, from now on in force.

        Once, however many processes open the ledger: a plan is stale if the catalog has moved. A failure only warns,
        because everything but the new definitions works without them.
        """
        try:
            while (plan := additions(self.catalog(), self.committer.entropy)).drafts:
                templates = [leaf_template(draft, self.source) for draft in plan.drafts]
                (outcome,) = self.recorder.append([AppendRequest(plan, templates, None)], self.clock)
                if isinstance(outcome, Placement):
                    settings = ", ".join(draft.body["setting"] for draft in plan.drafts)
                    _log.warning(
                        "recorded the settings that are new in this inforce, from now on in force: %s", settings
                    )
        except (LedgerUnavailable, LedgerCorrupt) as error:
            _log.warning("the built-in definitions of this inforce could not be compared or recorded: %s", error)
            return
        for conflict in type_conflicts(self.catalog()):
            _log.warning(
                "the setting %s is %s in this ledger and %s in this inforce; it keeps its type, and decisions do not "
                "use it: define a setting of another name for the old values",
                *conflict,
            )

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
