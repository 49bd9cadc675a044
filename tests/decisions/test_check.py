"""`check` against the slow reference, for any ledger and any request record; and the corners of its rules."""

from typing import Any, Literal, NamedTuple

import hypothesis.strategies as st
from hypothesis import given, settings

from ledger.built_in_catalog import BUILT_IN
from ledger.drafts import Draft
from ledger.times import format_time, parse_time
from projections.decisions.check import check
from projections.decisions.model import REASONS, outcome_json, read_record
from tests.support.memory_ledger import (
    FoldedStates,
    MemoryLedger,
    batches,
    changed,
    cleared,
    defined,
    event_id_of,
    retracted,
)
from tests.support.reference import ORDER_OF_REASONS, Json, Reference

BEGUN = parse_time("2026-01-01T00:00:00Z")
SPAN = 10
"""All events happen within so many microseconds, so that nearly every request ties with one."""

ACCOUNTS, ORGS = ["account:u1", "account:u2"], ["org:acme", "org:beta"]
PROJECTS, KEYS, MODELS = ["project:p1", "project:p2"], ["key:k1", "key:k2"], ["model:m1", "model:m2"]
GOVERNORS = ACCOUNTS + ORGS
PLACES = ["eu", "eu", "us", "Europe", " e\u0301u ", "éu", "eu-1", "world"]
REGIONS = st.lists(st.sampled_from(PLACES), unique=True, max_size=3).map(sorted)
REGION_SUBJECTS = ["region:eu", "region:eu-1", "region:world", "region:us"]
PRECISIONS = ["bf16", " bf16 ", "U\u0308", "\u00dc"]
PARTIES = ["them", "THEM", "others", " Them ", "STRASSE", "straße"]
PROVIDERS = ["provider:them", "provider:strasse", "provider:third"]
BOOLS = st.booleans()


def _one(subjects: list[str], setting: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, str, Any]]:
    return st.tuples(st.sampled_from(subjects), st.just(setting), values)


ASSERTED = st.one_of(
    _one(GOVERNORS, "training.opt_in", BOOLS),
    _one(GOVERNORS, "storage.inputs_outputs", BOOLS),
    _one(GOVERNORS, "caching.temporary", BOOLS),
    _one(ORGS, "passthrough.allowed", BOOLS),
    _one(ORGS, "residency.regions", REGIONS),
    _one(ORGS, "network.private_only", BOOLS),
    _one(MODELS, "model.hosting", st.sampled_from(["hosted", "passthrough", "passthrough", "edge"])),
    _one(MODELS, "model.provider", st.sampled_from(PARTIES)),
    _one(MODELS, "model.policy_url", st.just("https://them.example/policy")),
    _one(MODELS, "model.regions", REGIONS),
    _one(MODELS, "model.precision", st.sampled_from(PRECISIONS)),
    _one(MODELS, "model.revision", st.sampled_from(PRECISIONS)),
    _one(MODELS, "model.distilled", BOOLS),
    _one(MODELS, "model.system_prompt_forced", BOOLS),
    _one(MODELS, "model.censorship_layer", BOOLS),
    _one(ORGS, "passthrough.allowed", st.just(True)),
    _one(ORGS, "residency.regions", REGIONS),
    _one(REGION_SUBJECTS, "region.within", st.sampled_from([*REGION_SUBJECTS, "region:elsewhere"])),
    _one(REGION_SUBJECTS, "region.within", st.sampled_from([*REGION_SUBJECTS, "region:elsewhere"])),
    _one(REGION_SUBJECTS, "region.names", REGIONS),
    _one(PROVIDERS, "provider.names", st.lists(st.sampled_from(PARTIES), unique=True, max_size=3).map(sorted)),
    _one(PROVIDERS, "provider.policy_url", st.just("https://provider.example/policy")),
    _one(PROVIDERS, "provider.policy_sha256", st.just("0f" * 32)),
    _one(PROVIDERS, "provider.trains", BOOLS),
    _one(PROVIDERS, "provider.stores", BOOLS),
    _one(PROVIDERS, "provider.retention_days", st.integers(0, 30)),
    _one(PROVIDERS, "provider.regions", REGIONS),
    _one(KEYS, "owner", st.sampled_from(PROJECTS + GOVERNORS)),
    _one(KEYS, "owner", st.sampled_from(PROJECTS + GOVERNORS)),
    _one(PROJECTS, "owner", st.sampled_from(PROJECTS + GOVERNORS)),
    _one(ACCOUNTS, "attached_to", st.sampled_from(ORGS)),
    _one(ORGS, "subjects.must_be_known", st.lists(st.sampled_from(["account", "key", "org", "project"]), unique=True)),
    _one(ORGS, "beta.search", BOOLS),
)


