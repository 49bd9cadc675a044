"""Counts VERDICTS batches by verdict, reason and governing subject, in memory that does not grow with the rows.

Subjects with a code are counted by code. All others are counted by name, and there can be as many as requests: above
SUBJECTS_MAX their counts go to temporary files, one for each range of names, and each range is added up at the end. The
counts of the heaviest subjects stay in columns and become `SubjectCount`s on demand, because most are never shown.
Proved by tests/audit/io/test_counting.py.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from projections.audit.arrays import Int8s, Int32s, sealed
from projections.audit.numba_support import compiled, worth_compiling
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES, DecidedBatch
from projections.audit.summary import (
    AGAINST,
    SUBJECTS_LISTED,
    UNKNOWN_LISTED,
    VERDICTS,
    ProviderKey,
    SubjectCount,
    Summary,
)
from projections.temporal.coordinates import ClockNotice

ROWS_MAX: Final = 1 << 17
"""Counts that wait to be added up. The limit grows with the subjects, so that no count is added up too often."""
_FEW_MAX: Final = 2**32 - 1
"""Up to this many rows every count fits into four bytes."""
SUBJECTS_MAX: Final = 4_000_000
_AT_ONCE: Final = 1000
_RANGES: Final = 64
AGAINST_CODES: Final = [code for code, verdict in enumerate(VERDICT_NAMES) if verdict in AGAINST]
"""The codes of the verdicts against a request."""
_KEYS: Final = ("subject", "verdict")
POLICY_KEYS: Final = ("provider_subject", "provider", "provider_trains", "provider_stores")
"""The columns of VERDICTS that make a `ProviderKey`."""


class VerdictCounter:
    """Use it in a `with` block: `take` every batch, then `finish`."""

    def __init__(self, summary: Summary, subjects_max: int = SUBJECTS_MAX) -> None:
        self._summary = summary
        self._unknown: VerdictCounter | None = None
        """Counts the rows whose governing subject is not known, once there is one."""
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

    def __enter__(self) -> VerdictCounter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def take(self, decided: DecidedBatch) -> None:
        verdicts = decided.verdicts
        if not verdicts.num_rows:
            return
        summary = self._summary
        codes = codes_of(verdicts.column("verdict"), VERDICT_NAMES)
        self._verdicts += np.bincount(codes, minlength=len(VERDICT_NAMES))
        reasons = codes_of(verdicts.column("reasons").flatten(), REASON_NAMES)
        self._reasons += np.bincount(reasons, minlength=len(REASON_NAMES))
        summary.hindsight += verdicts.num_rows - verdicts.column("hindsight").null_count
        self._take_policies(decided)
        instants = verdicts.column("at").view(pa.int64())
        span = pc.min_max(instants).as_py()
        summary.first_at = min(span["min"], span["min"] if summary.first_at is None else summary.first_at)
        summary.last_at = max(span["max"], span["max"] if summary.last_at is None else summary.last_at)
        count_stretches(instants, summary.clock_notices, summary.clock_rows)
        names = verdicts.column("governed_by")
        self._take_unknown(verdicts, names, codes)
        if decided.governing is not None:
            names, codes = self._take_coded(decided, names, codes)
        self._take_named(names, codes)

    def _take_unknown(self, verdicts: pa.RecordBatch, names: pa.Array, codes: Any) -> None:
        known = verdicts.column("subject_known")
        if known.true_count == len(known):
            return
        unknown = np.flatnonzero(
            ~known.to_numpy(zero_copy_only=False) & names.is_valid().to_numpy(zero_copy_only=False)
        )
        if not len(unknown):
            return
        if self._unknown is None:
            scratch = Summary(self._summary.pin, self._summary.known_at)
            self._unknown = self._stack.enter_context(VerdictCounter(scratch, self._subjects_max))
        self._unknown._take_named(names.take(pa.array(unknown)), codes[unknown])
        self._summary.unknown_rows += len(unknown)

    def _take_named(self, names: pa.Array, codes: Any) -> None:
        if not len(codes):
            return
        rows = pa.table([names, pa.array(codes)], names=list(_KEYS))
        counts = rows.group_by(list(_KEYS), use_threads=False).aggregate([([], "count_all")])
        self._waiting.append(counts)
        self._rows += counts.num_rows
        if self._rows > max(ROWS_MAX, self._waiting[0].num_rows):
            self._add_up()

    def _take_policies(self, decided: DecidedBatch) -> None:
        """Counts the rows under a provider's own data policy."""
        counts = self._summary.policies
        if decided.policy_codes is not None:
            codes = decided.policy_codes[decided.policy_codes >= 0]
            rows = np.bincount(codes) if len(codes) else ()
            for policy, count in zip(decided.policies, rows, strict=False):
                if count:
                    counts[ProviderKey(policy.provider, policy.name, policy.trains, policy.stores)] += int(count)
            return
        verdicts = decided.verdicts
        passed = verdicts.filter(pc.equal(verdicts.column("data_policy"), "provider"))
        if passed.num_rows:
            columns = pa.table([passed.column(name) for name in POLICY_KEYS], names=list(POLICY_KEYS))
            table = columns.group_by(list(POLICY_KEYS), use_threads=False).aggregate([([], "count_all")])
            for row in table.to_pylist():
                counts[ProviderKey(*(row[name] for name in POLICY_KEYS))] += row["count_all"]

    def _take_coded(self, decided: DecidedBatch, names: pa.Array, codes: Any) -> tuple[pa.Array, Any]:
        """Counts the rows whose subject has a code. Returns the names and verdicts of the others."""
        if self._coded is None:
            self._references = decided.references
            self._coded = np.zeros(len(decided.references) * len(VERDICT_NAMES), np.uint32)
        self._rows_coded += len(codes)
        if self._rows_coded > _FEW_MAX:
            self._coded = self._coded.astype(np.int64, copy=False)
        governing = decided.governing
        _tally(
            governing,
            codes,
            self._coded,
            width=len(VERDICT_NAMES),
            use_compiled=worth_compiling(self._rows_coded, _tally_compiled),
        )
        others = np.flatnonzero(governing < 0)
        return names.take(pa.array(others)), codes[others]

    def _add_up(self) -> None:
        counts = _added_up(self._waiting)
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
        # Null, for rows that nobody governs, sorts last.
        cuts.append(len(names))
        for (_, writer), begin, end in zip(self._files, cuts[:-1], cuts[1:], strict=True):
            writer.write_table(counts.slice(begin, end - begin))

    def finish(self) -> None:
        """Writes the counts into the summary."""
        summary = self._summary
        summary.verdicts.update(_named(VERDICT_NAMES, self._verdicts))
        summary.reasons.update(_named(REASON_NAMES, self._reasons))
        heaviest = _Counts.none()
        for counts, number in self._counted():
            summary.subject_count += number
            heaviest = heaviest.and_others(counts).heaviest()
        summary.subjects = heaviest
        if self._unknown is not None:
            self._unknown.finish()
            counted = self._unknown._summary
            summary.unknown, summary.unknown_count = counted.subjects[:UNKNOWN_LISTED], counted.subject_count

    def _counted(self) -> Iterator[tuple[_Counts, int]]:
        """Groups of subjects: those that may be among the heaviest, and the number of all in the group."""
        if self._coded is not None:
            yield _Counts.by_code(self._coded.reshape(-1, len(VERDICT_NAMES)), self._references)
        for table in self._ranges():
            counts = _Counts.by_name(table)
            yield counts.heaviest(), len(counts)

    def _ranges(self) -> Iterator[pa.Table]:
        if not self._waiting and not self._files:
            return
        if not self._files:
            yield _added_up(self._waiting)
            return
        if self._waiting:
            self._spill(_added_up(self._waiting))
        for file, writer in self._files:
            writer.close()
            file.seek(0)
            yield _added_up([pa.ipc.open_stream(file).read_all()])


