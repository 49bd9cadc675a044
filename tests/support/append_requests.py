"""Builds proposals for a recorder's `append`, decided as the writer decides them, each based on the ones before."""

from collections.abc import Mapping
from typing import Any

from ledger.append.decide import SubmissionContext, decide
from ledger.append.submissions import parse_submissions
from ledger.codec import leaf_template
from ledger.drafts import Idempotency
from ledger.entropy import EntropySource
from ledger.recorders.contract import AppendRequest
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from tests.support.ledgers import OPERATOR


class AppendRequestBuilder:
    """Tracks the versions that the ledger will have after the proposals so far. `versions`: assumed at the start."""

    def __init__(
        self, ledger: Ledger, versions: Mapping[str, int] | None = None, entropy: EntropySource = bytes
    ) -> None:
        self.ledger = ledger
        self.entropy = entropy
        self.versions = {CATALOG_SUBJECT: ledger.catalog().version, **(versions or {})}

    def build(
        self, *bodies: dict[str, Any], now: int | None = None, idempotency: Idempotency | None = None
    ) -> AppendRequest:
        submissions = parse_submissions({"events": list(bodies)})
        subjects = {str(getattr(submission, "subject", CATALOG_SUBJECT)) for submission in submissions}
        unknown = subjects - self.versions.keys()
        self.versions.update(self.ledger.recorder.versions(unknown))
        plan = decide(
            submissions,
            SubmissionContext(self.ledger.catalog(self.versions[CATALOG_SUBJECT]), self.versions),
            now=self.ledger.clock.now() + 1000 if now is None else now,
            actor=OPERATOR,
            entropy=self.entropy,
            batch=True,
        )
        self.versions.update({draft.subject: draft.version for draft in plan.drafts})
        templates = [leaf_template(draft, self.ledger.source) for draft in plan.drafts]
        return AppendRequest(plan, templates, idempotency)
