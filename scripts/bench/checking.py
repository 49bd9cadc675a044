"""`bench check`: a decision about the past, beside a dict that knows the present only.

The dict holds the same settings as they are now: whose key it is, the six settings of whoever governs, four of the
model, each with its default. It keeps no history, gives no evidence and applies no rule; it is what a gateway without
a ledger would do. Ours asks about a moment in the middle of the history, warm: everything was asked before.
"""

from __future__ import annotations

from contextlib import ExitStack
from random import Random
from typing import Any, Final

import msgspec

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.submissions import parse_submissions
from ledger.times import DAY, parse_time
from projections.check import OF_MODEL, POLICY
from projections.decision import Observed, RequestRecord, decision_json
from projections.query import Query
from scripts.bench.measuring import Bench, Case
from scripts.bench.scratch import Scratch

DICT: Final = "dict of the present"
BEGIN: Final = parse_time("2025-01-01T00:00:00Z")
SWITCHES: Final = ("training.opt_in", "storage.inputs_outputs", "caching.temporary", "passthrough.allowed")

Present = dict[tuple[str, str], Any]


def cases(scratch: Scratch, stack: ExitStack, quick: bool) -> list[Case]:
    orgs, changes, checks = (20, 5, 200) if quick else (500, 20, 5000)
    clock = ManualClock(BEGIN)
    ledger = stack.enter_context(open_ledger(scratch.url(), create=True, clock=clock))
    rng = Random(1)  # noqa: S311 - the same work every time
    present = _fill(ledger, clock, rng, orgs, changes)
    query = Query(ledger)
    middle = (BEGIN + clock.now_us) // 2
    records = [
        RequestRecord(
            at=middle + rng.randrange(DAY),
            key_id=f"k{rng.randrange(orgs)}",
            model_id=f"m{rng.randrange(10)}",
            handling=Observed(stored=rng.random() < 0.5, cached=True, trained=rng.random() < 0.1),
        )
        for _ in range(checks)
    ]
    encode = msgspec.json.Encoder().encode

    def look_up(_: object) -> int:
        for record in records:
            _settings(present, record)
        return checks

    def verdict(_: object) -> int:
        for record in records:
            query.check(record).outcome.verdict  # noqa: B018 - what is measured is the asking
        return checks

    def evidence(_: object) -> int:
        for record in records:
            encode(decision_json(query.check(record)))
        return checks

    def together(_: object) -> int:
        query.check_all(records)
        return checks

    return [
        Case(DICT, None, look_up),
        Case("check, verdict", DICT, verdict),
        Case("check, evidence as JSON", DICT, evidence),
        Case("check_all, verdicts", DICT, together),
    ]


def _settings(present: Present, record: RequestRecord) -> list[Any]:
    holder = f"key:{record.key_id}"
    while not holder.startswith(("org:", "account:")):
        holder = present[holder, "owner"]
    model = f"model:{record.model_id}"
    get = present.get
    return [get((holder, setting), _DEFAULTS[setting]) for setting in POLICY] + [
        get((model, setting)) for setting in OF_MODEL
    ]


_DEFAULTS: Final = {setting: setting == "caching.temporary" for setting in POLICY}


def _fill(ledger: Ledger, clock: ManualClock, rng: Random, orgs: int, changes: int) -> Present:
    """Orgs with a project and a key each, ten models, and switches that change day by day. Gives the present."""
    present: Present = {}

    def submit(said: list[tuple[str, str, Any]]) -> None:
        events = [{"type": "setting.changed", "subject": s, "setting": key, "value": value} for s, key, value in said]
        for start in range(0, len(events), 1000):
            clock.now_us += DAY
            ledger.submit(parse_submissions({"events": events[start : start + 1000]}), actor="bench")
        present.update({(subject, setting): value for subject, setting, value in said})

    submit([(f"key:k{n}", "owner", f"project:p{n}") for n in range(orgs)])
    submit([(f"project:p{n}", "owner", f"org:o{n}") for n in range(orgs)])
    submit([(f"model:m{n}", "model.hosting", "hosted" if n % 3 else "passthrough") for n in range(10)])
    submit([(f"model:m{n}", "model.provider", "Orbital") for n in range(10)])
    for _ in range(changes):
        submit([(f"org:o{n}", rng.choice(SWITCHES), rng.random() < 0.5) for n in range(orgs)])
    return present


BENCH: Final = Bench("check", "a decision: key and model resolved, six settings, a past moment", "check", cases)
