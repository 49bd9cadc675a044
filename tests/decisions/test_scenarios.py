"""Every sentence of the published rules, the time model and every reason (projections/README.md), as scenarios.

A scenario (tests/scenarios/*.yaml) is written for readers who know the rules and no code. It has

- `rule`: the sentence it stands for; `case`: what happens; `setting`: the built-in setting it shows, if any;
- `given`: submissions (api/README.md) with the time each was recorded, after those of the file's `world`. `as` names an
  event, and `$name` stands for its id, or in a number for its position; `refused`: it must not be accepted; `older`:
  an inforce before this one accepted it;
- `when`: a request record without its time, or `state_of`: a subject;
- `boundary`: the deciding instant; the question is asked one microsecond before it (`just_before`), at it and one
  microsecond after it (`from_then`, or `at_the_instant` and `just_after` if the two differ);
- `known_at`: the question's known_at; without it the question is about what was in force.

Expectations are complete about verdict, reasons and whether hindsight differs; other members may be left out. Every
decision is also compared with the slow reference.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import yaml

from ledger.append.submissions import parse_submissions
from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.errors import BadSubmission
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.times import format_time, parse_time
from projections.decisions.model import REASONS, Verdict, decision_json, outcome_json, read_record, state_json
from projections.query.query import IN_FORCE, KnownAt, Query
from tests.support.older_catalog import older_definitions
from tests.support.reference import Json, Reference

FOLDER = Path(__file__).parents[1] / "scenarios"
START = parse_time("2026-01-01T00:00:00Z")
QUESTION_TIME = parse_time("2027-01-01T00:00:00Z")

SENTENCES = (
    # The table.
    "data sharing for training other models is opt-in",
    "inputs and outputs are not stored by default",
    "temporary caching may be used unless configured otherwise",
    "allow my organization to use passthrough models",
    "independent of training",
    "while off nothing leaves the platform and non-passthrough models work as normal",
    "enterprise data residency",
    "private networking / VPC deployment",
    "passthrough forwards prompts and responses to the upstream provider",
    "hosted third-party models run on the platform's own infrastructure and nothing reaches their author",
    "a passthrough request is governed by the provider's own data policy",
    "what is served is what the author published",
    "a key belongs to a project, org or account",
    "personal traffic is governed by the account only while it is not attached to an organization",
    "models are hosted in data centers of a named part of the world",
    "data sent by passthrough is handled under that provider's own data policy",
    "settings are checked and changed by those who may",
    "operators define further settings with events",
    "a setting has exactly one type",
    # Which subject governs.
    "evaluated at the question's own (at, known_at)",
    "the record names a key: follow owner from the key (key → project → org or account)",
    "the chain ends at an org: the org governs, whichever member sent it",
    "it ends at an account: go to 3",
    "no key, but a project or org: the org governs",
    "only an account: its attached_to org governs if set, else the account itself",
    "the record also names an org or account that contradicts the chain: indeterminate, reason scope_conflict",
    "a key or project without an owner at that moment: indeterminate, reason unknown_owner",
    "never guess",
    "the governing subject is known from its first event on, whatever that is about",
    "unknown is never permission",
    "account settings never leak into org traffic",
    "nor org settings into personal traffic",
    "nothing is merged across the two",
    # The time model.
    "a change effective at t governs a request at t",
    "a standing change holds until the next standing change, so what is already scheduled still happens",
    "of two standing changes with the same effective_from the later recorded counts",
    "a temporary change is an exception over regimes for its whole period",
    "of overlapping exceptions the later recorded counts",
    "a standing change ends every exception recorded before it that has begun by then; later ones still happen",
    "a clear is a change to no value; the catalog's default of that moment shows through",
    "a retraction removes an earlier change: the timeline is folded again without it",
)


class _Loader(yaml.SafeLoader):
    """Times stay the texts that they are in the wire format."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Scenario(NamedTuple):
    file: str
    world: list[Json]
    spec: Json


def _scenarios() -> Iterator[Scenario]:
    for path in sorted(FOLDER.glob("*.yaml")):
        document = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 - a SafeLoader, but for timestamps
        for spec in document["scenarios"]:
            yield Scenario(path.stem, document["world"], spec)


SCENARIOS = list(_scenarios())
MEMBERS = {"rule", "case", "setting", "given", "when", "state_of", "known_at", "boundary"}
EXPECTED = {"just_before", "from_then", "at_the_instant", "just_after"}