def count_stretches(instants: pa.Array, notices: Iterable[ClockNotice], rows: Counter[ClockNotice]) -> None:
    """Adds the requests (their `at`, in µs) in each stretch of a clock that was ahead to its `rows`."""
    for notice in notices:
        at = instants.to_numpy(zero_copy_only=False)
        rows[notice] += int(np.count_nonzero((at >= notice.start) & (at < notice.until)))


def codes_of(words: pa.DictionaryArray, names: Sequence[str]) -> Any:
    """The place of each word in `names` (int8), independent of the codes in its batch. `words` has no nulls."""
    places = np.array([names.index(word) for word in words.dictionary.to_pylist()], np.int8)
    return places[words.indices.to_numpy(zero_copy_only=False)] if len(places) else np.zeros(0, np.int8)


@compiled
def _tally_compiled(codes: Any, columns: Any, width: Any, counts: Any) -> None:
    for at in range(len(codes)):
        if codes[at] >= 0:
            counts[np.int64(codes[at]) * width + columns[at]] += 1


def _tally(codes: Int32s, columns: Int8s, counts: Any, *, width: int, use_compiled: bool) -> None:
    """Adds one to counts[code * width + column] for each row whose code is not negative."""
    if use_compiled:
        _tally_compiled(sealed(codes), sealed(columns), width, counts)
        return
    there = codes >= 0
    np.add.at(counts, codes[there].astype(np.int64) * width + columns[there], 1)


