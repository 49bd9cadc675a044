"""The kernel's answers in codes, and how they become a VERDICTS batch, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from projections.audit.arrays import Bools, Int8s, Int32s, Int64s, UInt8s, UInt32s
from projections.audit.index.schema import PolicyIndex, Subjects
from projections.audit.schemas import DATA_POLICY_NAMES, POLICY_COLUMNS, REASON_NAMES, VERDICT_NAMES, VERDICTS
from projections.decisions.model import DataPolicy

MAY_STORE: Final = 1
MAY_CACHE: Final = 2
MAY_TRAIN: Final = 4
MAY_LEAVE: Final = 8
PRIVATE_ONLY: Final = 16
BY_PROVIDER: Final = 32
"""Bits of `RowAnswers.handling`."""

NOBODY: Final = -1
THE_ORG: Final = -2
THE_ACCOUNT: Final = -3
"""In place of a governing subject's code: nobody governs; or the org or account governs that the record names and the
index has no code for."""
UNDECIDED: Final = -2
"""In place of an outcome: the combination has none yet."""
NONE: Final = -1
"""In place of another code: null. Of regions: anywhere."""

POSITIONS_MAX: Final = 31
"""Of one row: two chains of at most eight links, six settings of the governing subject and nine of the model."""


class RowAnswers(NamedTuple):
    """The answers by row, on one axis.

    verdict: codes of VERDICT_NAMES. reasons: bits, by REASON_NAMES. codes: int32[rows, 3], of the governing subject (or
    NOBODY, THE_ORG, THE_ACCOUNT), of a set of regions and of a provider's data policy (see `places`), or NONE.
    handling: bits. known: whether the governing subject is. outcomes: int32[rows, 2], the rows of `places.PlaceTables`
    for regions and providers, NONE or UNDECIDED; keys: int64[rows, 8], the combinations of the undecided ones.
    needs_check: whether the lag must be decided row by row. may_differ_in_hindsight: whether a state that the decision
    rests on may differ on the later axis. lags: int64[rows, 2], µs and position, both 0 without a lag. counts: the
    number of the row's deciding positions; positions: these, of all rows one after the other.
    """

    verdict: Int8s
    reasons: UInt32s
    codes: Int32s
    handling: UInt8s
    known: Bools
    outcomes: Int32s
    keys: Int64s
    needs_check: Bools
    may_differ_in_hindsight: Bools
    lags: Int64s
    counts: Int32s
    positions: Int64s


def empty_answers(rows: int) -> RowAnswers:
    """To be filled in. The pages of `positions` and `keys` that stay unused take no memory."""
    return RowAnswers(
        np.empty(rows, np.int8),
        np.empty(rows, np.uint32),
        np.empty((rows, 3), np.int32),
        np.empty(rows, np.uint8),
        np.empty(rows, np.bool_),
        np.empty((rows, 2), np.int32),
        np.empty((rows, 8), np.int64),
        np.empty(rows, np.bool_),
        np.empty(rows, np.bool_),
        np.empty((rows, 2), np.int64),
        np.empty(rows, np.int32),
        np.empty(rows * POSITIONS_MAX, np.int64),
    )


_VERDICTS: Final = pa.array(VERDICT_NAMES)
_REASONS: Final = pa.array(REASON_NAMES)
_POLICIES: Final = pa.array(DATA_POLICY_NAMES)


class VerdictTexts:
    """The texts of one index, as Arrow arrays over the index's own memory, and the VERDICTS that they fill."""

    def __init__(self, index: PolicyIndex) -> None:
        subjects, texts = index.subjects, index.texts
        self.references = references_of(subjects)
        self._texts = _texts(texts.offsets, texts.bytes)
        members = self._texts.take(pa.array(texts.members))
        self._sets = pa.LargeListArray.from_arrays(pa.array(texts.set_offsets), members)

    def verdicts(
        self,
        batch: pa.RecordBatch,
        answers: RowAnswers,
        hindsight: Int8s,
        sets: Sequence[tuple[str, ...]],
        policies: Sequence[DataPolicy],
    ) -> pa.RecordBatch:
        """The VERDICTS of a REQUESTS batch. `hindsight`: codes of VERDICT_NAMES, or NONE where hindsight agrees.
        `sets`: of regions, after those of the index. `policies`: by code."""
        governing, regions, policy = answers.codes.T
        lag, lag_position = answers.lags.T

        def has(bit: int) -> pa.Array:
            return pa.array((answers.handling & bit).astype(np.bool_))

        columns = {
            "request_id": batch.column("request_id"),
            "at": batch.column("at"),
            "verdict": pa.DictionaryArray.from_arrays(pa.array(answers.verdict), _VERDICTS),
            "reasons": _reasons(answers.reasons),
            "governed_by": self._governed_by(batch, governing),
            "subject_known": pa.array(answers.known),
            "may_store": has(MAY_STORE),
            "may_cache": has(MAY_CACHE),
            "may_train": has(MAY_TRAIN),
            "may_leave_platform": has(MAY_LEAVE),
            "allowed_regions": _chosen(self._with(sets), regions, pa.list_(pa.string())),
            "private_network_required": has(PRIVATE_ONLY),
            "data_policy": pa.DictionaryArray.from_arrays(has(BY_PROVIDER).cast(pa.int8()), _POLICIES),
            **{
                column: _chosen(pa.array([getattr(one, member) for one in policies], type_), policy, type_)
                for column, (member, type_) in POLICY_COLUMNS.items()
            },
            "deciding_positions": _positions(answers),
            "hindsight": pa.DictionaryArray.from_arrays(_codes(hindsight), _VERDICTS),
            "enforcement_lag_us": pa.array(lag, mask=lag_position == 0),
            "lag_position": pa.array(lag_position, mask=lag_position == 0),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in VERDICTS.names], schema=VERDICTS)

    def _with(self, sets: Sequence[tuple[str, ...]]) -> pa.Array:
        """The sets of the index, and these after them."""
        if not sets:
            return self._sets
        more = pa.array([list(texts) for texts in sets], self._sets.type)
        return pa.concat_arrays([self._sets, more])

    def _governed_by(self, batch: pa.RecordBatch, governing: Int32s) -> pa.Array:
        references = _chosen(self.references, governing, pa.string())
        if not (governing < NOBODY).any():
            return references
        row_groups, names = [], []
        for code, column, prefix in ((THE_ORG, "org_id", "org:"), (THE_ACCOUNT, "account_id", "account:")):
            rows = np.flatnonzero(governing == code)
            row_groups.append(rows)
            names.append(pc.binary_join_element_wise(prefix, batch.column(column).take(pa.array(rows)), ""))
        # Arrow fills in replacements in the order of their rows.
        order = pa.array(np.argsort(np.concatenate(row_groups)))
        return pc.replace_with_mask(references, pa.array(governing < NOBODY), pa.concat_arrays(names).take(order))


