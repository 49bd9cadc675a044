"""The audit on this machine: verdicts and rejects to files, a summary to the screen, and a report if one is asked for.

Proved by tests/cli/audit/.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ledger.opening import open_ledger
from projections.audit.index.pin import pin_of
from projections.audit.run import RowSink, index_decider, run
from projections.audit.summary import LogDigest, Summary, pin_json
from projections.query.clock_notices import notices_of_ledger
from projections.query.query import PinnedQuery, Query
from scripts.audit.outputs import FirstFindings, OutputFiles, exit_code, warn_of_rejects
from scripts.audit.request import AuditRequest, rate_reporter
from scripts.audit.show_summary import show_summary
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format
from scripts.cli.output import show_clock_notices
from scripts.cli.questions import say_before_first_record


def audit_locally(db: str, request: AuditRequest, options: dict[str, Any], format_: Format) -> int:
    report = None
    if options["report"] is not None:
        # Needs jinja2, as no other audit does.
        from scripts.audit.report import ReportFolder

        report = ReportFolder(options["report"])
    files, logs = OutputFiles(request), request.logs()
    with ExitStack() as stack:
        ledger = stack.enter_context(open_ledger(db))
        stack.enter_context(files)
        # Only evidence needs the stored timelines, which may have to be built first.
        query = PinnedQuery(Query(ledger)) if options["findings"] or report is not None else None
        pin = pin_of(ledger) if query is None else query.pinned
        summary = Summary(
            pin, request.known_at, clock_notices=notices_of_ledger(ledger, pin), happened=request.layout.forms.happened
        )
        findings = FirstFindings(query, request.known_at, options["findings"])
        sinks: list[RowSink] = [files, findings]
        if report is not None:
            sinks.append(report.collector)
        decide = index_decider(ledger, pin, request.known_at)
        with progress("auditing", logs.size) as show_progress:
            run(logs, decide, summary, sinks=sinks, progress=rate_reporter(show_progress, logs))
        summary.log = LogDigest(logs.digest, [(source.name, source.bytes) for source in logs.sources])
        files.finish(pin_json(summary) | {"observed": summary.observed, "reading": request.layout.json()})
        if report is not None and query is not None:
            report.write(summary, query, request)
        say_before_first_record(ledger, summary.reasons["before_first_record"], summary.rows)
    for warning in logs.warnings:
        exits.print_note(warning)
    if not summary.rows:
        exits.print_message("the log has no rows, so nothing was audited; check that it is the right log")
    if warn_of_rejects(summary.rejects, summary.rows, files.first_reject, f"all are in {files.rejects}"):
        return exits.BAD_INPUT
    # Rows on standard output are for programs, so nothing else is printed there.
    if "-" in (request.out, files.rejects):
        show_clock_notices("ndjson", summary.notices)
    else:
        show_summary(format_, summary, files.rejects, findings.findings)
    return exit_code(summary)
