"""The made ledger's people: who is there, and what is said of them, event by event.

Subjects come in families of ten: two organizations, a project that moves between them, a key that moves between
project and organization, and six accounts. Something is said of every subject once a round, in an order that takes
neighbours far apart; organizations and accounts change their settings, schedule changes and take them back before they
come, limit them and clear them. Everything follows from the number of the event, so nothing has to be remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ledger.events import ChangeRetracted, SettingChanged, SettingCleared
from ledger.times import DAY, SECOND, parse_time

ROUNDS: Final = 10
"""Events of every subject, unless told otherwise."""
FAMILY: Final = 10
MODELS: Final = 10

BEGIN: Final = parse_time("2024-01-01T00:00:00Z")
END: Final = parse_time("2026-01-01T00:00:00Z")
"""All of it is recorded between the two, in bursts at even distances."""
_BURST: Final = 100
_WITHIN_BURST: Final = 10_000
"""µs between the events of a burst, all of which fall within a second."""

_ORG_SETTINGS: Final = ("training.opt_in", "storage.inputs_outputs", "caching.temporary", "passthrough.allowed")
_AHEAD: Final = 100 * DAY
_FOR: Final = 10 * DAY
_STRIDE: Final = 7919
"""A prime: its multiples visit all of any number of subjects that it does not divide."""


def subjects_for(events: int, rounds: int = ROUNDS) -> int:
    """How many subjects a ledger of about `events` events has."""
    families = max(1, events // rounds // FAMILY)
    return FAMILY * (families if families % _STRIDE else families + 1)


class Shape(NamedTuple):
    """`value` None: it has none, or one of its own. `starts`, `ends`: whether it has an effective time, and an end."""

    topic: str
    setting: str
    value: bool | None = None
    starts: bool = False
    ends: bool = False


class Said(NamedTuple):
    """`shape`: all that the event's text does not take from its own number; instants in µs."""

    shape: Shape
    subject: str
    version: int
    effective_from: int | None = None
    effective_until: int | None = None
    owner: str = ""
    retracts: int = 0
    """The position of the change that is taken back."""


class Population(NamedTuple):
    """`subjects`: how many, a multiple of ten, each with `rounds` events, at the positions `before` + 1, …"""

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
        """µs from burst to burst, in whole seconds where there is room for that."""
        between = (END - BEGIN) // (self.events // _BURST + 1)
        return between // SECOND * SECOND or between

    def recorded_at(self, index: int) -> int:
        """When the event with this index, from 0, was recorded."""
        burst, place = divmod(index, _BURST)
        return BEGIN + burst * self._between() + place * _WITHIN_BURST

    def said(self, start: int = 0) -> Iterator[Said]:
        """What is said, from the event with index `start` on."""
        for index in range(start, self.events):
            round_, place = divmod(index, self.subjects)
            number = place * _STRIDE % self.subjects
            yield self._of(number, round_, index)

    def _of(self, number: int, round_: int, index: int) -> Said:
        family, member = divmod(number, FAMILY)
        version = round_ + 1
        if member == 2:
            return Said(_OWNER, f"project:p{family}", version, owner=f"org:o{2 * family + round_ // 2 % 2}")
        if member == 3:
            owner = f"org:o{2 * family}" if round_ % 3 == 2 else f"project:p{family}"
            return Said(_OWNER, f"key:k{family}", version, owner=owner)
        if member < 2:
            subject, settings = f"org:o{2 * family + member}", 4
        else:
            subject, settings = f"account:u{6 * family + member - 4}", 3
        setting = _ORG_SETTINGS[(number + round_) % settings]
        value = (number >> 3) + round_ & 1 == 0
        if number % 5 == 0 and round_ in (3, 4):
            setting = _ORG_SETTINGS[number % settings]
            if round_ == 4:
                position = self.before + 1 + index - self.subjects
                return Said(Shape(ChangeRetracted.TOPIC, setting), subject, version, retracts=position)
            start = self.recorded_at(index) + _AHEAD
            return Said(Shape(SettingChanged.TOPIC, setting, value, True), subject, version, start)
        if round_ == 6 and number % 7 == 0:
            until = self.recorded_at(index) + _FOR
            return Said(Shape(SettingChanged.TOPIC, setting, value, False, True), subject, version, None, until)
        if round_ == 8 and number % 11 == 0:
            return Said(Shape(SettingCleared.TOPIC, setting), subject, version)
        return Said(Shape(SettingChanged.TOPIC, setting, value), subject, version)


_OWNER: Final = Shape(SettingChanged.TOPIC, "owner")
