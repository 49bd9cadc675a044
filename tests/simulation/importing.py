"""What was said elsewhere, with the times that it was recorded at, and what an import of it comes to."""

import json

from ledger.times import format_time
from tests.simulation.auditor import Auditor
from tests.simulation.workload import Workload
from tests.support.reference import Json

ACTOR = "import"


def foretell(workload: Workload, genesis: list[Json], before: int) -> tuple[Auditor, bytes]:
    """The ledger after the import, its event ids still to be learned, and the lines to import: none of them mistaken,
    none a retraction, all recorded shortly before `before` (µs)."""
    foretold = Auditor(json.dumps(event).encode() for event in genesis)
    recorded_at = before - 1000
    _begin(foretold, recorded_at)
    lines: list[Json] = []
    for _ in range(workload.chance.randint(3, 40)):
        recorded_at += workload.chance.choice((1, 2, 20))
        said = [workload.event(foretold, recorded_at) for _ in range(workload.chance.choice((1, 1, 3)))]
        body = {"events": [event for event in said if event["type"] != "change.retracted"]}
        expected = foretold.expect(body, recorded_at, ACTOR) if body["events"] else None
        if expected is None or expected.code != "recorded":
            continue
        if not lines:
            _begin(foretold, recorded_at - 1)
        lines += [{**event, "recorded_at": format_time(recorded_at)} for event in body["events"]]
        foretold.record(body, expected.receipts, ACTOR)
    for event in foretold.events[len(genesis) :]:
        event["data"]["imported"] = True
    return foretold, b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _begin(foretold: Auditor, recorded_at: int) -> None:
    for event in foretold.events:
        event["time"] = format_time(recorded_at)
