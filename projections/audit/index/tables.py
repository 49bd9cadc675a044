"""Compiles columns of events into the tables of a policy index, for a whole ledger or for some subjects. Pure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from projections.audit.arrays import Int32s, Int64s, UInt32s
from projections.audit.index.codes import Codes
from projections.audit.index.event_columns import IS_CLEAR, IS_RETRACTION, EventColumns, is_link
from projections.audit.index.fold_columns import ColumnFold, Flags, Steps, ordered
from projections.audit.index.schema import (
    ATTACHED_CODE,
    BIT_CLEARED,
    BIT_OTHER,
    BIT_UNSET,
    CLEARED,
    HOSTING,
    MODEL,
    NAMED_KINDS_MAX,
    NEVER_RECORDED,
    OWNER_CODE,
    RESIDENCY,
    UNSET,
    Assertions,
    Links,
    Models,
    Policies,
    Slices,
)
from projections.temporal.coordinates import IN_FORCE, KnownAt

THREADS: Final = 2
_Work = TypeVar("_Work")


def in_threads(work: Callable[[_Work], None], parts: Iterable[_Work]) -> None:
    """Runs `work` on every part in two threads, which helps because NumPy and compiled code release Python's lock.

    Raises what the first part raises that fails, after all have ended.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        for _done in pool.map(work, parts):
            pass


@dataclass(frozen=True)
class WideSteps:
    """Several settings of a subject side by side, with a row wherever one of them changes; ascending by subject and
    `at` (µs). events: int32[rows, settings], the deciding events' rows in the columns, or -1. Neighbours of a subject
    differ, and its first row has an event."""

    subject: NDArray[np.int32]
    at: Int64s
    events: NDArray[np.int32]

    def slices(self, subjects: int) -> tuple[UInt32s, UInt32s]:
        """By subject: where its rows start, and how many it has."""
        counts = np.bincount(self.subject, minlength=subjects)
        return (np.cumsum(counts) - counts).astype(np.uint32), counts.astype(np.uint32)

    def only(self, rows: Flags) -> WideSteps:
        if rows.all():
            return self
        return WideSteps(self.subject[rows], self.at[rows], self.events[rows])


