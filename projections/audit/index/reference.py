"""Builds a policy index in the obvious way, in lists, subject by subject: for small ledgers, and as the reference.

`compile` makes the same index from millions of events. Proved by tests/audit/index/test_compile.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT, MUST_BE_KNOWN, kind_of
from ledger.times import END
from projections.audit.index.codes import Codes
from projections.audit.index.directory import Axis, DirectoryEvents, axes, relevant
from projections.audit.index.hash_table import slots_for
from projections.audit.index.pin import pin_of
from projections.audit.index.schema import (
    BIT_CLEARED,
    BIT_UNSET,
    CLEARED,
    HOSTING,
    KINDS,
    NAMED_KINDS_MAX,
    NEVER_RECORDED,
    NULL,
    OWNER_CODE,
    RELEVANT,
    RESIDENCY,
    SETTINGS,
    UNSET,
    Assertions,
    CatalogSteps,
    Links,
    Models,
    Policies,
    PolicyIndex,
    Slices,
    Subjects,
    kind_code,
)
from projections.decisions.directory import DIRECTORY_KINDS
from projections.decisions.rule_settings import POLICY
from projections.decisions.scope import ATTACHED_TO, OWNER
from projections.temporal.changes import Assertion, Change, JsonValue, Retraction, read_entry
from projections.temporal.coordinates import IN_FORCE, KnownAt, Pin
from projections.temporal.fold import Timeline

Row = tuple[int, tuple[Change | None, ...]]
"""An instant (µs), and the change of each setting that decides from then on."""

LINK: Final = {"account": ATTACHED_TO, "project": OWNER, "key": OWNER}
STATE: Final = {"account": POLICY, "org": POLICY, "model": RELEVANT["model"]}


def rows_of(axis: Axis, settings: Sequence[str]) -> list[Row]:
    """The steps of several settings side by side. Neighbours differ, and the first row has a change."""
    timelines = [axis.get(setting, _NOTHING) for setting in settings]
    rows: list[Row] = []
    before = [0] * len(settings)
    for at in sorted({start for timeline in timelines for start in timeline.starts}):
        changes = tuple(timeline.at(at) for timeline in timelines)
        positions = [_position(change) for change in changes]
        if positions != before:
            rows.append((at, changes))
            before = positions
    return rows


def _position(change: Change | None) -> int:
    return 0 if change is None else change.position


_NOTHING: Final = Timeline()


class IndexBuilder:
    """Collects subjects, each once, and the catalog. `index` makes the index of all of them."""

    def __init__(self) -> None:
        self._codes = Codes()
        self._slices: dict[int, tuple[int, int, int, int]] = {}
        self._later: dict[int, tuple[int, int, int, int]] = {}
        self._links: list[tuple[int, int, int]] = []
        self._policies: list[tuple[int, int, int, tuple[int, ...]]] = []
        self._models: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        self._assertions: list[tuple[int, int, int, int, int, int]] = []
        self._assertions_of: dict[int, tuple[int, int]] = {}
        self._first_recorded_at: dict[int, int] = {}

    def add(self, subject: str, axis: Axis, later: Axis, assertions: Sequence[Assertion]) -> None:
        """`axis`: the timelines on the axis of the index; `later`: with everything known; `assertions`: all of the
        subject's, in position order."""
        settings = RELEVANT.get(kind_of(subject), ())
        recorded_at = [one.recorded_at for one in assertions]
        assertions = [one for one in assertions if one.setting in settings]
        governs = kind_code(subject) <= NAMED_KINDS_MAX and bool(recorded_at)
        if not assertions and not governs:
            return
        code = self._codes.subject(subject)
        if governs:
            self._first_recorded_at[code] = min(recorded_at)
        self._slices[code] = self._rows(subject, axis)
        if any(rows_of(axis, part) != rows_of(later, part) for part in self._parts(subject)):
            self._later[code] = self._rows(subject, later)
        if any(isinstance(one, Retraction) for one in assertions):
            self._add_assertions(code, assertions)

    @staticmethod
    def _parts(subject: str) -> list[Sequence[str]]:
        kind = kind_of(subject)
        return [[LINK[kind]] if kind in LINK else [], STATE.get(kind, ())]

    def _rows(self, subject: str, axis: Axis) -> tuple[int, int, int, int]:
        kind = kind_of(subject)
        link_start, state_start = len(self._links), 0
        link, state = (rows_of(axis, part) for part in self._parts(subject))
        self._links += [(at, self._code(OWNER_CODE, own), _position(own)) for at, (own,) in link]
        if kind == "model":
            state_start = len(self._models)
            self._models += [
                (at, tuple(map(self._code, range(HOSTING, OWNER_CODE), own)), tuple(map(_position, own)))
                for at, own in state
            ]
        else:
            state_start = len(self._policies)
            self._policies += [
                (at, self._bits(own), self._code(RESIDENCY, own[RESIDENCY]), tuple(map(_position, own)))
                for at, own in state
            ]
        return link_start, len(link), state_start, len(state)

    def _code(self, setting: int, change: Change | None) -> int:
        if change is None:
            return UNSET
        return CLEARED if change.value is None else self._codes.value(setting, change.value)

    def _bits(self, own: Sequence[Change | None]) -> int:
        packed = 0
        for setting, change in enumerate(own):
            if change is None:
                bits = BIT_UNSET
            else:
                bits = BIT_CLEARED if change.value is None else self._codes.bits(change.value)
            packed |= bits << 3 * setting
        return packed

    def _add_assertions(self, code: int, assertions: Sequence[Assertion]) -> None:
        self._assertions_of[code] = len(self._assertions), len(assertions)
        by_id = {one.event_id: one.position for one in assertions}
        for one in assertions:
            setting = SETTINGS.index(one.setting)
            if isinstance(one, Change):
                until = END if one.effective_until is None else one.effective_until
                row = (one.position, one.recorded_at, setting, one.effective_from, until, 0)
            else:
                row = (one.position, one.recorded_at, setting, 0, 0, by_id.get(one.retracts, 0))
            self._assertions.append(row)

    def catalogs(self, axis: Axis, later: Axis) -> tuple[CatalogSteps, CatalogSteps]:
        return both_catalogs(axis, later, self._codes)

    def index(
        self, pin: Pin, known_at: KnownAt, catalogs: tuple[CatalogSteps, CatalogSteps], since: Sequence[int]
    ) -> PolicyIndex:
        """`catalogs`: on the index's axis and the later one; `since`: see `PolicyIndex`."""
        assertions = list(zip(*self._assertions, strict=True)) or [()] * 6
        slices = list(zip(*self._assertions_of.values(), strict=True)) or [()] * 2
        links = list(zip(*self._links, strict=True)) or [()] * 3
        subjects = self._codes.subjects()
        return PolicyIndex(
            pin=pin,
            known_at=known_at,
            subjects=Subjects(*subjects, slots_for(*subjects)),
            slices=self._slices_of(len(subjects[0])),
            links=Links.of(np.array(links[0], np.int64), np.array(links[1], np.int32), np.array(links[2], np.uint32)),
            policies=self._policies_of(),
            models=Models(
                np.array([row[0] for row in self._models], np.int64),
                np.array([row[1] for row in self._models], np.int32).reshape(-1, len(RELEVANT["model"])),
                np.array([row[2] for row in self._models], np.uint32).reshape(-1, len(RELEVANT["model"])),
            ),
            catalog=catalogs[0],
            later_catalog=catalogs[1],
            texts=self._codes.texts(),
            assertions=Assertions(
                start=np.array(slices[0], np.uint32),
                count=np.array(slices[1], np.uint32),
                position=np.array(assertions[0], np.uint32),
                recorded_at=np.array(assertions[1], np.int64),
                setting=np.array(assertions[2], np.uint8),
                effective_from=np.array(assertions[3], np.int64),
                effective_until=np.array(assertions[4], np.int64),
                retracts=np.array(assertions[5], np.uint32),
            ),
            since=np.array(since, np.int64),
        )

    def _policies_of(self) -> Policies:
        rows = self._policies
        return Policies.of(
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.uint32),
            np.array([row[2] for row in rows], np.int32),
            np.array([row[3] for row in rows], np.uint32).reshape(-1, len(POLICY)),
        )

    def _slices_of(self, subjects: int) -> Slices:
        columns = np.zeros((4, subjects), np.uint32)
        later, assertions_of = np.full(subjects, -1, np.int32), np.full(subjects, -1, np.int32)
        for code, four in self._slices.items():
            columns[:, code] = four
        later_columns = np.zeros((4, len(self._later)), np.uint32)
        for row, (code, four) in enumerate(self._later.items()):
            later[code] = row
            later_columns[:, row] = four
        for row, code in enumerate(self._assertions_of):
            assertions_of[code] = row
        first_recorded_at = np.full(subjects, NEVER_RECORDED, np.int64)
        for code, recorded_at in self._first_recorded_at.items():
            first_recorded_at[code] = recorded_at
        columns_of_subjects: tuple[Any, ...] = (*columns, later, assertions_of, *later_columns, first_recorded_at)
        return Slices(*columns_of_subjects)


