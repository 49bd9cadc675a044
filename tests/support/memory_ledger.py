"""A ledger in memory for tests of rules: it encodes events with the real codec and checks nothing.

So it can hold events that a ledger refuses. The functions below make `Draft`s; `record` turns them into entries;
`FoldedStates` reads states from the entries with the fold alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ledger.append.built_in import genesis
from ledger.codec import id_tail, leaf_bytes, leaf_hash
from ledger.drafts import AT_RECORDING, Draft
from ledger.recorders.contract import Entry
from ledger.subjects import CATALOG_SUBJECT, kind_of
from projections.decisions.directory import SETTINGS_OF, Directory
from projections.temporal.changes import Assertion, Change, Retraction, read_entries
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import Timeline, deciding_retraction, fold
from projections.temporal.in_force import fold_both

SOURCE = "urn:inforce:test.example"


def _tail(seed: object) -> str:
    return id_tail(hashlib.sha256(repr(seed).encode()).digest()[:10])


class MemoryLedger:
    """Entries with dense positions and versions."""

    def __init__(self, begun_at: int | None = None) -> None:
        """With the built-in catalog, recorded at `begun_at` (µs), or without a catalog."""
        self.entries: list[Entry] = []
        self._versions: dict[str, int] = {}
        if begun_at is not None:
            self.record(begun_at, *genesis(bytes))

    def record(self, recorded_at: int, *drafts: Draft) -> list[str]:
        """Records the drafts as one submission. Returns their event ids."""
        for draft in drafts:
            position = len(self.entries) + 1
            version = self._versions.get(draft.subject, 0) + 1
            self._versions[draft.subject] = version
            numbered = draft._replace(version=version, id_tail=_tail(position))
            leaf = leaf_bytes(numbered, SOURCE, position, recorded_at)
            self.entries.append(
                Entry(position, draft.subject, version, draft.topic, leaf, recorded_at, leaf_hash(leaf))
            )
        return [event_id_of(len(self.entries) - len(drafts) + index + 1) for index in range(len(drafts))]

    @property
    def leaves(self) -> list[bytes]:
        return [entry.leaf for entry in self.entries]

    def assertions(self, subject: str, known_at: int | None = None) -> list[Assertion]:
        return read_entries(
            entry
            for entry in self.entries
            if entry.subject == subject and (known_at is None or entry.recorded_at <= known_at)
        )


def event_id_of(position: int) -> str:
    digits = f"{position:012x}"
    return f"{digits[:8]}-{digits[8:]}{_tail(position)}"


def _draft(topic: str, subject: str, body: Mapping[str, Any], actor: str = "ops") -> Draft:
    return Draft(topic=topic, subject=subject, version=0, body=body, actor=actor, id_tail="")


def changed(subject: str, setting: str, value: Any, start: int | None = None, until: int | None = None) -> Draft:
    """`start` None: from the recorded time."""
    body = {"setting": setting, "value": value, "effective_from": _start(start), "effective_until": until}
    return _draft("setting.changed", subject, body)


def cleared(subject: str, setting: str, start: int | None = None, until: int | None = None) -> Draft:
    return _draft(
        "setting.cleared", subject, {"setting": setting, "effective_from": _start(start), "effective_until": until}
    )


def retracted(subject: str, setting: str, event_id: str) -> Draft:
    return _draft("change.retracted", subject, {"retracts": event_id, "setting": setting})


def defined(setting: str, definition: Mapping[str, Any], start: int | None = None) -> Draft:
    return _draft(
        "setting.defined",
        CATALOG_SUBJECT,
        {"setting": setting, "definition": dict(definition), "effective_from": _start(start)},
    )


def _start(start: int | None) -> int | str:
    return AT_RECORDING if start is None else start


class FoldedStates:
    """The states that a check reads, at one (at, known_at), straight from the fold. `known_at` None: every event so
    far; "at": from the in-force timeline."""

    def __init__(self, book: MemoryLedger, at: int, known_at: int | Literal["at"] | None) -> None:
        self._book = book
        self._at = at
        self._known_at = known_at
        self._timelines: dict[str, Mapping[str, Timeline]] = {}

    def own(self, subject: str, setting: str) -> Change | None:
        if subject not in self._timelines:
            self._timelines[subject] = self._fold(subject)
        timeline = self._timelines[subject].get(setting)
        return None if timeline is None else timeline.at(self._at)

    def _fold(self, subject: str) -> Mapping[str, Timeline]:
        if self._known_at == "at":
            both = fold_both(self._book.assertions(subject))
            return {setting: timelines.in_force for setting, timelines in both.items()}
        return fold(self._book.assertions(subject, self._known_at))

    def setting(self, subject: str, setting: str) -> SettingState:
        return effective(subject, setting, self.own(subject, setting), self.own(CATALOG_SUBJECT, setting))

    def known(self, subject: str) -> bool:
        known_at = self._at if self._known_at == "at" else self._known_at
        return bool(list(self._book.assertions(subject, known_at)))

    def directory(self) -> Directory:
        subjects = {entry.subject for entry in self._book.entries if kind_of(entry.subject) in SETTINGS_OF}
        keys = [(subject, setting) for subject in subjects for setting in SETTINGS_OF[kind_of(subject)]]
        return Directory({key: self.setting(*key) for key in keys})

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        change = self.own(CATALOG_SUBJECT, setting)
        return change.value if change is not None and isinstance(change.value, dict) else None

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        known_at = self._at if self._known_at == "at" else self._known_at
        return deciding_retraction(list(self._book.assertions(subject, known_at)), setting, self._at, after)


def batches(drafts: Sequence[Draft], sizes: Sequence[int]) -> list[list[Draft]]:
    """The drafts in batches of these sizes; the rest is one more batch."""
    batches: list[list[Draft]] = []
    rest = list(drafts)
    for size in sizes:
        if rest:
            batches.append(rest[:size])
            rest = rest[size:]
    return [*batches, rest] if rest else batches
