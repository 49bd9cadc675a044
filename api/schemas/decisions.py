"""Models of decisions on request records."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.base import ClockNotice, WireModel, time_field
from api.schemas.responses import NOTICE, DecidingEvent, RetractedBy, UndefinedState
from projections.decisions.model import Reason, Verdict


class GovernedBy(WireModel):
    subject: str | None = Field(description="The governing account or organization; null: it is unknown.")
    via: list[str] = Field(description="The subjects that led to the governing one, in order.")
    known: bool = Field(description="Whether the ledger had an event of the subject; if not, defaults decide.")


class DataPolicy(WireModel):
    by: Literal["platform", "provider"]
    name: str | None = Field(None, description="As the model names the provider.")
    url: str | None = Field(None, description="Of the model's data policy, else of the provider's.")
    provider: str | None = Field(None, description="The provider's subject; null: the ledger has none of that name.")
    policy_sha256: str | None = Field(None, description="SHA-256 of the policy's text as it was read.")
    trains: bool | None = Field(None, description="Whether the provider trains on the data; null: nobody recorded it.")
    stores: bool | None = Field(None, description="Whether the provider stores the data; null: nobody recorded it.")
    retention_days: int | None = Field(None, description="For how long; null: nobody recorded it.")
    regions: list[str] | None = Field(None, description="Where the provider handles the data; null: not stated.")


class Handling(WireModel):
    may_store: bool
    may_cache: bool
    may_train: bool
    may_leave_platform: bool
    allowed_regions: list[str] | None = Field(description="Null: anywhere; empty: nowhere.")
    private_network_required: bool
    data_policy: DataPolicy


class EvidenceState(DecidingEvent):
    subject: str
    setting: str
    value: Any
    observed: Any = Field(None, description="What the record says instead, where the reason is about that.")
    source: Literal["explicit", "default", "not_applicable"]
    cleared_by: DecidingEvent | None = None


class EvidenceUndefined(UndefinedState):
    subject: str
    setting: str


class EnforcementLag(WireModel):
    lag_us: int
    enforced_position: int
    deciding_position: int


class Outcome(WireModel):
    verdict: Verdict
    governed_by: GovernedBy
    handling: Handling
    reasons: list[Reason]
    undecidable: list[str] | None = Field(
        None, description="With undecidable_value: the settings whose values the rules do not speak of."
    )
    evidence: list[EvidenceState | EvidenceUndefined]
    enforcement_lag: EnforcementLag | None = None


class Hindsight(Outcome):
    """The decision that uses everything recorded since, and the events that changed it."""

    changed_by: list[EvidenceState | RetractedBy]


class AsOf(WireModel):
    at: str = time_field("Valid time.")
    known_at: str = time_field("Only what was recorded by then is used.")
    position: int
    clock_notice: ClockNotice | None = NOTICE


class Decision(Outcome):
    request_id: str | None = None
    as_of: AsOf
    hindsight: Hindsight | None = Field(None, description="Present only if it changes the verdict or the handling.")


Index = Annotated[int, Field(ge=0, description="An index into the answer's evidence.")]


class HindsightOfMany(Hindsight):
    evidence: list[EvidenceState | EvidenceUndefined | Index]  # type: ignore[assignment]  # wider in a batch
    changed_by: list[EvidenceState | RetractedBy | Index]  # type: ignore[assignment]  # wider in a batch


class DecisionOfMany(Decision):
    """A decision of a batch. In an answer over 1 MiB its evidence is given by index."""

    evidence: list[EvidenceState | EvidenceUndefined | Index]  # type: ignore[assignment]  # wider in a batch
    hindsight: HindsightOfMany | None = Field(
        None, description="Present only if it changes the verdict or the handling."
    )


class Decisions(WireModel):
    """In the order of the records, all pinned to one position."""

    decisions: list[DecisionOfMany]
    evidence: list[EvidenceState | EvidenceUndefined] | None = Field(
        None,
        description="Present only in an answer over 1 MiB: each piece of evidence once. The decisions name it by its "
        "index here.",
    )
    position: int
    next_after: int | None = Field(
        None,
        description="Present only if the answer reached 8 MiB and ended early: the number of records that it decides. "
        "Send the others again.",
    )
