"""`audit --what-if`: which requests of a log would be decided differently if these changes had been made.

Proved by tests/audit/what_if/test_command.py.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ledger.append.submissions import RetractChange
from ledger.errors import BadInput, BadRecord
from ledger.opening import open_ledger
from ledger.times import BEGINNING, format_time
from projections.temporal.coordinates import IN_FORCE, KnownAt
from scripts.audit.request import rate_reporter, with_progress
from scripts.cli import exits
from scripts.cli.files import open_input, progress
from scripts.cli.options import Format
from scripts.cli.output import human_time

if TYPE_CHECKING:
    import pyarrow as pa

    from projections.audit.reading.batches import LogBatch
    from projections.audit.reading.logs import LogReader
    from projections.audit.reading.strict import LogRow
    from projections.audit.what_if.proposals import ProposedChange
    from projections.audit.what_if.radius import Radius

LATE_NAMED: Final = 10
PROPOSALS_BYTES_MAX: Final = 1 << 26


class WhatIfRequest(NamedTuple):
    """`logs` opens the logs, each time it is called; `read_once`: it can be called once only, for standard input.

    first_log, rejects, max_rejects: see `OutputFiles`. out: the file for changed rows; shown: how many of them to
    print. reading: the layout of the logs, for the output's metadata.
    """

    changes: str
    logs: Callable[[], LogReader]
    read_once: bool
    known_at: KnownAt
    first_log: str
    rejects: str | None
    max_rejects: int | None
    out: str | None
    shown: int
    reading: dict[str, Any]


def what_if(db: str, request: WhatIfRequest, format_: Format) -> int:
    """Exits 0 even if requests would be decided differently: that is an answer, not a problem. Exits 2 if no line
    could be read."""
    from projections.audit.index.open import open_index
    from projections.audit.index.pin import pin_of
    from projections.audit.run import Ahead
    from projections.audit.verdict_files import output_schema
    from projections.audit.what_if.comparison import DIFFERENCES
    from projections.audit.what_if.run import blast_radius
    from scripts.audit.outputs import OutputFiles, rejects_message
    from scripts.audit.show_what_if import show_radius

    if request.read_once and request.changes == "-":
        raise BadInput("standard input can be read once; name a file for the proposals or for the log")
    body, proposals = _read_proposals(request.changes)
    first_request, digest = _first_request(request, proposals)
    logs = request.logs()
    files = OutputFiles(
        request.first_log,
        out=request.out,
        rejects=request.rejects,
        max_rejects=request.max_rejects,
        schema=output_schema(DIFFERENCES),
    )
    shown = _FirstChanges(request.shown)
    with open_ledger(db) as ledger, files, progress("what if", logs.size) as report:
        index = open_index(ledger, request.known_at, pin=pin_of(ledger))
        last_request = _LastRequest(logs)
        ahead = Ahead(last_request, "reading the log")
        try:
            radius = blast_radius(
                ledger,
                index,
                proposals,
                ahead,
                first_request=first_request,
                sinks=(files, shown),
                progress=rate_reporter(report, logs),
            )
        finally:
            ahead.close()
        if digest not in (None, logs.digest):
            raise BadRecord("the log was changed between its two readings; run this again when it is complete")
        provenance = _provenance(radius, logs, body, request)
        files.finish(provenance)
    for warning in logs.warnings:
        exits.print_message(warning)
    _warn_of_late_proposals(proposals, last_request.at, request.known_at)
    if radius.rejects:
        rows = radius.requests + radius.rejects
        where = f"all are in {files.rejects}"
        exits.print_message(rejects_message(radius.rejects, rows, files.first_reject, where))
        if not radius.requests:
            return exits.BAD_INPUT
    if "-" not in (request.out, files.rejects):
        show_radius(format_, radius, shown.rows, provenance, files.rejects, all_written=request.out is not None)
    return exits.OK


def _read_proposals(name: str) -> tuple[bytes, Sequence[ProposedChange]]:
    from projections.audit.what_if.proposals import read_proposals

    with open_input(name) as file:
        body = file.read(PROPOSALS_BYTES_MAX + 1)
    if len(body) > PROPOSALS_BYTES_MAX:
        raise BadInput(
            f"{name} has more than {PROPOSALS_BYTES_MAX} bytes of proposals; submit them to a copy of the ledger, and "
            "audit with that"
        )
    try:
        return body, read_proposals(io.BytesIO(body))
    except BadInput as error:
        raise BadInput(f"{name}: {error.detail}", error.faults) from None


def _first_request(request: WhatIfRequest, proposals: Sequence[ProposedChange]) -> tuple[int | None, str | None]:
    """The time of the log's first request (µs), and the digest of the log as read for it.

    The logs are read for it only if a proposal is to be made at that time; (None, None) otherwise.
    """
    from projections.audit.what_if.proposals import line_error, need_first_request
    from projections.audit.what_if.run import first_request_of

    line = need_first_request(proposals)
    if line is None:
        return None, None
    if request.read_once:
        raise line_error(
            line,
            "without recorded_at and effective_from it is made at the log's first request, and standard input cannot "
            "be read twice to find that; add a recorded_at",
        )
    logs = request.logs()
    with progress("looking for the first request", logs.size) as report:
        return first_request_of(with_progress(logs, report)), logs.digest


class _LastRequest:
    """Passes the batches of a log on, and keeps the time of the last request (µs; None: there is none)."""

    def __init__(self, batches: Iterable[LogBatch]) -> None:
        self.at: int | None = None
        self._parts = batches

    def __iter__(self) -> Iterator[LogBatch]:
        import pyarrow as pa
        import pyarrow.compute as pc

        for batch in self._parts:
            last = pc.max(batch.requests.column("at").cast(pa.int64())).as_py()
            if last is not None:
                self.at = last if self.at is None else max(self.at, last)
            yield batch


class _FirstChanges:
    """The first `count` changed rows, for the screen."""

    def __init__(self, count: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self._count = count

    def take(self, source: str, lines: Any, changes: pa.RecordBatch) -> None:
        import pyarrow as pa

        missing = self._count - len(self.rows)
        if missing <= 0:
            return
        changes = changes.slice(0, missing)
        instants = changes.column("at").cast(pa.int64()).to_pylist()
        rows = changes.drop_columns(["at"]).to_pylist()
        for line, at, row in zip(lines[:missing].tolist(), instants, rows, strict=True):
            self.rows.append({"source": source, "line": line, "at": format_time(at)} | row)

    def reject(self, row: LogRow) -> None:
        """A reject is not shown."""


def _warn_of_late_proposals(proposals: Sequence[ProposedChange], last_request: int | None, known_at: KnownAt) -> None:
    """A proposal that begins after all requests changes nothing, and must not pass for harmless."""
    if last_request is None:
        return
    late = [str(proposal.line) for proposal in proposals if _begins(proposal, known_at) > last_request]
    if late:
        subject, verb = ("proposal on line", "changes") if len(late) == 1 else ("proposals on lines", "change")
        more = f" and {len(late) - LATE_NAMED} more" if len(late) > LATE_NAMED else ""
        exits.print_message(
            f"the {subject} {', '.join(late[:LATE_NAMED])}{more} {verb} nothing: the log's last request came before, "
            f"at {human_time(last_request)}; give an earlier recorded_at and effective_from"
        )


def _begins(proposal: ProposedChange, known_at: KnownAt) -> int:
    """The first instant (µs) for which the proposal can change an answer. In force, it must be recorded by then."""
    moment = BEGINNING if proposal.moment is None else proposal.moment
    if isinstance(proposal.submission, RetractChange):
        return moment if known_at == IN_FORCE else BEGINNING
    start = moment if proposal.submission.effective_from is None else proposal.submission.effective_from
    return max(start, moment) if known_at == IN_FORCE else start


def _provenance(radius: Radius, logs: LogReader, body: bytes, request: WhatIfRequest) -> dict[str, Any]:
    from projections.audit.summary import LogDigest, Summary, pin_json

    digest = LogDigest(logs.digest, [(source.name, source.bytes) for source in logs.sources])
    proposals = {"sha256": hashlib.sha256(body).hexdigest(), "proposals": radius.proposals}
    pinned = pin_json(Summary(radius.pin, radius.known_at, digest))
    return pinned | {"what_if": proposals, "reading": request.reading}
