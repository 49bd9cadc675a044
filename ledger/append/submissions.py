"""Submissions: the requests to record something, and their parser.

`parse_submissions` turns a JSON value into submissions, or names every fault by its JSON pointer ("Wire contract" in
api/README.md shows the forms). `decide` turns submissions into events. Proved by tests/test_submissions.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from ledger.catalog import INTEGER_MAX, Definition, WrongValue, faults_between
from ledger.errors import BadSubject, BadSubmission, BadTime, Fault
from ledger.events import ERASURE_TOPIC
from ledger.subjects import ID_PATTERN, KINDS, has_words, is_setting_key, parse_subject, refuse_second_kind
from ledger.times import parse_time

BATCH_MAX: Final = 1000
_REFERENCE: Final = re.compile(rf"(?:{'|'.join(KINDS)}):{ID_PATTERN}")
REASON_LENGTH_MAX: Final = 2000
EFFECTIVE_MIN: Final = parse_time("1900-01-01T00:00:00Z")
EFFECTIVE_MAX: Final = parse_time("2200-01-01T00:00:00Z")
"""A change begins in [1900, 2200), and ends in 2200 at the latest; other times are refused as typing errors."""


def _instant(value: object) -> int:
    try:
        return parse_time(value)
    except BadTime as error:
        raise PydanticCustomError("time", "{detail}", {"detail": error.detail}) from None


def _effective_from(value: int) -> int:
    if not EFFECTIVE_MIN <= value < EFFECTIVE_MAX:
        raise PydanticCustomError("time", "an effective time must lie in the years 1900 to 2199")
    return value


def _effective_until(value: int) -> int:
    # The first instant after the change, so the end of the last year is an end.
    if not EFFECTIVE_MIN <= value <= EFFECTIVE_MAX:
        raise PydanticCustomError("time", "an end must lie in the years 1900 to 2199, or be 2200-01-01T00:00:00Z")
    return value


def _reason(value: str) -> str:
    if not has_words(value):
        raise PydanticCustomError("reason", "a reason of spaces is no reason; write why, or leave the reason out")
    return value


def _subject(value: object) -> str:
    try:
        subject = parse_subject(value, KINDS)
        refuse_second_kind(subject)
    except BadSubject as error:
        raise PydanticCustomError("subject", "{detail}", {"detail": error.detail}) from None
    return subject


def _setting(value: str) -> str:
    if not is_setting_key(value):
        raise PydanticCustomError("setting", "a setting's key is 1-128 of A-Z a-z 0-9 . _ -")
    return value


def _definition(value: Definition) -> Definition:
    try:
        value.require_new_size()
    except WrongValue as error:
        raise PydanticCustomError("definition", "{detail}", {"detail": str(error)}) from None
    return value


Instant = Annotated[int, BeforeValidator(_instant, json_schema_input_type=str)]
EffectiveFrom = Annotated[Instant, AfterValidator(_effective_from)]
EffectiveUntil = Annotated[Instant, AfterValidator(_effective_until)]
SubjectRef = Annotated[str, BeforeValidator(_subject, json_schema_input_type=str)]
SettingKey = Annotated[StrictStr, AfterValidator(_setting)]
NewDefinition = Annotated[Definition, AfterValidator(_definition)]
Reason = Annotated[StrictStr, Field(min_length=1, max_length=REASON_LENGTH_MAX), AfterValidator(_reason)]
ExpectedVersion = Annotated[StrictInt, Field(ge=0, le=INTEGER_MAX)]


class _Submission(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChangeSetting(_Submission):
    """Set a value from `effective_from` (µs; None: the moment of recording) until `effective_until` (None: no end)."""

    type: Literal["setting.changed"]
    subject: SubjectRef
    setting: SettingKey
    value: Any
    effective_from: EffectiveFrom | None = None
    effective_until: EffectiveUntil | None = None
    cancels_scheduled: StrictBool | None = None
    """Whether every change of this setting of the subject that begins later is retracted with it."""
    reason: Reason | None = None
    expected_version: ExpectedVersion | None = None


class ClearSetting(_Submission):
    """Remove the subject's value for a period, so that the default applies."""

    type: Literal["setting.cleared"]
    subject: SubjectRef
    setting: SettingKey
    effective_from: EffectiveFrom | None = None
    effective_until: EffectiveUntil | None = None
    cancels_scheduled: StrictBool | None = None
    reason: Reason | None = None
    expected_version: ExpectedVersion | None = None


class RetractChange(_Submission):
    """Retract one earlier change, as if it had not been recorded."""

    type: Literal["change.retracted"]
    event_id: StrictStr
    reason: Reason | None = None
    expected_version: ExpectedVersion | None = None


class DefineSetting(_Submission):
    """Define a setting, or redefine it, from `effective_from` on."""

    type: Literal["setting.defined"]
    setting: SettingKey
    definition: NewDefinition
    effective_from: EffectiveFrom | None = None
    reason: Reason | None = None
    expected_version: ExpectedVersion | None = None


Submission = ChangeSetting | ClearSetting | RetractChange | DefineSetting
_ADAPTER: Final[TypeAdapter[Submission]] = TypeAdapter(Annotated[Submission, Field(discriminator="type")])
TYPES: Final = ("setting.changed", "setting.cleared", "change.retracted", "setting.defined")


def references(submissions: Iterable[Submission]) -> set[str]:
    """The values that have the form of a subject (`is_reference`)."""
    return {one.value for one in submissions if isinstance(one, ChangeSetting) and is_reference(one.value)}


def is_reference(value: object) -> bool:
    """Whether the value has the form of a subject. Whether it names one depends on the type of its setting."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


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
    """`pointer`: the place of the value in the caller's body. Raises `BadSubmission`."""
    if isinstance(value, dict) and value.get("type") == ERASURE_TOPIC:
        raise BadSubmission((Fault(f"{pointer}/type", f"{ERASURE_TOPIC} is reserved for a later version"),))
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        faults = faults_of(error, pointer)
        definition = value.get("definition") if isinstance(value, dict) else None
        if isinstance(definition, dict):
            # pydantic looks at the rules between members only once each member is right.
            between = {f"{pointer}/definition/{name}": detail for name, detail in faults_between(definition).items()}
            places = {fault.pointer for fault in faults}
            faults += [Fault(place, detail) for place, detail in between.items() if place not in places]
        raise BadSubmission(tuple(faults)) from None


_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def faults_of(error: ValidationError, pointer: str = "") -> list[Fault]:
    """pydantic's errors as JSON pointers and sentences that never repeat the input."""
    faults: list[Fault] = []
    short: set[str] = set()
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        path = [str(part) for part in detail["loc"] if part not in TYPES]
        if detail["type"] == "extra_forbidden" and _PLAIN_NAME.fullmatch(path[-1]) is None:
            # The name comes from the caller: show it if it looks like a misspelt member, and hide any other text.
            path.pop()
        place = pointer + "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
        faults.append(Fault(place, _sentence(detail["type"], detail["msg"])))
        if detail["type"] == "too_short":
            short.add(place)
    # An array whose items are wrong is called too short, because none of them counts.
    return [fault for fault in faults if fault.pointer not in short or not _has_inner(fault.pointer, faults)]


def _has_inner(pointer: str, faults: Iterable[Fault]) -> bool:
    return any(fault.pointer.startswith(f"{pointer}/") for fault in faults)


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
            # Our own message, after a prefix of pydantic's.
            return message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def canonical_json(value: object) -> bytes:
    """The same bytes for equal JSON values, whatever their white space and order of members."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
