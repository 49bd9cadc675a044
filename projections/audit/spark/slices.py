"""Cuts a policy index by subjects, so that each part of a cluster holds a part of the index. Pure.

A row's decision (`projections.decisions.scope`, `projections.decisions.check`) depends on three things: the subjects
that links reach from the first subject that the row names; the row's model; and the links, but not the settings, that
lead from a project that the row names besides (settings would have to be those of the same governing subject). So a
slice of some subjects holds them and all subjects that their links ever reach, on both axes; every model; and the links
of every other project. Texts and the events' instants belong to no subject: see `shared_part`.
Proved by tests/audit/spark/test_slices.py.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from projections.audit.arrays import Bools, Int32s, Int64s
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
from projections.audit.kernel.request_columns import text_column

FIRST_NAMED: Final = (("key_id", KEY), ("project_id", PROJECT), ("org_id", ORG), ("account_id", ACCOUNT))
"""Columns by which `projections.decisions.scope` finds the governing subject: the first one that is set counts."""
_PARTS: Final[Mapping[str, type[Any]]] = {
    "subjects": Subjects,
    "slices": Slices,
    "links": Links,
    "policies": Policies,
    "models": Models,
    "assertions": Assertions,
}
_CATALOGS: Final = ("catalog", "later_catalog")


def sliced_bytes(index: PolicyIndex) -> int:
    """The bytes of the parts that are cut; slices share the rest."""
    return sum(
        int(getattr(getattr(index, part), field.name).nbytes)
        for part, type_ in _PARTS.items()
        for field in fields(type_)
    )


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
    with_settings = whole[codes]
    laters, later_rows, later = _compact(slices.later[codes])
    _, assertion_rows, assertions_of = _compact(slices.assertions_of[codes])

    links = _PackedRows(slices.link_start[codes], slices.link_count[codes])
    later_links = _PackedRows(slices.later_link_start[later_rows], slices.later_link_count[later_rows], links.count)
    link_rows = np.concatenate([links.rows, later_links.rows])
    of_models = subjects.kinds == MODEL
    states = _PackedStates(slices.state_start[codes], slices.state_count[codes] * with_settings, of_models, (0, 0))
    later_states = _PackedStates(
        slices.later_state_start[later_rows],
        slices.later_state_count[later_rows] * with_settings[laters],
        of_models[laters],
        states.counts,
    )
    policy_rows, model_rows = (
        np.concatenate([one, other]) for one, other in zip(states.rows, later_states.rows, strict=True)
    )
    assertions = _PackedRows(index.assertions.start[assertion_rows], index.assertions.count[assertion_rows])
    targets = index.links.target[link_rows]
    return PolicyIndex(
        pin=index.pin,
        known_at=index.known_at,
        subjects=subjects,
        slices=Slices(
            links.start,
            links.lengths,
            states.start,
            states.lengths,
            later,
            assertions_of,
            later_links.start,
            later_links.lengths,
            later_states.start,
            later_states.lengths,
        ),
        links=Links.of(
            index.links.at[link_rows],
            np.where(targets >= 0, code_of[np.maximum(targets, 0)], targets).astype(np.int32),
            index.links.position[link_rows],
        ),
        policies=_take(index.policies, policy_rows),
        models=_take(index.models, model_rows),
        catalog=_recode(index.catalog, code_of),
        later_catalog=_recode(index.later_catalog, code_of),
        texts=index.texts,
        assertions=_take_assertions(index.assertions, assertions),
        since=index.since,
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


class _PackedRows:
    """Rows of slices, packed one after the other from `first` on."""

    def __init__(self, start: NDArray[Any], lengths: NDArray[Any], first: int = 0) -> None:
        self.rows = _rows(start, lengths)
        self.lengths = lengths.astype(np.uint32)
        ends = np.cumsum(lengths.astype(np.int64))
        self.start = (first + ends - lengths).astype(np.uint32)
        self.count = first + len(self.rows)


class _PackedStates:
    """The same for settings, which are in one table for models and in another for all other subjects."""

    def __init__(self, start: NDArray[Any], lengths: NDArray[Any], of_models: Bools, first: tuple[int, int]) -> None:
        self.lengths = lengths.astype(np.uint32)
        self.start = np.zeros(len(start), np.uint32)
        tables = []
        for of, begin in ((~of_models, first[0]), (of_models, first[1])):
            table = _PackedRows(start[of], lengths[of], begin)
            self.start[of] = table.start
            tables.append(table)
        self.rows = tuple(table.rows for table in tables)
        self.counts = (tables[0].count, tables[1].count)


def _take(table: Any, rows: Int64s) -> Any:
    return type(table)(*(getattr(table, field.name)[rows] for field in fields(table)))


def _take_assertions(assertions: Assertions, table: _PackedRows) -> Assertions:
    columns = [getattr(assertions, field.name)[table.rows] for field in fields(assertions)[2:]]
    return Assertions(table.start, table.lengths, *columns)


def _recode(steps: CatalogSteps, code_of: NDArray[np.int32]) -> CatalogSteps:
    columns = []
    for values in (steps.default, steps.protective):
        new = values.copy()
        links = new[:, OWNER_CODE:]
        new[:, OWNER_CODE:] = np.where(
            (links >= 0) & (steps.position[:, OWNER_CODE:] > 0), code_of[np.maximum(links, 0)], links
        )
        columns.append(new)
    return CatalogSteps(steps.at, steps.position, steps.kinds, *columns)


def pack(index: PolicyIndex) -> bytes:
    """A slice as bytes, without the shared part."""
    arrays = {
        f"{part}.{field.name}": getattr(getattr(index, part), field.name)
        for part, type_ in _PARTS.items()
        for field in fields(type_)
    }
    for name in _CATALOGS:
        steps = getattr(index, name)
        arrays |= {f"{name}.{field.name}": getattr(steps, field.name) for field in fields(CatalogSteps)}
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def unpack(content: Any, shared: PolicyIndex) -> PolicyIndex:
    """The slice in `content` (bytes, or a buffer of them). `shared`: an index with the same texts and instants."""
    with np.load(io.BytesIO(content)) as arrays:
        parts = {
            part: type_(*(arrays[f"{part}.{field.name}"] for field in fields(type_)))
            for part, type_ in {**_PARTS, **dict.fromkeys(_CATALOGS, CatalogSteps)}.items()
        }
    return PolicyIndex(pin=shared.pin, known_at=shared.known_at, texts=shared.texts, since=shared.since, **parts)


def shared_part(index: PolicyIndex) -> PolicyIndex:
    """The index without any subject: the part that all its slices share."""
    none = np.zeros(len(index.subjects), np.bool_)
    return _cut(index, none, none)
