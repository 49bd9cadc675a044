"""Definitions of settings, and the built-in catalog that every ledger begins with.

A definition gives a setting's kinds of subject, its type, its default, its protective value (assumed when the setting
cannot be resolved; null: nothing is permitted), who may write it, and the published rule behind it. Definitions are
events on the subject `catalog:settings`, so last year's default can be looked up. A setting never changes its type, so
a value recorded under one definition can be read under every later one. Proved by tests/test_catalog.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StrictStr, model_validator

from ledger.errors import BadSubject
from ledger.subjects import KINDS, is_text, parse_subject

Value = bool | int | str | tuple[str, ...]
"""A setting's value. A set is a sorted tuple of distinct texts."""

TEXT_LENGTH_MAX: Final = 4096
SET_SIZE_MAX: Final = 256
VALUE_BYTES_MAX: Final = 65_536
"""Bytes of the stored JSON of a new value, or of a new definition: every answer that holds it repeats it."""
RECORDED_SET_SIZE_MAX: Final = 1000
"""Earlier versions recorded sets of up to this size. They stay readable and restorable."""
SHOWN_MEMBERS_MAX: Final = 20
SHOWN_LENGTH_MAX: Final = 300
INTEGER_MAX: Final = 2**53 - 1
"""Larger integers lose digits in JSON readers that use doubles (RFC 8259 section 6)."""

ValueType = Literal["bool", "one_of", "set_of", "text", "integer", "subject_ref"]
Kind = Literal["account", "org", "project", "key", "model", "region", "provider", "ledger"]
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
    title: Text
    description: Text
    source: Text

    @model_validator(mode="after")
    def _fits_its_own_type(self) -> Self:
        for name, listed in (("kinds", self.kinds), ("members", self.members), ("ref_kinds", self.ref_kinds)):
            if listed is not None and len(set(listed)) != len(listed):
                raise ValueError(f"{name} lists something twice")
        if (self.members is not None) and self.value_type not in ("one_of", "set_of"):
            raise ValueError("members belong to the value types one_of and set_of")
        if self.value_type == "one_of" and self.members is None:
            raise ValueError("a one_of needs its members")
        if (self.ref_kinds is not None) != (self.value_type == "subject_ref"):
            raise ValueError("ref_kinds belong to a subject_ref, which needs them")
        for name in ("default", "protective"):
            value = getattr(self, name)
            if value is not None:
                try:
                    object.__setattr__(self, name, self.accept(value))
                except WrongValue as error:
                    raise ValueError(f"{name}: {error}") from None
        return self

    def accept_new(self, value: object) -> Value:
        """As `accept`, for a value that is to be recorded: also within the bounds of size. Raises `WrongValue`."""
        accepted = self.accept(value)
        # Only a set can exceed them: a text has at most TEXT_LENGTH_MAX characters.
        if isinstance(accepted, tuple):
            _require_size("the value", accepted)
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
        match self.value_type:
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
                if isinstance(value, str) and value in (self.members or ()):
                    return value
                raise WrongValue(f"the value must be one of {_listed(self.members or ())}")
            case "subject_ref":
                try:
                    return parse_subject(value, self.ref_kinds or KINDS)
                except BadSubject as error:
                    raise WrongValue(error.detail) from None
            case "set_of":
                return self._accept_set(value)

    def _accept_set(self, value: object) -> tuple[str, ...]:
        rule = f"the value must be an array of at most {SET_SIZE_MAX} different texts"
        if not isinstance(value, list | tuple) or len(value) > RECORDED_SET_SIZE_MAX:
            raise WrongValue(rule)
        for member in value:
            if not isinstance(member, str) or not 1 <= len(member) <= TEXT_LENGTH_MAX or not is_text(member):
                raise WrongValue(f"{rule}, each of 1 to {TEXT_LENGTH_MAX} characters")
            if self.members is not None and member not in self.members:
                raise WrongValue(f"{rule} among {_listed(self.members)}")
        if len(set(value)) != len(value):
            raise WrongValue(rule)
        return tuple(sorted(value))

    def as_json(self) -> dict[str, Any]:
        """The definition as JSON for events and answers: members in the order of the fields, absent ones left out."""
        absent = {name for name in ("members", "ref_kinds") if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=absent)


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


_DATA_PRIVACY: Final = "Published data privacy rules"
_ENTERPRISE: Final = "Published enterprise data rules"

_switch: Final = partial(Definition, value_type="bool", protective=False, writable_by="admin", source=_DATA_PRIVACY)
_reference: Final = partial(Definition, value_type="subject_ref", default=None, protective=None, source=_DATA_PRIVACY)
_of_model: Final = partial(
    Definition,
    kinds=("model",),
    default=None,
    protective=None,
    writable_by="operator",
    source="Published model listing rules",
)
_of_region: Final = partial(
    Definition, kinds=("region",), protective=None, writable_by="operator", source="Published hosting rules"
)
_of_provider: Final = partial(
    Definition, kinds=("provider",), default=None, protective=None, writable_by="operator", source=_DATA_PRIVACY
)

_SERVED_AS_PUBLISHED: Final = (
    "What is served is what the author published: full precision, not distilled, no forced system prompt, "
    "no layered censorship, and which published version."
)
_PASSTHROUGH_POLICY: Final = "A passthrough request is governed by the provider's own data policy."
_HOSTED_IN: Final = "Models are hosted in data centers of a named part of the world."
_PROVIDERS_OWN_POLICY: Final = "Data sent by passthrough is handled under that provider's own data policy."

