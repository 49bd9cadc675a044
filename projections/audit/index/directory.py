"""The regions and providers of an index: few subjects, so that the index keeps their events instead of arrays.

Everything else follows from the events: the directory on both axes is made of them by the same code as for a single
question. Proved by tests/audit/kernel/test_against_reference.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import msgspec

from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from projections.decisions.directory import DIRECTORY_KINDS, SETTINGS_OF, BothDirectories, DirectorySteps
from projections.temporal.changes import Assertion, Change, Retraction, read_stored
from projections.temporal.coordinates import IN_FORCE, KnownAt
from projections.temporal.fold import Timeline, fold
from projections.temporal.in_force import fold_both

_SETTINGS: Final = frozenset(setting for settings in SETTINGS_OF.values() for setting in settings)
_KINDS: Final = "|".join(DIRECTORY_KINDS)
_SUBJECT: Final = re.compile(f'"subject":"((?:{_KINDS}):[^"]*|{CATALOG_SUBJECT})"'.encode())

Axis = Mapping[str, Timeline]
"""One subject's timelines, by setting."""


@dataclass(frozen=True)
class DirectoryEvents:
    """`assertions`: region, provider or the catalog → everything recorded about its settings that a directory needs, in
    position order."""

    assertions: Mapping[str, tuple[Assertion, ...]] = field(default_factory=dict)

    def directories(self, known_at: KnownAt) -> BothDirectories:
        """On the axis of an index, and on the later one."""
        both = {subject: axes(assertions, known_at) for subject, assertions in self.assertions.items()}
        catalog = both.pop(CATALOG_SUBJECT, ({}, {}))
        return BothDirectories(
            *(
                DirectorySteps({subject: pair[place] for subject, pair in both.items()}, catalog[place])
                for place in (0, 1)
            )
        )

    def as_json(self) -> Any:
        return msgspec.to_builtins(
            {
                subject: [["", one] if isinstance(one, Change) else ["retraction", one] for one in assertions]
                for subject, assertions in self.assertions.items()
            }
        )

    @classmethod
    def from_json(cls, value: Any) -> Self:
        return cls({subject: tuple(map(_assertion, assertions)) for subject, assertions in value.items()})


NO_DIRECTORY: Final = DirectoryEvents()


def _assertion(value: tuple[str, Any]) -> Assertion:
    which, one = value
    return msgspec.convert(one, Retraction) if which else msgspec.convert(one, Change)


def axes(assertions: Iterable[Assertion], known_at: KnownAt) -> tuple[Axis, Axis]:
    """One subject's timelines on the axis of `known_at`, and on the later one."""
    known = list(assertions)
    both = fold_both(known)
    later = {setting: timelines.current for setting, timelines in both.items()}
    if known_at is None:
        return later, later
    if known_at == IN_FORCE:
        return {setting: timelines.in_force for setting, timelines in both.items()}, later
    return fold(one for one in known if one.recorded_at <= known_at), later


def relevant(assertions: Iterable[Assertion]) -> tuple[Assertion, ...]:
    return tuple(one for one in assertions if one.setting in _SETTINGS)


def read_directory(ledger: Ledger, until: int) -> DirectoryEvents:
    """The directory of the ledger up to a position."""
    subjects = [one for kind in DIRECTORY_KINDS for one in ledger.recorder.subjects_of_kind(kind, until)]
    return _read(ledger, subjects, until)


def directory_subjects_in(leaves: bytes) -> set[str]:
    """The regions, the providers and the catalog, if any of the leaves is about them."""
    return {subject.decode() for subject in _SUBJECT.findall(leaves)}


def extended_directory(ledger: Ledger, before: DirectoryEvents, changed: set[str], until: int) -> DirectoryEvents:
    """The directory of the ledger up to a later position. `changed`: `directory_subjects_in` the leaves since."""
    if not changed:
        return before
    return _read(ledger, {*before.assertions, *changed} - {CATALOG_SUBJECT}, until)


def _read(ledger: Ledger, subjects: Iterable[str], until: int) -> DirectoryEvents:
    assertions: dict[str, tuple[Assertion, ...]] = {}
    for subject in sorted(subjects):
        version = ledger.version_at(subject, until)
        if version:
            assertions[subject] = _relevant(ledger, subject, version)
    assertions[CATALOG_SUBJECT] = _relevant(ledger, CATALOG_SUBJECT, ledger.version_at(CATALOG_SUBJECT, until))
    return DirectoryEvents(assertions)


def _relevant(ledger: Ledger, subject: str, version: int) -> tuple[Assertion, ...]:
    return relevant(map(read_stored, ledger.stream_entries(subject, until=version)))
