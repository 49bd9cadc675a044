"""Where the rows of an audit go: to files that appear whole or not at all, and the first findings to memory.

Files that belong together (rows, pin, rejects, report) are all flushed to disk before the first of them replaces an
older one: a full disk, or Ctrl-C, leaves all of them as they were. Proved by tests/cli/audit/test_outputs.py.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa

from projections.audit.counting import against
from projections.audit.explain import Explanation, explain
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.files import PIN_SUFFIX
from projections.audit.reading.strict import LogRow, too_many_rejects
from projections.audit.reference import records
from projections.audit.summary import Summary
from projections.audit.verdict_files import OUTPUT_SCHEMA, VerdictWriter, format_of
from projections.query.query import KnownAt, PinnedQuery
from scripts.audit.request import AuditRequest
from scripts.cli import exits
from scripts.cli.files import is_stream, open_output
from scripts.cli.output import encode

Finding = tuple[str, int, Explanation]
"""Source and line of a row, and its decision with its causes."""


def warn_of_rejects(count: int, rows: int, first: LogRow | None, where: str) -> bool:
    """Tells the user of `count` unreadable rows of `rows`, and `where` to find them. Whether no row was readable."""
    if first is None:
        return False
    advice = "; --map names the columns to read" if count == rows else ""
    example = f"the first: {first.source} line {first.line}: {first.fault}"
    exits.print_message(f"{count} of {rows} rows could not be read, {example}; {where}{advice}")
    return count == rows


def exit_code(summary: Summary) -> int:
    """The exit code of an audit of which at least one row could be read."""
    if summary.against:
        return exits.PROBLEM_FOUND
    return exits.NOT_ALL_READ if summary.rejects else exits.OK


def flush_to_disk(file: BinaryIO) -> None:
    file.flush()
    if file is not sys.stdout.buffer and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.fsync(file.fileno())


class OutputFiles:
    """The file of rows (with this `output_schema`) and the file of rejects, if there are any. Use within a `with`
    block, and call `finish` after the last row; the files appear when the block ends."""

    def __init__(self, request: AuditRequest, schema: pa.Schema = OUTPUT_SCHEMA) -> None:
        self.rejects = request.rejects_file
        self.first_reject: LogRow | None = None
        self._always_rejects = request.rejects is not None
        self._max_rejects = request.max_rejects
        self._out = request.out
        self._schema = schema
        self._stack = ExitStack()
        self._writer: VerdictWriter | None = None
        self._out_file: BinaryIO | None = None
        self._rejects_file: BinaryIO | None = None
        self._reject_count = 0

    def __enter__(self) -> OutputFiles:
        with ExitStack() as opening:
            if self._out is not None:
                self._out_file = opening.enter_context(open_output(self._out))
                self._writer = VerdictWriter(self._out_file, format_of(self._out), schema=self._schema)
            # A file of an earlier run must not pass for the rejects of this run.
            if self._always_rejects or Path(self.rejects).exists():
                self._rejects_file = opening.enter_context(open_output(self.rejects))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        if kind is not None and self._writer is not None:
            self._writer.abandon()
        return self._stack.__exit__(kind, error, at)

    def take(self, batch: LogBatch, rows: pa.RecordBatch) -> None:
        if self._writer is not None:
            self._writer.take(batch.source, batch.lines, rows)

    def reject(self, row: LogRow) -> None:
        self._reject_count += 1
        if self.first_reject is None:
            self.first_reject = row
        if self._max_rejects is not None and self._reject_count > self._max_rejects:
            raise too_many_rejects(self._max_rejects, self.first_reject)
        if self._rejects_file is None:
            self._rejects_file = self._stack.enter_context(open_output(self.rejects))
        self._rejects_file.write(encode({"source": row.source, "line": row.line, "reason": row.fault}) + b"\n")

    def finish(self, provenance: dict[str, Any]) -> None:
        """`provenance`: pin, log and layout of the rows. It goes into a Parquet file, or into a file beside another."""
        if self._rejects_file is not None:
            flush_to_disk(self._rejects_file)
        if self._writer is None or self._out is None or self._out_file is None:
            return
        self._writer.finish(provenance)
        flush_to_disk(self._out_file)
        if not is_stream(self._out) and format_of(self._out) != "parquet":
            pin_file = self._stack.enter_context(open_output(self._out + PIN_SUFFIX))
            pin_file.write(encode(provenance) + b"\n")
            flush_to_disk(pin_file)


class FirstFindings:
    """The first `count` rows with a verdict against the request, decided again and explained.

    `query` may be None if `count` is 0.
    """

    def __init__(self, query: PinnedQuery | None, known_at: KnownAt, count: int) -> None:
        self.findings: list[Finding] = []
        self._query = query
        self._known_at = known_at
        self._count = count

    def take(self, batch: LogBatch, verdicts: pa.RecordBatch) -> None:
        missing = self._count - len(self.findings)
        if missing <= 0 or self._query is None:
            return
        rows = against(verdicts)[:missing]
        requests = records(batch.requests.take(pa.array(rows)))
        for row, record in zip(rows.tolist(), requests, strict=True):
            self.findings.append((batch.source, int(batch.lines[row]), explain(self._query, record, self._known_at)))

    def reject(self, row: LogRow) -> None:
        """A reject is no finding."""
