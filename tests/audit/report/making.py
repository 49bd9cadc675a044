"""A small ledger, a log whose audit has findings of every kind, and its report."""

import re
from typing import NamedTuple

import numpy as np

from ledger.times import DAY
from projections.audit.reading.batches import LogBatch, request_batch
from projections.audit.reading.strict import LogRow
from projections.audit.report.collector import ReportCollector
from projections.audit.report.report import AuditReport, Invocation, build_report
from projections.audit.run import run
from projections.audit.summary import LogDigest, Summary
from projections.decisions.model import Observed, RequestRecord
from projections.query.query import IN_FORCE, PinnedQuery
from tests.audit.strategies import slow_decider
from tests.support.questions import (
    CACHING,
    NOON,
    START,
    STORAGE,
    TRAINING,
    QueryLedger,
    changed,
    cleared,
    defined,
    retracted,
)

HOSTILE = "<script>alert('1')</script>\"&\u202e\n$(touch x)`id`;'"
"""For the members of a record that may be any text."""
INVOCATION = Invocation(("my log's.jsonl", "--map=at=when"), "my log's.jsonl.rejects.jsonl", "1.2.3")


def populate(bench: QueryLedger) -> None:
    (opted,) = bench.submit(NOON, changed("org:acme", TRAINING, True))
    bench.submit(
        NOON + 1,
        changed("key:k1", "owner", "project:p1"),
        changed("project:p1", "owner", "org:acme"),
        changed("key:gone", "owner", "org:acme"),
        changed("org:acme", "residency.regions", ["eu", "us"]),
        changed("org:acme", "network.private_only", True),
        changed("model:a/b", "model.hosting", "passthrough"),
        changed("model:a/b", "model.provider", "A"),
        changed("model:c", "model.hosting", "hosted"),
    )
    bench.submit(NOON + DAY, defined(CACHING, default=False), cleared("key:gone", "owner"))
    bench.submit(NOON + 3 * DAY, retracted(opted.event_id))
    bench.submit(NOON + 4 * DAY, changed("org:acme", STORAGE, True, NOON + 2 * DAY))
    bench.submit(NOON + 5 * DAY, changed("key:later", "owner", "org:acme", NOON))


def log() -> list[RequestRecord]:
    """Not in the order of time."""
    observed = Observed(stored=True, cached=True, trained=True, forwarded_to=HOSTILE, region=HOSTILE, network="public")
    rows = []
    for day in (2, 0, 1, 3, 4, 90):
        at = NOON + day * DAY + 10
        rows += [
            RequestRecord(at, key_id="k1", model_id="a/b", request_id=f"r{day}", handling=observed),
            RequestRecord(at, key_id="k1", model_id="c", request_id=HOSTILE, handling=observed),
            RequestRecord(at, org_id="acme", model_id="a/b", enforced_position=3, handling=Observed(trained=True)),
            RequestRecord(at, org_id="acme", model_id="a/b", request_id=f"question{day}"),
            RequestRecord(at, org_id=f"beta{day}", request_id=f"b{day}", handling=Observed(cached=True)),
            RequestRecord(at, key_id="gone", request_id=f"gone{day}", handling=Observed(stored=False)),
            RequestRecord(at, key_id="later", project_id="p1", request_id="later"),
            RequestRecord(at, key_id="k1", org_id="other", handling=observed),
            RequestRecord(at, account_id="u1", model_id="unheard/of", request_id=f"u{day}"),
            RequestRecord(at, account_id="u1", request_id=f"fine{day}", handling=Observed(stored=False)),
        ]
    rows.append(RequestRecord(START - 1, account_id="org:u", request_id="early", handling=observed))
    return rows


def parts(rows: list[RequestRecord], size: int) -> list[LogBatch]:
    """The log in batches of `size` rows, and a rejected line at the end."""
    batches = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        lines = np.arange(start + 1, start + 1 + len(batch), dtype=np.int64)
        batches.append(LogBatch("my log's.jsonl", lines, request_batch(batch), ()))
    fault = LogRow("my log's.jsonl", len(rows) + 1, None, f"/{HOSTILE}: this member does not belong here")
    batches.append(LogBatch("my log's.jsonl", np.zeros(0, np.int64), request_batch([]), (fault,)))
    return batches


class Audited(NamedTuple):
    collector: ReportCollector
    summary: Summary
    report: AuditReport


def audited(bench: QueryLedger, rows: list[RequestRecord], size: int = 7) -> Audited:
    query = PinnedQuery(bench.query)
    collector, summary = (
        ReportCollector(),
        Summary(query.pinned, IN_FORCE, LogDigest("ab" * 32, [("my log's.jsonl", 1234)])),
    )
    run(parts(rows, size), slow_decider(query, IN_FORCE), summary, sinks=(collector,), threads=False)
    return Audited(collector, summary, build_report(collector, summary, query, INVOCATION))


def without_breaks(document: str) -> str:
    """A page without the elements that only say where its lines may end: they depend on the text around them."""
    return re.sub(r'<wbr>|<span class="option">([^<]*)</span>', r"\1", document)
