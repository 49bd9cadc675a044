"""The results of an audit in numbers, with its pin and the digest of its log.

The same log and the same ledger give the same summary to anyone. This module imports no engine: showing a summary needs
none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ledger.times import format_time
from projections.decisions.model import REASONS, Verdict
from projections.query.clock_notices import notice_at
from projections.query.query import KnownAt
from projections.temporal.coordinates import ClockNotice, Pin, clock_notice_json

VERDICTS: Final[tuple[Verdict, ...]] = ("violation", "denied", "indeterminate", "compliant", "allowed")
"""In the order in which summaries show them."""
AGAINST: Final = frozenset(("violation", "denied"))
"""The verdicts against a request."""

SUBJECTS_LISTED: Final = 100_000
UNKNOWN_LISTED: Final = 100


class SubjectCount(NamedTuple):
    """`subject` None: the rows that nobody governs."""

    subject: str | None
    verdicts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.verdicts.values())


class ProviderKey(NamedTuple):
    """A provider that governed passthrough rows by its own data policy: its subject (None: the ledger has none), the
    name that the model gives it, and whether it trains and stores (None: nobody recorded it)."""

    provider: str | None
    name: str | None
    trains: bool | None
    stores: bool | None


class ProviderCount(NamedTuple):
    """Rows whose data was governed by a provider's own data policy. trains, stores: rows for which that policy said so.
    unknown: rows for which nobody had recorded whether it trains, or whether it stores."""

    provider: str | None
    name: str | None
    rows: int
    trains: int
    stores: int
    unknown: int


class LogDigest(NamedTuple):
    """`sha256`: over the exact bytes of every file in order (hex); `sources`: their names and sizes in bytes."""

    sha256: str
    sources: Sequence[tuple[str, int]]


UNREAD: Final = LogDigest("", ())


class NoticeRows(NamedTuple):
    """The verdicts on so many rows rest on a clock that was ahead."""

    notice: ClockNotice
    rows: int


@dataclass
class Summary:
    """The results of an audit. `rows` = the sum of `verdicts` + `rejects`. Instants in µs.

    reasons: rows with the reason. subjects: the first SUBJECTS_LISTED of `subject_count`, by most verdicts against
    them, then most rows, then name. unknown: in the same order, the first UNKNOWN_LISTED of the `unknown_count`
    governing subjects of which the ledger had no event, and unknown_rows: the rows that they govern. hindsight: rows
    whose verdict or handling differs with everything known. first_at, last_at: of requests. policies: rows under a
    provider's own data policy. observed: a row had observed handling. happened: rows without it were judged as done.
    """

    pin: Pin
    known_at: KnownAt
    log: LogDigest = UNREAD
    rows: int = 0
    rejects: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    subjects: Sequence[SubjectCount] = ()
    subject_count: int = 0
    unknown: Sequence[SubjectCount] = ()
    unknown_count: int = 0
    unknown_rows: int = 0
    hindsight: int = 0
    policies: Counter[ProviderKey] = field(default_factory=Counter)
    first_at: int | None = None
    last_at: int | None = None
    observed: bool = False
    happened: bool = False
    clock_notices: Sequence[ClockNotice] = ()
    """Of the whole ledger: see `notices`."""
    clock_rows: Counter[ClockNotice] = field(default_factory=Counter)
    """Rows whose request was made in the stretch."""

    @property
    def notices(self) -> list[NoticeRows]:
        """The stretches of a clock that was ahead on which verdicts rest: they hold requests, or the known_at."""
        return resting_on(self.clock_notices, self.clock_rows, self.known_at, self.verdicts.total())

    @property
    def providers(self) -> tuple[ProviderCount, ...]:
        """By provider and name, most rows first."""
        counts: dict[tuple[str | None, str | None], list[int]] = {}
        for (provider, name, trains, stores), rows in self.policies.items():
            sums = counts.setdefault((provider, name), [0, 0, 0, 0])
            for place, counts_here in enumerate((True, trains, stores, None in (trains, stores))):
                sums[place] += rows if counts_here else 0
        rows_of = (ProviderCount(*key, *sums) for key, sums in counts.items())
        return tuple(sorted(rows_of, key=lambda one: (-one.rows, one.provider or "", one.name or "")))

    @property
    def nothing_observed(self) -> str | None:
        """For people: how the rows were taken if none had observed handling. None: one had, or there was no row."""
        if self.observed or self.rows == self.rejects:
            return None
        if self.happened:
            return "nothing was observed: each row was judged as a request that happened"
        return "nothing was observed: each row was taken as a question; --happened judges them as done"

    @property
    def against(self) -> int:
        """Rows with a verdict against the request."""
        return sum(self.verdicts[verdict] for verdict in AGAINST)


def resting_on(
    notices: Sequence[ClockNotice], rows: Mapping[ClockNotice, int], known_at: KnownAt, total: int
) -> list[NoticeRows]:
    """The stretches on which any of `total` decisions rest: they hold requests (`rows`), or the known_at of all."""
    if isinstance(known_at, int):
        rows = {notice: total if notice_at((notice,), known_at) else rows.get(notice, 0) for notice in notices}
    return [NoticeRows(notice, rows[notice]) for notice in notices if rows.get(notice)]


def notices_json(notices: Sequence[NoticeRows]) -> dict[str, Any]:
    """The member `clock_notices`, which is absent if there are none."""
    documents = [clock_notice_json(notice) | {"rows": rows} for notice, rows in notices]
    return {"clock_notices": documents} if documents else {}


def coordinates_json(pin: Pin, known_at: KnownAt) -> dict[str, Any]:
    return {
        "known_at": time_or_null(known_at) if isinstance(known_at, int) else known_at or "now",
        "pin": pin._asdict() | {"recorded_at": time_or_null(pin.recorded_at)},
    }


def pin_json(summary: Summary) -> dict[str, Any]:
    """The pin, the axis and the log: the same ones, read the same way, give the same verdicts, byte for byte."""
    return coordinates_json(summary.pin, summary.known_at) | {
        "log": {
            "sha256": summary.log.sha256,
            "sources": [{"source": source, "bytes": size} for source, size in summary.log.sources],
        },
    }


def summary_json(summary: Summary) -> dict[str, Any]:
    """The summary for programs. `verdicts` and `reasons` omit counts of 0."""
    return {
        "unknown_subjects": {
            "rows": summary.unknown_rows,
            "count": summary.unknown_count,
            "subjects": [{"subject": one.subject, "rows": one.total} for one in summary.unknown],
        },
        "rows": summary.rows,
        "rejects": summary.rejects,
        "observed": summary.observed,
        "happened": summary.happened,
        "verdicts": {verdict: summary.verdicts[verdict] for verdict in VERDICTS if summary.verdicts[verdict]},
        "reasons": {reason: summary.reasons[reason] for reason in REASONS if summary.reasons[reason]},
        "subjects": [{"subject": one.subject, "verdicts": one.verdicts} for one in summary.subjects],
        "subject_count": summary.subject_count,
        "providers": [one._asdict() for one in summary.providers],
        "hindsight": summary.hindsight,
        "first_at": time_or_null(summary.first_at),
        "last_at": time_or_null(summary.last_at),
        **notices_json(summary.notices),
    } | pin_json(summary)


def time_or_null(instant: int | None) -> str | None:
    return None if instant is None else format_time(instant)
