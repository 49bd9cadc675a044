"""`bench access`: signing in with a token, in a ledger of few principals and in one of very many.

Warm: the same tokens again and again, answered from memory, as a gateway's requests are. Cold: each token for the first
time, read from the ledger. The memory is that of the index and of the sessions, as `tracemalloc` counts it for the
modules of `projections/access`; the ledger's own caches are not part of it.
"""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from statistics import median
from time import perf_counter_ns, process_time_ns
from typing import Any, Final

from ledger.append.submissions import parse_submissions
from ledger.opening import open_ledger
from projections.access.sign_in import AccessIndex
from projections.access.tokens import new_token
from projections.query.query import Query
from scripts.bench.ledgers import project
from scripts.bench.marks import judge
from scripts.bench.measure import take_turns
from scripts.bench.population import ACTOR
from scripts.bench.report import Column, SuiteResult, Table, number
from scripts.bench.suite import SuiteContext
from scripts.cli.files import progress

SMALL: Final = 1000
LARGE: Final = 100_000
WARM: Final = 200
"""Tokens that sign in again and again."""
_BATCH: Final = 300
_OURS: Final = "*/projections/access/*"


def run(context: SuiteContext) -> SuiteResult:
    """`--events` is the number of principals of the large ledger."""
    large = 600 if context.quick else context.events or LARGE
    rows = [_row(context, size) for size in sorted({min(SMALL, large // 2), large})]
    small, largest = rows
    columns = (
        Column("case", "principals"),
        Column("warm_us", "warm, µs", number),
        Column("hash_us", "a SHA-256 and a dict, µs", number),
        Column("cold_us", "cold, µs", number),
        Column("bytes", "memory, bytes each", number),
        Column("start_s", "reading all tokens, s", number),
    )
    flat = largest["cold_us"] / small["cold_us"]
    return SuiteResult(
        [Table("signing in", columns, rows)],
        [
            judge("access.token", max(row["warm_us"] for row in rows)),
            judge("access.flat", round(flat, 4), size=large),
            judge("access.memory", largest["bytes"], size=large),
        ],
        ["warm: CPU of one request, from memory; cold: the first request of a token"],
    )


def _row(context: SuiteContext, size: int) -> dict[str, Any]:
    url = context.databases.url()
    secrets = _make(url, size)
    project(url)
    ledger = context.stack.enter_context(open_ledger(url))
    rng = Random(1)  # noqa: S311 - the same work every time
    first = AccessIndex(Query(ledger))
    began = perf_counter_ns()
    first.refresh()
    start = perf_counter_ns() - began
    sample = rng.sample(secrets, min(len(secrets), 2000))
    for secret in sample[:50]:
        first.sign_in(secret)
    cold = [_time(partial(first.sign_in, secret)) for secret in sample[50:]]
    warm = _warm(first, sample[:WARM], context.turns)
    return {
        "case": f"{size:,}",
        "warm_us": round(warm["warm"] / 1000, 4),
        "hash_us": round(warm["hash"] / 1000, 4),
        "cold_us": round(median(cold) / 1000, 4),
        "bytes": round(_memory(Query(ledger), secrets) / size, 1),
        "start_s": round(start / 1e9, 3),
    }


def _make(url: str, size: int) -> list[str]:
    rng = Random(size)  # noqa: S311 - the same tokens every time
    secrets = []
    with open_ledger(url, create=True) as ledger, progress("making tokens", size) as tell:
        for start in range(0, size, _BATCH):
            events = []
            for place in range(start, min(start + _BATCH, size)):
                new = new_token(f"principal:p{place}", [f"admin@org:o{place}"], None, rng.randbytes)
                secrets.append(new.secret)
                events += new.events
            ledger.submit(parse_submissions({"events": events}), actor=ACTOR)
            tell(start, f"{start:,}")
    return secrets


def _warm(index: AccessIndex, secrets: Sequence[str], turns: int) -> dict[str, float]:
    by_hash = {hashlib.sha256(secret.encode()).digest(): secret for secret in secrets}
    for secret in secrets:
        index.sign_in(secret)

    def sign_in(secret: str) -> None:
        if index.session_nowait(secret) is None:
            index.sign_in(secret)

    def look_up(secret: str) -> None:
        by_hash.get(hashlib.sha256(secret.encode()).digest())

    cases = {"warm": _case(sign_in, secrets), "hash": _case(look_up, secrets)}
    measured = take_turns("bench access", cases, turns)
    return {name: median(times) for name, times in measured.items()}


def _case(work: Callable[[str], None], secrets: Sequence[str]) -> Callable[[int], float]:
    def case(_turn: int) -> float:
        rounds = 20
        began = process_time_ns()
        for _ in range(rounds):
            for secret in secrets:
                work(secret)
        return (process_time_ns() - began) / rounds / len(secrets)

    return case


def _time(work: Callable[[], object]) -> int:
    began = perf_counter_ns()
    work()
    return perf_counter_ns() - began


def _memory(query: Query, secrets: Sequence[str]) -> int:
    """Bytes of an index of all tokens, and of as many sessions as it keeps."""
    tracemalloc.start()
    try:
        index = AccessIndex(query)
        index.refresh()
        for secret in secrets:
            index.sign_in(secret)
        snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, _OURS)])
        index.close()
        return sum(trace.size for trace in snapshot.traces)
    finally:
        tracemalloc.stop()