class PlannedEvent(NamedTuple):
    """A change, or with `clears` a clear; with `retracts` the retraction of the n-th event that can be retracted;
    with `redefines` another default, or other kinds, for the setting."""

    asserted: tuple[str, str, Any]
    start: int | None
    length: int | None
    how: Literal["changes", "clears", "retracts", "redefines"]
    which: int


PLANNED = st.builds(
    PlannedEvent,
    asserted=ASSERTED,
    start=st.none() | st.integers(-2, SPAN),
    length=st.none() | st.none() | st.integers(1, 5),
    how=st.sampled_from(["changes"] * 9 + ["clears"] * 2 + ["retracts", "redefines"]),
    which=st.integers(0, 20),
)


@st.composite
def books(draw: st.DrawFn) -> MemoryLedger:
    planned = draw(st.lists(PLANNED, min_size=4, max_size=24))
    sizes = draw(st.lists(st.integers(1, 5), min_size=4, max_size=8))
    book = MemoryLedger(BEGUN)
    now = BEGUN
    gone: set[int] = set()
    first = len(book.entries)
    for run in batches([Draft("", "", 0, {"planned": index}, "", "") for index in range(len(planned))], sizes):
        now += draw(st.integers(1, 2))
        drafts = [_draft(book, planned[placeholder.body["planned"]], now, first, gone) for placeholder in run]
        book.record(now, *(draft for draft in drafts if draft is not None))
    return book


