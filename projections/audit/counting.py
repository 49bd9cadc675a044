"""VERDICTS batches counted: by verdict, reason and governing subject, in memory that does not grow with the rows.

Subjects that have a code are counted by it. Others are counted by name, and can be as many as requests: above a number
of them their counts go to a temporary file, in ranges of names, and are put together range by range at the end.
Proved by tests/audit/io/test_counting.py.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from projections.audit.columns import REASON_NAMES, VERDICT_NAMES, Decided
from projections.audit.summary import AGAINST, SUBJECTS_LISTED, VERDICTS, SubjectCount, Summary

ROWS_MAX: Final = 1 << 17
"""Counts that wait to be put together; more, where more were put together before, so that none is counted often."""
_FEW_MAX: Final = 2**32 - 1
"""Rows whose counts fit into four bytes, whoever has them all."""
SUBJECTS_MAX: Final = 4_000_000
_RANGES: Final = 64
_KEYS: Final = ("subject", "verdict")


class Counting:
    """Use within a block: `take` every batch, then `finish`."""

    def __init__(self, summary: Summary, subjects_max: int = SUBJECTS_MAX) -> None:
        self._summary = summary
        self._subjects_max = subjects_max
        self._coded: Any = None
        self._rows_coded = 0
        self._references: Any = None
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._verdicts = np.zeros(len(VERDICT_NAMES), np.int64)
        self._reasons = np.zeros(len(REASON_NAMES), np.int64)
        self._stack = ExitStack()
        self._bounds: list[str] = []
        self._files: list[Any] = []

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def take(self, decided: Decided) -> None:
        verdicts = decided.verdicts
        if not verdicts.num_rows:
            return
        summary = self._summary
        codes = codes_of(verdicts.column("verdict"), VERDICT_NAMES)
        self._verdicts += np.bincount(codes, minlength=len(VERDICT_NAMES))
        reasons = codes_of(verdicts.column("reasons").flatten(), REASON_NAMES)
        self._reasons += np.bincount(reasons, minlength=len(REASON_NAMES))
        summary.hindsight += verdicts.num_rows - verdicts.column("hindsight").null_count
        span = pc.min_max(verdicts.column("at").view(pa.int64())).as_py()
        summary.first_at = min(span["min"], span["min"] if summary.first_at is None else summary.first_at)
        summary.last_at = max(span["max"], span["max"] if summary.last_at is None else summary.last_at)
        names = verdicts.column("governed_by")
        if decided.governing is not None:
            names, codes = self._take_coded(decided, names, codes)
        if not len(codes):
            return
        found = pa.table([names, pa.array(codes)], names=list(_KEYS))
        counts = found.group_by(list(_KEYS), use_threads=False).aggregate([([], "count_all")])
        self._waiting.append(counts)
        self._rows += counts.num_rows
        if self._rows > max(ROWS_MAX, self._waiting[0].num_rows):
            self._put_together()

    def _take_coded(self, decided: Decided, names: pa.Array, codes: Any) -> tuple[pa.Array, Any]:
        """Counts the rows whose subject has a code; answers the names and verdicts of the others."""
        if self._coded is None:
            self._references = decided.references
            self._coded = np.zeros(len(decided.references) * len(VERDICT_NAMES), np.uint32)
        self._rows_coded += len(codes)
        if self._rows_coded > _FEW_MAX:
            self._coded = self._coded.astype(np.int64, copy=False)
        governing = decided.governing
        coded = governing >= 0
        np.add.at(self._coded, governing[coded].astype(np.int64) * len(VERDICT_NAMES) + codes[coded], 1)
        return names.filter(pa.array(~coded)), codes[~coded]

    def _put_together(self) -> None:
        counts = _together(self._waiting)
        self._waiting, self._rows = [counts], 0
        if counts.num_rows > self._subjects_max:
            self._spill(counts)
            self._waiting = []

    def _spill(self, counts: pa.Table) -> None:
        counts = counts.sort_by([("subject", "ascending")])
        names = counts.column("subject").combine_chunks()
        known = len(names) - names.null_count
        if not self._files:
            self._bounds = [names[known * place // _RANGES].as_py() for place in range(1, _RANGES)]
            for _ in range(_RANGES):
                file = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
                self._files.append((file, pa.ipc.new_stream(file, counts.schema)))
        cuts = [0]
        for bound in self._bounds:
            cuts.append(bisect_left(range(known), bound, lo=cuts[-1], key=lambda at: names[at].as_py()))
        # Nobody comes last.
        cuts.append(len(names))
        for (_, writer), begin, end in zip(self._files, cuts[:-1], cuts[1:], strict=True):
            writer.write_table(counts.slice(begin, end - begin))

    def finish(self) -> None:
        """Writes what was found into the summary."""
        summary = self._summary
        summary.verdicts.update(_named(VERDICT_NAMES, self._verdicts))
        summary.reasons.update(_named(REASON_NAMES, self._reasons))
        for listed, count in self._heaviest():
            summary.subject_count += count
            summary.subjects = sorted([*summary.subjects, *listed], key=_weight)[:SUBJECTS_LISTED]

    def _heaviest(self) -> Iterator[tuple[list[SubjectCount], int]]:
        if self._coded is not None:
            yield _listed_by_code(self._coded.reshape(-1, len(VERDICT_NAMES)), self._references)
        for counts in self._ranges():
            yield _listed(counts)

    def _ranges(self) -> Iterator[pa.Table]:
        if not self._waiting and not self._files:
            return
        if not self._files:
            yield _together(self._waiting)
            return
        if self._waiting:
            self._spill(_together(self._waiting))
        for file, writer in self._files:
            writer.close()
            file.seek(0)
            yield _together([pa.ipc.open_stream(file).read_all()])


def codes_of(words: pa.DictionaryArray, names: Sequence[str]) -> Any:
    """The place of each word in `names`, int8, whatever codes its batch has. `words` without nulls."""
    places = np.array([names.index(word) for word in words.dictionary.to_pylist()], np.int8)
    return places[words.indices.to_numpy(zero_copy_only=False)] if len(places) else np.zeros(0, np.int8)


def _together(counts: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(counts).combine_chunks()
    found = table.group_by(list(_KEYS), use_threads=False).aggregate([("count_all", "sum")])
    return found.rename_columns([*_KEYS, "count_all"])


def _listed(counts: pa.Table) -> tuple[list[SubjectCount], int]:
    """(the heaviest subjects, how many there are) of a table that has all of each."""
    against = pc.is_in(counts.column("verdict"), pa.array([VERDICT_NAMES.index(v) for v in _AGAINST], pa.int8()))
    number = counts.column("count_all")
    table = counts.append_column("against", pc.if_else(against, number, pa.scalar(0, number.type)))
    weights = table.group_by("subject", use_threads=False).aggregate([("against", "sum"), ("count_all", "sum")])
    order = [("against_sum", "descending"), ("count_all_sum", "descending"), ("subject", "ascending")]
    heaviest = weights.sort_by(order).slice(0, SUBJECTS_LISTED + 1)
    names = heaviest.column("subject").combine_chunks()
    rows = table.filter(pc.is_in(table.column("subject"), names)).select([*_KEYS, "count_all"])
    found: dict[str | None, dict[str, int]] = {}
    for subject, verdict, count in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        found.setdefault(subject, {})[VERDICT_NAMES[verdict]] = count
    counted = (
        SubjectCount(subject, {verdict: verdicts[verdict] for verdict in VERDICTS if verdict in verdicts})
        for subject, verdicts in found.items()
    )
    return sorted(counted, key=_weight), weights.num_rows


def _listed_by_code(counts: Any, references: pa.Array) -> tuple[list[SubjectCount], int]:
    """The same of counts by code and verdict: [subjects, verdicts]."""
    seen = np.flatnonzero(counts.any(1))
    count = len(seen)
    against = counts[seen][:, [VERDICT_NAMES.index(verdict) for verdict in _AGAINST]].sum(1, np.int64)
    total = counts[seen].sum(1, np.int64)
    if len(seen) > SUBJECTS_LISTED:
        # Names are only wanted of those that weigh no less than the last one that is listed.
        order = np.lexsort((-total, -against))
        last = order[SUBJECTS_LISTED - 1]
        heavy = (against > against[last]) | ((against == against[last]) & (total >= total[last]))
        seen, against, total = seen[heavy], against[heavy], total[heavy]
    names = references.take(pa.array(seen))
    table = pa.table([pa.array(-against), pa.array(-total), names], names=["against", "total", "name"])
    order = pc.sort_indices(table, [(name, "ascending") for name in table.column_names]).to_numpy()[:SUBJECTS_LISTED]
    told = zip(names.take(pa.array(order)).to_pylist(), counts[seen[order]].tolist(), strict=True)
    return [SubjectCount(name, _of_verdicts(row)) for name, row in told], count


def _of_verdicts(counts: list[int]) -> dict[str, int]:
    places = ((verdict, VERDICT_NAMES.index(verdict)) for verdict in VERDICTS)
    return {verdict: counts[place] for verdict, place in places if counts[place]}


_AGAINST: Final = tuple(verdict for verdict in VERDICT_NAMES if verdict in AGAINST)


def _weight(one: SubjectCount) -> tuple[int, int, str]:
    against = sum(one.verdicts.get(verdict, 0) for verdict in AGAINST)
    return -against, -one.total, one.subject or ""


def _named(names: tuple[Any, ...], counts: Any) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}