def _added_up(counts: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(counts).combine_chunks()
    sums = table.group_by(list(_KEYS), use_threads=False).aggregate([("count_all", "sum")])
    return sums.rename_columns([*_KEYS, "count_all"])


class _Counts(Sequence[SubjectCount]):
    """Counts of subjects by verdict. names: Arrow texts, null for nobody. counts: [subjects, verdicts]."""

    def __init__(self, names: pa.Array, counts: Any) -> None:
        self._names = names
        self._counts = counts

    @classmethod
    def none(cls) -> _Counts:
        return cls(pa.array([], pa.large_string()), np.zeros((0, len(VERDICT_NAMES)), np.int64))

    @classmethod
    def by_code(cls, counts: Any, references: pa.Array) -> tuple[_Counts, int]:
        """The subjects that may be among the heaviest, and the number of all. `references`: by code."""
        against, total = _sum(counts, AGAINST_CODES), _sum(counts, range(len(VERDICT_NAMES)))
        rows = _foremost(against, total, SUBJECTS_LISTED)
        # Only these few subjects need their names.
        rows = rows[total[rows] > 0]
        return cls(references.take(pa.array(rows)), counts[rows]), int(np.count_nonzero(total))

    @classmethod
    def by_name(cls, table: pa.Table) -> _Counts:
        """From a table with a row for each subject and verdict."""
        words = table.column("subject").combine_chunks().dictionary_encode(null_encoding="encode")
        counts = np.zeros((len(words.dictionary), len(VERDICT_NAMES)), np.int64)
        counts[words.indices.to_numpy(), table.column("verdict").to_numpy()] = table.column("count_all").to_numpy()
        return cls(words.dictionary.cast(pa.large_string()), counts)

    def and_others(self, others: _Counts) -> _Counts:
        names = pa.concat_arrays([self._names, others._names])
        return _Counts(names, np.concatenate([self._counts, others._counts]))

    def heaviest(self) -> _Counts:
        """At most SUBJECTS_LISTED of them: most verdicts against them first, then most rows, then by name."""
        against, total = _sum(self._counts, AGAINST_CODES), _sum(self._counts, range(len(VERDICT_NAMES)))
        rows = _foremost(against, total, SUBJECTS_LISTED)
        names = self._names.take(pa.array(rows))
        columns = [pa.array(-against[rows]), pa.array(-total[rows]), names.fill_null("")]
        table = pa.table(columns, names=["against", "total", "name"])
        order = pc.sort_indices(table, [(name, "ascending") for name in table.column_names])[:SUBJECTS_LISTED]
        return _Counts(names.take(order), self._counts[rows[order.to_numpy()]])

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, at: int) -> SubjectCount: ...
    @overload
    def __getitem__(self, at: slice) -> list[SubjectCount]: ...
    def __getitem__(self, at: int | slice) -> SubjectCount | list[SubjectCount]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return SubjectCount(self._names[at].as_py(), _of_verdicts(self._counts[at].tolist()))

    def __iter__(self) -> Iterator[SubjectCount]:
        for first in range(0, len(self), _AT_ONCE):
            names, counts = self._names[first : first + _AT_ONCE].to_pylist(), self._counts[first : first + _AT_ONCE]
            yield from map(SubjectCount, names, map(_of_verdicts, counts.tolist()))


def _sum(counts: Any, places: Iterable[int]) -> Any:
    """The sum of these columns, by row. Adding column by column is many times as fast as `sum` along short rows."""
    total = np.zeros(len(counts), np.int64)
    for place in places:
        total += counts[:, place]
    return total


def _foremost(first: Any, second: Any, count: int) -> Any:
    """The places of the `count` highest by `first`, then `second`, and of all that equal the last of them."""
    if len(first) <= count:
        return np.arange(len(first))
    last = np.partition(first, -count)[-count]
    above = first > last
    equal = np.flatnonzero(first == last)
    missing = count - int(np.count_nonzero(above))
    above[equal] = second[equal] >= np.partition(second[equal], -missing)[-missing]
    return np.flatnonzero(above)


def _of_verdicts(counts: list[int]) -> dict[str, int]:
    return {verdict: counts[place] for verdict, place in _PLACES if counts[place]}


_PLACES: Final = tuple((verdict, VERDICT_NAMES.index(verdict)) for verdict in VERDICTS)


def _named(names: tuple[Any, ...], counts: Any) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def against(verdicts: pa.RecordBatch) -> Any:
    """The rows of a VERDICTS batch with a verdict against the request, ascending."""
    return np.flatnonzero(np.isin(codes_of(verdicts.column("verdict"), VERDICT_NAMES), AGAINST_CODES))
