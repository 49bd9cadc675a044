"""Definitions of settings, and the catalog of those that a ledger has (`built_in_catalog` holds the first of them).

A definition gives a setting's kinds of subject, its type, its default, its protective value (assumed when the setting
cannot be resolved; null: nothing is permitted), who may write it, and the published rule behind it. Definitions are
events on the subject `catalog:settings`, so last year's default can be looked up. A setting never changes its type, so
a value recorded under one definition can be read under every later one. Proved by tests/test_catalog.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_args

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from ledger.errors import BadSubject
from ledger.subjects import KINDS, has_words, is_text, parse_subject, refuse_second_kind

Value = bool | int | str | tuple[str, ...]
"""A setting's value. A set is a sorted tuple of distinct texts."""

TEXT_LENGTH_MAX: Final = 4096
SET_SIZE_MAX: Final = 256
VALUE_BYTES_MAX: Final = 61_440
"""Bytes of the stored JSON of a new value, or of a new definition: every answer that holds it repeats it, and its event
must fit in a bundle of the transparency log, whatever the names around it are."""
RECORDED_SET_SIZE_MAX: Final = 1000
"""Earlier versions recorded sets of up to this size. They stay readable and restorable."""
SHOWN_MEMBERS_MAX: Final = 20
SHOWN_LENGTH_MAX: Final = 300
INTEGER_MAX: Final = 2**53 - 1
"""Larger integers lose digits in JSON readers that use doubles (RFC 8259 section 6)."""

ValueType = Literal["bool", "one_of", "set_of", "text", "integer", "subject_ref"]
Kind = Literal["account", "org", "project", "key", "model", "region", "provider", "principal", "token", "ledger"]
Text = Annotated[StrictStr, Field(min_length=1, max_length=TEXT_LENGTH_MAX)]
_MEMBERS: Final = Field(min_length=1, max_length=RECORDED_SET_SIZE_MAX, strict=False)


class WrongValue(ValueError):
    """The value does not fit the definition. The message states the rule, never the value that was sent."""


class Definition(BaseModel):
    """The definition of a setting. `members` belongs to one_of (required) and set_of, `ref_kinds` to subject_ref."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1, strict=False)]
    value_type: ValueType
    members: Annotated[tuple[Text, ...], _MEMBERS] | None = None
    ref_kinds: Annotated[tuple[Kind, ...], Field(min_length=1, strict=False)] | None = None
    default: Any
    protective: Any
    writable_by: Literal["owner", "admin", "operator"]
    """The roles that may write it over HTTP are in `ledger.roles.WRITERS`."""
    title: Text
    description: Text
    source: Text

    @model_validator(mode="after")
    def _fits_its_own_type(self) -> Self:
        faults = faults_between(vars(self))
        if faults:
            details = [
                InitErrorDetails(
                    type=PydanticCustomError("definition", "{detail}", {"detail": detail}), loc=(name,), input=None
                )
                for name, detail in faults.items()
            ]
            raise ValidationError.from_exception_data("Definition", details)
        for name in ("default", "protective"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self.accept(value))
        return self

    def accept_new(self, value: object) -> Value:
        """As `accept`, for a value that is to be recorded: also within the bounds of size. Raises `WrongValue`."""
        accepted = self.accept(value)
        if self.value_type == "subject_ref":
            try:
                refuse_second_kind(str(accepted))
            except BadSubject as error:
                raise WrongValue(error.detail) from None
        # Only a set can exceed them: a text has at most TEXT_LENGTH_MAX characters.
        if isinstance(accepted, tuple):
            _require_size("the value", accepted)
            if not all(map(has_words, accepted)):
                raise WrongValue("a text of spaces names nothing; leave it out of the set")
        return accepted

    def require_new_size(self) -> None:
        """Raises `WrongValue` if this definition is larger than one that is to be recorded may be."""
        for name in ("members", "default", "protective"):
            value = getattr(self, name)
            if isinstance(value, tuple):
                _require_size(name, value)
        _require_bytes("a definition", self.as_json())

    def accept(self, value: object) -> Value:
        """`value` in its stored form, also if it is larger than a new one may be. Raises `WrongValue`. Nothing is
        converted: `1` is not a bool."""
        return _accepted(self.value_type, self.members, self.ref_kinds, value)

    def as_json(self) -> dict[str, Any]:
        """The definition as JSON for events and answers: members in the order of the fields, absent ones left out."""
        absent = {name for name in ("members", "ref_kinds") if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=absent)


def _accepted(
    value_type: ValueType, members: tuple[str, ...] | None, ref_kinds: tuple[str, ...] | None, value: object
) -> Value:
    match value_type:
        case "bool":
            if isinstance(value, bool):
                return value
            raise WrongValue("the value must be true or false")
        case "integer":
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INTEGER_MAX:
                return value
            raise WrongValue(f"the value must be a whole number between -{INTEGER_MAX} and {INTEGER_MAX}")
        case "text":
            if isinstance(value, str) and len(value) <= TEXT_LENGTH_MAX and is_text(value):
                return value
            raise WrongValue(f"the value must be a text of at most {TEXT_LENGTH_MAX} characters")
        case "one_of":
            if isinstance(value, str) and value in (members or ()):
                return value
            raise WrongValue(f"the value must be one of {_listed(members or ())}")
        case "subject_ref":
            try:
                return parse_subject(value, ref_kinds or KINDS)
            except BadSubject as error:
                raise WrongValue(error.detail) from None
        case "set_of":
            return _accepted_set(members, value)


def _accepted_set(members: tuple[str, ...] | None, value: object) -> tuple[str, ...]:
    rule = f"the value must be an array of at most {SET_SIZE_MAX} different texts"
    if not isinstance(value, list | tuple) or len(value) > RECORDED_SET_SIZE_MAX:
        raise WrongValue(rule)
    for member in value:
        if not isinstance(member, str) or not 1 <= len(member) <= TEXT_LENGTH_MAX or not is_text(member):
            raise WrongValue(f"{rule}, each of 1 to {TEXT_LENGTH_MAX} characters")
        if members is not None and member not in members:
            raise WrongValue(f"{rule} among {_listed(members)}")
    if len(set(value)) != len(value):
        raise WrongValue(rule)
    return tuple(sorted(value))


def faults_between(definition: Mapping[str, Any]) -> dict[str, str]:
    """The rules that hold between the members of a definition: member → what is wrong with it.

    A member that is missing or has another JSON type has a fault of its own, and no rule rests on it here.
    """
    faults: dict[str, str] = {}
    listed = {name: _texts(definition.get(name)) for name in ("kinds", "members", "ref_kinds")}
    for name, texts in listed.items():
        if texts is not None and len(set(texts)) != len(texts):
            faults[name] = f"{name} lists something twice"
    value_type: ValueType = definition.get("value_type", "text")
    if value_type not in get_args(ValueType) or "value_type" not in definition:
        return faults
    has_members, has_ref_kinds = (definition.get(name) is not None for name in ("members", "ref_kinds"))
    if has_members and value_type not in ("one_of", "set_of"):
        faults["members"] = "members belong to the value types one_of and set_of"
    if value_type == "one_of" and not has_members:
        faults["members"] = "a one_of needs its members"
    if has_ref_kinds != (value_type == "subject_ref"):
        faults["ref_kinds"] = "ref_kinds belong to a subject_ref, which needs them"
    if any(definition.get(name) is not None and listed[name] is None for name in ("members", "ref_kinds")):
        return faults
    if value_type == "one_of" and not has_members:
        return faults
    for name in ("default", "protective"):
        value = definition.get(name)
        if value is not None:
            try:
                _accepted(value_type, listed["members"], listed["ref_kinds"], value)
            except WrongValue as error:
                faults[name] = str(error)
    return faults


def _texts(value: object) -> tuple[str, ...] | None:
    """An array of texts as a tuple; None for anything else."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        return None
    return tuple(value)


