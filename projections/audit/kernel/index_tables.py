"""A policy index in the form that compiled code takes: named tuples of read-only arrays (see `arrays`)."""

from __future__ import annotations

from collections.abc import Callable
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
    HOSTING,
    PRECISION,
    REVISION,
    Assertions,
    CatalogSteps,
    PolicyIndex,
    Subjects,
)
from projections.audit.numba_support import compiled


class IdTable(NamedTuple):
    """A hash table from ids to codes, of subjects or of texts: see `schema.Subjects` and `hashing`."""

    offsets: Int64s
    references: UInt8s
    slots: UInt64s


class CatalogTables(NamedTuple):
    """`schema.CatalogSteps` of one axis. agrees: see `agreement`."""

    at: Int64s
    position: UInt32s
    kinds: UInt8s
    default: Int32s
    protective: Int32s
    demands: UInt8s
    agrees: Bools


class IndexTables(NamedTuple):
    """`schema.Slices`, and the tables that they are slices of. The model's published texts have their plain codes."""

    packed: Int32s
    """[subjects, 8]: the columns of PACKED side by side, so that one cache line holds all of one subject."""
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
    assertions_start: UInt32s
    assertions_count: UInt32s
    assertion_position: UInt32s
    assertion_recorded_at: Int64s
    assertion_setting: UInt8s
    assertion_from: Int64s
    assertion_until: Int64s
    assertion_retracts: UInt32s
    retracted_by: Int32s
    """See `retracted_by`."""
    since: Int64s
    first_recorded_at: Int64s


PACKED: Final = ("link_start", "link_count", "state_start", "state_count", "later", "assertions_of", "kinds")


def id_table(subjects: Subjects) -> IdTable:
    columns = (subjects.reference_offsets, subjects.references, subjects.slots)
    return IdTable._make(all_sealed(columns))


PlainCodes = Callable[[NDArray[np.int32]], NDArray[np.int32]]
"""From codes of texts to the codes by which published settings are compared (`places.PlaceRules.plain_codes`)."""


def catalog_tables(steps: CatalogSteps, other: CatalogSteps, plain_codes: PlainCodes) -> CatalogTables:
    default = steps.default.copy()
    for setting in (PRECISION, REVISION):
        default[:, setting] = np.where(steps.position[:, setting] > 0, plain_codes(default[:, setting]), 0)
    columns = (steps.at, steps.position, steps.kinds, default, steps.protective, steps.demands)
    return CatalogTables._make(all_sealed((*columns, agreement(steps, other))))


def index_tables(index: PolicyIndex, plain_codes: PlainCodes) -> IndexTables:
    model_values = index.models.values.copy()
    for setting in (PRECISION, REVISION):
        model_values[:, setting - HOSTING] = plain_codes(model_values[:, setting - HOSTING])
    slices, models, texts, assertions = index.slices, index.models, index.texts, index.assertions
    columns: tuple[NDArray[Any], ...] = (
        _packed(index),
        slices.later_link_start,
        slices.later_link_count,
        slices.later_state_start,
        slices.later_state_count,
        index.links.rows,
        index.policies.rows,
        models.at,
        model_values,
        models.positions,
        texts.set_offsets,
        texts.members,
        assertions.start,
        assertions.count,
        assertions.position,
        assertions.recorded_at,
        assertions.setting,
        assertions.effective_from,
        assertions.effective_until,
        assertions.retracts,
        retracted_by(assertions),
        index.since,
        slices.first_recorded_at,
    )
    return IndexTables._make(all_sealed(columns))


def _packed(index: PolicyIndex) -> Int32s:
    packed = np.zeros((len(index.subjects), 8), np.int32)
    for place, name in enumerate(PACKED):
        column = index.subjects.kinds if name == "kinds" else getattr(index.slices, name)
        packed[:, place] = column.astype(np.int32)
    return packed


def retracted_by(assertions: Assertions) -> Int32s:
    """By row of a change, the row of its retraction, or 0."""
    rows = np.zeros(len(assertions.position), np.int32)
    starts, counts = sealed(assertions.start), sealed(assertions.count)
    find_retractions(starts, counts, sealed(assertions.position), sealed(assertions.retracts), rows)
    return rows


@compiled
def find_retractions(starts: Any, counts: Any, positions: Any, retracts: Any, retracted_by: Any) -> None:
    """Searches the slice of each retraction for the change that it retracts, which stands before it."""
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
                    retracted_by[low] = by


def agreement(steps: CatalogSteps, other: CatalogSteps) -> Bools:
    """By step, whether the other axis has the same definitions for as long as the step holds."""
    if steps is other:
        return np.ones(len(steps.at), np.bool_)
    agrees = np.zeros(len(steps.at), np.bool_)
    ends = [*steps.at[1:].tolist(), None]
    for step, (start, end) in enumerate(zip(steps.at.tolist(), ends, strict=True)):
        first = int(np.searchsorted(other.at, start, "right")) - 1
        until = len(other.at) if end is None else int(np.searchsorted(other.at, end, "left"))
        agrees[step] = all(
            np.array_equal(getattr(steps, column)[step], getattr(other, column)[at])
            for column in ("position", "kinds", "default", "protective", "demands")
            for at in range(first, until)
        )
    return agrees
