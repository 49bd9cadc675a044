"""`bench check`: a decision about the past, beside peers that know only the present.

Our check resolves the key to the organization that it led to at a past time, reads six settings of the organization and
four of the model as they were in force at that time, and returns verdict, handling and reasons; as JSON also the event
behind each setting. Warm means that the run has already checked each key with each model, at another moment of the same
past day. One case asks about any moment of a year: only the subjects are warm then.

A peer (see toggle_peers.py) decides whether one toggle of one organization is on now. The dict holds the present values
of the same settings and applies no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from ledger.opening import open_ledger
from projections.decisions.encoding import decision_bytes
from projections.decisions.model import RequestRecord
from projections.decisions.rule_settings import OF_MODEL, POLICY
from projections.query.query import Query
from scripts.bench.ledgers import generate_ledger
from scripts.bench.marks import JudgedMark, judge
from scripts.bench.measure import Case, Measurement, by_case, case_table, measure
from scripts.bench.population import Population, subjects_for
from scripts.bench.report import SuiteResult
from scripts.bench.requests import PAST_DAY, YEAR, Window, records_of_keys, warm_up_records
from scripts.bench.suite import SuiteContext
from scripts.bench.toggle_peers import TogglePeer, set_up_peers

DICT: Final = "dict of the present, ten look-ups"
VERDICT: Final = "check: verdict and handling"
EVIDENCE: Final = "check: full evidence as JSON"
ANY_MOMENT: Final = "check: the same, any moment of a year"
TOGETHER: Final = "check_all: verdict and handling"
TOGGLE: Final = "training.opt_in"
KEYS: Final = 500

MakeRecords = Callable[..., list[RequestRecord]]
PresentValues = dict[tuple[str, str], Any]


def run(context: SuiteContext) -> SuiteResult:
    events, checks = (1000, 200) if context.quick else (50_000, 5000)
    url = context.databases.url()
    population = generate_ledger(url, subjects_for(events))
    ledger = context.stack.enter_context(open_ledger(url))
    present = _present_values(population)
    rng = Random(1)  # noqa: S311 - the same work every time
    toggles = {f"o{number}": bool(present.get((f"org:o{number}", TOGGLE))) for number in range(2 * population.families)}
    orgs = [f"o{rng.randrange(len(toggles))}" for _ in range(checks)]
    peers, missing = set_up_peers(toggles)

    keys = range(min(population.families, KEYS))
    query = Query(ledger)
    query.check_all(warm_up_records(keys, rng))

    def records(window: Window = PAST_DAY) -> list[RequestRecord]:
        return records_of_keys(keys, checks, rng, window)

    ours = _our_cases(query, records, present)
    measurements = measure("bench check", [*ours, *(_peer_case(peer, orgs) for peer in peers)], context.turns)
    return SuiteResult(
        [
            case_table("ours, about the past", "check", measurements[: len(ours)]),
            case_table("peers, one toggle, no history", "decision", measurements[len(ours) :]),
        ],
        _judge(measurements[: len(ours)], measurements[len(ours) :], missing),
        [
            *(f"not installed, and left out: {name} (dependency group bench)" for name in missing),
            "speed: relative to our verdict and handling; above 1 is faster than ours",
        ],
    )


def _judge(ours: Sequence[Measurement], peers: Sequence[Measurement], missing: Sequence[str]) -> list[JudgedMark]:
    verdict, evidence = (by_case(ours)[name].wall_us.median for name in (VERDICT, EVIDENCE))
    judged = [judge("check.verdict", verdict), judge("check.evidence", evidence)]
    if peers:
        fastest = min(peers, key=lambda peer: peer.wall_us.median)
        note = f"the fastest peer is {fastest.case}" + (f"; not installed: {', '.join(missing)}" if missing else "")
        judged.append(judge("check.peers", fastest.wall_us.median / verdict, note=note))
    return judged


def _our_cases(query: Query, records: MakeRecords, present: PresentValues) -> list[Case]:
    # Each case has its own loop: a call for each record would cost a part of what is measured.
    def verdict(records: list[RequestRecord]) -> int:
        for record in records:
            outcome = query.check(record).outcome
            outcome.verdict, outcome.handling  # noqa: B018 - reading them is a part of the measured work
        return len(records)

    def evidence(records: list[RequestRecord]) -> int:
        for record in records:
            decision_bytes(query.check(record))
        return len(records)

    def together(records: list[RequestRecord]) -> int:
        query.check_all(records)
        return len(records)

    def look_up(records: list[RequestRecord]) -> int:
        for record in records:
            _look_up(present, record)
        return len(records)

    return [
        Case(VERDICT, None, verdict, records),
        Case(EVIDENCE, VERDICT, evidence, records),
        Case(TOGETHER, VERDICT, together, records),
        Case(ANY_MOMENT, VERDICT, verdict, lambda: records(YEAR)),
        Case(DICT, VERDICT, look_up, records),
    ]


def _peer_case(peer: TogglePeer, orgs: list[str]) -> Case:
    def decide(_prepared: object) -> int:
        for org in orgs:
            peer.is_on(org)
        return len(orgs)

    return Case(peer.name, VERDICT, decide)


def _look_up(present: PresentValues, record: RequestRecord) -> list[Any]:
    holder = f"key:{record.key_id}"
    while not holder.startswith(("org:", "account:")):
        holder = present[holder, "owner"]
    model = f"model:{record.model_id}"
    get = present.get
    return [get((holder, setting), _DEFAULTS[setting]) for setting in POLICY] + [
        get((model, setting)) for setting in OF_MODEL
    ]


_DEFAULTS: Final = {setting: setting == "caching.temporary" for setting in POLICY}


def _present_values(population: Population) -> PresentValues:
    """The last value of every subject and setting."""
    present: PresentValues = {}
    for event in population.generate():
        value = event.owner or event.shape.value
        if value is not None and not event.shape.starts:
            present[event.subject, event.shape.setting] = value
    return present
