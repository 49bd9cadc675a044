"""What may be asked of the ledger, and the pure function that decides it.

`parse_submissions` turns a JSON value into submissions or names every fault by its JSON pointer (WIRE.md section 2).
`decide` turns submissions into drafts, given what the streams hold, and says what must still be true when they are
recorded. No clock, no database: `now` is an argument. Proved by tests/test_submissions.py and tests/contracts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from ledger.catalog import BUILT_IN, INTEGER_MAX, Catalog, Definition, WrongValue
from ledger.codec import id_tail
from ledger.drafts import RECORDED, Decided, Draft, personal_data
from ledger.errors import BadSubject, BadSubmission, BadTime, Fault, VersionConflict
from ledger.events import ERASURE_TOPIC, ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.subjects import CATALOG_SUBJECT, KINDS, is_setting_key, kind_of, parse_subject
from ledger.times import BEGINNING, format_time, parse_time

BATCH_MAX: Final = 1000
REASON_LENGTH_MAX: Final = 2000
EFFECTIVE_MIN: Final = parse_time("1900-01-01T00:00:00Z")
EFFECTIVE_MAX: Final = parse_time("2200-01-01T00:00:00Z")
"""Effective times outside [1900, 2200) are taken for slips of the pen."""


def _instant(value: object) -> int:
    try:
        return parse_time(value)
    except BadTime as error:
        raise PydanticCustomError("time", "{detail}", {"detail": error.detail}) from None


def _effective(value: int) -> int:
    if not EFFECTIVE_MIN <= value < EFFECTIVE_MAX:
        raise PydanticCustomError("time", "an effective time must lie in the years 1900 to 2199")
    return value


def _subject(value: object) -> str:
    try:
        return parse_subject(value, KINDS)
    except BadSubject as error:
        raise PydanticCustomError("subject", "{detail}", {"detail": error.detail}) from None


def _setting(value: str) -> str:
    if not is_setting_key(value):
        raise PydanticCustomError("setting", "a setting's key is 1-128 of A-Z a-z 0-9 . _ -")
    return value


Instant = Annotated[int, BeforeValidator(_instant, json_schema_input_type=str)]
Effective = Annotated[Instant, AfterValidator(_effective)]
SubjectRef = Annotated[str, BeforeValidator(_subject, json_schema_input_type=str)]
SettingKey = Annotated[StrictStr, AfterValidator(_setting)]
Reason = Annotated[StrictStr, Field(min_length=1, max_length=REASON_LENGTH_MAX)]
ExpectedVersion = Annotated[StrictInt, Field(ge=0, le=INTEGER_MAX)]


class _Submission(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChangeSetting(_Submission):
    """Set a value from `effective_from` (µs; None: the moment of recording) until `effective_until` (None: open)."""

    type: Literal["setting.changed"]
    subject: SubjectRef
    setting: SettingKey
    value: Any
    effective_from: Effective | None = None
    effective_until: Effective | None = None
    reason: Reason | None = None
    expected_version: ExpectedVersion | None = None


class ClearSetting(_Submission):
    """Take the subject's own value away for a period, so that the default shows through."""

    type: Literal["setting.cleared"]
    subject: SubjectRef
    setting: SettingKey
    effective_from: Effective | None = None
    effective_until: Effective | None = None
    reason: Reason | None = None
    expected_version: ExpectedVersion | None = None


class RetractChange(_Submission):
    """Take one earlier change back, as though it had not been said."""

    type: Literal["change.retracted"]
    event_id: StrictStr
    reason: Reason | None = None
    expected_version: ExpectedVersion | None = None


class DefineSetting(_Submission):
    """Define a setting, or define it anew, from `effective_from` on."""

    type: Literal["setting.defined"]
    setting: SettingKey
    definition: Definition
    effective_from: Effective | None = None
    reason: Reason | None = None
    expected_version: ExpectedVersion | None = None


Entropy = Callable[[int], bytes]
"""So many random bytes, for event ids and salts; `secrets.token_bytes` but for tests that must repeat."""

