"""`--report DIR`: writes the report as a page, its counts as a short page, and both as JSON. Each file appears whole or
not at all.

Proved by tests/cli/audit/test_report.py.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec

from ledger.errors import BadInput
from ledger.private_files import make_private_folder
from projections.audit.report.collector import ReportCollector
from projections.audit.report.page.page import page, summary_page
from projections.audit.report.report import AuditReport, Invocation, build_report
from projections.audit.report.report_json import report_json
from projections.audit.summary import Summary
from projections.query.query import PinnedQuery
from scripts.audit.outputs import flush_to_disk
from scripts.audit.request import DOCUMENT, PAGE, SUMMARY_PAGE, AuditRequest
from scripts.cli.exits import installed_version
from scripts.cli.files import open_output
from scripts.cli.output import encode


class ReportFolder:
    """Make it before the audit, so that a bad name does not cost hours of work. Raises `BadInput`."""

    def __init__(self, directory: str) -> None:
        _make_folder(directory)
        self.collector = ReportCollector()
        self._directory = directory

    def write(self, summary: Summary, query: PinnedQuery, request: AuditRequest) -> None:
        rejects = request.rejects_file if summary.rejects else None
        invocation = Invocation(request.arguments, rejects, installed_version() or "not installed")
        write_report(self._directory, build_report(self.collector, summary, query, invocation))


def _make_folder(directory: str) -> None:
    try:
        make_private_folder(Path(directory))
    except OSError as error:
        raise BadInput(f"{directory} cannot be a folder for the report: {error.strerror}; name another") from None


def write_report(directory: str, report: AuditReport) -> tuple[Path, Path, Path]:
    """Writes both pages and the document, and returns their paths. Raises `OSError`."""
    _make_folder(directory)
    paths = Path(directory) / PAGE, Path(directory) / SUMMARY_PAGE, Path(directory) / DOCUMENT
    document = msgspec.json.format(encode(report_json(report)), indent=2) + b"\n"
    contents = page(report).encode(), summary_page(report).encode(), document
    with ExitStack() as stack:
        files = [stack.enter_context(open_output(str(path))) for path in paths]
        for file, content in zip(files, contents, strict=True):
            file.write(content)
            flush_to_disk(file)
    return paths
