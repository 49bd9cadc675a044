"""The suites by name: what each measures, and what it needs. Imported without anything heavy, for help texts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from scripts.bench.scratch import Scratch


class Setting(NamedTuple):
    """What a suite is run with. `folder`: where what it makes may lie; `stack` closes what it opens; `quick`: little
    work; `events`: the size of the largest ledger it makes (None: its own default); `keep`: the folder where made
    ledgers stay for the next run."""

    databases: Scratch
    folder: Path
    stack: ExitStack
    quick: bool
    turns: int
    events: int | None
    keep: Path | None


class Suite(NamedTuple):
    """`module` has a function `run(Setting) -> Result`. `sized`: it makes a ledger whose size --events sets."""

    module: str
    about: str
    needs: str
    sized: bool = False


_SIZED: Final = "with --events 10000000 about 20 GB of disk and 15 minutes, 10 of them once with --keep"

SUITES: Final[dict[str, Suite]] = {
    "append": Suite("appending", "recording, beside the bare eventsourcing library", "a minute"),
    "http": Suite("submitting", "64 submitters at once, with group commit and without", "two minutes"),
    "check": Suite("checking", "a decision about the past, beside peers without one", "a minute"),
    "http-check": Suite("http_checking", "a check over HTTP, beside a constant JSON route", "four minutes"),
    "replay": Suite("replaying", "reading and rebuilding, beside a raw cursor", _SIZED, sized=True),
    "growth": Suite("growing", "a check in a small and in a large ledger", _SIZED, sized=True),
    "memory": Suite("remembering", "the memory of a server that was asked about everybody", _SIZED, sized=True),
    "audit": Suite(
        "auditing",
        "an audit of a log, beside merely reading and writing it, Polars and DuckDB",
        "with --events 5000000 about 20 GB of disk, 10 GB of memory and an hour; the extras audit and bench",
        sized=True,
    ),
}
