"""The marks: what each figure has to come to, in the words of the issue that set them.

One place, so that a suite cannot be kinder to itself than what was asked of it.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Bound = Literal["at least", "more than", "at most", "under"]


class Mark(NamedTuple):
    """`about`: what is measured; `size`: the number of events or subjects that the mark speaks of, if it does."""

    about: str
    bound: Bound
    limit: float
    unit: str
    size: int | None = None

    @property
    def wanted(self) -> str:
        return f"{self.bound} {self.limit:g}{_joined(self.unit)}"

    def holds(self, figure: float) -> bool:
        match self.bound:
            case "at least":
                return figure >= self.limit
            case "more than":
                return figure > self.limit
            case "at most":
                return figure <= self.limit
            case "under":
                return figure < self.limit


class Judged(NamedTuple):
    """`met` None: measured at another size than the mark speaks of, so that nothing is said about it."""

    key: str
    mark: Mark
    figure: float
    met: bool | None
    note: str

    @property
    def measured(self) -> str:
        return f"{shown(self.figure)}{_joined(self.mark.unit)}"


EVENTS: Final = 10_000_000
SUBJECTS: Final = 1_000_000
AUDITED: Final = 5_000_000
"""Events under an audit of twice as many rows."""

MARKS: Final[dict[str, Mark]] = {
    "append.one": Mark(
        "append, one event per commit, one thread: speed, of the bare library's Application.save", "at least", 0.8, ""
    ),
    "append.recorder": Mark(
        "append, batches of 1000, our recorder: speed, of the bare library's recorder", "at least", 0.5, ""
    ),
    "append.road": Mark(
        "append, batches of 1000, our whole road: speed, of the bare library's recorder", "at least", 0.5, ""
    ),
    "http.sqlite": Mark(
        "HTTP, 64 submitters at once, SQLite: group commit, of one commit per event", "at least", 3, "times"
    ),
    "http.postgresql": Mark(
        "HTTP, 64 submitters at once, PostgreSQL: group commit, of one commit per event", "at least", 5, "times"
    ),
    "http.tail": Mark("HTTP, 64 submitters at once, group commit: p99, of p50", "under", 10, "times"),
    "check.verdict": Mark(
        "check, in process, warm, six settings at a past time: verdict and handling", "at most", 8, "µs"
    ),
    "check.evidence": Mark("check, the same with full evidence as JSON", "at most", 25, "µs"),
    "check.peers": Mark(
        "check, verdict and handling: speed, of the fastest peer deciding one toggle with no history",
        "more than",
        1,
        "times",
    ),
    "http-check.one": Mark(
        "check over HTTP, 1 connection: server CPU, of a constant JSON route", "at most", 1.6, "times"
    ),
    "http-check.many": Mark(
        "check over HTTP, 16 connections: server CPU, of a constant JSON route", "at most", 1.6, "times"
    ),
    "http-check.batch": Mark("check over HTTP, 1000 in one body: time for each", "at most", 10, "µs"),
    "replay.read": Mark(
        "replay: speed (CPU) of reading rows and all that a projection wants of them, of a raw cursor",
        "at least",
        0.5,
        "",
    ),
    "rebuild.wall": Mark("rebuild of 10 million events: wall time", "under", 90, "s", EVENTS),
    "rebuild.memory": Mark("rebuild of 10 million events: peak resident memory", "under", 1.5, "GB", EVENTS),
    "growth.warm": Mark(
        "growth: check p50 at 10 million events, of that at 10 thousand", "at most", 1.3, "times", EVENTS
    ),
    "growth.cold": Mark("growth: a cold subject on SQLite, median", "under", 1, "ms"),
    "memory.subjects": Mark("resident memory of a server with 1 million subjects, peak", "under", 300, "MB", SUBJECTS),
    "memory.history": Mark(
        "the same, whatever the history: a subject with 100,000 changes", "under", 300, "MB", 100_000
    ),
    "audit.floor": Mark(
        "audit, Parquet to Parquet: time, of merely reading and writing the rows", "at most", 2, "times", AUDITED
    ),
    "audit.polars": Mark("audit: speed, of the same with Polars' as-of join", "at least", 1.3, "times", AUDITED),
    "audit.duckdb": Mark("audit: speed, of the same with DuckDB's as-of join", "at least", 1.5, "times", AUDITED),
    "audit.memory": Mark("audit: peak resident memory", "under", 1, "GB", AUDITED),
    "audit.tenfold": Mark("audit of ten times the rows: rows a second, of those of one", "at least", 0.9, "", AUDITED),
    "audit.tenfold-memory": Mark("audit of ten times the rows: peak resident memory", "under", 1, "GB", AUDITED),
    "audit.lines": Mark("audit of JSON Lines: time, of merely reading the rows", "at most", 2.2, "times", AUDITED),
    "audit.index": Mark("policy index: compiling it", "at most", 10, "s", AUDITED),
    "audit.extension": Mark("policy index: bringing it up by 1,000 events", "under", 100, "ms", AUDITED),
}


def judge(key: str, figure: float, *, size: int | None = None, note: str = "") -> Judged:
    """`size`: the size that was measured, where the mark speaks of one."""
    mark = MARKS[key]
    met: bool | None = mark.holds(figure)
    if mark.size is not None and (size is None or size < mark.size):
        met = None
        note = "; ".join(part for part in (note, f"measured at {size or 0:,}, the mark is about {mark.size:,}") if part)
    return Judged(key, mark, figure, met, note)


def shown(figure: float) -> str:
    """Three significant digits, or whole thousands."""
    if figure >= 1000:
        return f"{figure:,.0f}"
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def _joined(unit: str) -> str:
    return f" {unit}" if unit else ""
