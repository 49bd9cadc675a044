"""`--report DIR`: the report as a page and as JSON, each there whole or not at all."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from ledger.errors import BadInput
from projections.audit.report.page.page import page
from projections.audit.report.report import AuditReport
from projections.audit.report.report_json import report_json
from scripts.audit.outputs import settle
from scripts.cli.files import writing
from scripts.cli.output import encode

PAGE: Final = "report.html"
DOCUMENT: Final = "report.json"


def prepare(directory: str) -> None:
    """Makes the folder, so that a slip shows before the audit and not after it. Raises `BadInput`."""
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{directory} cannot be a folder for the report: {error.strerror}; name another") from None


def write_report(directory: str, report: AuditReport) -> tuple[Path, Path]:
    """The page and the document, in `directory`. Raises `OSError`."""
    prepare(directory)
    places = Path(directory) / PAGE, Path(directory) / DOCUMENT
    made = page(report).encode(), msgspec.json.format(encode(report_json(report)), indent=2) + b"\n"
    with ExitStack() as stack:
        files = [stack.enter_context(writing(str(place))) for place in places]
        for file, content in zip(files, made, strict=True):
            file.write(content)
            settle(file)
    return places