def _draft(book: MemoryLedger, planned: PlannedEvent, now: int, first: int, gone: set[int]) -> Draft | None:
    subject, setting, value = planned.asserted
    start = None if planned.start is None else BEGUN + planned.start
    until = None if planned.length is None else (now if start is None else start) + planned.length
    if planned.how == "clears":
        return cleared(subject, setting, start, until)
    if planned.how == "redefines":
        definition = BUILT_IN.get(setting, BUILT_IN["training.opt_in"]).as_json()
        if setting == "subjects.must_be_known":
            definition["default"] = value
        if definition["value_type"] == "bool":
            definition["default"] = None if planned.which % 3 == 0 else not definition["default"]
            definition["protective"] = (True, False, None)[planned.which // 3 % 3]
        elif setting == "residency.regions":
            definition |= {"default": ["eu"] if planned.which % 2 else None, "protective": ["eu"]}
        elif setting == "model.hosting":
            definition["default"] = "edge" if planned.which % 2 else None
        elif setting in ("model.provider", "model.policy_url", "model.regions", "model.precision", "model.revision"):
            definition["default"] = 5 if planned.which % 2 else None
        if planned.which % 5 == 0 and len(definition["kinds"]) > 1:
            definition["kinds"] = definition["kinds"][:1]
        return defined(setting, definition, start)
    if planned.how == "retracts":
        target = first + planned.which + 1
        if target > len(book.entries) or target in gone:
            return None
        entry = book.entries[target - 1]
        if entry.topic not in ("setting.changed", "setting.cleared"):
            return None
        gone.add(target)
        event = next(iter(Reference([entry.leaf]).events))
        return retracted(entry.subject, event["data"]["setting"], event_id_of(target))
    return changed(subject, setting, value, start, until)


NAMED = st.fixed_dictionaries(
    {},
    optional={
        "key_id": st.sampled_from(["k1", "k1", "k2", "unheard-of"]),
        "account_id": st.sampled_from(["u1", "u1", "u2", "unheard-of"]),
        "org_id": st.sampled_from(["acme", "acme", "beta", "unheard-of"]),
        "project_id": st.sampled_from(["p1", "p1", "p2", "unheard-of"]),
    },
).filter(bool)
OBSERVED = st.fixed_dictionaries(
    {},
    optional={
        "stored": BOOLS,
        "cached": BOOLS,
        "trained": BOOLS,
        "forwarded_to": st.sampled_from([*PARTIES, "nobody"]),
        "region": st.sampled_from([*PLACES, "mars"]),
        "network": st.sampled_from(["public", "private"]),
        **dict.fromkeys(("precision", "revision"), st.sampled_from([*PRECISIONS, "int4"])),
        **dict.fromkeys(("distilled", "system_prompt_forced", "censored"), BOOLS),
    },
)
REST = st.fixed_dictionaries(
    {},
    optional={
        "model_id": st.sampled_from(["m1", "m1", "m2", "unheard-of"]),
        "handling": OBSERVED,
        "enforced_position": st.integers(0, 45),
        "request_id": st.just("r1"),
    },
)
RECORDS: st.SearchStrategy[Json] = st.builds(lambda named, rest: {**named, **rest}, NAMED, REST)
INSTANTS = st.integers(-2, SPAN + 8).map(lambda offset: BEGUN + offset)


def decided(book: MemoryLedger, record: Json, at: int, known_at: int | Literal["at"] | None) -> Json:
    """The outcome of `check` in its wire form."""
    read = read_record({**record, "at": format_time(at)}, now=0)
    return outcome_json(check(read, FoldedStates(book, at, known_at)))


@settings(max_examples=300)
@given(books(), st.lists(st.tuples(RECORDS, INSTANTS), min_size=1, max_size=4))
def test_check_in_force_equals_the_reference(book: MemoryLedger, questions: list[tuple[Json, int]]) -> None:
    reference = Reference(book.leaves)
    for record, at in questions:
        expected = reference.check(record, at, at)
        assert decided(book, record, at, "at") == expected
        assert decided(book, record, at, at) == expected


@settings(max_examples=200)
@given(books(), RECORDS, INSTANTS)
def test_check_in_hindsight_equals_the_reference(book: MemoryLedger, record: Json, at: int) -> None:
    assert decided(book, record, at, None) == Reference(book.leaves).check(record, at, None)


@settings(max_examples=200)
@given(books(), RECORDS, INSTANTS, INSTANTS)
def test_check_at_any_known_at_equals_the_reference(book: MemoryLedger, record: Json, at: int, known_at: int) -> None:
    assert decided(book, record, at, known_at) == Reference(book.leaves).check(record, at, known_at)


@given(books(), RECORDS, INSTANTS)
def test_a_decision_depends_on_nothing_but_the_record_and_the_states(book: MemoryLedger, record: Json, at: int) -> None:
    states = FoldedStates(book, at, "at")
    read = read_record({**record, "at": format_time(at)}, now=0)
    assert check(read, states) == check(read, states)


def test_the_reference_knows_every_reason_in_the_order_of_answers() -> None:
    assert tuple(REASONS) == ORDER_OF_REASONS


def _question(book: MemoryLedger, at: int = BEGUN + 20, **record: Any) -> Json:
    return decided(book, record, at, "at")


def _world(*drafts: Draft) -> MemoryLedger:
    book = MemoryLedger(BEGUN)
    for after, draft in enumerate(drafts, 1):
        book.record(BEGUN + after, draft)
    return book


def test_several_reasons_have_one_fixed_order() -> None:
    book = _world(changed("org:acme", "caching.temporary", False), changed("model:m1", "model.hosting", "hosted"))
    handlings = {"trained": True, "cached": True, "stored": True, "forwarded_to": "them"}
    assert _question(book, org_id="acme", model_id="m1", handling=handlings)["reasons"] == [
        "left_platform",
        "stored_against_setting",
        "cached_against_setting",
        "trained_without_opt_in",
    ]


def test_a_certain_violation_outweighs_what_could_not_be_resolved() -> None:
    decision = _question(_world(), org_id="acme", model_id="unheard-of", handling={"trained": True})
    assert decision["verdict"] == "violation"
    assert decision["reasons"] == ["unknown_model", "trained_without_opt_in"]


def test_only_what_was_observed_can_be_a_violation() -> None:
    book = _world(changed("org:acme", "residency.regions", ["eu"]), changed("org:acme", "network.private_only", True))
    assert _question(book, org_id="acme", handling={"stored": False})["verdict"] == "compliant"


def test_a_record_without_any_observation_is_a_question() -> None:
    assert _question(_world(), org_id="acme", handling={})["verdict"] == "allowed"
    assert _question(_world(), org_id="acme", handling={"stored": None})["verdict"] == "allowed"


def test_an_enforced_position_never_excuses_a_question() -> None:
    book = _world(changed("model:m1", "model.hosting", "passthrough"))
    decision = _question(book, org_id="acme", model_id="m1", enforced_position=0)
    assert (decision["verdict"], decision["reasons"]) == ("denied", ["passthrough_not_allowed"])


def test_one_violation_may_lag_while_another_is_a_breach() -> None:
    book = _world(changed("org:acme", "caching.temporary", False))
    newest = len(book.entries)
    handlings = {"cached": True, "trained": True}
    decision = _question(book, org_id="acme", enforced_position=newest - 1, handling=handlings)
    assert decision["reasons"] == ["trained_without_opt_in", "enforcement_lag"]
    assert decision["enforcement_lag"] == {
        "lag_us": 19,
        "enforced_position": newest - 1,
        "deciding_position": newest,
    }


def test_the_lag_of_a_scheduled_change_counts_from_the_moment_it_takes_effect() -> None:
    book = _world(changed("org:acme", "caching.temporary", False, BEGUN + 15))
    decision = _question(book, org_id="acme", enforced_position=0, handling={"cached": True})
    assert decision["enforcement_lag"]["lag_us"] == 5


def test_a_clear_that_has_not_reached_the_gateway_is_enforcement_lag_and_not_a_breach() -> None:
    book = _world(changed("org:acme", "storage.inputs_outputs", True), cleared("org:acme", "storage.inputs_outputs"))
    clear = len(book.entries)
    late = _question(book, org_id="acme", enforced_position=clear - 1, handling={"stored": True})
    in_time = _question(book, org_id="acme", enforced_position=clear, handling={"stored": True})
    assert (late["reasons"], in_time["reasons"]) == (["enforcement_lag"], ["stored_against_setting"])


def test_evidence_of_a_default_names_the_definition_and_the_clear_that_brought_it_back() -> None:
    book = _world(changed("org:acme", "storage.inputs_outputs", True), cleared("org:acme", "storage.inputs_outputs"))
    evidence = {(e["subject"], e["setting"]): e for e in _question(book, org_id="acme")["evidence"]}
    cleared_one = evidence["org:acme", "storage.inputs_outputs"]
    assert (cleared_one["source"], cleared_one["position"]) == ("default", 2)
    assert cleared_one["cleared_by"]["position"] == len(book.entries)
    assert "cleared_by" not in evidence["org:acme", "caching.temporary"]


def test_an_attachment_that_has_not_reached_the_gateway_is_enforcement_lag() -> None:
    book = _world(
        changed("account:u1", "training.opt_in", True),
        changed("account:u1", "attached_to", "org:acme"),
    )
    attached = len(book.entries)
    late = _question(book, account_id="u1", enforced_position=attached - 1, handling={"trained": True})
    assert late["governed_by"]["subject"] == "org:acme"
    assert late["reasons"] == ["enforcement_lag"]
