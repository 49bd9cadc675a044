"""Versions of the event types: what was recorded in an older one is read as the newest, and its bytes stay as they are.

On the wire a type is `inforce.<topic>.v<n>`. Events are written in their topic's newest version; every version that was
ever written is read, by upcasters from each one to the next. What is stored, served, exported and hashed is always the
bytes that were recorded. Proved by tests/life/test_upcasting.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ledger.events import ChangeRetracted, SettingChanged, SettingCleared, SettingDefined

Parsed = dict[str, Any]
"""A leaf as JSON says it, members in the order of its bytes."""


class Upcaster(NamedTuple):
    """From one version of a type to the next one, and back. Both may change the leaf they are given.

    `back` is the inverse of `up` for every leaf that this version's code can have written, the order of members
    included: an import writes each event again, and takes it only if the same bytes come out.
    """

    up: Callable[[Parsed], Parsed]
    back: Callable[[Parsed], Parsed]


class EventVersions:
    """The versions of all types. Raises `ValueError` where one of the older versions could not be read."""

    def __init__(self, newest: Mapping[str, int], upcasters: Mapping[str, Upcaster]) -> None:
        """`newest`: topic → the version that is written. `upcasters`: type of an older version → the way up."""
        older = {_type(topic, n) for topic, newest_n in newest.items() for n in range(1, newest_n)}
        if older != set(upcasters):
            raise ValueError(f"every older version needs an upcaster, and nothing else: {older ^ set(upcasters)}")
        self.written: Final = {topic: _type(topic, n) for topic, n in newest.items()}
        self.current: Final = frozenset(self.written.values())
        self.all: Final = self.current | older
        self._upcasters: Final = dict(upcasters)

    def up(self, leaf: Parsed) -> Parsed:
        """The leaf in its type's newest version. Raises `KeyError` for a type that no version has."""
        type_ = leaf["type"]
        while type_ not in self.current:
            leaf = self._upcasters[type_].up(leaf)
            leaf["type"] = type_ = _next(type_)
        return leaf

    def back(self, leaf: Parsed, type_: str) -> Parsed:
        """A leaf of the newest version as it was written in the older one `type_`."""
        way = [type_]
        while way[-1] not in self.current:
            way.append(_next(way[-1]))
        for older in reversed(way[:-1]):
            leaf = self._upcasters[older].back(leaf)
            leaf["type"] = older
        return leaf


def _type(topic: str, version: int) -> str:
    return f"inforce.{topic}.v{version}"


def _next(type_: str) -> str:
    stem, _, version = type_.rpartition(".v")
    return f"{stem}.v{int(version) + 1}"


UPCASTERS: Final[dict[str, Upcaster]] = {}
"""Type of an older version (`inforce.setting.changed.v1`) → the way to the next one. None is ever taken out."""

NEWEST: Final = {
    SettingChanged.TOPIC: 1,
    SettingCleared.TOPIC: 1,
    ChangeRetracted.TOPIC: 1,
    SettingDefined.TOPIC: 1,
}
"""Topic → the version that is written."""

VERSIONS: Final = EventVersions(NEWEST, UPCASTERS)