Submission = ChangeSetting | ClearSetting | RetractChange | DefineSetting
_ADAPTER: Final[TypeAdapter[Submission]] = TypeAdapter(Annotated[Submission, Field(discriminator="type")])
TYPES: Final = ("setting.changed", "setting.cleared", "change.retracted", "setting.defined")


def parse_submissions(body: object) -> tuple[Submission, ...]:
    """One submission, or `{"events": […]}` with 1 to 1000 of them. Raises `BadSubmission` naming every fault."""
    if not isinstance(body, dict):
        raise BadSubmission((Fault("", 'the body must be one submission or {"events": [...]}'),))
    if "events" not in body:
        return (parse_submission(body, ""),)
    events = body["events"]
    if len(body) > 1:
        raise BadSubmission((Fault("", "a batch has the one member events"),))
    if not isinstance(events, list) or not 1 <= len(events) <= BATCH_MAX:
        raise BadSubmission((Fault("/events", f"events must be an array of 1 to {BATCH_MAX} submissions"),))
    submissions: list[Submission] = []
    faults: list[Fault] = []
    for index, event in enumerate(events):
        try:
            submissions.append(parse_submission(event, f"/events/{index}"))
        except BadSubmission as error:
            faults.extend(error.faults)
    if faults:
        raise BadSubmission(tuple(faults))
    return tuple(submissions)


def parse_submission(value: object, pointer: str) -> Submission:
    """`pointer` says where in the caller's body the value stands. Raises `BadSubmission`."""
    if isinstance(value, dict) and value.get("type") == ERASURE_TOPIC:
        raise BadSubmission((Fault(f"{pointer}/type", f"{ERASURE_TOPIC} is reserved and not taken yet"),))
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        raise BadSubmission(tuple(faults_of(error, pointer))) from None


_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def faults_of(error: ValidationError, pointer: str = "") -> list[Fault]:
    """pydantic's complaints as JSON pointers and sentences that never repeat the input."""
    faults: list[Fault] = []
    for complaint in error.errors(include_url=False, include_input=False, include_context=False):
        path = [str(part) for part in complaint["loc"] if part not in TYPES]
        if complaint["type"] == "extra_forbidden" and _PLAIN_NAME.fullmatch(path[-1]) is None:
            # The caller's own text: shown where it is a slip in a member's name, and not where it is anything else.
            path.pop()
        place = pointer + "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
        faults.append(Fault(place, _sentence(complaint["type"], complaint["msg"])))
    return faults