def pivot(steps: Steps, settings: Sequence[int], subjects: Flags) -> WideSteps:
    """The steps of some settings side by side. `subjects`: by code, the subjects to take."""
    of_settings = (steps.setting >= settings[0]) & (steps.setting <= settings[-1])
    chosen = np.flatnonzero(of_settings if subjects.all() else of_settings & subjects[steps.subject])
    order = chosen[ordered(steps.subject[chosen], steps.at[chosen], len(subjects))]
    subject, at = steps.subject[order], steps.at[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (subject[1:] != subject[:-1]) | (at[1:] != at[:-1])
    row_of = (np.cumsum(new) - 1).astype(np.int32)
    subject, at = subject[new], at[new]
    first = np.ones(len(subject), np.bool_)
    first[1:] = subject[1:] != subject[:-1]
    begins = np.maximum.accumulate(np.where(first, np.arange(len(subject), dtype=np.int32), 0))
    setting, event = steps.setting[order], steps.event[order]
    events = np.empty((len(subject), len(settings)), np.int32)

    def fill(place: int) -> None:
        # For each row the last one up to it with a step of the setting, and if its subject is the same, its event.
        of_setting = np.flatnonzero(setting == settings[place])
        rows = row_of[of_setting]
        latest = np.full(len(subject), -1, np.int32)
        latest[rows] = rows
        np.maximum.accumulate(latest, out=latest)
        there = np.full(len(subject) + 1, -1, np.int32)
        there[rows] = event[of_setting]
        # The last element stands for rows without one.
        events[:, place] = there[np.where(latest >= begins, latest, -1)]

    in_threads(fill, range(len(settings)))
    differs: Flags = np.asarray((events >= 0).any(axis=1))
    if len(events) > 1:
        differs[1:] = np.where(first[1:], differs[1:], (events[1:] != events[:-1]).any(axis=1))
    return WideSteps(subject, at, events).only(differs)


def differing_subjects(axis: WideSteps, later: WideSteps, subjects: NDArray[np.intp], count: int) -> Flags:
    """Which of `subjects`, by their places there, have different rows in the two. `count`: of all subjects."""
    starts, counts = axis.slices(count)
    later_starts, later_counts = later.slices(count)
    differs: Flags = np.asarray(counts[subjects] != later_counts[subjects])
    alike = np.flatnonzero(~differs)
    lengths = counts[subjects[alike]].astype(np.int64)
    owner = np.repeat(alike, lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    one = starts[subjects[owner]] + within
    other = later_starts[subjects[owner]] + within
    unequal = (axis.at[one] != later.at[other]) | (axis.events[one] != later.events[other]).any(axis=1)
    differs[owner[unequal]] = True
    return differs


_POLICY = range(HOSTING)
_OF_MODEL = range(HOSTING, OWNER_CODE)


@dataclass(frozen=True)
class SubjectTables:
    """The tables of some subjects. A subject's code is the row of its name in the columns."""

    slices: Slices
    links: Links
    policies: Policies
    models: Models
    assertions: Assertions


@dataclass(frozen=True)
class _AxisTables:
    """The steps on one axis. `links` holds `owner` of keys and projects and `attached_to` of accounts: no subject has
    both."""

    links: WideSteps
    policies: WideSteps
    models: WideSteps


class TableCompiler:
    """To be used once: it releases arrays as soon as it can, because a large ledger does not fit into memory twice."""

    def __init__(self, columns: EventColumns, known_at: KnownAt, codes: Codes, targets: Int32s) -> None:
        """`columns`: in position order. `codes`: gives codes to texts and sets of regions. `targets`: row of a name in
        the columns → the code of its subject."""
        self._known_at = known_at
        self._models_among: Flags = columns.names.kinds == MODEL
        self._subjects = len(columns.names.kinds)
        # Event -1 stands for no event: the last element.
        self._positions = np.append(columns.position, np.uint32(0))
        # In a whole ledger the row follows from the position.
        self._dense = bool((columns.position == np.arange(1, len(columns.position) + 1)).all())
        self._values = np.append(_values(columns, codes, targets), np.int32(UNSET))
        self._first_recorded_at = _first_recorded_at(columns)
        self._fold: ColumnFold | None = ColumnFold(columns)

    def compile(self) -> SubjectTables:
        steps, candidates, later_steps, assertions, assertions_of = self._fold_axes()
        axis = self._tables(steps, np.ones(self._subjects, np.bool_))
        del steps
        starts = *axis.links.slices(self._subjects), *self._states(axis)
        later = np.full(self._subjects, -1, np.int32)
        later_axis, later_starts = None, [np.zeros(0, np.uint32) for _ in range(4)]
        if later_steps is not None:
            later_axis = self._tables(later_steps, candidates)
            subjects = np.flatnonzero(candidates)
            pairs = zip(_all_of(axis), _all_of(later_axis), strict=True)
            subjects = subjects[
                np.logical_or.reduce([differing_subjects(*pair, subjects, self._subjects) for pair in pairs])
            ]
            later[subjects] = np.arange(len(subjects))
            later_axis = _AxisTables(*(wide.only(later[wide.subject] >= 0) for wide in _all_of(later_axis)))
            columns = *later_axis.links.slices(self._subjects), *self._states(later_axis)
            later_starts = [column[subjects] for column in columns]
            # After the rows of the index's axis.
            later_starts[0] = later_starts[0] + np.uint32(len(axis.links.at))
            before = np.where(self._models_among[subjects], len(axis.models.at), len(axis.policies.at))
            later_starts[2] = later_starts[2] + before.astype(np.uint32)
        links, policies, models = (
            _both(one, other) for one, other in zip(_all_of(axis), _all_of(later_axis or _NO_TABLES), strict=True)
        )
        del axis, later_axis
        columns_of_subjects: tuple[Any, ...] = (*starts, later, assertions_of, *later_starts, self._first_recorded_at)
        return SubjectTables(
            Slices(*columns_of_subjects),
            self._links(links),
            self._policies(policies),
            self._models(models),
            assertions,
        )

    def _fold_axes(self) -> tuple[Steps, Flags, Steps | None, Assertions, Int32s]:
        """The steps on the index's axis; the subjects that may differ with everything known; their steps on that axis;
        and the assertions with `Slices.assertions_of`."""
        assert self._fold is not None, "it is used once"
        fold, self._fold = self._fold, None
        candidates = self._may_differ(fold)
        later_steps = fold.steps(None, among=candidates) if candidates.any() else None
        return fold.steps(self._known_at), candidates, later_steps, *_assertions(fold, self._subjects)

    def _may_differ(self, fold: ColumnFold) -> Flags:
        if self._known_at is None:
            return np.zeros(self._subjects, np.bool_)
        if self._known_at == IN_FORCE:
            return fold.folded_subjects()
        return fold.changed_since(int(self._known_at))

    def _tables(self, steps: Steps, subjects: Flags) -> _AxisTables:
        linked = Steps(
            steps.subject, np.where(steps.setting == ATTACHED_CODE, OWNER_CODE, steps.setting), steps.at, steps.event
        )
        return _AxisTables(
            pivot(linked, [OWNER_CODE], subjects),
            pivot(steps, _POLICY, subjects),
            pivot(steps, _OF_MODEL, subjects),
        )

    def _states(self, tables: _AxisTables) -> tuple[UInt32s, UInt32s]:
        """Slices of the table of models for models, of the table of policies for all others."""
        pairs = zip(tables.models.slices(self._subjects), tables.policies.slices(self._subjects), strict=True)
        starts, counts = (np.where(self._models_among, of_models, of_others) for of_models, of_others in pairs)
        return starts, counts

    def _links(self, wide: WideSteps) -> Links:
        return Links.of(wide.at, self._values[wide.events[:, 0]], self._positions_of(wide.events[:, 0]))

    def _policies(self, wide: WideSteps) -> Policies:
        states = np.zeros(len(wide.at), np.uint32)
        regions = self._values[wide.events[:, RESIDENCY]]
        lock = threading.Lock()

        def add(setting: int) -> None:
            values = regions if setting == RESIDENCY else self._values[wide.events[:, setting]]
            bits = np.full(len(values), BIT_OTHER, np.uint32) if setting == RESIDENCY else values.astype(np.uint32)
            bits[values == CLEARED] = BIT_CLEARED
            bits[values == UNSET] = BIT_UNSET
            bits <<= np.uint32(3 * setting)
            with lock:
                np.bitwise_or(states, bits, out=states)

        in_threads(add, _POLICY)
        return Policies.of(wide.at, states, regions, self._positions_of(wide.events))

    def _positions_of(self, events: NDArray[np.int32]) -> UInt32s:
        if self._dense:
            # Event -1 becomes position 0.
            return (events + 1).view(np.uint32)
        return self._positions[events]

    def _models(self, wide: WideSteps) -> Models:
        return Models(wide.at, self._values[wide.events], self._positions_of(wide.events))


def _assertions(fold: ColumnFold, subjects: int) -> tuple[Assertions, Int32s]:
    columns = fold.columns
    places, rows = fold.with_retractions()
    of_rows = columns.subject[rows]
    first = np.flatnonzero(np.diff(of_rows, prepend=-1))
    assertions_of = np.full(subjects, -1, np.int32)
    assertions_of[of_rows[first]] = np.arange(len(first))
    changes = columns.value[rows] != IS_RETRACTION
    assertions = Assertions(
        start=first.astype(np.uint32),
        count=np.diff(first, append=len(rows)).astype(np.uint32),
        position=columns.position[rows],
        recorded_at=columns.recorded_at[rows],
        setting=columns.setting[rows],
        effective_from=np.where(changes, columns.start[rows], 0),
        effective_until=np.where(changes, columns.until[rows], 0),
        retracts=fold.retracts(places).astype(np.uint32),
    )
    return assertions, assertions_of


def _all_of(tables: _AxisTables) -> tuple[WideSteps, WideSteps, WideSteps]:
    return tables.links, tables.policies, tables.models


_NOTHING = WideSteps(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 0), np.int32))
_NO_TABLES = _AxisTables(_NOTHING, _NOTHING, _NOTHING)


