"""The event types, one class each.

Frozen pydantic models with explicit, stable topics. A topic is stored with every event and never renamed. A new form
of a type gets an upcaster in `upcasting`, never a silent edit here. Instants are microseconds since 1970 (see `times`).
The classes have the attributes of the eventsourcing library's protocol (`originator_id`, `originator_version`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from eventsourcing.utils import register_topic
from pydantic import BaseModel, ConfigDict, Field

from ledger.catalog import Definition, Value
from ledger.subjects import Position, Version

ERASURE_TOPIC: Final = "personal_data.erased"
"""Reserved: erasure of sealed personal data will be an event of this topic."""


class Event(BaseModel):
    """The fields of every event.

    position: place in the whole ledger; version: place among the subject's events; recorded_at: when the ledger
    accepted it (µs), the same for all events of a submission; actor: who submitted it; commitment: SHA-256 (hex) over
    salt and personal data stored beside the event, or None; imported: an import brought it, with its recorded_at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    TOPIC: ClassVar[str]

    event_id: str
    subject: str
    version: Annotated[Version, Field(ge=1)]
    position: Annotated[Position, Field(ge=1)]
    recorded_at: int
    actor: str
    setting: str
    commitment: str | None = None
    imported: bool = False

    @property
    def originator_id(self) -> str:
        """The subject, as the eventsourcing library calls it."""
        return self.subject

    @property
    def originator_version(self) -> int:
        """The version, as the eventsourcing library calls it."""
        return self.version


class SettingChanged(Event):
    """The setting has this value from `effective_from` until `effective_until` (exclusive; None: no end of its own)."""

    TOPIC = "setting.changed"

    value: Value
    effective_from: int
    effective_until: int | None


class SettingCleared(Event):
    """The subject has no value for the setting in the period: the catalog's default of each moment applies."""

    TOPIC = "setting.cleared"

    effective_from: int
    effective_until: int | None


class ChangeRetracted(Event):
    """Retracts an earlier change of the same subject: the timeline is folded again without it."""

    TOPIC = "change.retracted"

    retracts: str
    """The event_id of the retracted change."""


class SettingDefined(Event):
    """Defines the setting from `effective_from` on. The subject is `catalog:settings`."""

    TOPIC = "setting.defined"

    definition: Definition
    effective_from: int


AnyEvent = SettingChanged | SettingCleared | ChangeRetracted | SettingDefined

EVENT_TYPES: Final[dict[str, type[AnyEvent]]] = {
    event_type.TOPIC: event_type for event_type in (SettingChanged, SettingCleared, ChangeRetracted, SettingDefined)
}
for _topic, _event_type in EVENT_TYPES.items():
    register_topic(_topic, _event_type)
