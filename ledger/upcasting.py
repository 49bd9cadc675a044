"""Versions of the event types: events of older versions are read as the newest version, and their bytes never change.

On the wire a type is `inforce.<topic>.v<n>`. Events are written in the newest version of their topic. Every version
that was ever written can be read, through upcasters from each version to the next. The bytes that are stored, served,
exported and hashed are always those that were recorded. Proved by tests/life/test_upcasting.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ledger.events import ChangeRetracted, SettingChanged, SettingCleared, SettingDefined

JsonObject = dict[str, Any]
"""A leaf as parsed JSON, its members in the order of the bytes."""


class Upcaster(NamedTuple):
    """Functions from one version of a type to the next, and back. Both may modify their argument.

    `back` is the inverse of `up` for every leaf that the older version can have written, including the order of
    members: an import encodes each event again, and accepts it only if the bytes are the same.
    """

    up: Callable[[JsonObject], JsonObject]
    back: Callable[[JsonObject], JsonObject]


class EventVersions:
    """The versions of all types. Raises `ValueError` if an older version has no upcaster."""

    def __init__(self, newest: Mapping[str, int], upcasters: Mapping[str, Upcaster]) -> None:
        """`newest`: topic → the version that is written. `upcasters`: type of an older version → its upcaster."""
        older = {_type(topic, n) for topic, newest_n in newest.items() for n in range(1, newest_n)}
        if older != set(upcasters):
            raise ValueError(f"each older version needs an upcaster, and only those; at odds: {older ^ set(upcasters)}")
        self.written: Final = {topic: _type(topic, n) for topic, n in newest.items()}
        self.current: Final = frozenset(self.written.values())
        self.all: Final = self.current | older
        self._upcasters: Final = dict(upcasters)

    def up(self, leaf: JsonObject) -> JsonObject:
        """The leaf in its type's newest version. Raises `KeyError` for an unknown type."""
        type_ = leaf["type"]
        while type_ not in self.current:
            leaf = self._upcasters[type_].up(leaf)
            leaf["type"] = type_ = _next(type_)
        return leaf

    def back(self, leaf: JsonObject, type_: str) -> JsonObject:
        """A leaf of the newest version, converted to the older version `type_`."""
        types = [type_]
        while types[-1] not in self.current:
            types.append(_next(types[-1]))
        for older in reversed(types[:-1]):
            leaf = self._upcasters[older].back(leaf)
            leaf["type"] = older
        return leaf


def _type(topic: str, version: int) -> str:
    return f"inforce.{topic}.v{version}"


def _next(type_: str) -> str:
    stem, _, version = type_.rpartition(".v")
    return f"{stem}.v{int(version) + 1}"


UPCASTERS: Final[dict[str, Upcaster]] = {}
"""Type of an older version (`inforce.setting.changed.v1`) → upcaster to the next. An entry is never removed."""

NEWEST: Final = {
    SettingChanged.TOPIC: 1,
    SettingCleared.TOPIC: 1,
    ChangeRetracted.TOPIC: 1,
    SettingDefined.TOPIC: 1,
}
"""Topic → the version that is written."""

VERSIONS: Final = EventVersions(NEWEST, UPCASTERS)
