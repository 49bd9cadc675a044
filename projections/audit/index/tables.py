"""EventColumns of events → a policy index, for a whole ledger at once, or for some subjects. Pure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

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
_Part = TypeVar("_Part")


def in_threads(work: Callable[[_Part], None], parts: Iterable[_Part]) -> None:
    """Raises what the first part that fails raises, once all have ended."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _done in pool.map(work, parts):
            pass


@dataclass(frozen=True)
class WideSteps:
    """Ascending by subject and `at` (µs). events: int32[rows, settings], the deciding events' rows in the columns, or
    -1. Neighbours of a subject differ, and its first row has something."""

    subject: NDArray[np.int32]
    at: Int64s
    events: NDArray[np.int32]

    def slices(self, subjects: int) -> tuple[UInt32s, UInt32s]:
        """Where each subject's rows start, and how many they are."""
        counts = np.bincount(self.subject, minlength=subjects)
        return (np.cumsum(counts) - counts).astype(np.uint32), counts.astype(np.uint32)

    def only(self, rows: Flags) -> WideSteps:
        if rows.all():
            return self
        return WideSteps(self.subject[rows], self.at[rows], self.events[rows])


def pivot(steps: Steps, settings: Sequence[int], subjects: Flags) -> WideSteps:
    """`subjects`: by code, those wanted."""
    wanted = (steps.setting >= settings[0]) & (steps.setting <= settings[-1])
    chosen = np.flatnonzero(wanted if subjects.all() else wanted & subjects[steps.subject])
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
        # The last row up to each that has a step of the setting, and if it is of the same subject, what that is.
        of_setting = np.flatnonzero(setting == settings[place])
        rows = row_of[of_setting]
        latest = np.full(len(subject), -1, np.int32)
        latest[rows] = rows
        np.maximum.accumulate(latest, out=latest)
        there = np.full(len(subject) + 1, -1, np.int32)
        there[rows] = event[of_setting]
        # One more behind them all, for where there is none.
        events[:, place] = there[np.where(latest >= begins, latest, -1)]

    in_threads(fill, range(len(settings)))
    differs: Flags = np.asarray((events >= 0).any(axis=1))
    if len(events) > 1:
        differs[1:] = np.where(first[1:], differs[1:], (events[1:] != events[:-1]).any(axis=1))
    return WideSteps(subject, at, events).only(differs)