def _sentence(kind: str, message: str) -> str:
    match kind:
        case "union_tag_invalid" | "union_tag_not_found":
            return f"type must be one of {', '.join(TYPES)}"
        case "extra_forbidden":
            return "this member does not belong here"
        case "missing":
            return "this member is required"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "an object is required here"
        case "value_error":
            # Our own words, behind two of pydantic's.
            return message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def canonical_json(value: object) -> bytes:
    """One text for equal JSON values, whatever their white space and order of members."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


class RetractionTarget(NamedTuple):
    """The event that a retraction names, as its stream shows it now."""

    event_id: str
    subject: str
    topic: str
    setting: str
    effective_from: int | None
    retracted: bool


@dataclass(frozen=True)
class Streams:
    """What the ledger holds, as far as a batch of submissions depends on it."""

    catalog: Catalog
    versions: Mapping[str, int]
    """Version of every subject of the batch, and of the subjects of its retraction targets."""
    targets: Mapping[str, RetractionTarget] = field(default_factory=dict)
    """Event id → the event, for the ids that exist among those that the batch retracts."""


def decide(
    submissions: tuple[Submission, ...],
    streams: Streams,
    *,
    now: int,
    actor: str,
    entropy: Entropy,
    imported: bool = False,
    batch: bool = False,
) -> Decided:
    """What the submissions come to, all or nothing. `now` is in µs; the recorder checks `recorded_at_max` against
    the true moment of recording. `batch`: a single submission came within `events`, too, as several always do.
    Raises `BadSubmission` (naming every fault) and `VersionConflict`."""
    deciding = _Deciding(streams, now, actor, entropy, imported)
    faults: list[Fault] = []
    for index, submission in enumerate(submissions):
        pointer = f"/events/{index}" if batch or len(submissions) > 1 else ""
        try:
            deciding.take(submission)
        except _Refused as refused:
            faults.append(Fault(f"{pointer}{refused.member}", refused.detail))
    if faults:
        raise BadSubmission(tuple(faults))
    return Decided(tuple(deciding.drafts), deciding.relied_on, deciding.recorded_at_max)


class _Refused(Exception):
    def __init__(self, member: str, detail: str) -> None:
        self.member = member
        self.detail = detail


class _Deciding:
    """The batch so far: versions and definitions as its earlier members leave them."""

    def __init__(self, streams: Streams, now: int, actor: str, entropy: Entropy, imported: bool) -> None:
        self.streams = streams
        self.catalog = streams.catalog
        self.now = now
        self.actor = actor
        self.entropy = entropy
        self.imported = imported
        self.drafts: list[Draft] = []
        self.relied_on: dict[str, int] = {CATALOG_SUBJECT: streams.catalog.version}
        self.recorded_at_max: int | None = None
        self._next_version: dict[str, int] = {}
        self._started_when_recorded: set[str] = set()
        self._retracted_here: set[str] = set()

    def take(self, submission: Submission) -> None:
        match submission:
            case ChangeSetting():
                definition = self._definition(submission)
                try:
                    value = definition.accept(submission.value)
                except WrongValue as error:
                    raise _Refused("/value", str(error)) from None
                if submission.setting == "owner" and value == submission.subject:
                    raise _Refused("/value", "a subject cannot own itself")
                period = self._period(submission)
                body = {"setting": submission.setting, "value": value, **period}
                self._draft(SettingChanged.TOPIC, submission.subject, body, submission)
            case ClearSetting():
                self._definition(submission)
                body = {"setting": submission.setting, **self._period(submission)}
                self._draft(SettingCleared.TOPIC, submission.subject, body, submission)
            case RetractChange():
                self._retract(submission)
            case DefineSetting():
                self._define(submission)

    def _definition(self, submission: ChangeSetting | ClearSetting) -> Definition:
        start = self.now if submission.effective_from is None else submission.effective_from
        defined = self.catalog.defined(submission.setting, start)
        if defined is None:
            if submission.setting in self.catalog:
                raise _Refused("/setting", "the setting was not defined yet at the change's effective_from")
            raise _Refused("/setting", "unknown setting; the catalog lists those that are defined")
        if submission.effective_from is None:
            if defined.effective_until is not None:
                self._not_after(defined.effective_until - 1)
        elif start >= self.now and submission.setting in self._started_when_recorded:
            # A definition of this batch starts when it is recorded: not after the change that may rest on it.
            self._not_after(start)
        kind = kind_of(submission.subject)
        if kind not in defined.definition.kinds:
            kinds = ", ".join(defined.definition.kinds)
            raise _Refused("/setting", f"this setting belongs to subjects of kind {kinds}, not {kind}")
        return defined.definition

    def _period(self, submission: ChangeSetting | ClearSetting) -> dict[str, Any]:
        start, until = submission.effective_from, submission.effective_until
        if until is not None:
            if start is None:
                if until <= self.now:
                    raise _Refused("/effective_until", self._not_later(until, self.now))
                self._not_after(until - 1)
            elif until <= start:
                raise _Refused("/effective_until", self._not_later(until, start))
        self._needs_reason(start, submission.reason, "/effective_from")
        return {"effective_from": RECORDED if start is None else start, "effective_until": until}

    @staticmethod
    def _not_later(until: int, start: int) -> str:
        return (
            f"effective_until {format_time(until)} must be later than effective_from {format_time(start)}: "
            "the period is half-open"
        )

    def _needs_reason(self, start: int | None, reason: str | None, member: str) -> None:
        """What asserts something about the past must say why (DESIGN.md section 3)."""
        if start is None or reason is not None:
            return
        if start < self.now:
            raise _Refused(
                member,
                f"effective from {format_time(start)}, which is before the moment of recording "
                f"({format_time(self.now)}): a backdated change needs a reason",
            )
        self._not_after(start)

    def _retract(self, submission: RetractChange) -> None:
        target = self.streams.targets.get(submission.event_id)
        if target is None:
            raise _Refused("/event_id", "there is no event with this id in this ledger")
        if target.topic == ChangeRetracted.TOPIC:
            raise _Refused("/event_id", "a retraction cannot be retracted; record the change again instead")
        if target.topic not in (SettingChanged.TOPIC, SettingCleared.TOPIC):
            raise _Refused("/event_id", "only changes can be retracted; define the setting anew instead")
        if target.retracted or target.event_id in self._retracted_here:
            raise _Refused("/event_id", "this change has been retracted already")
        if target.effective_from is not None and submission.reason is None:
            if target.effective_from < self.now:
                raise _Refused(
                    "/reason",
                    f"the change is effective from {format_time(target.effective_from)}, which is past: "
                    "taking it back needs a reason",
                )
            self._not_after(target.effective_from)
        self._retracted_here.add(target.event_id)
        body = {"retracts": target.event_id, "setting": target.setting}
        self._draft(ChangeRetracted.TOPIC, target.subject, body, submission)

    def _define(self, submission: DefineSetting) -> None:
        before = self.catalog.value_type(submission.setting)
        if before is not None and before != submission.definition.value_type:
            raise _Refused(
                "/definition/value_type",
                f"a setting keeps its type, and this one is {before}; define another setting instead",
            )
        self._needs_reason(submission.effective_from, submission.reason, "/effective_from")
        start = submission.effective_from
        if start is None:
            self._started_when_recorded.add(submission.setting)
        further = (submission.setting, self.now if start is None else start, submission.definition)
        self.catalog = self.catalog.extended([further], self.catalog.version + 1)
        body = {
            "setting": submission.setting,
            "definition": submission.definition.as_json(),
            "effective_from": RECORDED if start is None else start,
        }
        self._draft(SettingDefined.TOPIC, CATALOG_SUBJECT, body, submission)

    def _draft(self, topic: str, subject: str, body: Mapping[str, Any], submission: Submission) -> None:
        before = self.streams.catalog.version if subject == CATALOG_SUBJECT else self.streams.versions[subject]
        if submission.expected_version is not None and submission.expected_version != before:
            raise VersionConflict(subject, submission.expected_version, before)
        self.relied_on[subject] = before
        version = self._next_version.get(subject, before + 1)
        self._next_version[subject] = version + 1
        personal = None
        if submission.reason is not None:
            personal = personal_data(self.entropy(32), submission.reason)
        self.drafts.append(
            Draft(
                topic=topic,
                subject=subject,
                version=version,
                body=body,
                actor=self.actor,
                id_tail=id_tail(self.entropy(10)),
                personal=personal,
                commitment=personal.commitment if personal else None,
                imported=self.imported,
            )
        )

    def _not_after(self, instant: int) -> None:
        current = self.recorded_at_max
        self.recorded_at_max = instant if current is None else min(current, instant)


def genesis(entropy: Entropy) -> tuple[Draft, ...]:
    """The built-in catalog as the first events of a ledger, effective from the beginning of time."""
    return tuple(
        Draft(
            topic=SettingDefined.TOPIC,
            subject=CATALOG_SUBJECT,
            version=version,
            body={"setting": setting, "definition": definition.as_json(), "effective_from": BEGINNING},
            actor="inforce",
            id_tail=id_tail(entropy(10)),
        )
        for version, (setting, definition) in enumerate(BUILT_IN.items(), 1)
    )
