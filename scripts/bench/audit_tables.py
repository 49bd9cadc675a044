"""The policy index as Parquet tables, for the peers of `bench audit`.

The tables save the peers work that an audit has to do: the states are folded, defaults are filled in, and subjects have
numbers. They hold only what a generated ledger contains: its catalog does not change during its logs, no subject has a
residency or a private network, and no account belongs to an organization.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from projections.audit.index.schema import (
    ACCOUNT,
    BIT_FALSE,
    BIT_TRUE,
    CACHING,
    HOSTED,
    KEY,
    MODEL,
    ORG,
    PASSED_THROUGH,
    PASSTHROUGH,
    PREFIX_LENGTHS,
    PROJECT,
    STORAGE,
    TRAINING,
    PolicyIndex,
)
from projections.audit.schemas import INSTANT

TABLES: Final = ("subjects", "links", "policies", "models")
DEFAULTS: Final = "defaults.json"
"""The values of the switches where a table has no row."""
_SWITCHES: Final = {"training": TRAINING, "storage": STORAGE, "caching": CACHING, "passthrough": PASSTHROUGH}

Array = np.ndarray[Any, Any]


def write_tables(index: PolicyIndex, folder: Path) -> None:
    """Writes TABLES and DEFAULTS. `code` is the number of a subject; `at` is the start of a row's validity."""
    ids, references = _ids(index)
    links, models = _links(index), _models(index, ids)
    policies, defaults = _policies(index)
    subjects = {
        "kind": pa.array(index.subjects.kinds),
        "id": pa.array(ids),
        "reference": references,
        "code": pa.array(np.arange(len(index.subjects), dtype=np.int32)),
    }
    for name, columns in zip(TABLES, (subjects, links, policies, models), strict=True):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    (folder / DEFAULTS).write_bytes(msgspec.json.encode(defaults))


def _ids(index: PolicyIndex) -> tuple[list[str], pa.Array]:
    subjects = index.subjects
    references = pa.LargeStringArray.from_buffers(
        len(subjects), pa.py_buffer(subjects.reference_offsets.tobytes()), pa.py_buffer(subjects.references.tobytes())
    ).cast(pa.string())
    prefixes = np.array(PREFIX_LENGTHS)[subjects.kinds]
    ids = [reference[length:] for reference, length in zip(references.to_pylist(), prefixes.tolist(), strict=True)]
    return ids, references


def _links(index: PolicyIndex) -> dict[str, pa.Array]:
    """The owners of keys and projects; `target` null: no owner."""
    kinds = index.subjects.kinds
    owner, row = _rows(kinds, index.slices.link_start, index.slices.link_count, (KEY, PROJECT))
    target = index.links.target[row]
    unowned = target < 0
    return {
        "code": pa.array(owner),
        "at": pa.array(index.links.at[row], INSTANT),
        "target": pa.array(target, mask=unowned),
        "target_kind": pa.array(kinds[np.where(unowned, 0, target)], mask=unowned),
        "link_position": pa.array(index.links.position[row].astype(np.int64), mask=unowned),
    }


def _policies(index: PolicyIndex) -> tuple[dict[str, pa.Array], dict[str, bool]]:
    """The four switches of organizations and accounts, with the positions of those that they set; and the defaults."""
    owner, row = _rows(index.subjects.kinds, index.slices.state_start, index.slices.state_count, (ORG, ACCOUNT))
    states, kinds = index.policies.states[row], index.subjects.kinds[owner]
    switches, defaults = {}, {}
    for name, setting in _SWITCHES.items():
        value = states >> 3 * setting & 7
        defaults[name] = bool(index.catalog.default[-1, setting] == BIT_TRUE)
        for_kind = index.catalog.kinds[-1, setting] >> kinds & 1 == 1
        own = for_kind & (value >= BIT_FALSE)
        switches[name] = pa.array(np.where(own, value == BIT_TRUE, defaults[name]))
        positions = index.policies.positions[row, setting].astype(np.int64)
        switches[f"{name}_position"] = pa.array(positions, mask=~own)
    return {"code": pa.array(owner), "at": pa.array(index.policies.at[row], INSTANT), **switches}, defaults


def _models(index: PolicyIndex, ids: list[str]) -> dict[str, pa.Array]:
    """Hosting and provider of models, and the positions of both."""
    owner, row = _rows(index.subjects.kinds, index.slices.state_start, index.slices.state_count, (MODEL,))
    hosting = {HOSTED: "hosted", PASSED_THROUGH: "passthrough"}
    texts = dict(enumerate(index.texts.texts))
    columns = {
        "id": pa.array([ids[code] for code in owner.tolist()]),
        "at": pa.array(index.models.at[row], INSTANT),
    }
    for column, (name, names) in enumerate((("hosting", hosting), ("provider", texts))):
        values = index.models.values[row, column]
        columns[name] = pa.array(list(map(names.get, values.tolist())), pa.string())
        positions = index.models.positions[row, column].astype(np.int64)
        columns[f"{name}_position"] = pa.array(positions, mask=values < 0)
    return columns


def _rows(kinds: Array, starts: Array, counts: Array, chosen: tuple[int, ...]) -> tuple[Array, Array]:
    """The owner's code and the number of each row in the slices of subjects of the `chosen` kinds."""
    codes = np.flatnonzero(np.isin(kinds, chosen)).astype(np.int32)
    lengths = counts[codes].astype(np.int64)
    owner = np.repeat(codes, lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owner, starts[owner] + within
