"""Plans an import: random submissions with recorded times from elsewhere, and the ledger expected after it."""

import json

from ledger.times import format_time
from tests.simulation.oracle import Oracle
from tests.simulation.workload import Workload
from tests.support.reference import Json

ACTOR = "import"


def plan_import(workload: Workload, genesis: list[Json], before: int) -> tuple[Oracle, bytes]:
    """The ledger after the import, still without event ids, and the lines to import. The lines are valid, contain no
    retraction, and were recorded shortly before `before` (µs)."""
    planned = Oracle(json.dumps(event).encode() for event in genesis)
    recorded_at = before - 1000
    _date_catalog(planned, recorded_at)
    lines: list[Json] = []
    for _ in range(workload.chance.randint(3, 40)):
        recorded_at += workload.chance.choice((1, 2, 20))
        events = [workload.event(planned, recorded_at) for _ in range(workload.chance.choice((1, 1, 3)))]
        for event in events:
            event.pop("cancels_scheduled", None)
        body = {"events": [event for event in events if event["type"] != "change.retracted"]}
        expected = planned.expect(body, recorded_at, ACTOR) if body["events"] else None
        if expected is None or expected.code != "recorded":
            continue
        if not lines:
            _date_catalog(planned, recorded_at - 1)
        lines += [{**event, "recorded_at": format_time(recorded_at)} for event in body["events"]]
        planned.record(body, expected.receipts, ACTOR)
    for event in planned.events[len(genesis) :]:
        event["data"]["imported"] = True
    return planned, b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _date_catalog(planned: Oracle, recorded_at: int) -> None:
    for event in planned.events:
        event["time"] = format_time(recorded_at)
