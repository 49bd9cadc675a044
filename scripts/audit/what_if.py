"""`audit --what-if`: which requests of a log would be decided differently if these changes had been made.

Proved by tests/audit/what_if/test_command.py.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from ledger.append.submissions import RetractChange
from ledger.errors import BadInput, BadRecord
from ledger.opening import open_ledger
from ledger.times import BEGINNING, format_time
from projections.audit.index.open import open_index
from projections.audit.index.pin import pin_of
from projections.audit.reading.batches import LogBatch
from projections.audit.reading.logs import LogReader
from projections.audit.reading.strict import LogRow
from projections.audit.run import Ahead
from projections.audit.summary import LogDigest, Summary, pin_json
from projections.audit.verdict_files import output_schema
from projections.audit.what_if.comparison import DIFFERENCES
from projections.audit.what_if.proposals import ProposedChange, line_error, need_first_request, read_proposals
from projections.audit.what_if.radius import Radius, radius_json
from projections.audit.what_if.run import blast_radius, first_request_of
from projections.decisions.model import REASONS
from projections.temporal.coordinates import IN_FORCE, KnownAt
from scripts.audit.outputs import OutputFiles, warn_of_rejects
from scripts.audit.request import AuditRequest, rate_reporter, with_progress
from scripts.audit.show_summary import COUNT_FIELDS, clock_counts, count_columns, named_counts, position_text
from scripts.cli import exits
from scripts.cli.files import progress, read_body
from scripts.cli.options import Format
from scripts.cli.output import Columns, human_time, json_text, print_line, print_table, show, show_clock_notices
from scripts.cli.show_decision import UNKNOWN_SUBJECT

LATE_NAMED: Final = 10
PROPOSALS_BYTES_MAX: Final = 1 << 26
ROWS_SHOWN: Final = 10


def what_if(db: str, request: AuditRequest, changes: str, format_: Format, *, shown_max: int) -> int:
    """Exits 0 even if requests would be decided differently: that is an answer, not a problem. Exits 2 if no line
    could be read."""
    if request.read_once and changes == "-":
        raise BadInput("standard input can be read once; name a file for the proposals or for the log")
    body, proposals = _read_proposals(changes)
    first_request, digest = _first_request(request, proposals)
    logs = request.logs()
    files = OutputFiles(request, output_schema(DIFFERENCES))
    shown = _FirstChanges(shown_max)
    with open_ledger(db) as ledger, files, progress("what if", logs.size) as report:
        index = open_index(ledger, request.known_at, pin=pin_of(ledger))
        last_requests: list[int] = []
        ahead = Ahead(_with_last_instants(logs, last_requests), "reading the log")
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
        exits.print_note(warning)
    _warn_of_late_proposals(proposals, max(last_requests, default=None), request.known_at)
    rows = radius.requests + radius.rejects
    if warn_of_rejects(radius.rejects, rows, files.first_reject, f"all are in {files.rejects}"):
        return exits.BAD_INPUT
    if "-" in (request.out, files.rejects):
        show_clock_notices("ndjson", radius.notices)
    else:
        _show_radius(format_, radius, shown.rows, provenance, files.rejects, all_written=request.out is not None)
    return exits.NOT_ALL_READ if radius.rejects else exits.OK


def _read_proposals(name: str) -> tuple[bytes, Sequence[ProposedChange]]:
    advice = " of proposals; submit them to a copy of the ledger, and audit with that"
    body = read_body(name, PROPOSALS_BYTES_MAX, advice)
    try:
        return body, read_proposals(io.BytesIO(body))
    except BadInput as error:
        raise BadInput(f"{name}: {error.detail}", error.faults) from None


def _first_request(request: AuditRequest, proposals: Sequence[ProposedChange]) -> tuple[int | None, str | None]:
    """The time of the log's first request (µs), and the digest of the log as read for it.

    The logs are read for it only if a proposal is to be made at that time; (None, None) otherwise.
    """
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


def _with_last_instants(batches: Iterable[LogBatch], instants: list[int]) -> Iterator[LogBatch]:
    """Passes the batches of a log on, and adds the time (µs) of the last request of each."""
    for batch in batches:
        last = pc.max(batch.requests.column("at").cast(pa.int64())).as_py()
        if last is not None:
            instants.append(last)
        yield batch


class _FirstChanges:
    """The first `count` changed rows, for the screen."""

    def __init__(self, count: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self._count = count

    def take(self, batch: LogBatch, changes: pa.RecordBatch) -> None:
        missing = self._count - len(self.rows)
        if missing <= 0:
            return
        changes = changes.slice(0, missing)
        instants = changes.column("at").cast(pa.int64()).to_pylist()
        rows = changes.drop_columns(["at"]).to_pylist()
        for line, at, row in zip(batch.lines[:missing].tolist(), instants, rows, strict=True):
            self.rows.append({"source": batch.source, "line": line, "at": format_time(at)} | row)

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


def _provenance(radius: Radius, logs: LogReader, body: bytes, request: AuditRequest) -> dict[str, Any]:
    digest = LogDigest(logs.digest, [(source.name, source.bytes) for source in logs.sources])
    proposals = {"sha256": hashlib.sha256(body).hexdigest(), "proposals": radius.proposals}
    pinned = pin_json(Summary(radius.pin, radius.known_at, digest))
    return pinned | {"what_if": proposals, "reading": request.layout.json()}


def _show_radius(
    format_: Format,
    radius: Radius,
    changes: Sequence[dict[str, Any]],
    provenance: dict[str, Any],
    rejects: str,
    *,
    all_written: bool,
) -> None:
    """`changes`: the rows to show; `rejects`: the file of unreadable lines; `all_written`: --out has all rows."""
    members = radius_json(radius) | provenance
    if format_ != "table":
        document = members | {"changes": changes, "rejects_file": rejects if radius.rejects else None}
        names = ("requests", "rejects", "otherwise", "turned_against", "turned_for")
        counts = [{"what": name, "name": None, "count": members[name]} for name in names]
        counts += named_counts(
            "verdict", {f"{pair['before']} {pair['after']}": pair["requests"] for pair in members["verdicts"]}
        )
        for what, member in (("reason_gone", "reasons_gone"), ("reason_new", "reasons_new"), ("handling", "handling")):
            counts += named_counts(what, members[member])
        counts += clock_counts(radius.notices)
        show(format_, document, counts, COUNT_FIELDS, {})
        show_clock_notices(format_, radius.notices)
        return
    _print_radius(radius, members)
    for change in changes:
        _print_change(change)
    if radius.differing and not all_written and not changes:
        print_line()
        print_line("--out FILE writes each of them with both verdicts; --findings N shows the first N.")


def _print_radius(radius: Radius, members: dict[str, Any]) -> None:
    share = f" ({100 * radius.differing / radius.requests:.3g} %)" if radius.differing else ""
    period = ""
    if radius.first_at is not None and radius.last_at is not None:
        period = f", from {human_time(radius.first_at)} to {human_time(radius.last_at)}"
    print_line(
        f"{radius.differing:,} of {radius.requests:,} requests would be decided differently{share}{period}", "bold"
    )
    proposals = f"{radius.proposals} proposal" + ("" if radius.proposals == 1 else "s")
    print_line(f"with {proposals}, {position_text(radius.pin)}")
    show_clock_notices("table", radius.notices)
    if not radius.differing:
        return
    print_line()
    print_table(
        {"verdict": lambda pair: pair["before"], "would be": lambda pair: pair["after"], "requests": _requests},
        members["verdicts"],
    )
    reasons = [name for name in REASONS if radius.reasons_gone[name] or radius.reasons_new[name]]
    if reasons:
        print_line()
        gone_and_new: Columns = {
            "reason": str,
            "gone": lambda name: f"{radius.reasons_gone[name]:,}",
            "new": lambda name: f"{radius.reasons_new[name]:,}",
        }
        print_table(gone_and_new, reasons)
    if members["handling"]:
        print_line()
        print_table(count_columns("handling"), members["handling"].items())
    subjects: Columns = {"governed by": lambda one: one["subject"] or UNKNOWN_SUBJECT, "requests": _requests}
    models: Columns = {"model": lambda one: one["model_id"] or "(none named)", "requests": _requests}
    for columns, rows, count in (
        (subjects, members["subjects"], members["subject_count"]),
        (models, members["models"], members["model_count"]),
    ):
        print_line()
        print_table(columns, rows[:ROWS_SHOWN])
        if count > ROWS_SHOWN:
            print_line(f"and {count - ROWS_SHOWN:,} more; --format json lists them")


def _requests(row: Any) -> str:
    return f"{row['requests']:,}"


def _print_change(row: dict[str, Any]) -> None:
    print_line()
    print_line(f"{row['source']} line {row['line']}", "bold underline")
    print_line(f"at {human_time(row['at'])}" + (f", request {row['request_id']}" if row["request_id"] else ""))
    for name in (name.removeprefix("before_") for name in row if name.startswith("before_")):
        before, after = row["before_" + name], row["after_" + name]
        if before != after:
            texts = (value if isinstance(value, str) else json_text(value) for value in (before, after))
            print_line(f"  {name}: " + " → ".join(texts))
    # A negative position is the line of a proposal.
    lines = sorted({-position for position in row["after_deciding_positions"] if position < 0})
    if lines:
        print_line("  decided by the proposal of line " + ", ".join(map(str, lines)))
