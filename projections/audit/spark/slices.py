"""Cuts a policy index by subjects, so that each part of a cluster holds a part of the index. Pure.

A row's decision (`projections.decisions.scope`, `projections.decisions.check`) depends on three things: the subjects
that links reach from the first subject that the row names; the row's model; and the links, but not the settings, that
lead from a project that the row names besides (settings would have to be those of the same governing subject). So a
slice of some subjects holds them and all subjects that their links ever reach, on both axes; every model; and the links
of every other project. Texts, the events' instants and the directory belong to no
subject: see `shared_part`.
Proved by tests/audit/spark/test_slices.py.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from projections.audit.arrays import Bools, Int32s, Int64s, UInt32s
from projections.audit.index.hash_table import hashes_of, slots_for
from projections.audit.index.hashing import hash_ids
from projections.audit.index.schema import (
    ACCOUNT,
    KEY,
    MODEL,
    ORG,
    OWNER_CODE,
    PROJECT,
    Assertions,
    CatalogSteps,
    Links,
    Models,
    Policies,
    PolicyIndex,
    Slices,
    Subjects,
)
from projections.audit.index.storage import PARTS
from projections.audit.kernel.request_columns import text_column

FIRST_NAMED: Final = (("key_id", KEY), ("project_id", PROJECT), ("org_id", ORG), ("account_id", ACCOUNT))
"""Columns by which `projections.decisions.scope` finds the governing subject: the first one that is set counts."""
_PARTS: Final[Mapping[str, type[Any]]] = {
    **{name: type_ for name, type_ in PARTS.items() if name != "texts"},
    "catalog": CatalogSteps,
    "later_catalog": CatalogSteps,
}
"""The parts that each slice has for itself."""


def sliced_bytes(index: PolicyIndex) -> int:
    """The bytes of the parts that are cut; slices share the rest."""
    return sum(int(array.nbytes) for array in _arrays(index).values())


def _arrays(index: PolicyIndex) -> dict[str, Any]:
    return {
        f"{part}.{field.name}": getattr(getattr(index, part), field.name)
        for part, type_ in _PARTS.items()
        for field in fields(type_)
    }


class IndexSlicer:
    """Cuts an index into `count` slices."""

    def __init__(self, index: PolicyIndex, count: int) -> None:
        subjects = index.subjects
        hashes = hashes_of(subjects.kinds, subjects.reference_offsets, subjects.references)
        self._index = index
        self._numbers = (hashes % np.uint64(count)).astype(np.int32)
        self._models: Bools = subjects.kinds == MODEL
        self._of_projects = _reached(index, subjects.kinds == PROJECT)

    def slice(self, number: int) -> PolicyIndex:
        """The slice of the subjects whose hash modulo `count` is the number. It decides each row of that number in
        `slice_numbers` as the whole index does."""
        whole = _reached(self._index, self._numbers == number) | self._models
        return _cut(self._index, whole, whole | self._of_projects)


def slice_numbers(requests: pa.RecordBatch, count: int) -> NDArray[np.int32]:
    """The number of the slice that decides each row of REQUESTS."""
    numbers = np.full(requests.num_rows, -1, np.int32)
    for name, kind in FIRST_NAMED:
        column = text_column(requests.column(name))
        rows = np.flatnonzero((numbers < 0) & column.valid)
        offsets = column.offsets.astype(np.int64)
        kinds = np.full(len(rows), kind, np.uint8)
        hashes = hash_ids(kinds, column.bytes, offsets[rows], offsets[rows + 1] - offsets[rows])
        numbers[rows] = (hashes % np.uint64(count)).astype(np.int32)
    return numbers


def _reached(index: PolicyIndex, begin: Bools) -> Bools:
    """The subjects of `begin` and all subjects that their links reach at any time."""
    reached, defaults = begin.copy(), _defaults(index)
    # A default may own a subject without events.
    reached[defaults[defaults >= 0]] = True
    front = np.flatnonzero(reached)
    while len(front):
        slices = index.slices
        later = slices.later[front]
        later = later[later >= 0]
        targets = np.concatenate(
            [
                index.links.target[_rows(slices.link_start[front], slices.link_count[front])],
                index.links.target[_rows(slices.later_link_start[later], slices.later_link_count[later])],
            ]
        )
        targets = np.unique(targets[targets >= 0])
        front = targets[~reached[targets]]
        reached[front] = True
    return reached


def _defaults(index: PolicyIndex) -> NDArray[np.int32]:
    """The default values of links, which hold for subjects without events."""
    defaults = []
    for steps in (index.catalog, index.later_catalog):
        defined = steps.position[:, OWNER_CODE:] > 0
        defaults += [steps.default[:, OWNER_CODE:][defined], steps.protective[:, OWNER_CODE:][defined]]
    return np.concatenate(defaults)


def _rows(start: NDArray[Any], count: NDArray[Any]) -> Int64s:
    """The rows of all slices, one after the other."""
    counts = count.astype(np.int64)
    ends = np.cumsum(counts)
    rows: Int64s = np.arange(counts.sum()) + np.repeat(start.astype(np.int64) - (ends - counts), counts)
    return rows


def _cut(index: PolicyIndex, whole: Bools, subset: Bools) -> PolicyIndex:
    """The part of the index with the subjects `subset`; those in `whole` have their settings, too."""
    codes = np.flatnonzero(subset)
    code_of = np.full(len(subset) + 1, -1, np.int32)
    code_of[codes] = np.arange(len(codes), dtype=np.int32)
    slices, subjects = index.slices, _cut_subjects(index.subjects, codes)
    laters, later_rows, later = _compact(slices.later[codes])
    _, assertion_rows, assertions_of = _compact(slices.assertions_of[codes])

    def on_both_axes(name: str) -> UInt32s:
        """The column of the slices, and after it that of the later slices."""
        return np.concatenate([getattr(slices, name)[codes], getattr(slices, f"later_{name}")[later_rows]])

    subject = np.concatenate([np.arange(len(codes)), laters])
    link_counts = on_both_axes("link_count")
    link_rows = _rows(on_both_axes("link_start"), link_counts)
    state_starts, state_counts = on_both_axes("state_start"), on_both_axes("state_count") * whole[codes][subject]
    of_models = subjects.kinds[subject] == MODEL
    table_rows = []
    for of in (~of_models, of_models):
        table_rows.append(_rows(state_starts[of], state_counts[of]))
        state_starts[of] = _packed_starts(state_counts[of])
    columns: dict[str, UInt32s] = {
        "link_start": _packed_starts(link_counts),
        "link_count": link_counts,
        "state_start": state_starts,
        "state_count": state_counts,
    }
    assertion_counts = index.assertions.count[assertion_rows]
    assertion_columns = _rows_of(index.assertions, _rows(index.assertions.start[assertion_rows], assertion_counts), 2)
    targets = index.links.target[link_rows]
    return PolicyIndex(
        pin=index.pin,
        known_at=index.known_at,
        subjects=subjects,
        slices=Slices(
            **{name: column[: len(codes)] for name, column in columns.items()},
            later=later,
            assertions_of=assertions_of,
            **{f"later_{name}": column[len(codes) :] for name, column in columns.items()},
            first_recorded_at=slices.first_recorded_at[codes],
        ),
        links=Links.of(
            index.links.at[link_rows],
            np.where(targets >= 0, code_of[np.maximum(targets, 0)], targets).astype(np.int32),
            index.links.position[link_rows],
        ),
        policies=Policies(*_rows_of(index.policies, table_rows[0])),
        models=Models(*_rows_of(index.models, table_rows[1])),
        catalog=_recode(index.catalog, code_of),
        later_catalog=_recode(index.later_catalog, code_of),
        texts=index.texts,
        assertions=Assertions(_packed_starts(assertion_counts), assertion_counts, *assertion_columns),
        since=index.since,
        directory=index.directory,
    )


def _cut_subjects(subjects: Subjects, codes: Int64s) -> Subjects:
    offsets = subjects.reference_offsets
    lengths = offsets[codes + 1] - offsets[codes]
    references = subjects.references[_rows(offsets[codes], lengths)]
    new_offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    kinds = np.ascontiguousarray(subjects.kinds[codes])
    return Subjects(kinds, new_offsets, references, slots_for(kinds, new_offsets, references))


def _compact(rows: Int32s) -> tuple[Int64s, Int32s, Int32s]:
    """(places with a row, these rows, the new number of each place's row). -1 is no row, before and after."""
    places = np.flatnonzero(rows >= 0)
    numbers = np.full(len(rows), -1, np.int32)
    numbers[places] = np.arange(len(places), dtype=np.int32)
    return places, rows[places], numbers


def _packed_starts(counts: UInt32s) -> UInt32s:
    """Where each slice starts if slices of these lengths lie one after the other."""
    return (np.cumsum(counts, dtype=np.int64) - counts).astype(np.uint32)


def _rows_of(table: Any, rows: Int64s, first: int = 0) -> Iterator[NDArray[Any]]:
    """These rows of each column from `first` on."""
    return (getattr(table, field.name)[rows] for field in fields(table)[first:])


def _recode(steps: CatalogSteps, code_of: NDArray[np.int32]) -> CatalogSteps:
    columns = []
    for values in (steps.default, steps.protective):
        new = values.copy()
        links = new[:, OWNER_CODE:]
        new[:, OWNER_CODE:] = np.where(
            (links >= 0) & (steps.position[:, OWNER_CODE:] > 0), code_of[np.maximum(links, 0)], links
        )
        columns.append(new)
    return replace(steps, default=columns[0], protective=columns[1])


def pack(index: PolicyIndex) -> bytes:
    """A slice as bytes, without the shared part."""
    file = io.BytesIO()
    np.savez(file, **_arrays(index))
    return file.getvalue()


def unpack(content: Any, shared: PolicyIndex) -> PolicyIndex:
    """The slice in `content` (bytes, or a buffer of them). `shared`: an index with the same texts, instants and
    directory."""
    with np.load(io.BytesIO(content)) as arrays:
        parts = {
            part: type_(*(arrays[f"{part}.{field.name}"] for field in fields(type_))) for part, type_ in _PARTS.items()
        }
    return PolicyIndex(
        pin=shared.pin,
        known_at=shared.known_at,
        texts=shared.texts,
        since=shared.since,
        directory=shared.directory,
        **parts,
    )


def shared_part(index: PolicyIndex) -> PolicyIndex:
    """The index without any subject: the part that all its slices share."""
    none = np.zeros(len(index.subjects), np.bool_)
    return _cut(index, none, none)
