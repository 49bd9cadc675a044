"""Any question about any ledger, against the slow reference."""

import random

import pytest

from ledger.times import format_time
from projections.decisions.model import outcome_json, read_record
from projections.query.query import IN_FORCE, KnownAt, Query
from tests.support.questions import (
    CACHING,
    NOON,
    STORAGE,
    TRAINING,
    QueryLedger,
    changed,
    cleared,
    defined,
    retracted,
)
from tests.support.reference import Json, Reference

GOVERNORS = ["account:u1", "account:u2", "org:acme", "org:beta"]


def grown(bench: QueryLedger, chance: random.Random, steps: range) -> None:
    """A ledger with one submission every two microseconds."""
    retractable: list[str] = []
    for step in steps:
        events = []
        for _ in range(chance.randint(1, 4)):
            if retractable and chance.random() < 0.07:
                events.append(retracted(retractable.pop(chance.randrange(len(retractable)))))
            else:
                events.append(_reference_state(chance, NOON + 2 * step))
        for event, receipt in zip(events, bench.submit(NOON + 2 * step, *events), strict=True):
            if event["type"] in ("setting.changed", "setting.cleared"):
                retractable.append(receipt.event_id)


def _reference_state(chance: random.Random, now: int) -> Json:
    start = None if chance.random() < 0.5 else NOON + chance.randint(-5, 75)
    until = None if chance.random() < 0.7 else (now if start is None else start) + chance.randint(4, 12)
    setting = chance.choice([TRAINING, STORAGE, CACHING])
    kind = chance.random()
    if kind < 0.2:
        return _of_places(chance, start, until)
    if kind < 0.45:
        return changed(chance.choice(GOVERNORS), setting, chance.random() < 0.5, start, until)
    if kind < 0.58:
        return cleared(chance.choice(GOVERNORS), setting, start, until)
    if kind < 0.78:
        owned = chance.choice(["key:k1", "project:p1"])
        return changed(owned, "owner", chance.choice([*GOVERNORS, "project:p2"]), start, until)
    if kind < 0.88:
        return changed(chance.choice(GOVERNORS[:2]), "attached_to", "org:acme", start, until)
    if kind < 0.95:
        return changed("model:m1", "model.hosting", chance.choice(["hosted", "passthrough"]), start)
    return defined(CACHING, start, default=chance.random() < 0.5)


PLACES = ("eu", "eu-1", "Europe", " Eu\u0301 ", "E\u00fa", "us", "world")
PARTIES = ("deep", "DEEP", "Deep Labs", "other")


PRECISIONS = ("bf16", " bf16 ", "fp8", "U\u0308", "\u00dc")


def drawn_as_served(chance: random.Random) -> Json:
    """Mostly nothing; else some members of the handling that say how the model was served."""
    if chance.random() < 0.6:
        return {}
    texts = {name: chance.choice((*PRECISIONS, "int4", None)) for name in ("precision", "revision")}
    flags = ("distilled", "system_prompt_forced", "censored")
    return texts | {name: chance.choice((True, False, None)) for name in flags}


def _of_places(chance: random.Random, start: int | None, until: int | None) -> Json:
    places = sorted(chance.sample(PLACES, chance.randint(0, 2)))
    regions = ("region:eu", "region:eu-1", "region:world", "region:us")
    provider = chance.choice(("provider:deep", "provider:other"))
    subject, setting, value = chance.choice(
        (
            ("org:acme", "residency.regions", places),
            ("org:acme", "residency.regions", places),
            ("model:m1", "model.regions", places),
            ("model:m1", "model.regions", places),
            ("org:acme", "passthrough.allowed", True),
            ("model:m1", "model.provider", chance.choice(PARTIES)),
            (chance.choice(regions), "region.within", chance.choice(regions)),
            (chance.choice(regions), "region.within", chance.choice(regions)),
            (chance.choice(regions), "region.names", places),
            (provider, "provider.names", sorted(chance.sample(PARTIES, 2))),
            (provider, "provider.trains", chance.random() < 0.5),
            (provider, "provider.policy_url", "https://deep.example/policy"),
            ("model:m1", "model.precision", chance.choice(PRECISIONS)),
            ("model:m1", "model.revision", chance.choice(PRECISIONS)),
            ("model:m1", "model.distilled", chance.random() < 0.5),
            ("model:m1", "model.system_prompt_forced", chance.random() < 0.5),
            ("model:m1", "model.censorship_layer", chance.random() < 0.5),
        )
    )
    return changed(subject, setting, value, start, until)


@pytest.mark.parametrize("seed", range(3))
def test_any_question_about_any_ledger_gets_the_references_answer(bench: QueryLedger, seed: int) -> None:
    chance = random.Random(seed)
    # In small stages, so that what one stage cached is stale in the next.
    for steps in (range(12), *(range(first, first + 2) for first in range(12, 32, 2))):
        grown(bench, chance, steps)
        reference = Reference(entry.leaf for entry in bench.ledger.page(0))
        last = bench.ledger.head().recorded_at
        assert last is not None
        for _ in range(30):
            at, known = (NOON + chance.randint(-8, 80) for _ in range(2))
            choices: list[KnownAt] = [None, IN_FORCE, IN_FORCE, known, at, last, last - 1]
            known_at = chance.choice(choices)
            _assert_check(bench.query, reference, chance, at, known_at)
            subject = chance.choice(GOVERNORS)
            setting = chance.choice([TRAINING, STORAGE, CACHING])
            if not any(event["subject"] == subject for event in reference.events):
                continue
            state = bench.query.state(subject, at=at, known_at=known_at).settings.get(setting)
            expected_state = reference.setting_state(subject, setting, at, at if known_at == IN_FORCE else known_at)
            if state is None:
                assert expected_state.source == "undefined"
            else:
                assert (state.value, state.source) == (expected_state.value, expected_state.source)
                assert state.newest is not None
                assert state.newest.position == expected_state.position


def _assert_check(query: Query, reference: Reference, chance: random.Random, at: int, known_at: KnownAt) -> None:
    handling: Json = {"stored": chance.random() < 0.5, "trained": chance.random() < 0.5, "cached": True}
    record: Json = {"handling": handling}
    if chance.random() < 0.5:
        handling["region"] = chance.choice((*PLACES, "mars"))
    if chance.random() < 0.3:
        handling["forwarded_to"] = chance.choice((*PARTIES, "nobody"))
    handling |= drawn_as_served(chance)
    for name, ids in (
        ("key_id", ["k1"]),
        ("project_id", ["p1", "p2"]),
        ("org_id", ["acme", "beta"]),
        ("account_id", ["u1", "u2"]),
        ("model_id", ["m1"]),
    ):
        if chance.random() < 0.4:
            record[name] = chance.choice(ids)
    if not record.keys() & {"key_id", "project_id", "org_id", "account_id"}:
        record["account_id"] = "u1"
    if chance.random() < 0.5:
        record["enforced_position"] = chance.randint(15, len(reference.events))
    decision = query.check(read_record({**record, "at": format_time(at)}, now=0), known_at)
    assert outcome_json(decision.outcome) == reference.check(record, at, at if known_at == IN_FORCE else known_at)
    later = reference.check(record, at, None)
    if decision.hindsight is None:
        written = outcome_json(decision.outcome)
        assert [later[member] for member in ("verdict", "handling")] == [written["verdict"], written["handling"]]
    else:
        assert outcome_json(decision.hindsight.outcome) == later
        assert decision.hindsight.changed_by