def _both(one: WideSteps, other: WideSteps) -> WideSteps:
    if not len(other.at):
        return one
    return WideSteps(
        np.concatenate([one.subject, other.subject]),
        np.concatenate([one.at, other.at]),
        np.concatenate([one.events, other.events]),
    )


def _values(columns: EventColumns, codes: Codes, targets: Int32s) -> Int32s:
    """By event, the code of its value: the BIT_* code of a switch, CLEARED for a clear."""
    values = columns.value.copy()
    has_value = values >= 0
    linked = has_value & is_link(columns.setting)
    values[linked] = targets[values[linked]]
    decoded = [msgspec.json.decode(raw) for raw in columns.raw]
    for setting in (RESIDENCY, *_OF_MODEL):
        rows = np.flatnonzero(has_value & (columns.setting == setting))
        if len(rows):
            places = np.unique(values[rows])
            code_of = np.zeros(len(decoded), np.int32)
            code_of[places] = [codes.value(setting, decoded[place]) for place in places.tolist()]
            values[rows] = code_of[values[rows]]
    values[columns.value == IS_CLEAR] = CLEARED
    return values


def _first_recorded_at(columns: EventColumns) -> Int64s:
    first = np.full(len(columns.names.kinds), NEVER_RECORDED, np.int64)
    rows = np.flatnonzero(columns.subject >= 0)
    rows = rows[columns.names.kinds[columns.subject[rows]] <= NAMED_KINDS_MAX]
    # Of several values for one element, NumPy keeps the last: here that of the first event.
    first[columns.subject[rows[::-1]]] = columns.recorded_at[rows[::-1]]
    return first


def since_of(columns: EventColumns) -> Int64s:
    """`PolicyIndex.since` of these events, in their order."""
    return np.maximum(columns.recorded_at, columns.start)


def extend_slices(slices: Slices, subjects: int) -> Slices:
    """The slices, and empty ones for further subjects."""
    more = subjects - len(slices.later)
    empty, no_rows = np.zeros(more, np.uint32), np.full(more, -1, np.int32)
    return replace(
        slices,
        link_start=np.concatenate([slices.link_start, empty]),
        link_count=np.concatenate([slices.link_count, empty]),
        state_start=np.concatenate([slices.state_start, empty]),
        state_count=np.concatenate([slices.state_count, empty]),
        later=np.concatenate([slices.later, no_rows]),
        assertions_of=np.concatenate([slices.assertions_of, no_rows]),
        first_recorded_at=np.concatenate([slices.first_recorded_at, np.full(more, NEVER_RECORDED, np.int64)]),
    )
