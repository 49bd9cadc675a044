"""The subjects of a generated ledger, and the events about them.

Subjects come in families of ten: two organizations, a project that moves between them, a key that moves between
project and organization, and six accounts. Every subject has one event a round, in an order that keeps neighbours far
apart. Organizations and accounts change their settings, schedule changes and retract them before they take effect,
limit changes in time, and clear settings. Everything follows from the number of the event, so that the generator needs
no memory. Proved by tests/bench/test_ledgers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from ledger.events import ChangeRetracted, SettingChanged, SettingCleared
from ledger.times import DAY, SECOND, parse_time

ROUNDS: Final = 10
"""Events of every subject, by default."""
FAMILY: Final = 10
ACTOR: Final = "bench"
MODELS: Final = 10

BEGIN: Final = parse_time("2024-01-01T00:00:00Z")
END: Final = parse_time("2026-01-01T00:00:00Z")
"""Every event is recorded between the two, in bursts at even distances."""
_BURST: Final = 100
_WITHIN_BURST: Final = 10_000
"""µs between the events of a burst; a burst takes less than a second."""

ORG_SETTINGS: Final = ("training.opt_in", "storage.inputs_outputs", "caching.temporary", "passthrough.allowed")
_SCHEDULED_AHEAD: Final = 100 * DAY
_LIMITED_TO: Final = 10 * DAY
_STRIDE: Final = 7919
"""A prime: unless it divides the number of subjects, its multiples visit all of them."""


def subjects_for(events: int, rounds: int = ROUNDS) -> int:
    """How many subjects a ledger of about `events` events has."""
    families = max(1, events // rounds // FAMILY)
    return FAMILY * (families if families % _STRIDE else families + 1)


def setting_change(subject: str, setting: str, value: bool | str) -> dict[str, Any]:
    """A submission as a JSON value."""
    return {"type": SettingChanged.TOPIC, "subject": subject, "setting": setting, "value": value}


class EventShape(NamedTuple):
    """The parts of an event that many events share. `value` None: no value, or an owner. `starts`, `ends`: whether the
    event has an effective time, and an end."""

    topic: str
    setting: str
    value: bool | None = None
    starts: bool = False
    ends: bool = False


class GeneratedEvent(NamedTuple):
    """Instants in µs."""

    shape: EventShape
    subject: str
    version: int
    effective_from: int | None = None
    effective_until: int | None = None
    owner: str = ""
    retracts: int = 0
    """The position of the retracted change."""


class Population(NamedTuple):
    """`subjects` is a multiple of ten. Each has `rounds` events. The first event stands at position `before` + 1."""

    subjects: int
    before: int
    rounds: int = ROUNDS

    @property
    def events(self) -> int:
        return self.subjects * self.rounds

    @property
    def families(self) -> int:
        return self.subjects // FAMILY

    def _between(self) -> int:
        """µs from burst to burst, in whole seconds if they are long enough."""
        between = (END - BEGIN) // (self.events // _BURST + 1)
        return between // SECOND * SECOND or between

    def recorded_at(self, index: int) -> int:
        """The recorded time of the event with this index, from 0."""
        burst, place = divmod(index, _BURST)
        return BEGIN + burst * self._between() + place * _WITHIN_BURST

    def generate(self) -> Iterator[GeneratedEvent]:
        for index in range(self.events):
            round_, place = divmod(index, self.subjects)
            number = place * _STRIDE % self.subjects
            yield self._event(number, round_, index)

    def _event(self, number: int, round_: int, index: int) -> GeneratedEvent:
        family, member = divmod(number, FAMILY)
        version = round_ + 1
        if member == 2:
            return GeneratedEvent(_OWNER, f"project:p{family}", version, owner=f"org:o{2 * family + round_ // 2 % 2}")
        if member == 3:
            owner = f"org:o{2 * family}" if round_ % 3 == 2 else f"project:p{family}"
            return GeneratedEvent(_OWNER, f"key:k{family}", version, owner=owner)
        if member < 2:
            subject, settings = f"org:o{2 * family + member}", 4
        else:
            subject, settings = f"account:u{6 * family + member - 4}", 3
        setting = ORG_SETTINGS[(number + round_) % settings]
        value = (number >> 3) + round_ & 1 == 0
        if number % 5 == 0 and round_ in (3, 4):
            setting = ORG_SETTINGS[number % settings]
            if round_ == 4:
                position = self.before + 1 + index - self.subjects
                return GeneratedEvent(EventShape(ChangeRetracted.TOPIC, setting), subject, version, retracts=position)
            start = self.recorded_at(index) + _SCHEDULED_AHEAD
            return GeneratedEvent(EventShape(SettingChanged.TOPIC, setting, value, True), subject, version, start)
        if round_ == 6 and number % 7 == 0:
            until = self.recorded_at(index) + _LIMITED_TO
            shape = EventShape(SettingChanged.TOPIC, setting, value, ends=True)
            return GeneratedEvent(shape, subject, version, effective_until=until)
        if round_ == 8 and number % 11 == 0:
            return GeneratedEvent(EventShape(SettingCleared.TOPIC, setting), subject, version)
        return GeneratedEvent(EventShape(SettingChanged.TOPIC, setting, value), subject, version)


_OWNER: Final = EventShape(SettingChanged.TOPIC, "owner")