BUILT_IN: Final[Mapping[str, Definition]] = {
    "training.opt_in": _switch(
        kinds=("account", "org"),
        default=False,
        title="Training opt-in",
        description="Data sharing for training other models is opt-in.",
    ),
    "storage.inputs_outputs": _switch(
        kinds=("account", "org"),
        default=False,
        title="Storage of inputs and outputs",
        description="Inputs and outputs are not stored by default.",
    ),
    "caching.temporary": _switch(
        kinds=("account", "org"),
        default=True,
        title="Temporary caching",
        description="Temporary caching may be used unless configured otherwise.",
    ),
    "passthrough.allowed": _switch(
        kinds=("org",),
        default=False,
        title="Allow my organization to use passthrough models",
        description=(
            "Allow my organization to use passthrough models. Independent of training; while off, nothing leaves "
            "the platform and non-passthrough models work as normal."
        ),
    ),
    "residency.regions": Definition(
        kinds=("org",),
        value_type="set_of",
        default=(),
        protective=None,
        writable_by="operator",
        title="Data residency",
        description="Enterprise data residency: the regions in which data may be handled; empty means anywhere.",
        source=_ENTERPRISE,
    ),
    "network.private_only": _switch(
        kinds=("org",),
        default=False,
        protective=True,
        title="Private networking only",
        description="Private networking / VPC deployment: requests travel on a private network only.",
        source=_ENTERPRISE,
        writable_by="operator",
    ),
    "model.hosting": _of_model(
        value_type="one_of",
        members=("hosted", "passthrough"),
        protective="passthrough",
        title="Hosting",
        description=(
            "Passthrough forwards prompts and responses to the upstream provider; hosted third-party models run on "
            "the platform's own infrastructure and nothing reaches their author."
        ),
    ),
    "model.author": _of_model(
        value_type="text", title="Author", description=f"Who made the model. {_PASSTHROUGH_POLICY}"
    ),
    "model.provider": _of_model(
        value_type="text", title="Provider", description=f"Who receives passthrough traffic. {_PASSTHROUGH_POLICY}"
    ),
    "model.policy_url": _of_model(
        value_type="text",
        title="Data policy",
        description=f"Where the data policy that governs it is published. {_PASSTHROUGH_POLICY}",
    ),
    "model.regions": _of_model(
        value_type="set_of",
        default=(),
        title="Regions",
        description=f"Where the model runs; empty: not stated. {_PASSTHROUGH_POLICY}",
    ),
    "model.precision": _of_model(value_type="text", title="Precision", description=_SERVED_AS_PUBLISHED),
    "model.distilled": _of_model(value_type="bool", title="Distilled", description=_SERVED_AS_PUBLISHED),
    "model.system_prompt_forced": _of_model(
        value_type="bool", title="Forced system prompt", description=_SERVED_AS_PUBLISHED
    ),
    "model.censorship_layer": _of_model(
        value_type="bool", title="Layered censorship", description=_SERVED_AS_PUBLISHED
    ),
    "model.revision": _of_model(value_type="text", title="Published revision", description=_SERVED_AS_PUBLISHED),
    "subjects.must_be_known": Definition(
        kinds=("account", "org", "project", "key"),
        value_type="set_of",
        members=("account", "org", "project", "key"),
        default=(),
        protective=None,
        writable_by="operator",
        title="Subjects that must be known",
        description=(
            "Unknown is never permission: the default names the kinds of subject for which nothing is decided while "
            "the ledger has no event of the subject; empty means that defaults decide."
        ),
        source="Published enterprise data rules",
    ),
    "owner": _reference(
        kinds=("key", "project"),
        ref_kinds=("project", "org", "account"),
        writable_by="operator",
        title="Owner",
        description="A key belongs to a project, org or account; a project to an org or account.",
    ),
    "attached_to": _reference(
        kinds=("account",),
        ref_kinds=("org",),
        writable_by="admin",
        title="Attached to",
        description="Personal traffic is governed by the account only while it is not attached to an organization.",
    ),
    "region.within": _of_region(
        value_type="subject_ref",
        ref_kinds=("region",),
        default=None,
        title="Within",
        description=f"The region that contains this one. {_HOSTED_IN}",
    ),
    "region.names": _of_region(
        value_type="set_of",
        default=(),
        title="Names",
        description=f"Further names of the region in settings and logs. {_HOSTED_IN}",
    ),
    "provider.names": _of_provider(
        value_type="set_of",
        default=(),
        title="Names",
        description=f"Names of the provider in settings and logs, in any case. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.policy_url": _of_provider(
        value_type="text",
        title="Data policy",
        description=f"Where the provider's data policy is published. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.policy_sha256": _of_provider(
        value_type="text",
        title="Hash of the data policy",
        description=f"SHA-256, in hex, of the text of the data policy as it was read. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.trains": _of_provider(
        value_type="bool",
        title="Trains",
        description=f"Whether the provider trains on the data that it receives. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.stores": _of_provider(
        value_type="bool",
        title="Stores",
        description=f"Whether the provider stores the data that it receives. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.retention_days": _of_provider(
        value_type="integer",
        title="Retention",
        description=f"Days for which the provider keeps the data that it receives. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.regions": _of_provider(
        value_type="set_of",
        default=(),
        title="Regions",
        description=f"Where the provider handles the data that it receives; empty: not stated. {_PROVIDERS_OWN_POLICY}",
    ),
}
"""Setting → definition. A new ledger records them as its first events, effective from the beginning of time."""
