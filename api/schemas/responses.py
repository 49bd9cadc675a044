"""Models of the response bodies, problems included."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field, RootModel

from api.schemas.base import ClockNotice, WireModel, time_field
from api.schemas.log import LogState
from api.schemas.requests import SettingDefinition
from projections.temporal.effective_state import Source


class ScheduledChange(WireModel):
    """A change that begins later than the receipt's."""

    position: int
    effective_from: str = time_field("When the change begins.")
    effective_until: str | None = time_field("Null: without end.")
    value: Any = Field(description="Null: a clear. Of a definition, its members.")


class ReceiptWarning(WireModel):
    """A doubt about a change that was recorded."""

    code: Literal["unknown_subject", "outlook_unknown"] = Field(
        description="unknown_subject: the ledger has no event of the subject that the value names. outlook_unknown: "
        "the changes that follow could not be read."
    )
    subject: str
    detail: str


class Receipt(WireModel):
    event_id: str
    position: int
    subject: str
    version: int
    recorded_at: str = time_field("When the ledger recorded the event.")
    effective_from: str | None = time_field("Null for a retraction.")
    effective_until: str | None = time_field("Null: without end.")
    holds_until: str | None = time_field(
        "When the change first stops deciding, as known when it was recorded. Equal to effective_from: it never "
        "decides. Null: nothing follows, or it is a retraction."
    )
    still_scheduled: list[ScheduledChange] = Field(
        max_length=100,
        description="The unretracted changes of the setting that begin later than this one (than the recording of a "
        "retraction), as known when it was recorded, in the order of their beginning. All receipts of a request list "
        "1000 of them and 256 KiB of values at most.",
    )
    still_scheduled_left_out: int = Field(ge=0, description="How many more there are than still_scheduled lists.")
    retracts: str | None = Field(description="The event_id that a retraction retracts.")
    warnings: list[ReceiptWarning]
    proof: str | None = Field(
        None,
        description="Only with wait=checkpoint: the tlog-proof of the event. Null: no checkpoint was published in "
        "time; send the request again with its Idempotency-Key, or GET /v1/events/{event_id}/proof.",
    )


class Receipts(WireModel):
    """One receipt per event, in order: of the submissions, then of what cancels_scheduled retracted."""

    receipts: list[Receipt]
    position: int = Field(description="The last event's position. Answers pinned to it or later include all of these.")


class EventData(WireModel):
    position: int
    version: int
    setting: str
    value: Any = None
    definition: dict[str, Any] | None = None
    retracts: str | None = None
    effective_from: str | None = None
    effective_until: str | None = None
    actor: str
    personal: dict[str, str] | None = Field(None, description="Commits to the reason, which is stored separately.")
    imported: bool = False


class Event(WireModel):
    """One event in the exact bytes that were recorded and hashed (CloudEvents 1.0)."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: str = time_field("recorded_at")
    sequence: str
    datacontenttype: Literal["application/json"]
    data: EventData


NEXT_AFTER: Final = "Present only if the answer reached its size and ended early. Send it as `after` to get the rest."


class EventPage(WireModel):
    events: list[Event]
    next_after: int = Field(
        description="Send it as `after` to get the next page; it is the head if there are no further events yet."
    )
    head: int = Field(description="The position of the ledger's last event.")


class EventStream(RootModel[str]):
    """Server-Sent Events: `id:` is the position, `data:` the event in its exact bytes, on one line.

    While there are no events, the server sends comments.
    """


class SubjectRow(WireModel):
    subject: str
    version: int
    position: int = Field(description="The position of the subject's last event.")


class SubjectPage(WireModel):
    subjects: list[SubjectRow]
    next_after: str | None = Field(description="Send it as `after` to get the next page; null: this is the last page.")
    position: int


class DecidingEvent(WireModel):
    """The event that decided a value: the subject's own, or for a default the definition."""

    event_id: str
    position: int
    version: int
    recorded_at: str = time_field("When the ledger recorded the event.")
    effective_from: str = time_field("When the change begins.")
    effective_until: str | None = time_field("Null: without end.")
    actor: str


class SettingState(DecidingEvent):
    value: Any
    source: Literal["explicit", "default"]
    cleared_by: DecidingEvent | None = Field(None, description="The clear because of which the default holds.")


class NextChange(WireModel):
    """The next change of a setting after `at`, as known at `known_at`."""

    position: int | None = Field(
        description="Of the event that then decides: the change, or the clear or the definition behind a default."
    )
    effective_from: str = time_field("When it begins to decide; an earlier change may decide again.")
    value: Any = Field(description="The value from then on.")
    source: Source


class StateSetting(SettingState):
    next: NextChange | None = Field(description="Null: nothing changes any more.")


NOTICE: Any = Field(None, description="Present only where the answer rests on a clock that was ahead.")


class State(WireModel):
    subject: str
    at: str = time_field("Valid time.")
    known_at: str = time_field("Only what was recorded by then is used.")
    position: int
    version: int = Field(description="The subject's, at this position: a submission's expected_version.")
    settings: dict[str, StateSetting]
    clock_notice: ClockNotice | None = NOTICE
    next_after: str | None = Field(None, description=NEXT_AFTER)


