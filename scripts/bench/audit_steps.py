"""What others audit with: the steps of a policy index as plain tables, which they may read like any Parquet file.

They are given more than they would have by themselves: the states are folded, defaults are filled in, subjects have
numbers. Only what a made ledger (see `population`) says is in them: its catalog does not change while its logs last,
nobody has residency or a private network, and accounts are attached to nobody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

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

SUBJECTS: Final = "subjects.parquet"
"""kind, id, reference, code."""
LINKS: Final = "links.parquet"
"""code, at, target and its kind, position: the owners of keys and projects."""
POLICIES: Final = "policies.parquet"
"""code, at, the four switches of an organization or account, and the positions of those that it set itself."""
MODELS: Final = "models.parquet"
"""id, at, hosting, provider, positions of both."""
SWITCHES: Final = {"training": TRAINING, "storage": STORAGE, "caching": CACHING, "passthrough": PASSTHROUGH}


def write_steps(index: PolicyIndex, folder: Path) -> dict[str, bool]:
    """The four tables into `folder`. What the switches are where there is no step."""
    subjects = index.subjects
    references = pa.LargeStringArray.from_buffers(
        len(subjects), pa.py_buffer(subjects.reference_offsets.tobytes()), pa.py_buffer(subjects.references.tobytes())
    ).cast(pa.string())
    prefixes = np.array(PREFIX_LENGTHS)[subjects.kinds]
    ids = [reference[length:] for reference, length in zip(references.to_pylist(), prefixes.tolist(), strict=True)]
    codes = pa.array(np.arange(len(subjects), dtype=np.int32))
    pq.write_table(
        pa.table({"kind": pa.array(subjects.kinds), "id": pa.array(ids), "reference": references, "code": codes}),
        folder / SUBJECTS,
    )
    slices = index.slices
    owner, row = _rows(subjects.kinds, slices.link_start, slices.link_count, (KEY, PROJECT))
    target = index.links.target[row]
    nobody = target < 0
    links = {
        "code": pa.array(owner),
        "at": pa.array(index.links.at[row], INSTANT),
        "target": pa.array(target, mask=nobody),
        "target_kind": pa.array(subjects.kinds[np.where(nobody, 0, target)], mask=nobody),
        "link_position": pa.array(index.links.position[row].astype(np.int64), mask=nobody),
    }
    pq.write_table(pa.table(links), folder / LINKS)
    owner, row = _rows(subjects.kinds, slices.state_start, slices.state_count, (ORG, ACCOUNT))
    states, kinds = index.policies.states[row], subjects.kinds[owner]
    switches, defaults = {}, {}
    for name, setting in SWITCHES.items():
        said = states >> 3 * setting & 7
        defaults[name] = bool(index.catalog.default[-1, setting] == BIT_TRUE)
        for_kind = index.catalog.kinds[-1, setting] >> kinds & 1 == 1
        own = for_kind & (said >= BIT_FALSE)
        switches[name] = pa.array(np.where(own, said == BIT_TRUE, defaults[name]))
        positions = index.policies.positions[row, setting].astype(np.int64)
        switches[f"{name}_position"] = pa.array(positions, mask=~own)
    pq.write_table(
        pa.table({"code": pa.array(owner), "at": pa.array(index.policies.at[row], INSTANT), **switches}),
        folder / POLICIES,
    )
    owner, row = _rows(subjects.kinds, slices.state_start, slices.state_count, (MODEL,))
    hosting = {HOSTED: "hosted", PASSED_THROUGH: "passthrough"}
    texts = dict(enumerate(index.texts.texts))
    models = {
        "id": pa.array([ids[code] for code in owner.tolist()]),
        "at": pa.array(index.models.at[row], INSTANT),
        "hosting": pa.array(list(map(hosting.get, index.models.values[row, 0].tolist())), pa.string()),
        "provider": pa.array(list(map(texts.get, index.models.values[row, 1].tolist())), pa.string()),
        **{
            f"{name}_position": pa.array(
                index.models.positions[row, place].astype(np.int64), mask=index.models.values[row, place] < 0
            )
            for place, name in enumerate(("hosting", "provider"))
        },
    }
    pq.write_table(pa.table(models), folder / MODELS)
    return defaults


def _rows(kinds: Any, starts: Any, counts: Any, wanted: tuple[int, ...]) -> tuple[Any, Any]:
    """Of each row in the slices of subjects of the `wanted` kinds, whose it is and where it is."""
    chosen = np.flatnonzero(np.isin(kinds, wanted)).astype(np.int32)
    lengths = counts[chosen].astype(np.int64)
    owner = np.repeat(chosen, lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owner, starts[owner] + within
