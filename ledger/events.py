"""The event types: what the ledger keeps, one class for each thing that can be said.

Frozen pydantic models with explicit, stable topics. A topic is stored with every event and never renamed: a new
shape gets an upcaster in `codec`, never a silent edit here. Instants are microseconds since 1970 (see `times`).
They speak the eventsourcing library's protocol (`originator_id`, `originator_version`), under our own words.
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
    """What every event has.

    position: place in the whole ledger; version: place among the subject's events; recorded_at: when the ledger
    accepted it (µs), one for all events of a submission; actor: who said it; commitment: SHA-256 (hex) over salt and
    personal data kept beside the event, or None; imported: whether it came with its recorded_at from elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    TOPIC: ClassVar[str]

    event_id: str
    subject: str
    version: Annotated[Version, Field(ge=1)]
    position: Annotated[Position, Field(ge=1)]
    recorded_at: int
    actor: str
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
    """The setting has this value from `effective_from` until `effective_until` (exclusive; None: see the fold)."""

    TOPIC = "setting.changed"

    setting: str
    value: Value
    effective_from: int
    effective_until: int | None


class SettingCleared(Event):
    """The setting has no value of its own in the period: the catalog's default of the moment shows through."""

    TOPIC = "setting.cleared"

    setting: str
    effective_from: int
    effective_until: int | None


class ChangeRetracted(Event):
    """An earlier change of the same subject is taken back: the timeline is folded again without it."""

    TOPIC = "change.retracted"

    setting: str
    retracts: str
    """The event_id of the change that is taken back."""


class SettingDefined(Event):
    """What the setting is, from `effective_from` on. The subject is `catalog:settings`."""

    TOPIC = "setting.defined"

    setting: str
    definition: Definition
    effective_from: int


AnyEvent = SettingChanged | SettingCleared | ChangeRetracted | SettingDefined

EVENT_TYPES: Final[dict[str, type[AnyEvent]]] = {
    event_type.TOPIC: event_type for event_type in (SettingChanged, SettingCleared, ChangeRetracted, SettingDefined)
}
for _topic, _event_type in EVENT_TYPES.items():
    register_topic(_topic, _event_type)
