"""Models of the request bodies."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.schemas.base import WireModel, reason_field, time_field
from ledger.catalog import INTEGER_MAX, SET_SIZE_MAX, TEXT_LENGTH_MAX, VALUE_BYTES_MAX
from ledger.subjects import ID_PATTERN, KINDS, SETTING_PATTERN

_Kind = Literal["account", "org", "project", "key", "model", "region", "provider", "principal", "token"]
_SUBJECT = rf"^({'|'.join(KINDS)}):{ID_PATTERN}$"
_SETTING = f"^{SETTING_PATTERN}$"
_ID = f"^{ID_PATTERN}$"
_IDS = ("key_id", "account_id", "org_id", "project_id")


class SettingChange(WireModel):
    """Sets a value from `effective_from` until `effective_until`. Without an end it holds until the next change without
    an end; changes with an end are exceptions to it."""

    type: Literal["setting.changed"]
    subject: str = Field(pattern=_SUBJECT, description="kind:id, such as org:acme")
    setting: str = Field(pattern=_SETTING)
    value: Any = Field(
        description="Has the setting's own type; nothing is converted. A text has at most "
        f"{TEXT_LENGTH_MAX:,} characters, a set at most {SET_SIZE_MAX} members and {VALUE_BYTES_MAX:,} bytes as JSON."
    )
    effective_from: str | None = time_field(
        "When the change begins; null or absent: at the moment of recording. A change in the past needs a reason.",
        default=None,
    )
    effective_until: str | None = time_field("The first instant after the change.", default=None)
    cancels_scheduled: bool | None = Field(
        None,
        description="True: retracts, with this change, every change of the subject's setting that begins later.",
    )
    reason: str | None = reason_field()
    expected_version: int | None = Field(
        None, ge=0, le=INTEGER_MAX, description="The subject's version before this request."
    )


class SettingClear(WireModel):
    """Removes the subject's own value for a period, so that the catalog's default holds."""

    type: Literal["setting.cleared"]
    subject: str = Field(pattern=_SUBJECT)
    setting: str = Field(pattern=_SETTING)
    effective_from: str | None = time_field("Null or absent: at the moment of recording.", default=None)
    effective_until: str | None = time_field("The first instant after the change.", default=None)
    cancels_scheduled: bool | None = Field(None, description="True: as with setting.changed.")
    reason: str | None = reason_field()
    expected_version: int | None = Field(None, ge=0, le=INTEGER_MAX)


class ChangeRetraction(WireModel):
    """Removes one earlier change, as if it had never been made."""

    type: Literal["change.retracted"]
    event_id: str
    reason: str | None = reason_field("Required if the past changes.")
    expected_version: int | None = Field(None, ge=0, le=INTEGER_MAX)


class SettingDefinition(WireModel):
    """The definition of a setting. one_of and set_of need `members`; subject_ref needs `ref_kinds`. It has at most
    61,440 bytes as JSON."""

    kinds: list[_Kind] = Field(min_length=1)
    value_type: Literal["bool", "one_of", "set_of", "text", "integer", "subject_ref"]
    members: list[str] | None = Field(None, min_length=1, max_length=SET_SIZE_MAX)
    ref_kinds: list[_Kind] | None = None
    default: Any
    protective: Any = Field(
        description="The value to assume if the actual value cannot be resolved; null: nothing is allowed."
    )
    writable_by: Literal["owner", "admin", "operator"]
    title: str = Field(min_length=1, max_length=TEXT_LENGTH_MAX)
    description: str = Field(min_length=1, max_length=TEXT_LENGTH_MAX)
    source: str = Field(min_length=1, max_length=TEXT_LENGTH_MAX, description="The published rule behind the setting.")


class SettingDefined(WireModel):
    """Defines or redefines a setting from `effective_from` on. The value_type of a setting never changes."""

    type: Literal["setting.defined"]
    setting: str = Field(pattern=_SETTING)
    definition: SettingDefinition
    effective_from: str | None = time_field("Null or absent: at the moment of recording.", default=None)
    reason: str | None = reason_field()
    expected_version: int | None = Field(None, ge=0, le=INTEGER_MAX)


class SubmissionBatch(WireModel):
    """Recorded atomically: all or nothing. Every expected_version is the version before the batch."""

    events: list[SettingChange | SettingClear | ChangeRetraction | SettingDefined] = Field(
        min_length=1, max_length=1000
    )


class ObservedHandling(WireModel):
    """How the data was handled. A member that is absent or null was not observed and is not checked."""

    stored: bool | None = None
    cached: bool | None = None
    trained: bool | None = None
    forwarded_to: str | None = Field(None, min_length=1, max_length=256)
    region: str | None = Field(None, min_length=1, max_length=256)
    network: Literal["public", "private"] | None = None
    precision: str | None = Field(
        None, min_length=1, max_length=256, description="As the model was served, against its setting model.precision."
    )
    distilled: bool | None = Field(None, description="Against model.distilled.")
    system_prompt_forced: bool | None = Field(None, description="Against model.system_prompt_forced.")
    censored: bool | None = Field(None, description="Against model.censorship_layer.")
    revision: str | None = Field(None, min_length=1, max_length=256, description="Against model.revision.")


def _bare_id(kind: str) -> Any:
    """An id without its kind before it."""
    return Field(None, pattern=_ID, json_schema_extra={"not": {"pattern": f"^{kind}:"}})


class RequestRecord(WireModel):
    """One line of a request log. One of the first four ids is required. Ids are bare: acme, not org:acme."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in _IDS]}
    )

    key_id: str | None = _bare_id("key")
    account_id: str | None = _bare_id("account")
    org_id: str | None = _bare_id("org")
    project_id: str | None = _bare_id("project")
    model_id: str | None = _bare_id("model")
    at: str | None = time_field("When the request was made; null or absent: now.", default=None)
    request_id: str | None = Field(None, min_length=1, max_length=256)
    enforced_position: int | None = Field(None, ge=0, description="The ledger position that the gateway enforced.")
    handling: ObservedHandling | None = None


class RequestRecords(WireModel):
    requests: list[RequestRecord] = Field(min_length=1, max_length=10_000)
