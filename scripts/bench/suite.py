"""The suites of `inforce bench` by name. Imports nothing heavy, so that `--help` stays fast."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from scripts.bench.scratch import ScratchDatabases


class SuiteContext(NamedTuple):
    """The means of a suite. `stack` closes what the suite opens. `events` is the size of the largest ledger (None:
    the suite's own default). `keep` is the folder in which large ledgers stay for the next run."""

    databases: ScratchDatabases
    folder: Path
    stack: ExitStack
    quick: bool
    turns: int
    events: int | None
    keep: Path | None


class Suite(NamedTuple):
    """`module` has a function `run(SuiteContext) -> SuiteResult`. `sized`: --events sets the size of its ledger.
    `packages`: imported by the suite, but not by every installation."""

    module: str
    about: str
    needs: str
    sized: bool = False
    packages: tuple[str, ...] = ()


_SIZED: Final = "with --events 10000000 about 20 GB of disk and 15 minutes; --keep saves 10 of them in the next run"

SUITES: Final[dict[str, Suite]] = {
    "append": Suite("append", "appending events, beside the bare eventsourcing library", "a minute"),
    "http": Suite("http", "64 submitters over HTTP, with and without group commit", "two minutes"),
    "check": Suite("check", "a decision about the past, beside peers that know only the present", "a minute"),
    "http-check": Suite("http_check", "a check over HTTP, beside a constant JSON route", "four minutes"),
    "sign-in": Suite(
        "sign_in",
        "a sign-in with a JSON Web Token, beside the bare signature",
        "half a minute",
    ),
    "replay": Suite("replay", "reading and rebuilding, beside a raw cursor", _SIZED, sized=True),
    "growth": Suite("growth", "a check in a small and in a large ledger", _SIZED, sized=True),
    "memory": Suite("memory", "the memory of a server under checks of very many subjects", _SIZED, sized=True),
    "access": Suite(
        "access",
        "signing in with a token, beside a bare hash look-up",
        "a minute; with --events 1000000, which is the number of principals, twenty minutes",
        sized=True,
    ),
    "log": Suite(
        "log",
        "the transparency log, beside bare hashlib",
        "a minute; with --events 10000000 half a GB of disk and two minutes",
        sized=True,
    ),
    "audit": Suite(
        "audit",
        "an audit of a log, beside reading and writing alone, Polars and DuckDB",
        "with --events 5000000 about 20 GB of disk, 10 GB of memory and an hour; the extras audit and bench",
        sized=True,
        packages=("pyarrow", "numpy", "polars", "duckdb"),
    ),
    "spark": Suite(
        "spark",
        "an audit on Spark on two cores, beside the same audit without Spark",
        "Java, the extra spark and ten minutes",
        sized=True,
        packages=("pyspark",),
    ),
}
