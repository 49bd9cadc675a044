"""The bodies of requests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.base import WireModel, time_field


class SettingChange(WireModel):
    """Set a value from `effective_from` until `effective_until`. Without an end it holds until the next change."""

    type: Literal["setting.changed"]
    subject: str = Field(description="kind:id, such as org:acme")
    setting: str
    value: Any = Field(description="Of the setting's own type; nothing is converted.")
    effective_from: str | None = time_field(
        "When the change holds from; null or absent: from the moment of recording. The past needs a reason.",
        default=None,
    )
    effective_until: str | None = time_field("The first instant at which it no longer holds.", default=None)
    reason: str | None = Field(None, min_length=1, max_length=2000)
    expected_version: int | None = Field(None, ge=0, description="The subject's version before this call.")


class SettingClear(WireModel):
    """Take the subject's own value away for a period, so that the catalog's default shows through."""

    type: Literal["setting.cleared"]
    subject: str
    setting: str
    effective_from: str | None = time_field("Null or absent: from the moment of recording.", default=None)
    effective_until: str | None = time_field("The first instant at which it no longer holds.", default=None)
    reason: str | None = Field(None, min_length=1, max_length=2000)
    expected_version: int | None = Field(None, ge=0)


class ChangeRetraction(WireModel):
    """Take one earlier change back, as though it had not been said."""

    type: Literal["change.retracted"]
    event_id: str
    reason: str | None = Field(None, min_length=1, max_length=2000, description="Needed where the past changes.")
    expected_version: int | None = Field(None, ge=0)


class SettingDefinition(WireModel):
    """What a setting is. `members` belongs to one_of and set_of, `ref_kinds` to subject_ref."""

    kinds: list[Literal["account", "org", "project", "key", "model"]] = Field(min_length=1)
    value_type: Literal["bool", "one_of", "set_of", "text", "integer", "subject_ref"]
    members: list[str] | None = None
    ref_kinds: list[Literal["account", "org", "project", "key", "model"]] | None = None
    default: Any
    protective: Any = Field(
        description="What is handled as true when nothing can be resolved; null: nothing is allowed."
    )
    writable_by: Literal["owner", "admin", "operator"]
    title: str
    description: str
    source: str = Field(description="The published rule that the setting stands for.")


class SettingDefined(WireModel):
    """Define a setting, or define it anew, from `effective_from` on. A setting keeps its value_type for ever."""

    type: Literal["setting.defined"]
    setting: str
    definition: SettingDefinition
    effective_from: str | None = time_field("Null or absent: from the moment of recording.", default=None)
    reason: str | None = Field(None, min_length=1, max_length=2000)
    expected_version: int | None = Field(None, ge=0)


class SubmissionBatch(WireModel):
    """Recorded as one, or not at all. Every expected_version is the version before the batch."""

    events: list[SettingChange | SettingClear | ChangeRetraction | SettingDefined] = Field(
        min_length=1, max_length=1000
    )


class ObservedHandling(WireModel):
    """What was done with the data. What is absent or null was not observed, and is not judged."""

    stored: bool | None = None
    cached: bool | None = None
    trained: bool | None = None
    forwarded_to: str | None = Field(None, min_length=1, max_length=256)
    region: str | None = Field(None, min_length=1, max_length=256)
    network: Literal["public", "private"] | None = None


class RequestRecord(WireModel):
    """One line of a request log. One of the first four ids is required; ids are bare: acme, not org:acme."""

    key_id: str | None = None
    account_id: str | None = None
    org_id: str | None = None
    project_id: str | None = None
    model_id: str | None = None
    at: str | None = time_field("When the request was made; null or absent: now.", default=None)
    request_id: str | None = Field(None, min_length=1, max_length=256)
    enforced_position: int | None = Field(None, ge=0, description="The ledger position that the gateway enforced.")
    handling: ObservedHandling | None = None


class RequestRecords(WireModel):
    requests: list[RequestRecord] = Field(min_length=1, max_length=10_000)
