"""The counters of the process, in the text format of Prometheus: plain numbers that requests add to, read at a scrape.

A request adds to a few dicts on the event loop, which costs about a microsecond; `prometheus_client` formats the text.
No label holds anything of a caller's: routes are templates, and outcomes, codes, verdicts and states are sets that the
code fixes. Proved by tests/api/test_metrics.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final, Literal, NamedTuple, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from starlette.types import Scope

from api.http.scope import KNOWN_METHODS, PROBLEM, route_template
from projections.decisions.model import Verdict

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of a time."""
GROUP_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
SUBMIT: Final = ("/v1/events", "POST")

SignIn = Literal[
    "token",
    "oidc",
    "missing",
    "unknown",
    "expired",
    "disabled",
    "invalid",
    "keys_unavailable",
    "rate_limited",
]
"""How a sign-in ended: with a token or with an OIDC JWT, or refused for one of the other causes."""

Labels = tuple[str, ...]


class Buckets:
    """A histogram: how many values lie between two bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        names = (*map(str, self.bounds), "+Inf")
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class Figure(NamedTuple):
    """A gauge that is read at a scrape: name, help, and label values → number, for the labels of that name."""

    name: str
    help: str
    values: Mapping[Labels, float]
    labels: Labels = ()
    counter: bool = False
    """Whether it only ever grows."""


class Metrics:
    """The counters of one application. Its methods are called on the event loop, but for `add_commit`, which the thread
    calls that commits."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], Buckets] = {}
        self._problems: Counter[tuple[str, str, str]] = Counter()
        self.checks: Counter[Verdict] = Counter(dict.fromkeys(get_args(Verdict), 0))
        self._sign_ins: Counter[SignIn] = Counter(dict.fromkeys(get_args(SignIn), 0))
        self._commits, self._groups = Buckets(SECONDS), Buckets(GROUP_SIZES)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts an answered request: an observer of `api.http.middleware`."""
        route, method = route_template(scope), scope["method"]
        key = (route, method if method in KNOWN_METHODS else "?", status)
        buckets = self._requests.get(key)
        if buckets is None:
            buckets = self._requests[key] = Buckets(SECONDS)
        buckets.add(seconds)
        if PROBLEM in scope:
            self._problems[route, key[1], scope[PROBLEM]] += 1

    def add_commit(self, seconds: float, submissions: int) -> None:
        """Counts a group of submissions that were committed together, and the time of its transaction."""
        self._commits.add(seconds)
        self._groups.add(submissions)

    def add_sign_in(self, outcome: SignIn) -> None:
        self._sign_ins[outcome] += 1

    def text(self, accept: str, figures: Iterable[Figure]) -> tuple[bytes, str]:
        """(the metrics, their media type) in the format that the header Accept asks for: plain, or OpenMetrics."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families([*self._families(), *map(_family, figures)]))
        ProcessCollector(registry=registry)
        encode, media_type = choose_encoder(accept)
        return encode(registry), media_type

    def _families(self) -> Iterator[Metric]:
        # Copies: a request may add a key meanwhile, where this runs in a thread.
        requests, problems = dict(self._requests), dict(self._problems)
        answered = _counter("inforce_http_requests", "Requests that were answered.", ("route", "method", "status"))
        times = HistogramMetricFamily(
            "inforce_http_request_seconds", "Time from a request's head to the end of its answer.", labels=["route"]
        )
        by_route: dict[str, Buckets] = {}
        for (route, method, status), buckets in requests.items():
            answered.add_metric([route, method, str(status)], sum(buckets.counts))
            total = by_route.setdefault(route, Buckets(SECONDS))
            total.counts = [mine + more for mine, more in zip(total.counts, buckets.counts, strict=True)]
            total.total += buckets.total
        for route, buckets in by_route.items():
            times.add_metric([route], buckets.cumulative(), buckets.total)
        yield from (answered, times)
        refused = _counter("inforce_http_problems", "Requests answered with a problem.", ("route", "method", "code"))
        for labels, count in problems.items():
            refused.add_metric(labels, count)
        yield refused
        yield self._submissions(requests, problems)
        checks = _counter("inforce_checks", "Request records that were decided, over HTTP.", ("verdict",))
        for verdict, count in self.checks.items():
            checks.add_metric([verdict], count)
        sign_ins = _counter("inforce_sign_ins", "Attempts to sign in.", ("outcome",))
        for outcome, count in self._sign_ins.items():
            sign_ins.add_metric([outcome], count)
        yield from (checks, sign_ins)
        for name, help_, buckets in (
            ("inforce_commit_seconds", "Time to record a group of submissions.", self._commits),
            ("inforce_commit_submissions", "Submissions that were recorded together.", self._groups),
        ):
            yield HistogramMetricFamily(name, help_, buckets=buckets.cumulative(), sum_value=buckets.total)

    @staticmethod
    def _submissions(
        requests: Mapping[tuple[str, str, int], Buckets], problems: Mapping[tuple[str, str, str], int]
    ) -> CounterMetricFamily:
        family = _counter(
            "inforce_submissions", "Bodies of submissions: recorded, or the code of the refusal.", ("outcome",)
        )
        family.add_metric(["recorded"], sum(requests[*SUBMIT, 201].counts) if (*SUBMIT, 201) in requests else 0)
        outcomes = {"version_conflict": 0, "ledger_busy": 0, "ledger_unavailable": 0}
        outcomes |= {code: count for (*route, code), count in problems.items() if tuple(route) == SUBMIT}
        for code, count in outcomes.items():
            family.add_metric([code], count)
        return family


class _Families:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _counter(name: str, help_: str, labels: Labels) -> CounterMetricFamily:
    return CounterMetricFamily(name, help_, labels=list(labels))


def _family(figure: Figure) -> Metric:
    kind = CounterMetricFamily if figure.counter else GaugeMetricFamily
    family = kind(figure.name, figure.help, labels=list(figure.labels))
    for labels, value in figure.values.items():
        family.add_metric(list(labels), value)
    return family
