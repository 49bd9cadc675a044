"""Shared by tests of export and import: imports, lines of submissions, and the content of a database."""

import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

from ledger.clock import ManualClock
from ledger.opening import open_ledger, open_recorder
from ledger.recorders.contract import Entry
from ledger.transfer.import_ledger import ImportSummary, import_ledger
from tests.support.ledgers import NOW

AT = "2025-01-01T00:00:00Z"
LATER = "2025-01-01T00:00:01.5Z"
AT_US = 1_735_689_600_000_000


def import_lines(url: str, lines: bytes, **more: Any) -> ImportSummary:
    return import_ledger(url, io.BytesIO(lines), clock=ManualClock(NOW), **more)


def jsonl(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def entries(url: str) -> list[Entry]:
    with open_ledger(url) as ledger:
        return ledger.page(0, 1_000_000)


def is_untouched(url: str) -> bool:
    """Whether there is no database file, or no table of ours in the database."""
    if url.startswith("sqlite"):
        return not list(Path(url.removeprefix("sqlite:///")).parent.glob("ledger.db*"))
    with closing(open_recorder(url)) as recorder:
        return recorder.meta() == {}


def at(recorded_at: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"recorded_at": recorded_at, **body}
