"""Folds columns of events into steps, for a whole ledger at once: from when on each setting has which value. Pure.

The law is `projections.temporal.fold`; this module applies it with array operations where they suffice. A setting of a
subject is *ordinary* if each change begins no earlier than every step before it. Then nothing hides or ends an
exception, and after each the last standing change goes on. In force, a change must also begin no earlier than it was
recorded, because then what is in force is what is known (`in_force.extend`).

A retracted change leaves no trace in what is known now, nor in force if it was retracted before it began. Otherwise, if
it is the only one of its setting, the timeline in force is the fold with it until the retraction, and from then on the
fold without it; both must be ordinary. `fold` itself folds all other settings, one by one.
Proved equal to `reference.compile_by_fold` by tests/audit/index/test_compile.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ledger.times import END
from projections.audit.arrays import Int64s, UInt8s
from projections.audit.index.event_columns import IS_RETRACTION, NO_SETTING, EventColumns
from projections.audit.numba_support import compiled, worth_compiling
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.coordinates import IN_FORCE, KnownAt
from projections.temporal.in_force import fold_both

_SETTINGS: Final = 32
"""More than the number of settings, so that subject × this + setting is one number."""
RowNumbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Steps:
    """Ascending by `at` (µs) within one setting of a subject, else in any order. event: int32, the row of the deciding
    event in the columns, or -1 where no change decides any more. Neighbours may be the same."""

    subject: NDArray[np.int32]
    setting: UInt8s
    at: Int64s
    event: NDArray[np.int32]


class _Groups(NamedTuple):
    """Steps, ascending by group (subject × _SETTINGS + setting) and `at`."""

    group: RowNumbers
    at: Int64s
    event: NDArray[np.int32]

    def only(self, rows: Flags) -> _Groups:
        return _Groups(self.group[rows], self.at[rows], self.event[rows])


class ColumnFold:
    """Folds the events of `columns`, sorted by subject and setting. A *place* is an index into that order."""

    def __init__(self, columns: EventColumns) -> None:
        self.columns = columns
        rows = np.flatnonzero(columns.setting != NO_SETTING)
        subject, setting = columns.subject[rows], columns.setting[rows]
        order = ordered(subject, setting, len(columns.names.kinds))
        self._rows: RowNumbers = rows[order]
        self._group: RowNumbers = subject[order].astype(np.int64) * _SETTINGS + setting[order]
        self._find_targets()

    def _find_targets(self) -> None:
        """Finds the places of all retractions and of the changes that they retract."""
        columns, rows = self.columns, self._rows
        places = np.flatnonzero(columns.value[rows] == IS_RETRACTION)
        self._retractions: RowNumbers = places
        places_by_row = np.full(len(columns.position), -1, np.int64)
        places_by_row[rows] = np.arange(len(rows))
        positions = columns.retracts[rows[places]]
        events = np.minimum(np.searchsorted(columns.position, positions), max(len(columns.position) - 1, 0))
        target = places_by_row[events] if len(places) else np.zeros(0, np.int64)
        there = (columns.position[events] == positions) & (target >= 0) if len(places) else np.zeros(0, np.bool_)
        there &= self._group[target] == self._group[places]
        self._retracted: RowNumbers = np.where(there, target, -1)

    def steps(self, known_at: KnownAt, *, among: Flags | None = None) -> Steps:
        """The steps on the axis of `known_at`. `among`: only for these subjects (by code)."""
        columns, rows = self.columns, self._rows
        known = np.ones(len(rows), np.bool_)
        if isinstance(known_at, int):
            known = columns.recorded_at[rows] <= known_at
        if among is not None:
            known &= among[columns.subject[rows]]
        if known_at != IN_FORCE:
            parts, folded = self._without_retracted(known)
        else:
            parts, folded = self._in_force(known)
        if len(folded):
            parts.append(self._by_fold(np.flatnonzero(known & np.isin(self._group, folded)), known_at))
        return _steps(parts)

    def _without_retracted(self, known: Flags) -> tuple[list[_Groups], RowNumbers]:
        """The steps of ordinary settings with everything known, and the groups that `fold` must fold."""
        counts = known.copy()
        retractions = self._retractions[known[self._retractions]]
        targets = self._retracted[known[self._retractions]]
        counts[retractions] = False
        counts[targets[targets >= 0]] = False
        places = np.flatnonzero(counts)
        folded = self._groups_of(places[self._unusual(places, in_force=False)])
        return [self._ordinary(self._except(places, folded))], folded

    def _in_force(self, known: Flags) -> tuple[list[_Groups], RowNumbers]:
        """The same in force."""
        counts, folded, retractions, targets = self._classify(known)
        places = np.flatnonzero(counts)
        plain = self._ordinary(self._except(places, np.union1d(folded, self._group[retractions])))
        if not len(retractions):
            return [plain], folded
        # By group: the time of the retraction.
        groups = self._group[retractions]
        since = self.columns.recorded_at[self._rows[retractions]]
        of_groups = places[np.isin(self._group[places], groups)]
        number = np.searchsorted(groups, self._group[of_groups])
        before, after = self._with_and_without(of_groups, number, since, targets)
        first = self._ordinary(before)
        first = first.only(first.at < since[np.searchsorted(groups, first.group)])
        last = self._ordinary(after)
        number = np.searchsorted(groups, last.group)
        begun_before = last.at <= since[number]
        # The last step that holds at the retraction, if there is one.
        newest = begun_before.copy()
        newest[:-1] &= ~(begun_before[1:] & (last.group[1:] == last.group[:-1]))
        begun = _Groups(last.group[newest], since[number[newest]], last.event[newest])
        without = np.setdiff1d(np.arange(len(groups)), number[newest])
        nothing = _Groups(groups[without], since[without], np.full(len(without), -1, np.int32))
        return [plain, first, nothing, begun, last.only(~begun_before)], folded

    def _classify(self, known: Flags) -> tuple[Flags, RowNumbers, RowNumbers, RowNumbers]:
        """Four results: which places count; the groups that `fold` must fold; the retractions of changes that had
        begun, in groups with one such retraction that are ordinary with and without the change; and those changes. The
        last two are ascending by group."""
        columns, rows = self.columns, self._rows
        counts = known.copy()
        retractions = self._retractions[known[self._retractions]]
        targets = self._retracted[known[self._retractions]]
        counts[retractions] = False
        retractions, targets = retractions[targets >= 0], targets[targets >= 0]
        late = columns.recorded_at[rows[retractions]] > columns.start[rows[targets]]
        counts[targets[~late]] = False
        retractions, targets = retractions[late], targets[late]
        groups, first, several = np.unique(self._group[retractions], return_index=True, return_counts=True)
        retractions, targets = retractions[first], targets[first]
        places = np.flatnonzero(counts)
        of_groups = places[np.isin(self._group[places], groups)]
        since = columns.recorded_at[rows[retractions]]
        number = np.searchsorted(groups, self._group[of_groups])
        parts = self._with_and_without(of_groups, number, since, targets)
        unusual = [part[self._unusual(part, in_force=True)] for part in (*parts, self._except(places, groups))]
        folded = np.union1d(groups[several > 1], self._groups_of(np.concatenate(unusual)))
        single = ~np.isin(groups, folded)
        return counts, folded, retractions[single], targets[single]

    def _with_and_without(
        self, places: RowNumbers, number: RowNumbers, since: Int64s, targets: RowNumbers
    ) -> tuple[RowNumbers, RowNumbers]:
        """The places recorded before a retraction, and all places but the retracted one. `number`: of the place's group
        among those of `since` and `targets`."""
        if not len(places):
            return places, places
        recorded_at = self.columns.recorded_at[self._rows[places]]
        return places[recorded_at < since[number]], places[places != targets[number]]

    def _groups_of(self, places: RowNumbers) -> RowNumbers:
        return np.unique(self._group[places])

    def _except(self, places: RowNumbers, groups: RowNumbers) -> RowNumbers:
        return places[~np.isin(self._group[places], groups)] if len(groups) else places

    def _unusual(self, places: RowNumbers, *, in_force: bool) -> Flags:
        """Which changes need to look at earlier ones (see the module)."""
        columns, rows = self.columns, self._rows[places]
        start, until = columns.start[rows], columns.until[rows]
        unusual = np.zeros(len(rows), np.bool_)
        if in_force:
            unusual |= start < columns.recorded_at[rows]
        if len(rows) > 1:
            same = self._group[places[1:]] == self._group[places[:-1]]
            reached = np.where(until[:-1] == END, start[:-1], until[:-1])
            unusual[1:] |= same & (start[1:] < reached)
        return unusual

    def _ordinary(self, places: RowNumbers) -> _Groups:
        columns, group, rows = self.columns, self._group[places], self._rows[places].astype(np.int32)
        at = columns.start[rows]
        until = columns.until[rows]
        bounded = until != END
        if not bounded.any():
            return _last_of_each(_Groups(group, at, rows))
        # After an exception the last standing change of the same setting goes on.
        resumed = np.maximum.accumulate(np.where(bounded, -1, np.arange(len(rows), dtype=np.int32)))
        ends = np.flatnonzero(bounded)
        regimes = resumed[ends]
        there = (regimes >= 0) & (group[regimes] == group[ends])
        # Each change, followed by its end.
        return _last_of_each(
            _Groups(
                np.insert(group, ends + 1, group[ends]),
                np.insert(at, ends + 1, until[ends]),
                np.insert(rows, ends + 1, np.where(there, rows[regimes], -1)),
            )
        )

    def _by_fold(self, places: RowNumbers, known_at: KnownAt) -> _Groups:
        columns = self.columns
        groups: list[int] = []
        ats: list[int] = []
        events: list[int] = []
        bounds = np.flatnonzero(np.diff(self._group[places], prepend=-1)).tolist()
        rows = self._rows[places]
        assertions = [
            _assertion(*one)
            for one in zip(
                rows.tolist(),
                columns.position[rows].tolist(),
                columns.recorded_at[rows].tolist(),
                columns.start[rows].tolist(),
                columns.until[rows].tolist(),
                np.where(columns.value[rows] == IS_RETRACTION, columns.retracts[rows].astype(np.int64), -1).tolist(),
                strict=True,
            )
        ]
        of_bounds = self._group[places[bounds]].tolist()
        for group, first, last in zip(of_bounds, bounds, [*bounds[1:], len(assertions)], strict=True):
            both = fold_both(assertions[first:last])[""]
            timeline = both.in_force if known_at == IN_FORCE else both.current
            for start, change in zip(timeline.starts, timeline.changes, strict=True):
                groups.append(group)
                ats.append(start)
                events.append(-1 if change is None else change.version)
        return _Groups(np.array(groups, np.int64), np.array(ats, np.int64), np.array(events, np.int32))

    def folded_subjects(self) -> Flags:
        """By code: the subjects with a setting that is not ordinary in force. With everything known they may differ."""
        subjects = np.zeros(len(self.columns.names.kinds), np.bool_)
        _counts, folded, retractions, _targets = self._classify(np.ones(len(self._rows), np.bool_))
        subjects[folded // _SETTINGS] = True
        subjects[self._group[retractions] // _SETTINGS] = True
        return subjects

    def changed_since(self, known_at: int) -> Flags:
        """By code: the subjects with an event recorded after `known_at` (µs)."""
        subjects = np.zeros(len(self.columns.names.kinds), np.bool_)
        rows = self._rows[self.columns.recorded_at[self._rows] > known_at]
        subjects[self.columns.subject[rows]] = True
        return subjects

    def with_retractions(self) -> tuple[RowNumbers, RowNumbers]:
        """The places and rows of all events of subjects with retractions, by subject and position."""
        columns = self.columns
        subjects = np.zeros(len(columns.names.kinds), np.bool_)
        subjects[columns.subject[self._rows[self._retractions]]] = True
        places = np.flatnonzero(subjects[columns.subject[self._rows]])
        rows = self._rows[places]
        order = np.lexsort((columns.position[rows], columns.subject[rows]))
        return places[order], rows[order]

    def retracts(self, places: RowNumbers) -> RowNumbers:
        """The positions of the changes that the events at these places retract, 0 for a change."""
        targets = np.full(len(self._rows), -1, np.int64)
        targets[self._retractions] = self._retracted
        target = targets[places]
        return np.where(target >= 0, self.columns.position[self._rows[target]], 0)


def _assertion(row: int, position: int, recorded_at: int, start: int, until: int, retracts: int) -> Assertion:
    """An event with only the parts that the fold reads, and its row in place of its version. `retracts`: -1 for a
    change."""
    if retracts >= 0:
        return Retraction(position, row, str(position), recorded_at, "", "", str(retracts))
    return Change(position, row, str(position), recorded_at, "", "", None, start, None if until == END else until)


def _last_of_each(steps: _Groups) -> _Groups:
    """Of several steps of a group at one instant, only the last one counts."""
    last = np.ones(len(steps.group), np.bool_)
    last[:-1] = (steps.group[1:] != steps.group[:-1]) | (steps.at[1:] != steps.at[:-1])
    return steps if last.all() else steps.only(last)


def _steps(parts: list[_Groups]) -> Steps:
    group = np.concatenate([part.group for part in parts])
    return Steps(
        (group // _SETTINGS).astype(np.int32),
        (group % _SETTINGS).astype(np.uint8),
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.event for part in parts]),
    )


_FEW: Final = 48
"""Groups of up to this many rows are sorted by insertion."""

Order = NDArray[np.int64]


def ordered(groups: NDArray[Any], keys: NDArray[Any], count: int) -> Order:
    """The rows in the order of `groups` (0 .. `count` - 1), then of `keys`, then as they stand.

    Most groups have a few rows. So compiled code counts the rows into their groups and sorts each group by insertion;
    NumPy sorts all rows, with the same result.
    """
    if not worth_compiling(len(groups), _ordered):
        return np.lexsort((keys, groups))
    order = np.empty(len(groups), np.int64)
    ends = np.zeros(count + 1, np.int64)
    _ordered(groups, keys, ends, order)
    starts = np.concatenate([[0], ends[:-1]])
    for group in np.flatnonzero(ends - starts > _FEW).tolist():
        part = order[starts[group] : ends[group]]
        order[starts[group] : ends[group]] = part[np.argsort(keys[part], kind="stable")]
    return order


@compiled
def _ordered(groups: NDArray[Any], keys: NDArray[Any], ends: Int64s, order: Order) -> None:
    """Leaves large groups in the order of their rows. `ends`: afterwards, where each group ends."""
    rows = len(groups)
    for row in range(rows):
        ends[groups[row] + 1] += 1
    for group in range(1, len(ends)):
        ends[group] += ends[group - 1]
    # From here on `ends` says where the next row of each group goes.
    for row in range(rows):
        group = groups[row]
        order[ends[group]] = row
        ends[group] += 1
    start = 0
    for group in range(len(ends) - 1):
        end = ends[group]
        if end - start <= _FEW:
            for place in range(start + 1, end):
                row = order[place]
                key = keys[row]
                before = place - 1
                while before >= start and keys[order[before]] > key:
                    order[before + 1] = order[before]
                    before -= 1
                order[before + 1] = row
        start = end
