"""The ledgers that released versions of inforce wrote, loaded into a database."""

import gzip
import json
from pathlib import Path
from typing import Any

import psycopg

from ledger.opening import sqlite_path

FIXTURES = Path(__file__).parent / "fixtures"
RELEASES = sorted(folder.name for folder in FIXTURES.iterdir() if folder.is_dir())
"""Made by make_fixtures.py, each with the released code."""


class Stored:
    """The ledger that one release made of the story in make_fixtures.py."""

    def __init__(self, release: str) -> None:
        self.folder = FIXTURES / release
        self.events = (self.folder / "events.jsonl").read_bytes()
        self.personal = (self.folder / "personal.jsonl").read_bytes()
        facts = json.loads((self.folder / "facts.json").read_text())
        self.submitted: list[dict[str, Any]] = facts["submitted"]
        self.answers: list[dict[str, Any]] = facts["answers"]

    def put(self, url: str) -> str:
        """Loads it into the empty database at `url`; answers `url`."""
        if url.startswith("sqlite"):
            sqlite_path(url)[0].write_bytes(gzip.decompress((self.folder / "ledger.db.gz").read_bytes()))
        else:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute((self.folder / "ledger.sql").read_bytes())
        return url