class Interval(WireModel):
    setting: str
    value: Any
    source: Source
    from_: str | None = time_field("Null: no beginning.", alias="from")
    until: str | None = time_field("The first instant after the interval; null: without end.")
    event_id: str | None


class Timeline(WireModel):
    """Half-open intervals without gaps, setting by setting."""

    subject: str
    known_at: str = Field(description="An instant, or `at`: the settings in force.")
    position: int
    intervals: list[Interval]
    clock_notice: ClockNotice | None = NOTICE
    next_after: str | None = Field(None, description=NEXT_AFTER)


class HistoryRow(WireModel):
    event: Event
    reason: str | None
    reason_withheld: bool | None = Field(
        None, description="Present, and true, where there is a reason that only a caller with the role privacy reads."
    )
    retracted_by: str | None = Field(description="The event_id of the retraction of this event.")
    holds_until: str | None = time_field(
        "When the change first stops deciding, as known now. Equal to its effective_from: it never decides, or it is "
        "retracted. Null: nothing follows, or it is a retraction."
    )
    holds_until_at_recording: str | None = time_field("The same, as known when the change was recorded.")


class History(WireModel):
    """The events of a subject, newest first."""

    subject: str
    events: list[HistoryRow]
    next_after: int | None = Field(description="Send it as `after` to get older events; null: this is the last page.")
    position: int
    clock_notice: ClockNotice | None = Field(
        None, description="Present only where a recorded_at of this page rests on a clock that was ahead."
    )


class ChangedBy(DecidingEvent):
    setting: str
    value: Any = Field(description="Null: the setting was cleared.")


class RetractedBy(WireModel):
    setting: str
    retracts: str
    event_id: str
    position: int
    version: int
    recorded_at: str = time_field("When the ledger recorded the event.")
    actor: str


class UndefinedState(WireModel):
    value: None
    source: Literal["undefined"]


class NotApplicableState(DecidingEvent):
    value: Any
    source: Literal["not_applicable"]


class SettingDifference(WireModel):
    setting: str
    before: SettingState | NotApplicableState | UndefinedState
    after: SettingState | NotApplicableState | UndefinedState
    changed_by: list[ChangedBy | RetractedBy]


class Differences(WireModel):
    subject: str
    from_: str = time_field("The first instant.", alias="from")
    to: str = time_field("The second instant.")
    known_at: str = Field(description="An instant, or `at`: the settings in force at each of the two.")
    position: int
    differences: list[SettingDifference]
    clock_notice: ClockNotice | None = NOTICE
    next_after: str | None = Field(None, description=NEXT_AFTER)


class CatalogEntry(SettingDefinition):
    members: list[str] | None = None
    event_id: str
    position: int
    version: int
    recorded_at: str = time_field("When the ledger recorded the event.")
    effective_from: str = time_field("When the change begins.")
    actor: str


class Catalog(WireModel):
    at: str = time_field("Valid time.")
    known_at: str = time_field("Only what was recorded by then is used.")
    position: int
    settings: dict[str, CatalogEntry]
    clock_notice: ClockNotice | None = NOTICE
    next_after: str | None = Field(None, description=NEXT_AFTER)


class Health(WireModel):
    status: Literal["ok"]
    version: str


class Ready(WireModel):
    status: Literal["ready"]
    position: int
    lag: int = Field(description="Events that are not in the stored timelines yet: the next question brings them in.")
    damaged_timelines: int = Field(
        description="How many subjects' stored timelines this process found altered on the disk. None was answered "
        "from: they were made anew from the events. Above 0, check the disk, and run inforce backup --check."
    )
    log: LogState | None = Field(description="Null: this process has no signing key.")


class MetricsText(RootModel[str]):
    """Lines of `name{labels} value`, as Prometheus reads them."""


class ProblemFault(WireModel):
    in_: Literal["body", "query", "path", "header"] = Field(
        alias="in", description="The part of the request with the fault."
    )
    pointer: str = Field(description="A JSON pointer (RFC 6901), or / and the parameter's name.")
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details. This server serves `type`, which explains the code. Some codes add members."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="Contains the request's id, under which the server's log has details.")
    code: str
    errors: list[ProblemFault] | None = None
    subject: str | None = Field(None, description="With version_conflict.")
    expected_version: int | None = Field(None, description="With version_conflict.")
    current_version: int | None = Field(None, description="With version_conflict: retry with this one.")
    at_least: int | None = Field(None, description="With position_not_reached: the requested position.")
    position: int | None = Field(
        None, description="With position_not_reached and timelines_behind: the ledger's position."
    )
    lag: int | None = Field(None, description="With timelines_behind: events.")
    lag_max: int | None = Field(None, description="With timelines_behind: events.")
    place: Literal["ledger", "audits"] | None = Field(None, description="With disk_low: the use of the disk.")
    free_bytes: int | None = Field(None, description="With disk_low.")
    free_bytes_min: int | None = Field(None, description="With disk_low.")


class ProblemKind(WireModel):
    type: str
    code: str
    status: int
    title: str
    meaning: str


class ProblemKinds(WireModel):
    problems: list[ProblemKind]
