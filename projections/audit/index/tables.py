"""Columns of events → a policy index, for a whole ledger at once, or for some subjects. Pure."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from projections.audit.index.codes import Codes
from projections.audit.index.event_columns import IS_CLEAR, IS_RETRACTION, Columns, is_link
from projections.audit.index.fold_columns import Flags, Stepping, Steps
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
    Int32s,
    Int64s,
    Links,
    Models,
    Policies,
    Said,
    Slices,
    UInt32s,
)
from projections.audit.index.sharing import in_threads
from projections.audit.index.widening import Wide, differing, widen
from projections.temporal.coordinates import IN_FORCE, KnownAt

_POLICY = range(HOSTING)
_OF_MODEL = range(HOSTING, OWNER_CODE)


@dataclass(frozen=True)
class Compiled:
    """The tables of the subjects of some columns. Subjects are numbered as the columns' names are."""

    slices: Slices
    links: Links
    policies: Policies
    models: Models
    said: Said


@dataclass(frozen=True)
class _Tables:
    """One axis. `owner` of keys and projects and `attached_to` of accounts, of which no subject has both, are one."""

    links: Wide
    policies: Wide
    models: Wide


class Compiling:
    """Used once: it lets go of what it needs no more, since of a large ledger everything at once is too much."""

    def __init__(self, columns: Columns, known_at: KnownAt, codes: Codes, targets: Int32s) -> None:
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
        self._stepping: Stepping | None = Stepping(columns)

    def compiled(self) -> Compiled:
        steps, candidates, later_steps, said, said_of = self._stepped()
        asked = self._tables(steps, np.ones(self._subjects, np.bool_))
        del steps
        starts = *asked.links.slices(self._subjects), *self._states(asked)
        later = np.full(self._subjects, -1, np.int32)
        everything, later_starts = None, [np.zeros(0, np.uint32) for _ in range(4)]
        if later_steps is not None:
            everything = self._tables(later_steps, candidates)
            subjects = np.flatnonzero(candidates)
            pairs = zip(_wides(asked), _wides(everything), strict=True)
            subjects = subjects[np.logical_or.reduce([differing(*pair, subjects, self._subjects) for pair in pairs])]
            later[subjects] = np.arange(len(subjects))
            everything = _Tables(*(wide.only(later[wide.subject] >= 0) for wide in _wides(everything)))
            columns = *everything.links.slices(self._subjects), *self._states(everything)
            later_starts = [column[subjects] for column in columns]
            # Behind the rows of the axis that is asked for.
            later_starts[0] = later_starts[0] + np.uint32(len(asked.links.at))
            before = np.where(self._models_among[subjects], len(asked.models.at), len(asked.policies.at))
            later_starts[2] = later_starts[2] + before.astype(np.uint32)
        links, policies, models = (
            _both(one, other) for one, other in zip(_wides(asked), _wides(everything or _NO_TABLES), strict=True)
        )
        del asked, everything
        return Compiled(
            Slices(*starts, later, said_of, *later_starts),
            self._links(links),
            self._policies(policies),
            self._models(models),
            said,
        )

    def _stepped(self) -> tuple[Steps, Flags, Steps | None, Said, Int32s]:
        """(the axis that is asked for, who may differ with everything known, that axis for them, what was said)."""
        assert self._stepping is not None, "it is used once"
        stepping, self._stepping = self._stepping, None
        candidates = self._may_differ(stepping)
        later_steps = stepping.steps(None, among=candidates) if candidates.any() else None
        return stepping.steps(self._known_at), candidates, later_steps, *_said(stepping, self._subjects)

    def _may_differ(self, stepping: Stepping) -> Flags:
        if self._known_at is None:
            return np.zeros(self._subjects, np.bool_)
        if self._known_at == IN_FORCE:
            return stepping.folded_subjects()
        return stepping.said_since(int(self._known_at))

    def _tables(self, steps: Steps, subjects: Flags) -> _Tables:
        linked = Steps(
            steps.subject, np.where(steps.setting == ATTACHED_CODE, OWNER_CODE, steps.setting), steps.at, steps.event
        )
        return _Tables(
            widen(linked, [OWNER_CODE], subjects),
            widen(steps, _POLICY, subjects),
            widen(steps, _OF_MODEL, subjects),
        )

    def _states(self, tables: _Tables) -> tuple[UInt32s, UInt32s]:
        """Of models in their table, of all others in that of policies."""
        pairs = zip(tables.models.slices(self._subjects), tables.policies.slices(self._subjects), strict=True)
        starts, counts = (np.where(self._models_among, of_models, of_others) for of_models, of_others in pairs)
        return starts, counts

    def _links(self, wide: Wide) -> Links:
        return Links.of(wide.at, self._values[wide.events[:, 0]], self._positions_of(wide.events[:, 0]))

    def _policies(self, wide: Wide) -> Policies:
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

    def _models(self, wide: Wide) -> Models:
        return Models(wide.at, self._values[wide.events], self._positions_of(wide.events))


def _said(stepping: Stepping, subjects: int) -> tuple[Said, Int32s]:
    columns = stepping.columns
    places, rows = stepping.retracting()
    of_rows = columns.subject[rows]
    first = np.flatnonzero(np.diff(of_rows, prepend=-1))
    said_of = np.full(subjects, -1, np.int32)
    said_of[of_rows[first]] = np.arange(len(first))
    changes = columns.value[rows] != IS_RETRACTION
    said = Said(
        start=first.astype(np.uint32),
        count=np.diff(first, append=len(rows)).astype(np.uint32),
        position=columns.position[rows],
        recorded_at=columns.recorded_at[rows],
        setting=columns.setting[rows],
        effective_from=np.where(changes, columns.start[rows], 0),
        effective_until=np.where(changes, columns.until[rows], 0),
        retracts=stepping.taken_back(places).astype(np.uint32),
    )
    return said, said_of


def _wides(tables: _Tables) -> tuple[Wide, Wide, Wide]:
    return tables.links, tables.policies, tables.models


_NOTHING = Wide(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 0), np.int32))
_NO_TABLES = _Tables(_NOTHING, _NOTHING, _NOTHING)


def _both(one: Wide, other: Wide) -> Wide:
    if not len(other.at):
        return one
    return Wide(
        np.concatenate([one.subject, other.subject]),
        np.concatenate([one.at, other.at]),
        np.concatenate([one.events, other.events]),
    )


def _values(columns: Columns, codes: Codes, targets: Int32s) -> Int32s:
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


def since_of(columns: Columns) -> Int64s:
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
        said_of=np.concatenate([slices.said_of, no_rows]),
    )