def both_catalogs(axis: Axis, later: Axis, codes: Codes) -> tuple[CatalogSteps, CatalogSteps]:
    """The catalog's steps on an index's axis and on the later one, with the same instants."""
    settings = (*SETTINGS, MUST_BE_KNOWN)
    starts = {at for one in (axis, later) for setting in settings for at in one.get(setting, _NOTHING).starts}
    return _catalog_steps(axis, sorted(starts), codes), _catalog_steps(later, sorted(starts), codes)


def _catalog_steps(axis: Axis, starts: Sequence[int], codes: Codes) -> CatalogSteps:
    rows = [(at, [axis.get(setting, _NOTHING).at(at) for setting in SETTINGS]) for at in starts]
    steps = len(rows), len(SETTINGS)
    position, kinds = np.zeros(steps, np.uint32), np.zeros(steps, np.uint8)
    default, protective = np.zeros(steps, np.int32), np.zeros(steps, np.int32)
    for step, (_at, definitions) in enumerate(rows):
        for setting, change in enumerate(definitions):
            if change is None or change.value is None:
                continue
            members: Any = change.value
            position[step, setting] = change.position
            kinds[step, setting] = sum(1 << code for code, kind in enumerate(KINDS) if kind in members["kinds"])
            default[step, setting] = _value(setting, members["default"], codes)
            protective[step, setting] = _value(setting, members["protective"], codes)
    demands, demand_position = np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.uint32)
    for step, at in enumerate(starts):
        change = axis.get(MUST_BE_KNOWN, _NOTHING).at(at)
        if change is not None and isinstance(change.value, dict):
            demands[step] = sum(1 << KINDS.index(kind) for kind in change.value["default"] or () if kind in KINDS)
            demand_position[step] = change.position
    instants = np.array([at for at, _ in rows], np.int64)
    return CatalogSteps(instants, position, kinds, default, protective, demands, demand_position)


