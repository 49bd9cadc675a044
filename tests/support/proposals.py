"""Builds proposals for a recorder's `append`, decided as the writer decides them, each based on the ones before."""

from collections.abc import Mapping
from typing import Any

from ledger.append.decide import Entropy, Streams, decide
from ledger.append.submissions import parse_submissions
from ledger.codec import draft_bytes
from ledger.drafts import Idempotency
from ledger.recorders.contract import Proposal
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from tests.support.ledgers import OPERATOR


class ProposalBuilder:
    """Tracks the versions that the ledger will have after the proposals so far. `versions`: assumed at the start."""

    def __init__(self, ledger: Ledger, versions: Mapping[str, int] | None = None, entropy: Entropy = bytes) -> None:
        self.ledger = ledger
        self.entropy = entropy
        self.versions = {CATALOG_SUBJECT: ledger.catalog().version, **(versions or {})}

    def propose(
        self, *bodies: dict[str, Any], now: int | None = None, idempotency: Idempotency | None = None
    ) -> Proposal:
        submissions = parse_submissions({"events": list(bodies)})
        subjects = {str(getattr(submission, "subject", CATALOG_SUBJECT)) for submission in submissions}
        unknown = subjects - self.versions.keys()
        self.versions.update(self.ledger.recorder.versions(unknown))
        decided = decide(
            submissions,
            Streams(self.ledger.catalog(self.versions[CATALOG_SUBJECT]), self.versions),
            now=self.ledger.clock.now() + 1000 if now is None else now,
            actor=OPERATOR,
            entropy=self.entropy,
            batch=True,
        )
        self.versions.update({draft.subject: draft.version for draft in decided.drafts})
        source = f"urn:inforce:{self.ledger.origin}"
        return Proposal(decided, [draft_bytes(draft, source) for draft in decided.drafts], idempotency)
