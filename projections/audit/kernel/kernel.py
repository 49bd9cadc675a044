"""The kernel: a batch of request records in, a batch of verdicts out. Pure: no file, no clock, no ledger.

It decides every row as `projections.decisions.check.check` does. Ids become codes, compiled code decides the rows in
codes, and the codes become texts again. The kernel needs Numba; without Numba `RowByRow` gives the same answers.
Proved by tests/audit/kernel, against the row-by-row reference.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import pyarrow as pa

from projections.audit.arrays import Int8s, Int32s, all_sealed, sealed
from projections.audit.index.hash_table import slots_for
from projections.audit.index.schema import (
    ACCOUNT,
    KEY,
    MODEL,
    ORG,
    OTHER_KIND,
    PROJECT,
    PolicyIndex,
    Subjects,
)
from projections.audit.kernel.answers import NONE, UNDECIDED, RowAnswers, VerdictTexts
from projections.audit.kernel.compiled_lookup import codes, find_codes
from projections.audit.kernel.compiled_rules import decide, decide_rows, with_facts
from projections.audit.kernel.index_states import IndexStates
from projections.audit.kernel.index_tables import (
    CatalogTables,
    IdTable,
    catalog_tables,
    find_retractions,
    id_table,
    index_tables,
)
from projections.audit.kernel.places import PlaceRules
from projections.audit.kernel.request_columns import (
    NULL_ID,
    RequestColumns,
    RequestIds,
    check_requests,
    request_columns,
    text_column,
)
from projections.audit.reference import records
from projections.audit.schemas import REASON_NAMES, DecidedBatch
from projections.decisions.check import check

ID_COLUMNS: Final = {"key_id": KEY, "account_id": ACCOUNT, "org_id": ORG, "project_id": PROJECT, "model_id": MODEL}
"""The columns that name subjects, in the order of `RequestIds`, and the kinds of those subjects."""

COMPILED: Final = (find_codes, find_retractions, decide)
"""The functions that a kernel calls for every log."""


class Kernel:
    """Decides batches with one index. Safe to use from many threads: nothing changes after `__init__`, and the threads
    do not wait for each other, because the work runs without Python's lock."""

    def __init__(self, index: PolicyIndex) -> None:
        self.index = index
        texts = index.texts
        text_kinds = np.full(len(texts.offsets) - 1, OTHER_KIND, np.uint8)
        slots = slots_for(text_kinds, texts.offsets, texts.bytes)
        self._subjects = id_table(index.subjects)
        self._texts = id_table(Subjects(text_kinds, texts.offsets, texts.bytes, slots))
        self._places = PlaceRules(index)
        plain_codes = self._places.plain_codes
        self._tables = index_tables(index, plain_codes)
        self._catalog = catalog_tables(index.catalog, index.later_catalog, plain_codes)
        self._later_catalog = catalog_tables(index.later_catalog, index.catalog, plain_codes)
        self._verdict_texts = VerdictTexts(index)
        self._states, self._later_states = IndexStates(index), IndexStates(index, later=True)
        self._check_lock = threading.Lock()

    def decide(self, batch: pa.RecordBatch) -> DecidedBatch:
        """REQUESTS → VERDICTS, row by row in order, with the codes of the governing subjects: counting by code costs a
        tenth of counting by name. Raises `ValueError` for another schema or too many rows."""
        check_requests(batch)
        ids = RequestIds(*(self._codes(kind, batch.column(name), self._subjects) for name, kind in ID_COLUMNS.items()))
        receivers, regions = (
            self._places.known_codes(
                self._codes(OTHER_KIND, batch.column(name), self._texts), batch.column(name), provider=is_provider
            )
            for name, is_provider in (("forwarded_to", True), ("region", False))
        )
        served = {
            name: self._plain_codes(batch.column(name))
            for name in ("precision", "revision")
            if batch.column(name).null_count < batch.num_rows
        }
        requests = request_columns(batch, sealed(receivers), sealed(regions), served, self.index.known_at)
        answers = self._answers(self._catalog, ids, requests, later=False)
        self._check_lags(batch, answers)
        hindsight = self._hindsight(ids, requests, answers)
        answers = with_facts(self._places.axes[False].tables, answers)
        more_sets, policies = self._places.more_sets(), self._places.policies
        verdicts = self._verdict_texts.verdicts(batch, answers, hindsight, more_sets, policies)
        governing, references = answers.codes[:, 0], self._verdict_texts.references
        return DecidedBatch(verdicts, governing, references, answers.codes[:, 2], policies)

    def _answers(self, catalog: CatalogTables, ids: RequestIds, requests: RequestColumns, *, later: bool) -> RowAnswers:
        steps = np.searchsorted(catalog.at, requests.at, "right") - 1
        axis = self._places.axes[later]
        place_steps = axis.step(requests.at)
        while True:
            # Tables only grow, so that an outcome of these is the same in later ones.
            tables = axis.tables
            answers = decide_rows(self._tables, catalog, steps, later, ids, requests, tables, place_steps)
            undecided = answers.outcomes == UNDECIDED
            if not undecided.any():
                return answers
            combinations = (
                map(tuple, np.unique(answers.keys[undecided[:, place], 4 * place : 4 * place + 4], axis=0).tolist())
                for place in range(2)
            )
            self._places.add(later, *combinations)

    def _check_lags(self, batch: pa.RecordBatch, answers: RowAnswers) -> None:
        """Decides the lags that rest on a retraction of a region's or a provider's setting with `check` itself."""
        rows = np.flatnonzero(answers.needs_check)
        if not len(rows):
            return
        with self._check_lock:
            for row, record in zip(rows.tolist(), records(batch.take(pa.array(rows))), strict=True):
                outcome = check(record, self._states.at(record.at))
                answers.reasons[row] = sum(1 << REASON_NAMES.index(reason) for reason in outcome.reasons)
                lag = outcome.enforcement_lag
                answers.lags[row] = (0, 0) if lag is None else (lag.lag_us, lag.deciding_position)

    def _hindsight(self, ids: RequestIds, requests: RequestColumns, answers: RowAnswers) -> Int8s:
        """The verdicts with everything known; NONE where neither the verdict nor the handling differs."""
        hindsight = np.full(len(requests.at), NONE, np.int8)
        agrees = self._catalog.agrees[np.searchsorted(self._catalog.at, requests.at, "right") - 1]
        rows = np.flatnonzero(answers.may_differ_in_hindsight | ~agrees | ~self._places.agrees(requests.at))
        if not len(rows):
            return hindsight
        ids = RequestIds._make(all_sealed(column[rows] for column in ids))
        requests = RequestColumns._make(all_sealed(column[rows] for column in requests))
        later = self._answers(self._later_catalog, ids, requests, later=True)
        same = (later.verdict == answers.verdict[rows]) & (later.handling == answers.handling[rows])
        # The first code is the governing subject, which is no part of the handling.
        same &= (later.codes[:, 1:] == answers.codes[rows, 1:]).all(1)
        hindsight[rows[~same]] = later.verdict[~same]
        return hindsight

    def _plain_codes(self, texts: pa.Array) -> Int32s:
        codes = self._codes(OTHER_KIND, texts, self._texts)
        return self._places.plain_codes(self._places.known_codes(codes, texts, provider=False))

    def _codes(self, kind: int, texts: pa.Array, table: IdTable) -> Int32s:
        if texts.null_count == len(texts):
            return sealed(np.full(len(texts), NULL_ID, np.int32))
        return sealed(codes(kind, text_column(texts), table))
