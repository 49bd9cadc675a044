"""The gauges of GET /metrics, read at a scrape."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Final, get_args

from api.audits.jobs import State
from api.http.problems import RequestRefused
from api.http.shared import SharedResources
from api.metrics import Figure
from api.service import Service
from ledger.errors import InforceError, NotWritable

_UP: Final = "inforce_ledger_up", "Whether the database answers."
UNREACHABLE: Final = Figure(*_UP, {(): 0})


def process_figures(service: Service) -> list[Figure]:
    """The gauges that are read from the database and the disks: call it in a thread."""
    rows = [
        Figure(
            "inforce_disk_free_bytes",
            "Free space of a disk that this server writes to.",
            {(disk.place,): disk.free for disk in service.disks()},
            ("place",),
        )
    ]
    with suppress(RequestRefused):
        states = Counter(dict.fromkeys(get_args(State), 0))
        states.update(status.state for status in service.audits.statuses())
        rows.append(Figure("inforce_audits", "Audits that are kept.", {(s,): n for s, n in states.items()}, ("state",)))
    try:
        writable = True
        with suppress(NotWritable):
            writable = False
            service.ledger.require_writable()
            writable = True
        ledger = service.figures()
    except InforceError:
        return [*rows, UNREACHABLE]
    recorded_at = (ledger.recorded_at or 0) / 1_000_000
    return [
        *rows,
        Figure(*_UP, {(): 1}),
        _plain("inforce_ledger_writable", "Whether submissions are recorded; see /readyz if not.", writable),
        _plain("inforce_ledger_position", "Position of the ledger's last event.", ledger.position),
        _plain("inforce_ledger_last_recorded_timestamp_seconds", "When the last event was recorded.", recorded_at),
        _plain("inforce_timelines_lag_events", "Events that are not in the stored timelines yet.", ledger.lag),
    ]


def request_figures(service: Service, shared: SharedResources, streams: int) -> list[Figure]:
    """The gauges that are at hand on the event loop."""
    cache = service.query.timeline_cache
    subjects = cache.subject_cache
    budgets = {"bodies": shared.bodies, "answers": shared.answers}
    return [
        *_log_figures(service),
        _plain("inforce_submissions_waiting", "Submissions that are not recorded yet.", service.ledger.writer.waiting),
        _plain("inforce_feed_readers", "Open streams of the feed.", streams),
        _plain("inforce_positions_awaited", "Requests that wait for a position.", service.positions_awaited),
        _plain("inforce_http_requests_in_progress", "Requests that are being answered.", len(shared.clients)),
        Figure(
            "inforce_memory_reserved_bytes",
            "Memory of bodies and answers that are being handled.",
            {(use,): budget.used for use, budget in budgets.items()},
            ("use",),
        ),
        Figure(
            "inforce_memory_reserved_max_bytes",
            "Beyond this, requests are answered with server_busy.",
            {(use,): budget.bytes_max for use, budget in budgets.items()},
            ("use",),
        ),
        Figure(
            "inforce_subject_cache_lookups",
            "Look-ups of subjects' timelines in memory.",
            {("hit",): subjects.hits, ("miss",): subjects.misses},
            ("result",),
            counter=True,
        ),
        _plain("inforce_subject_cache_entries", "Subjects whose timelines are in memory.", len(subjects)),
        Figure(
            "inforce_decision_cache_misses",
            "Bases of decisions that had to be made; other checks found theirs in memory.",
            {(): cache.decision_cache.made},
            counter=True,
        ),
        Figure(
            "inforce_timelines_healed",
            "Subjects whose stored timelines were found damaged, and made anew.",
            {(): service.query.store.damaged_rows},
            counter=True,
        ),
    ]


def _log_figures(service: Service) -> list[Figure]:
    """None without a signing key."""
    publisher = service.log_publisher
    if publisher is None:
        return []
    size, integrates, problem = publisher.status
    return [
        _plain("inforce_log_events", "Events under the last published checkpoint, as far as is known here.", size),
        _plain("inforce_log_integrates", "Whether this server integrates and signs.", integrates),
        _plain("inforce_log_signing", "Whether nothing keeps checkpoints from being signed.", problem is None),
    ]


def _plain(name: str, help_: str, value: float) -> Figure:
    return Figure(name, help_, {(): value})