def differing_subjects(asked: WideSteps, later: WideSteps, subjects: NDArray[np.intp], count: int) -> Flags:
    """Which of `subjects`, by their place there, do not have the same rows in both; `count`: of all subjects."""
    starts, counts = asked.slices(count)
    later_starts, later_counts = later.slices(count)
    differs: Flags = np.asarray(counts[subjects] != later_counts[subjects])
    alike = np.flatnonzero(~differs)
    lengths = counts[subjects[alike]].astype(np.int64)
    owner = np.repeat(alike, lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    one = starts[subjects[owner]] + within
    other = later_starts[subjects[owner]] + within
    unequal = (asked.at[one] != later.at[other]) | (asked.events[one] != later.events[other]).any(axis=1)
    differs[owner[unequal]] = True
    return differs


_POLICY = range(HOSTING)
_OF_MODEL = range(HOSTING, OWNER_CODE)


@dataclass(frozen=True)
class SubjectTables:
    """The tables of the subjects of some columns. Subjects are numbered as the columns' names are."""

    slices: Slices
    links: Links
    policies: Policies
    models: Models
    assertions: Assertions


@dataclass(frozen=True)
class _AxisTables:
    """One axis. `owner` of keys and projects and `attached_to` of accounts, of which no subject has both, are one."""

    links: WideSteps
    policies: WideSteps
    models: WideSteps


class TableCompiler:
    """Used once: it lets go of what it needs no more, since of a large ledger everything at once is too much."""

    def __init__(self, columns: EventColumns, known_at: KnownAt, codes: Codes, targets: Int32s) -> None:
        """`columns`: as gathered, in position order. `codes`: takes texts and sets of regions in. `targets`: row of
        the columns' names → the code of the subject that is called so."""
        self._known_at = known_at
        self._models_among: Flags = columns.names.kinds == MODEL
        self._subjects = len(columns.names.kinds)
        # Event -1 is none, and stands behind all others.
        self._positions = np.append(columns.position, np.uint32(0))
        # Of a whole ledger: then nothing has to be looked up.
        self._dense = bool((columns.position == np.arange(1, len(columns.position) + 1)).all())
        self._values = np.append(_values(columns, codes, targets), np.int32(UNSET))
        self._stepping: ColumnFold | None = ColumnFold(columns)

    def compiled(self) -> SubjectTables:
        steps, candidates, later_steps, said, assertions_of = self._stepped()
        asked = self._tables(steps, np.ones(self._subjects, np.bool_))
        del steps
        starts = *asked.links.slices(self._subjects), *self._states(asked)
        later = np.full(self._subjects, -1, np.int32)
        everything, later_starts = None, [np.zeros(0, np.uint32) for _ in range(4)]
        if later_steps is not None:
            everything = self._tables(later_steps, candidates)
            subjects = np.flatnonzero(candidates)
            pairs = zip(_all_of(asked), _all_of(everything), strict=True)
            subjects = subjects[
                np.logical_or.reduce([differing_subjects(*pair, subjects, self._subjects) for pair in pairs])
            ]
            later[subjects] = np.arange(len(subjects))
            everything = _AxisTables(*(wide.only(later[wide.subject] >= 0) for wide in _all_of(everything)))
            columns = *everything.links.slices(self._subjects), *self._states(everything)
            later_starts = [column[subjects] for column in columns]
            # Behind the rows of the axis that is asked for.
            later_starts[0] = later_starts[0] + np.uint32(len(asked.links.at))
            before = np.where(self._models_among[subjects], len(asked.models.at), len(asked.policies.at))
            later_starts[2] = later_starts[2] + before.astype(np.uint32)
        links, policies, models = (
            _both(one, other) for one, other in zip(_all_of(asked), _all_of(everything or _NO_TABLES), strict=True)
        )
        del asked, everything
        return SubjectTables(
            Slices(*starts, later, assertions_of, *later_starts),
            self._links(links),
            self._policies(policies),
            self._models(models),
            said,
        )

    def _stepped(self) -> tuple[Steps, Flags, Steps | None, Assertions, Int32s]:
        """(the axis that is asked for, who may differ with everything known, that axis for them, what was said)."""
        assert self._stepping is not None, "it is used once"
        stepping, self._stepping = self._stepping, None
        candidates = self._may_differ(stepping)
        later_steps = stepping.steps(None, among=candidates) if candidates.any() else None
        return stepping.steps(self._known_at), candidates, later_steps, *_said(stepping, self._subjects)

    def _may_differ(self, stepping: ColumnFold) -> Flags:
        if self._known_at is None:
            return np.zeros(self._subjects, np.bool_)
        if self._known_at == IN_FORCE:
            return stepping.folded_subjects()
        return stepping.said_since(int(self._known_at))

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
        """Of models in their table, of all others in that of policies."""
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
            # Event -1 comes to 0 here as well.
            return (events + 1).view(np.uint32)
        return self._positions[events]

    def _models(self, wide: WideSteps) -> Models:
        return Models(wide.at, self._values[wide.events], self._positions_of(wide.events))


def _said(stepping: ColumnFold, subjects: int) -> tuple[Assertions, Int32s]:
    columns = stepping.columns
    places, rows = stepping.retracting()
    of_rows = columns.subject[rows]
    first = np.flatnonzero(np.diff(of_rows, prepend=-1))
    assertions_of = np.full(subjects, -1, np.int32)
    assertions_of[of_rows[first]] = np.arange(len(first))
    changes = columns.value[rows] != IS_RETRACTION
    said = Assertions(
        start=first.astype(np.uint32),
        count=np.diff(first, append=len(rows)).astype(np.uint32),
        position=columns.position[rows],
        recorded_at=columns.recorded_at[rows],
        setting=columns.setting[rows],
        effective_from=np.where(changes, columns.start[rows], 0),
        effective_until=np.where(changes, columns.until[rows], 0),
        retracts=stepping.taken_back(places).astype(np.uint32),
    )
    return said, assertions_of


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
    """The codes of all events' values: for the switches of bits, for what is cleared CLEARED."""
    values = columns.value.copy()
    given = values >= 0
    linked = given & is_link(columns.setting)
    values[linked] = targets[values[linked]]
    decoded = [msgspec.json.decode(raw) for raw in columns.raw]
    for setting in (RESIDENCY, *_OF_MODEL):
        rows = np.flatnonzero(given & (columns.setting == setting))
        if len(rows):
            places = np.unique(values[rows])
            code_of = np.zeros(len(decoded), np.int32)
            code_of[places] = [codes.value(setting, decoded[place]) for place in places.tolist()]
            values[rows] = code_of[values[rows]]
    values[columns.value == IS_CLEAR] = CLEARED
    return values


def since_of(columns: EventColumns) -> Int64s:
    """`PolicyIndex.since` of these events, in their order."""
    return np.maximum(columns.recorded_at, columns.start)


def grown(slices: Slices, subjects: int) -> Slices:
    """With subjects behind that have nothing."""
    more = subjects - len(slices.later)
    none, no_rows = np.zeros(more, np.uint32), np.full(more, -1, np.int32)
    return replace(
        slices,
        link_start=np.concatenate([slices.link_start, none]),
        link_count=np.concatenate([slices.link_count, none]),
        state_start=np.concatenate([slices.state_start, none]),
        state_count=np.concatenate([slices.state_count, none]),
        later=np.concatenate([slices.later, no_rows]),
        assertions_of=np.concatenate([slices.assertions_of, no_rows]),
    )
