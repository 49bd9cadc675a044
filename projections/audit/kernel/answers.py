"""What an engine says of each row in codes, and how it is said in a VERDICTS batch. No step is taken row by row."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from projections.audit.arrays import Bools, Int8s, Int32s, Int64s, UInt8s, UInt16s
from projections.audit.index.schema import PolicyIndex
from projections.audit.schemas import DATA_POLICY_NAMES, REASON_NAMES, VERDICT_NAMES, VERDICTS

MAY_STORE: Final = 1
MAY_CACHE: Final = 2
MAY_TRAIN: Final = 4
MAY_LEAVE: Final = 8
PRIVATE_ONLY: Final = 16
BY_PROVIDER: Final = 32
"""Bits of `Answers.handling`."""

NOBODY: Final = -1
THE_ORG: Final = -2
THE_ACCOUNT: Final = -3
"""In `Answers.governing`: nobody, or the org or account that the record names and nothing was ever said of."""
NONE: Final = -1
"""In place of a code: null. Of regions: anywhere."""

POSITIONS_MAX: Final = 26
"""Of one row: two chains of eight links at most, six settings of the governing subject and four of the model."""


class Answers(NamedTuple):
    """By row, on one axis. verdict: places in VERDICT_NAMES. reasons: bits, by REASON_NAMES. codes: int32[rows, 4], a
    governing subject's (or one of the above), a set of regions', a provider's text's and a URL's, or NONE. handling:
    bits. looked: whether anything that was looked at may be another on the later axis. lags: int64[rows, 2], µs and
    position, 0 and 0 without one. counts: of the row's positions, which stand in `positions` one row behind the other.
    """

    verdict: Int8s
    reasons: UInt16s
    codes: Int32s
    handling: UInt8s
    looked: Bools
    lags: Int64s
    counts: Int32s
    positions: Int64s


def blank(rows: int) -> Answers:
    """To be filled. Pages of `positions` that are never written are never had."""
    return Answers(
        np.empty(rows, np.int8),
        np.empty(rows, np.uint16),
        np.empty((rows, 4), np.int32),
        np.empty(rows, np.uint8),
        np.empty(rows, np.bool_),
        np.empty((rows, 2), np.int64),
        np.empty(rows, np.int32),
        np.empty(rows * POSITIONS_MAX, np.int64),
    )


_VERDICTS: Final = pa.array(VERDICT_NAMES)
_REASONS: Final = pa.array(REASON_NAMES)
_POLICIES: Final = pa.array(DATA_POLICY_NAMES)
_REASON_LISTS: Final = pa.array(
    [[place for place in range(len(REASON_NAMES)) if bits >> place & 1] for bits in range(1 << len(REASON_NAMES))],
    pa.list_(pa.int8()),
)
"""By the bits of `Answers.reasons`."""


class Wording:
    """The texts that answers of one index are put in: the index's own memory, not copied."""

    def __init__(self, index: PolicyIndex) -> None:
        subjects, texts = index.subjects, index.texts
        self.references = _texts(subjects.reference_offsets, subjects.references)
        self._texts = _texts(texts.offsets, texts.bytes)
        members = self._texts.take(pa.array(texts.members))
        self._sets = pa.LargeListArray.from_arrays(pa.array(texts.set_offsets), members)

    def verdicts(self, batch: pa.RecordBatch, said: Answers, hindsight: Int8s) -> pa.RecordBatch:
        """The VERDICTS of a REQUESTS batch. `hindsight`: places in VERDICT_NAMES, or NONE where it agrees."""
        governing, regions, provider, url = said.codes.T
        lag, lag_position = said.lags.T

        def may(bit: int) -> pa.Array:
            return pa.array((said.handling & bit).astype(np.bool_))

        columns = {
            "request_id": batch.column("request_id"),
            "at": batch.column("at"),
            "verdict": pa.DictionaryArray.from_arrays(pa.array(said.verdict), _VERDICTS),
            "reasons": _reasons(said.reasons),
            "governed_by": self._governed_by(batch, governing),
            "may_store": may(MAY_STORE),
            "may_cache": may(MAY_CACHE),
            "may_train": may(MAY_TRAIN),
            "may_leave_platform": may(MAY_LEAVE),
            "allowed_regions": _chosen(self._sets, regions, pa.list_(pa.string())),
            "private_network_required": may(PRIVATE_ONLY),
            "data_policy": pa.DictionaryArray.from_arrays(
                pa.array((said.handling & BY_PROVIDER).astype(np.bool_).astype(np.int8)), _POLICIES
            ),
            "provider": _chosen(self._texts, provider, pa.string()),
            "policy_url": _chosen(self._texts, url, pa.string()),
            "deciding_positions": _positions(said),
            "hindsight": pa.DictionaryArray.from_arrays(_codes(hindsight), _VERDICTS),
            "enforcement_lag_us": pa.array(lag, mask=lag_position == 0),
            "lag_position": pa.array(lag_position, mask=lag_position == 0),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in VERDICTS.names], schema=VERDICTS)

    def _governed_by(self, batch: pa.RecordBatch, governing: Int32s) -> pa.Array:
        found = _chosen(self.references, governing, pa.string())
        if not (governing < NOBODY).any():
            return found
        places, names = [], []
        for code, column, prefix in ((THE_ORG, "org_id", "org:"), (THE_ACCOUNT, "account_id", "account:")):
            rows = np.flatnonzero(governing == code)
            places.append(rows)
            names.append(pc.binary_join_element_wise(prefix, batch.column(column).take(pa.array(rows)), ""))
        # Replaced all at once, for which they have to come in the order of their rows.
        order = np.argsort(np.concatenate(places))
        return pc.replace_with_mask(found, pa.array(governing < NOBODY), pa.concat_arrays(names).take(pa.array(order)))


def _texts(offsets: Int64s, content: UInt8s) -> pa.Array:
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(content))


def _codes(codes: NDArray[Any]) -> pa.Array:
    """Negative ones are nulls."""
    none = codes < 0
    return pa.array(codes, mask=none if none.any() else None)


def _chosen(values: pa.Array, codes: Int32s, type_: pa.DataType) -> pa.Array:
    if (codes < 0).all():
        return pa.nulls(len(codes), type_)
    return values.take(_codes(codes)).cast(type_)


def _reasons(reasons: UInt16s) -> pa.Array:
    lists = _REASON_LISTS.take(pa.array(reasons))
    return pa.ListArray.from_arrays(lists.offsets, pa.DictionaryArray.from_arrays(lists.values, _REASONS))


def _positions(said: Answers) -> pa.Array:
    offsets = np.zeros(len(said.counts) + 1, np.int32)
    np.cumsum(said.counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(said.positions[: offsets[-1]]))
