"""The arrays that rows are decided with, in the form in which compiled code takes them: tuples of arrays, read only.

Numba compiles a function for the exact types that it is called with. Arrays that are mapped from files cannot be
written and others can, which makes two types of them: so all of them are shown as read-only here, and one compilation
serves every index and every batch.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from projections.audit.arrays import (
    Bools,
    Int32s,
    Int64s,
    UInt8s,
    UInt32s,
    UInt64s,
    all_sealed,
    sealed,
)
from projections.audit.index.schema import (
    CatalogSteps,
    PolicyIndex,
    Said,
    Subjects,
)
from projections.audit.numba_support import compiled


class Names(NamedTuple):
    """Subjects, to be found by their ids: see `layout.Subjects` and `hashing`."""

    kinds: UInt8s
    offsets: Int64s
    references: UInt8s
    slots: UInt64s


class Catalog(NamedTuple):
    """`layout.CatalogSteps` of one axis. agrees: bool[steps], whether the other axis has the same definitions all the
    time that the step holds."""

    at: Int64s
    position: UInt32s
    kinds: UInt8s
    default: Int32s
    protective: Int32s
    agrees: Bools


class Tables(NamedTuple):
    """`layout.Slices` and what they are slices of: see there."""

    packed: Int32s
    """[subjects, 8]: the columns of PACKED side by side: all of one subject in one line of the cache."""
    later_link_start: UInt32s
    later_link_count: UInt32s
    later_state_start: UInt32s
    later_state_count: UInt32s
    link_rows: Int64s
    policy_rows: Int64s
    model_at: Int64s
    model_values: Int32s
    model_positions: UInt32s
    set_offsets: Int64s
    set_members: Int32s
    said_start: UInt32s
    said_count: UInt32s
    said_position: UInt32s
    said_recorded_at: Int64s
    said_setting: UInt8s
    said_from: Int64s
    said_until: Int64s
    said_retracts: UInt32s
    said_taken_by: Int32s
    """See `taken_by`."""
    since: Int64s


PACKED: Final = ("link_start", "link_count", "state_start", "state_count", "later", "said_of", "kinds")


def names(subjects: Subjects) -> Names:
    columns = (subjects.kinds, subjects.reference_offsets, subjects.references, subjects.slots)
    return Names._make(all_sealed(columns))


def catalog(steps: CatalogSteps, other: CatalogSteps) -> Catalog:
    columns = (steps.at, steps.position, steps.kinds, steps.default, steps.protective, agreement(steps, other))
    return Catalog._make(all_sealed(columns))


def tables(index: PolicyIndex) -> Tables:
    slices, models, texts, said = index.slices, index.models, index.texts, index.said
    columns: tuple[NDArray[Any], ...] = (
        _packed(index),
        slices.later_link_start,
        slices.later_link_count,
        slices.later_state_start,
        slices.later_state_count,
        index.links.rows,
        index.policies.rows,
        models.at,
        models.values,
        models.positions,
        texts.set_offsets,
        texts.members,
        said.start,
        said.count,
        said.position,
        said.recorded_at,
        said.setting,
        said.effective_from,
        said.effective_until,
        said.retracts,
        taken_by(said),
        index.since,
    )
    return Tables._make(all_sealed(columns))


def _packed(index: PolicyIndex) -> Int32s:
    together = np.zeros((len(index.subjects), 8), np.int32)
    for place, name in enumerate(PACKED):
        column = index.subjects.kinds if name == "kinds" else getattr(index.slices, name)
        together[:, place] = column.astype(np.int32)
    return together


def taken_by(said: Said) -> Int32s:
    """By row, the row of what takes the change back, or 0."""
    by = np.zeros(len(said.position), np.int32)
    _pair(sealed(said.start), sealed(said.count), sealed(said.position), sealed(said.retracts), by)
    return by


@compiled
def _pair(starts: Any, counts: Any, positions: Any, retracts: Any, taken_by: Any) -> None:
    """Looks for what each retraction takes back among what its slice says before it."""
    for place in range(len(starts)):
        first = np.int64(starts[place])
        for by in range(first, first + np.int64(counts[place])):
            if retracts[by] != 0:
                low, high = first, np.int64(by)
                while low < high:
                    middle = (low + high) >> 1
                    if positions[middle] < retracts[by]:
                        low = middle + 1
                    else:
                        high = middle
                if low < by and positions[low] == retracts[by]:
                    taken_by[low] = by


def agreement(steps: CatalogSteps, other: CatalogSteps) -> Bools:
    """By step, whether the other axis has the same definitions all the time that the step holds."""
    if steps is other:
        return np.ones(len(steps.at), np.bool_)
    agrees = np.zeros(len(steps.at), np.bool_)
    ends = [*steps.at[1:].tolist(), None]
    for step, (start, end) in enumerate(zip(steps.at.tolist(), ends, strict=True)):
        first = int(np.searchsorted(other.at, start, "right")) - 1
        until = len(other.at) if end is None else int(np.searchsorted(other.at, end, "left"))
        agrees[step] = all(
            np.array_equal(getattr(steps, column)[step], getattr(other, column)[at])
            for column in ("position", "kinds", "default", "protective")
            for at in range(first, until)
        )
    return agrees