def references_of(subjects: Subjects) -> pa.Array:
    """The references of all subjects, by code."""
    return _texts(subjects.reference_offsets, subjects.references)


def _texts(offsets: Int64s, content: UInt8s) -> pa.Array:
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(content))


def _codes(codes: NDArray[Any]) -> pa.Array:
    """Negative ones become nulls."""
    negative = codes < 0
    return pa.array(codes, mask=negative if negative.any() else None)


def _chosen(values: pa.Array, codes: Int32s, type_: pa.DataType) -> pa.Array:
    if (codes < 0).all():
        return pa.nulls(len(codes), type_)
    return values.take(_codes(codes)).cast(type_)


@cache
def _reason_lists() -> pa.Array:
    """The codes of the reasons, by the bits of `RowAnswers.reasons`. Not made when imported: it takes 50 ms."""
    bits = np.arange(1 << len(REASON_NAMES), dtype=np.int32)
    is_set = (bits[:, None] >> np.arange(len(REASON_NAMES)) & 1).astype(np.bool_)
    offsets = np.concatenate([[0], np.cumsum(is_set.sum(1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.nonzero(is_set)[1].astype(np.int8)))


def _reasons(reasons: UInt32s) -> pa.Array:
    lists = _reason_lists().take(pa.array(reasons))
    return pa.ListArray.from_arrays(lists.offsets, pa.DictionaryArray.from_arrays(lists.values, _REASONS))


def _positions(answers: RowAnswers) -> pa.Array:
    offsets = np.zeros(len(answers.counts) + 1, np.int32)
    np.cumsum(answers.counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(answers.positions[: offsets[-1]]))