def _name(scenario: Scenario) -> str:
    return f"{scenario.file}: {scenario.spec['rule']}: {scenario.spec['case']}".replace("::", ":").replace("[", "(")


class ScenarioLedger:
    """A ledger with the scenario's events, and the names that the scenario gave them."""

    def __init__(self, ledger: Ledger, clock: ManualClock, scenario: Scenario) -> None:
        self.ids: dict[str, str] = {}
        self.positions: dict[str, int] = {}
        self._ledger = ledger
        for submission in [*scenario.world, *scenario.spec.get("given", [])]:
            clock.now_us = parse_time(submission["recorded_at"])
            names = [event.get("as") for event in submission["events"]]
            events = [{k: self.named(v) for k, v in event.items() if k != "as"} for event in submission["events"]]
            if submission.get("refused"):
                with pytest.raises(BadSubmission):
                    ledger.submit(parse_submissions({"events": events}), actor="ops")
                continue
            with older_definitions() if submission.get("older") else nullcontext():
                receipts = ledger.submit(parse_submissions({"events": events}), actor="ops")
            for name, receipt in zip(names, receipts, strict=True):
                assert receipt.recorded_at == clock.now_us, "the scenario's times must ascend"
                if name is not None:
                    self.ids[name] = receipt.event_id
                    self.positions[name] = receipt.position
        clock.now_us = QUESTION_TIME
        self.query = Query(ledger)
        self.reference = Reference(entry.leaf for entry in ledger.page(0))

    def named(self, value: Any) -> Any:
        """`$name` as the event's id; anything else as it is."""
        return self.ids[value[1:]] if isinstance(value, str) and value.startswith("$") else value

    def number(self, value: Any) -> Any:
        """`$name` and `$name - 1` as the event's position, or the one before it."""
        match = re.fullmatch(r"\$(.+?)(?: - (\d+))?", str(value))
        return self.positions[match[1]] - int(match[2] or 0) if match else value

    def ask(self, spec: Json, at: int) -> Json:
        """The answer as JSON. A decision must be the reference's, too."""
        known_at: KnownAt = parse_time(spec["known_at"]) if "known_at" in spec else IN_FORCE
        if "state_of" in spec:
            state = self.query.state(spec["state_of"], at=at, known_at=known_at)
            return {"settings": {setting: state_json(one) for setting, one in state.settings.items()}}
        record = {name: self.number(value) for name, value in spec["when"].items()}
        decision = self.query.check(read_record({**record, "at": format_time(at)}, now=0), known_at)
        known_us = at if known_at == IN_FORCE else known_at
        expected = self.reference.check(record, at, known_us)
        assert outcome_json(decision.outcome) == expected
        in_hindsight = self.reference.check(record, at, None)
        if decision.hindsight is None:
            assert [in_hindsight[m] for m in ("verdict", "handling")] == [expected[m] for m in ("verdict", "handling")]
        else:
            assert outcome_json(decision.hindsight.outcome) == in_hindsight
        return decision_json(decision)

    def expect(self, expected: Json, answer: Json) -> None:
        if "settings" in expected:
            for setting, state in expected["settings"].items():
                if state == "absent":
                    assert setting not in answer["settings"]
                else:
                    assert state.items() <= answer["settings"][setting].items()
            return
        assert answer["verdict"] == expected["verdict"]
        assert answer["reasons"] == expected.get("reasons", [])
        for member in ("handling", "governed_by"):
            for name, value in expected.get(member, {}).items():
                if isinstance(value, dict):
                    assert value.items() <= answer[member][name].items()
                else:
                    assert answer[member][name] == value, (member, name)
        assert answer.get("undecidable", []) == expected.get("undecidable", [])
        if "enforcement_lag" in expected:
            lag = {name: self.number(value) for name, value in expected["enforcement_lag"].items()}
            assert answer["enforcement_lag"] == lag
        for of, evidence in expected.get("evidence", {}).items():
            self._expect_evidence(of, evidence, answer)
        assert ("hindsight" in answer) == ("hindsight" in expected), "hindsight"
        if "hindsight" in expected:
            changed_by = expected["hindsight"].get("changed_by")
            if changed_by is not None:
                causes = {_newest(by) for by in answer["hindsight"]["changed_by"]}
                assert causes == {self.ids[name] for name in changed_by}
            assert answer["hindsight"]["changed_by"], "hindsight always names the events that changed it"
            self.expect(expected["hindsight"], answer["hindsight"])

    def _expect_evidence(self, of: str, expected: Json, answer: Json) -> None:
        subject, setting = of.split(" ")
        (evidence_row,) = [e for e in answer["evidence"] if (e["subject"], e["setting"]) == (subject, setting)]
        assert (evidence_row["source"], evidence_row["value"]) == (expected["source"], expected["value"])
        assert evidence_row.get("observed") == expected.get("observed", evidence_row.get("observed"))
        if "event" in expected:
            assert evidence_row["event_id"] == self.ids[expected["event"]]
        cleared_by = evidence_row.get("cleared_by", {}).get("event_id")
        assert cleared_by == (self.ids[expected["cleared_by"]] if "cleared_by" in expected else None)


