"""The marks: the target of each measured figure.

They stand in one place, so that a suite cannot lower its own target. Proved by tests/bench/test_suites.py.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Any, Final, Literal, NamedTuple

Bound = Literal["at least", "more than", "at most", "under"]
_COMPARE: Final[dict[Bound, Callable[[float, float], bool]]] = {
    "at least": ge,
    "more than": gt,
    "at most": le,
    "under": lt,
}


class Mark(NamedTuple):
    """`size` is the number of events or subjects that the mark is about, if it is about one size."""

    about: str
    bound: Bound
    limit: float
    unit: str
    size: int | None = None

    def holds(self, figure: float) -> bool:
        return _COMPARE[self.bound](figure, self.limit)


class JudgedMark(NamedTuple):
    """`met` is None where the run had another size than the mark is about."""

    key: str
    mark: Mark
    figure: float
    met: bool | None
    note: str

    def document(self) -> dict[str, Any]:
        """The mark as `--format json` prints it."""
        about, bound, limit, unit, _size = self.mark
        target = {"about": about, "bound": bound, "limit": limit, "unit": unit}
        return {"mark": self.key, **target, "figure": self.figure, "met": self.met, "note": self.note}


_EVENTS: Final = 10_000_000
_SUBJECTS: Final = 1_000_000
_HISTORY: Final = 100_000
_AUDIT: Final = 5_000_000
_SPARK: Final = 100_000
"""Events; the audited log has twice as many rows."""

_APPEND_ONE: Final = "append, one event per commit, one thread"
_BATCH: Final = "append, batches of 1000"
_HTTP: Final = "HTTP, 64 submitters at once"
_CONSTANT: Final = "server CPU, relative to a constant JSON route"
_TENFOLD: Final = "audit of ten times the rows"

MARKS: Final[dict[str, Mark]] = {
    "append.one": Mark(f"{_APPEND_ONE}: speed, relative to the library's Application.save", "at least", 0.8, ""),
    "append.recorder": Mark(f"{_BATCH}: speed of our recorder, relative to the library's", "at least", 0.5, ""),
    "append.road": Mark(f"{_BATCH}: speed of submit, relative to the library's recorder", "at least", 0.5, ""),
    "http.sqlite": Mark(f"{_HTTP}, SQLite: gain by group commit", "at least", 3, "times"),
    "http.postgresql": Mark(f"{_HTTP}, PostgreSQL: gain by group commit", "at least", 5, "times"),
    "http.tail": Mark(f"{_HTTP}, group commit: p99, relative to p50", "under", 10, "times"),
    "check.verdict": Mark("check in process, six settings at a past time: verdict and handling", "at most", 8, "µs"),
    "check.evidence": Mark("check in process: full evidence as JSON", "at most", 25, "µs"),
    "check.peers": Mark("check in process: speed, relative to the fastest peer", "more than", 1, "times"),
    "http-check.one": Mark(f"check over HTTP, 1 connection: {_CONSTANT}", "at most", 1.6, "times"),
    "http-check.many": Mark(f"check over HTTP, 16 connections: {_CONSTANT}", "at most", 1.6, "times"),
    "http-check.batch": Mark("check over HTTP, 1000 in one body: server CPU for each", "at most", 10, "µs"),
    "sign-in.first": Mark("sign-in with a JSON Web Token, RS256, for the first time: CPU", "at most", 200, "µs"),
    "sign-in.again": Mark("sign-in with a JSON Web Token that was verified before: CPU", "at most", 10, "µs"),
    "sign-in.limit": Mark("rate limit of a principal, one request: CPU", "at most", 10, "µs"),
    "replay.read": Mark("replay: CPU speed, relative to a raw cursor", "at least", 0.5, ""),
    "rebuild.wall": Mark("rebuild of 10 million events: wall time", "under", 90, "s", _EVENTS),
    "rebuild.memory": Mark("rebuild of 10 million events: peak resident memory", "under", 1.5, "GB", _EVENTS),
    "growth.warm": Mark("check p50 at 10 million events, relative to 10 thousand", "at most", 1.3, "times", _EVENTS),
    "growth.cold": Mark("check of a cold subject on SQLite: median", "under", 1, "ms"),
    "memory.subjects": Mark("peak resident memory of a server: 1 million subjects", "under", 300, "MB", _SUBJECTS),
    "memory.history": Mark("peak resident memory of a server: 100,000 changes", "under", 300, "MB", _HISTORY),
    "access.token": Mark("signing in with a token that was used before: CPU", "at most", 10, "µs"),
    "access.flat": Mark("first sign-in at 1 million principals, relative to 1,000", "at most", 1.5, "times", _SUBJECTS),
    "access.memory": Mark("memory of access for each principal with a token", "under", 250, "bytes", _SUBJECTS),
    "log.integrate": Mark("transparency log: events integrated and signed", "at least", 2000, "a second"),
    "log.proof": Mark("proof from a tree of 10 million, nothing at hand: median", "under", 1, "ms", _EVENTS),
    "audit.floor": Mark("audit: time, relative to reading and writing the rows", "at most", 2, "times", _AUDIT),
    "audit.polars": Mark("audit: speed, relative to Polars' as-of join", "at least", 1.3, "times", _AUDIT),
    "audit.duckdb": Mark("audit: speed, relative to DuckDB's as-of join", "at least", 1.5, "times", _AUDIT),
    "audit.memory": Mark("audit: peak resident memory", "under", 1, "GB", _AUDIT),
    "audit.tenfold": Mark(f"{_TENFOLD}: rows a second, relative to the smaller audit", "at least", 0.9, "", _AUDIT),
    "audit.tenfold-memory": Mark(f"{_TENFOLD}: peak resident memory", "under", 1, "GB", _AUDIT),
    "audit.lines": Mark("audit of JSON Lines: time, relative to reading the rows", "at most", 2.2, "times", _AUDIT),
    "audit.index": Mark("policy index: compiling it", "at most", 10, "s", _AUDIT),
    "audit.extension": Mark("policy index: adding 1,000 events", "under", 100, "ms", _AUDIT),
    "spark.fixed": Mark("audit on Spark: fixed cost beyond Spark's own start", "at most", 20, "s", _SPARK),
    "spark.row": Mark("audit on Spark: time of a row, relative to no Spark", "at most", 3, "times", _SPARK),
}


def judge(key: str, figure: float, *, size: int | None = None, note: str = "") -> JudgedMark:
    """`size`: the size of this run, where the mark is about one size. A smaller run is not judged."""
    mark = MARKS[key]
    met: bool | None = mark.holds(figure)
    if mark.size is not None and (size is None or size < mark.size):
        met = None
        note = "; ".join(part for part in (note, f"measured at {size or 0:,}, the mark is about {mark.size:,}") if part)
    return JudgedMark(key, mark, figure, met, note)
