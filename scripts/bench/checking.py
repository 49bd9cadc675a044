"""`bench check`: a decision about the past, beside peers that know the present only.

Ours follows the key to the organization that it led to then, reads six settings of it and four of the model as they
were in force at a past moment, and gives verdict, handling and reasons; as JSON also the event behind each. Warm: each
key was asked about before with each model, at another moment of the same past day. The row about any moment of a year
shows what a check costs where only the subjects are warm.

The peers (see `peers`) say whether one toggle of one organization is on now; the dict holds the same settings as they
are now and applies no rule.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from ledger.opening import open_ledger
from projections.decisions.check import OF_MODEL, POLICY
from projections.decisions.encoding import decision_bytes
from projections.decisions.model import RequestRecord
from projections.query.query import Query
from scripts.bench import measuring
from scripts.bench.making import make
from scripts.bench.marks import judge
from scripts.bench.measuring import Case
from scripts.bench.peers import Toggles, peers
from scripts.bench.population import Population, subjects_for
from scripts.bench.reporting import Result
from scripts.bench.requests import PAST_DAY, YEAR, Window, by_key, each_key
from scripts.bench.suites import Setting
from scripts.cli.files import progress

DICT: Final = "dict of the present, ten look-ups"
VERDICT: Final = "check: verdict and handling"
EVIDENCE: Final = "check: full evidence as JSON"
ANY_MOMENT: Final = "check: the same, any moment of a year"
TOGETHER: Final = "check_all: verdict and handling"
TOGGLE: Final = "training.opt_in"
KEYS: Final = 500

Asking = Callable[..., list[RequestRecord]]
Present = dict[tuple[str, str], Any]


def run(setting: Setting) -> Result:
    events, checks = (1000, 200) if setting.quick else (50_000, 5000)
    url = setting.databases.url()
    population = make(url, subjects_for(events), lambda _made: None)
    ledger = setting.stack.enter_context(open_ledger(url))
    present = present_of(population)
    rng = Random(1)  # noqa: S311 - the same work every time
    toggles = {f"o{number}": bool(present.get((f"org:o{number}", TOGGLE))) for number in range(2 * population.families)}
    asked = [f"o{rng.randrange(len(toggles))}" for _ in range(checks)]
    found, left_out = peers(toggles)

    keys = range(min(population.families, KEYS))
    query = Query(ledger)
    query.check_all(each_key(keys, rng))

    def asking(window: Window = PAST_DAY) -> list[RequestRecord]:
        return by_key(keys, checks, rng, window)

    cases = [*_ours(query, asking, present), *(_peer(peer, asked) for peer in found)]
    with progress("bench check", setting.turns + 1) as tell:
        measured = measuring.measure(cases, setting.turns, lambda done: tell(done, ""))
    by_case = measuring.by_case(measured)
    verdict, evidence = by_case[VERDICT].wall_us.median, by_case[EVIDENCE].wall_us.median
    judged = [judge("check.verdict", verdict), judge("check.evidence", evidence)]
    if found:
        fastest = min((by_case[peer.name] for peer in found), key=lambda peer: peer.wall_us.median)
        note = f"the fastest peer is {fastest.case}" + (f"; not installed: {', '.join(left_out)}" if left_out else "")
        judged.append(judge("check.peers", fastest.wall_us.median / verdict, note=note))
    notes = [f"not installed, and left out: {name} (dependency group bench)" for name in left_out]
    return Result(
        [
            measuring.table("ours, about the past", "check", measured[: len(measured) - len(found)]),
            measuring.table("peers, one toggle, no history", "decision", measured[len(measured) - len(found) :]),
        ],
        judged,
        [*notes, "speed: beside our verdict and handling; above 1 is faster than ours"],
    )


def _ours(query: Query, asking: Asking, present: Present) -> list[Case]:
    def look_up(records: list[RequestRecord]) -> int:
        for record in records:
            _settings(present, record)
        return len(records)

    def verdict(records: list[RequestRecord]) -> int:
        for record in records:
            outcome = query.check(record).outcome
            outcome.verdict, outcome.handling  # noqa: B018 - what is measured is the asking
        return len(records)

    def evidence(records: list[RequestRecord]) -> int:
        for record in records:
            decision_bytes(query.check(record))
        return len(records)

    def together(records: list[RequestRecord]) -> int:
        query.check_all(records)
        return len(records)

    return [
        Case(VERDICT, None, verdict, asking),
        Case(EVIDENCE, VERDICT, evidence, asking),
        Case(TOGETHER, VERDICT, together, asking),
        Case(ANY_MOMENT, VERDICT, verdict, lambda: asking(YEAR)),
        Case(DICT, VERDICT, look_up, asking),
    ]


def _peer(peer: Toggles, asked: list[str]) -> Case:
    def decide(_: object) -> int:
        for org in asked:
            peer.is_on(org)
        return len(asked)

    return Case(peer.name, VERDICT, decide)


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


def present_of(population: Population) -> Present:
    """What was said last of every subject and setting."""
    present: Present = {}
    for said in population.said():
        value = said.owner or said.shape.value
        if value is not None and not said.shape.starts:
            present[said.subject, said.shape.setting] = value
    return present