def _newest(by: Json) -> str:
    return str(by.get("cleared_by", by)["event_id"])


def run(scenario: Scenario, database_url: str) -> None:
    spec = scenario.spec
    clock = ManualClock(START)
    with open_ledger(database_url, create=True, clock=clock, origin="scenarios.example") as ledger:
        scenario_ledger = ScenarioLedger(ledger, clock, scenario)
        boundary = parse_time(spec["boundary"])
        for instant, expected in (
            (boundary - 1, spec["just_before"]),
            (boundary, spec.get("at_the_instant") or spec["from_then"]),
            (boundary + 1, spec.get("just_after") or spec["from_then"]),
        ):
            scenario_ledger.expect(expected, scenario_ledger.ask(spec, instant))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=_name)
def test_scenario(scenario: Scenario, tmp_path: Path) -> None:
    run(scenario, f"sqlite:///{tmp_path}/ledger.db")


# One of each rule of time, because databases differ in how timelines are stored and read.
ON_POSTGRES = list({s.spec["rule"]: s for s in SCENARIOS if s.file == "time"}.values())


@pytest.mark.parametrize("scenario", ON_POSTGRES, ids=_name)
def test_scenario_on_postgresql(scenario: Scenario, postgres_url: str) -> None:
    run(scenario, postgres_url)


def _expectations(spec: Json) -> Iterator[Json]:
    for side in EXPECTED & spec.keys():
        yield spec[side]
        if "hindsight" in spec[side]:
            yield spec[side]["hindsight"]


def test_every_sentence_of_the_rules_has_a_scenario() -> None:
    shown = {scenario.spec["rule"] for scenario in SCENARIOS}
    assert [sentence for sentence in SENTENCES if sentence not in shown] == []


def test_every_built_in_setting_has_a_scenario_in_which_it_changes() -> None:
    for setting in BUILT_IN:
        shown = [s for s in SCENARIOS if s.spec.get("setting") == setting]
        assert shown, f"no scenario shows {setting}"
        assert any(setting in str(scenario.spec["given"]) for scenario in shown), setting
    assert {s.spec["setting"] for s in SCENARIOS if "setting" in s.spec} == set(BUILT_IN)


def test_every_reason_has_a_scenario_of_its_own_and_is_expected_on_one_side_of_its_boundary() -> None:
    for reason in REASONS:
        of_reason = [s for s in SCENARIOS if s.spec["rule"] == reason]
        assert of_reason, f"no scenario shows {reason}"
        sides = [reason in expected.get("reasons", []) for s in of_reason for expected in _expectations(s.spec)]
        assert True in sides
        assert False in sides or reason == "left_platform"


def test_every_verdict_is_expected_somewhere() -> None:
    verdicts = {expected.get("verdict") for s in SCENARIOS for expected in _expectations(s.spec)}
    assert verdicts - {None} == set(get_args(Verdict))


def test_scenarios_have_different_names_and_only_members_that_are_read() -> None:
    assert [name for name, count in Counter(_name(s) for s in SCENARIOS).items() if count > 1] == []
    for scenario in SCENARIOS:
        members = scenario.spec.keys()
        assert members <= MEMBERS | EXPECTED
        assert members & EXPECTED in ({"just_before", "from_then"}, {"just_before", "at_the_instant", "just_after"})
        assert ("when" in members) != ("state_of" in members)
        known = {
            "verdict",
            "reasons",
            "handling",
            "governed_by",
            "evidence",
            "enforcement_lag",
            "hindsight",
            "settings",
            "undecidable",
        }
        for expected in _expectations(scenario.spec):
            assert expected.keys() <= known | {"changed_by"}


def test_every_definition_cites_a_sentence_that_a_scenario_shows() -> None:
    sentences = [sentence.lower().replace(",", "") for sentence in SENTENCES]
    for setting, definition in BUILT_IN.items():
        text = definition.description.lower().replace(",", "")
        assert any(sentence in text for sentence in sentences), setting
