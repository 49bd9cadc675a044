"""The kernel: a batch of request records in, a batch of verdicts out. Pure: no file, no clock, no ledger.

Every row means what `projections.decisions.check.check` says of it: ids become the codes of subjects, compiled code
decides the rows in codes, and the codes become texts again. It needs Numba; without it `RowByRow` gives the same
answers. Proved by tests/audit/kernel, against the row-by-row reference.
"""

from __future__ import annotations

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
from projections.audit.kernel import tables
from projections.audit.kernel.answers import NONE, Answers, Wording
from projections.audit.kernel.compiled_lookup import codes
from projections.audit.kernel.compiled_rules import decide_rows
from projections.audit.kernel.rows import NULL_ID, Ids, Observed, checked, observed, text_column
from projections.audit.kernel.tables import Catalog, Names
from projections.audit.schemas import DecidedBatch

NAMED: Final = {"key_id": KEY, "account_id": ACCOUNT, "org_id": ORG, "project_id": PROJECT, "model_id": MODEL}
"""The columns that name subjects, in the order of `Ids`, and of what kind."""


class Kernel:
    """Decides batches with one index. Safe to use from many threads, which do not wait for each other: nothing is
    changed after it is made, and the work is done without Python's lock."""

    def __init__(self, index: PolicyIndex) -> None:
        """Numba compiles for some seconds when it first decides."""
        self.index = index
        texts = index.texts
        of_text = np.full(len(texts.offsets) - 1, OTHER_KIND, np.uint8)
        slots = slots_for(of_text, texts.offsets, texts.bytes)
        self._subjects = tables.names(index.subjects)
        self._texts = tables.names(Subjects(of_text, texts.offsets, texts.bytes, slots))
        self._tables = tables.tables(index)
        self._asked = tables.catalog(index.catalog, index.later_catalog)
        self._later = tables.catalog(index.later_catalog, index.catalog)
        self._wording = Wording(index)

    def decide(self, batch: pa.RecordBatch) -> DecidedBatch:
        """REQUESTS → VERDICTS, row by row in order, with the codes of the governing subjects: counting by code costs a
        tenth of counting by name. Raises `ValueError` for another schema or too many rows."""
        checked(batch)
        ids = Ids(*(self._codes(kind, batch.column(name), self._subjects) for name, kind in NAMED.items()))
        receivers, regions = (
            self._codes(OTHER_KIND, batch.column(name), self._texts) for name in ("forwarded_to", "region")
        )
        done = observed(batch, receivers, regions, self.index.known_at)
        found = self._decided(self._asked, ids, done, later=False)
        hindsight = self._hindsight(ids, done, found)
        return DecidedBatch(
            self._wording.verdicts(batch, found, hindsight), found.codes[:, 0], self._wording.references
        )

    def _decided(self, catalog: Catalog, ids: Ids, done: Observed, *, later: bool) -> Answers:
        steps = np.searchsorted(catalog.at, done.at, "right") - 1
        return decide_rows(self._tables, catalog, steps, later, ids, done)

    def _hindsight(self, ids: Ids, done: Observed, found: Answers) -> Int8s:
        """The verdicts with everything known; NONE where neither verdict nor handling is another."""
        hindsight = np.full(len(done.at), NONE, np.int8)
        agrees = self._asked.agrees[np.searchsorted(self._asked.at, done.at, "right") - 1]
        rows = np.flatnonzero(found.looked | ~agrees)
        if not len(rows):
            return hindsight
        ids = Ids._make(all_sealed(codes[rows] for codes in ids))
        done = Observed._make(all_sealed(column[rows] for column in done))
        later = self._decided(self._later, ids, done, later=True)
        same = (later.verdict == found.verdict[rows]) & (later.handling == found.handling[rows])
        # Of the codes not the first, which is the governing subject.
        same &= (later.codes[:, 1:] == found.codes[rows, 1:]).all(1)
        hindsight[rows[~same]] = later.verdict[~same]
        return hindsight

    def _codes(self, kind: int, texts: pa.Array, names: Names) -> Int32s:
        if texts.null_count == len(texts):
            return sealed(np.full(len(texts), NULL_ID, np.int32))
        return sealed(codes(kind, text_column(texts), names))
