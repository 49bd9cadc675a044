"""Where the rows of an audit go: verdicts and rejects to files that appear whole or not at all, findings to memory."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa

from ledger.errors import BadRecord
from projections.audit.counting import against
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.files import REJECTS_SUFFIX, STDIN
from projections.audit.reading.strict import LogRow
from projections.audit.reference import records
from projections.audit.verdict_files import VerdictWriter, format_of
from projections.decisions.model import Decision, decision_json
from projections.query.pinned import PinnedQuery
from projections.query.query import KnownAt
from scripts.cli.files import is_stream, writing
from scripts.cli.output import encode

PIN_SUFFIX: Final = ".pin.json"


def rejects_name(first_log: str, rejects: str | None) -> str:
    """Where lines that cannot be read go, if there are any. `rejects`: as it was asked for."""
    return rejects or f"{'stdin' if first_log == STDIN else Path(first_log).name}{REJECTS_SUFFIX}"


def settle(file: BinaryIO) -> None:
    """Brings what was written to the disk. Of several files that belong together each is settled before any takes the
    place of an older one: a disk that is full, or Ctrl-C, then leaves all of them as they were."""
    file.flush()
    if file is not sys.stdout.buffer and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.fsync(file.fileno())


class Finding(NamedTuple):
    source: str
    line: int
    decision: Decision


class RowFiles:
    """`out` None: verdicts are not kept. `rejects` None: beside nothing, named after the first log, and only where
    there are any. Use within the block; `finish` it when all rows are taken; the files are there when it has ended
    well."""

    def __init__(self, first_log: str, *, out: str | None, rejects: str | None, max_rejects: int | None) -> None:
        self.rejects = rejects_name(first_log, rejects)
        self.first_reject: LogRow | None = None
        self._wanted_rejects = rejects is not None
        self._max_rejects = max_rejects
        self._out = out
        self._stack = ExitStack()
        self._writer: VerdictWriter | None = None
        self._out_file: BinaryIO | None = None
        self._rejects_file: BinaryIO | None = None
        self._reject_count = 0

    def __enter__(self) -> RowFiles:
        with ExitStack() as opening:
            if self._out is not None:
                self._out_file = opening.enter_context(writing(self._out))
                self._writer = VerdictWriter(self._out_file, format_of(self._out))
            # The last run's rejects must not be taken for this one's.
            if self._wanted_rejects or Path(self.rejects).exists():
                self._rejects_file = opening.enter_context(writing(self.rejects))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        if kind is not None and self._writer is not None:
            self._writer.abandon()
        return self._stack.__exit__(kind, error, at)

    def take(self, part: LogBatch, verdicts: pa.RecordBatch) -> None:
        if self._writer is not None:
            self._writer.take(part.source, part.lines, verdicts)

    def finish(self, rests_on: dict[str, Any]) -> None:
        """`rests_on`: what the verdicts rest on, for the output's metadata."""
        if self._rejects_file is not None:
            settle(self._rejects_file)
        if self._writer is None or self._out is None or self._out_file is None:
            return
        self._writer.finish(rests_on)
        settle(self._out_file)
        if not is_stream(self._out) and format_of(self._out) != "parquet":
            beside = self._stack.enter_context(writing(self._out + PIN_SUFFIX))
            beside.write(encode(rests_on) + b"\n")
            settle(beside)

    def reject(self, row: LogRow) -> None:
        self._reject_count += 1
        if self.first_reject is None:
            self.first_reject = row
        if self._max_rejects is not None and self._reject_count > self._max_rejects:
            first = self.first_reject
            raise BadRecord(
                f"more than {self._max_rejects} lines cannot be read, the first: {first.source} line {first.line}: "
                f"{first.fault}; nothing was written"
            )
        if self._rejects_file is None:
            self._rejects_file = self._stack.enter_context(writing(self.rejects))
        self._rejects_file.write(encode({"source": row.source, "line": row.line, "reason": row.fault}) + b"\n")


class Findings:
    """The first rows with a verdict against the request, each decided once more with all its evidence. `query` None:
    none are wanted."""

    def __init__(self, query: PinnedQuery | None, known_at: KnownAt, count: int) -> None:
        self.found: list[Finding] = []
        self._query = query
        self._known_at = known_at
        self._count = count

    def take(self, part: LogBatch, verdicts: pa.RecordBatch) -> None:
        wanted = self._count - len(self.found)
        if wanted <= 0 or self._query is None:
            return
        rows = against(verdicts)[:wanted]
        again = records(part.requests.take(pa.array(rows)))
        for row, decision in zip(rows.tolist(), self._query.check_all(again, self._known_at), strict=True):
            self.found.append(Finding(part.source, int(part.lines[row]), decision))

    def reject(self, row: LogRow) -> None:
        """Nothing was found about it."""


def finding_json(finding: Finding) -> dict[str, object]:
    return {"source": finding.source, "line": finding.line} | decision_json(finding.decision)
