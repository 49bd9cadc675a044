"""Where the rows of an audit go: decisions and rejects to files that appear whole or not at all, findings to memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

from ledger.errors import BadRecord
from projections.audit.records import LogRow
from projections.audit.run import AGAINST
from projections.decision import Decision, decision_json
from scripts.decisions import CSV_FIELDS
from scripts.files import writing
from scripts.output import csv_bytes, csv_row, encode

ROW_FIELDS: Final = ("source", "line", *CSV_FIELDS)


class RowFiles:
    """`out` None: decisions are not kept. `rejects` None: beside nothing, named after the first log, and only where
    there are any. Use `take` within the block; the files are there when it has ended well."""

    def __init__(
        self, first_log: str, *, out: str | None, rejects: str | None, max_rejects: int | None, findings: int
    ) -> None:
        self.rejects = rejects or f"{'stdin' if first_log == '-' else Path(first_log).name}.rejects.jsonl"
        self.findings: list[tuple[LogRow, Decision]] = []
        self.first_reject: LogRow | None = None
        self._wanted_rejects = rejects is not None
        self._max_rejects = max_rejects
        self._max_findings = findings
        self._out = out
        self._as_csv = out is not None and out.endswith(".csv")
        self._stack = ExitStack()
        self._out_file: BinaryIO | None = None
        self._rejects_file: BinaryIO | None = None
        self._reject_count = 0

    def __enter__(self) -> RowFiles:
        with ExitStack() as opening:
            if self._out is not None:
                self._out_file = opening.enter_context(writing(self._out))
                if self._as_csv:
                    self._out_file.write(csv_bytes([ROW_FIELDS]))
            # The last run's rejects must not be taken for this one's.
            if self._wanted_rejects or Path(self.rejects).exists():
                self._rejects_file = opening.enter_context(writing(self.rejects))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, at)

    def take(self, row: LogRow, decision: Decision | None) -> None:
        if decision is None:
            self._reject(row)
            return
        if len(self.findings) < self._max_findings and decision.outcome.verdict in AGAINST:
            self.findings.append((row, decision))
        if self._out_file is not None:
            written = finding_json(row, decision)
            as_csv = self._as_csv
            self._out_file.write(csv_bytes([csv_row(written, ROW_FIELDS)]) if as_csv else encode(written) + b"\n")

    def _reject(self, row: LogRow) -> None:
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


def finding_json(row: LogRow, decision: Decision) -> dict[str, object]:
    return {"source": row.source, "line": row.line} | decision_json(decision)