def _value(setting: int, value: JsonValue, codes: Codes) -> int:
    if setting < len(POLICY) and setting != RESIDENCY:
        return codes.bits(value)
    return NULL if value is None else codes.value(setting, value)


def compile_by_fold(ledger: Ledger, known_at: KnownAt = IN_FORCE, pin: Pin | None = None) -> PolicyIndex:
    """The index of `ledger` at `pin` (None: its head): in force, as known at an instant (µs), or now (None).

    Raises `LedgerCorrupt` at an event that cannot be read, and `LedgerUnavailable`.
    """
    pin = pin or pin_of(ledger)
    by_subject: dict[str, list[Assertion]] = {CATALOG_SUBJECT: []}
    since = [0]
    while len(since) <= pin.position and (page := ledger.page(len(since) - 1, until=pin.position)):
        for entry in page:
            assertion = read_entry(entry.position, entry.version, entry.leaf)
            by_subject.setdefault(entry.subject, []).append(assertion)
            start = assertion.effective_from if isinstance(assertion, Change) else assertion.recorded_at
            since.append(max(assertion.recorded_at, start))
    builder = IndexBuilder()
    catalog = by_subject.pop(CATALOG_SUBJECT)
    catalogs = builder.catalogs(*axes(catalog, known_at))
    for subject, assertions in by_subject.items():
        builder.add(subject, *axes(assertions, known_at), assertions)
    subjects = {subject: relevant(all_) for subject, all_ in by_subject.items() if kind_of(subject) in DIRECTORY_KINDS}
    directory = DirectoryEvents(subjects | {CATALOG_SUBJECT: relevant(catalog)})
    return replace(builder.index(pin, known_at, catalogs, since), directory=directory)