def _require_size(name: str, members: tuple[str, ...]) -> None:
    if len(members) > SET_SIZE_MAX:
        raise WrongValue(f"{name} may list at most {SET_SIZE_MAX} different texts, and lists {len(members)}")
    _require_bytes(name, members)


def _require_bytes(name: str, value: object) -> None:
    size = len(msgspec.json.encode(value))
    if size > VALUE_BYTES_MAX:
        raise WrongValue(f"{name} may have at most {VALUE_BYTES_MAX} bytes as JSON, and has {size}")


def _listed(members: tuple[str, ...]) -> str:
    """The first members, few enough for a sentence: a definition may have a megabyte of them."""
    text = ", ".join(members[:SHOWN_MEMBERS_MAX])
    if len(members) <= SHOWN_MEMBERS_MAX and len(text) <= SHOWN_LENGTH_MAX:
        return text
    return f"{text[:SHOWN_LENGTH_MAX]} … ({len(members)} in all; the catalog lists them)"


class DefinitionPeriod(NamedTuple):
    """A definition and the period in which it holds, within the known catalog."""

    definition: Definition
    effective_from: int
    effective_until: int | None


class Catalog:
    """The known definitions over valid time. Immutable.

    Definitions have no end of their own. At instant t the definition with the latest `effective_from <= t` holds; of
    several with the same one, the last recorded (see "Time model" in projections/README.md).
    """

    def __init__(self, definitions: Iterable[tuple[str, int, Definition]] = (), version: int = 0) -> None:
        """`definitions`: (setting, effective_from, definition) in position order, up to `version` of the catalog's
        stream."""
        self.version = version
        self._steps = _with_steps({}, definitions)

    def extended(self, definitions: Iterable[tuple[str, int, Definition]], version: int) -> Catalog:
        """This catalog with more definitions, recorded after all that it has."""
        extended = Catalog((), version)
        extended._steps = _with_steps(self._steps, definitions)
        return extended

    def __contains__(self, setting: str) -> bool:
        return setting in self._steps

    def names(self, kind: str | None = None) -> Iterator[str]:
        """Every setting that was ever defined, those of subjects of this kind first."""

        def is_of_others(setting: str) -> bool:
            return kind not in self._steps[setting][1][-1].kinds

        return iter(sorted(self._steps, key=is_of_others) if kind is not None else self._steps)

    def definition_at(self, setting: str, at: int) -> DefinitionPeriod | None:
        """The definition of `setting` that holds at instant `at`, or None if it is not defined then."""
        starts, definitions = self._steps.get(setting, ([], []))
        step = bisect_right(starts, at) - 1
        if step < 0:
            return None
        until = starts[step + 1] if step + 1 < len(starts) else None
        return DefinitionPeriod(definitions[step], starts[step], until)

    def value_type(self, setting: str) -> ValueType | None:
        """The setting's type, or None if the setting was never defined."""
        steps = self._steps.get(setting)
        return steps[1][0].value_type if steps else None


_Steps = Mapping[str, tuple[list[int], list[Definition]]]
"""Setting → the starts of its definitions, ascending, and the definitions."""


def _with_steps(steps: _Steps, definitions: Iterable[tuple[str, int, Definition]]) -> _Steps:
    more = dict(steps)
    for setting, effective_from, definition in definitions:
        by_start = dict(zip(*more.get(setting, ([], [])), strict=True))
        by_start[effective_from] = definition
        starts = sorted(by_start)
        more[setting] = (starts, [by_start[start] for start in starts])
    return more
