"""Every question at (at, known_at), through a real ledger on both databases: its answer, and what that is pinned to."""

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from ledger.clock import ManualClock
from ledger.errors import LedgerUnavailable, NotFound
from ledger.opening import open_ledger
from ledger.recorders.contract import Entry
from ledger.store import Ledger, Receipt
from ledger.subjects import CATALOG_SUBJECT
from ledger.submissions import parse_submissions
from ledger.times import BEGINNING, END, format_time, parse_time
from projections.courses import NOTHING
from projections.decision import outcome_json, read_record
from projections.history import HistoryRow, history
from projections.pinned import PinnedQuery
from projections.query import IN_FORCE, KnownAt, Query
from tests.support.histories import SUBJECTS, History
from tests.support.reference import Json, Reference

BEGUN = parse_time("2026-01-01T00:00:00Z")
NOON = parse_time("2026-03-01T12:00:00Z")
HOUR = 3_600_000_000
STORAGE, CACHING, TRAINING = "storage.inputs_outputs", "caching.temporary", "training.opt_in"


class Bench(NamedTuple):
    ledger: Ledger
    clock: ManualClock
    query: Query

    def submit(self, recorded_at: int, *events: Json) -> list[Receipt]:
        self.clock.now_us = recorded_at
        return list(self.ledger.submit(parse_submissions({"events": list(events)}), actor="ops"))


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    clock = ManualClock(BEGUN)
    with open_ledger(database_url, create=True, clock=clock, origin="test.example") as ledger:
        yield Bench(ledger, clock, Query(ledger))


def changed(subject: str, setting: str, value: Any, start: int | None = None, until: int | None = None) -> Json:
    event = {"type": "setting.changed", "subject": subject, "setting": setting, "value": value, "reason": "a test"}
    return event | _period(start, until)


def cleared(subject: str, setting: str, start: int | None = None, until: int | None = None) -> Json:
    event = {"type": "setting.cleared", "subject": subject, "setting": setting, "reason": "a test"}
    return event | _period(start, until)


def _period(start: int | None, until: int | None) -> Json:
    return {
        "effective_from": None if start is None else format_time(start),
        "effective_until": None if until is None else format_time(until),
    }


def retracted(event_id: str) -> Json:
    return {"type": "change.retracted", "event_id": event_id, "reason": "a test"}


def defined(setting: str, start: int | None = None, **members: Any) -> Json:
    definition = {
        "kinds": ["account", "org"],
        "value_type": "bool",
        "default": False,
        "protective": False,
        "writable_by": "admin",
        "title": "A setting",
        "description": "For a test.",
        "source": "The test's own rules",
    }
    event = {"type": "setting.defined", "setting": setting, "definition": definition | members, "reason": "a test"}
    return event | ({} if start is None else {"effective_from": format_time(start)})


# State.


def test_state_holds_every_setting_of_the_kind_with_its_source(bench: Bench) -> None:
    (on,) = bench.submit(NOON, changed("org:acme", STORAGE, True))
    answer = bench.query.state("org:acme", at=NOON)
    assert list(answer.settings) == sorted(
        [TRAINING, STORAGE, CACHING, "passthrough.allowed", "residency.regions", "network.private_only"]
    )
    assert {setting: state.source for setting, state in answer.settings.items() if state.source != "default"} == {
        STORAGE: "explicit"
    }
    change = answer.settings[STORAGE].change
    assert change is not None
    assert (change.event_id, change.position, change.version) == (on.event_id, on.position, 1)
    definition = answer.settings[CACHING].change
    assert definition is not None
    assert isinstance(definition.value, dict)
    assert (definition.recorded_at, definition.effective_from) == (BEGUN, BEGINNING)


def test_state_leaves_out_what_is_not_for_the_kind_of_subject(bench: Bench) -> None:
    bench.submit(NOON, changed("account:u1", STORAGE, True), changed("key:k1", "owner", "account:u1"))
    assert list(bench.query.state("account:u1", at=NOON).settings) == sorted(
        [TRAINING, STORAGE, CACHING, "attached_to"]
    )
    assert list(bench.query.state("key:k1", at=NOON).settings) == ["owner"]


def test_state_of_chosen_settings_only(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    assert list(bench.query.state("org:acme", at=NOON, settings=[STORAGE, "owner"]).settings) == [STORAGE]


def test_state_of_a_setting_that_is_not_defined_is_not_found(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    with pytest.raises(NotFound):
        bench.query.state("org:acme", at=NOON, settings=["no.such.setting"])


def test_state_knows_the_clear_behind_a_default(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    (clear,) = bench.submit(NOON + HOUR, cleared("org:acme", STORAGE))
    state = bench.query.state("org:acme", at=NOON + HOUR).settings[STORAGE]
    assert (state.value, state.source) == (False, "default")
    assert state.cleared_by is not None
    assert state.cleared_by.event_id == clear.event_id


@pytest.mark.parametrize("question", ["state", "timeline", "diff", "history"])
def test_a_subject_without_a_history_is_not_found(bench: Bench, question: str) -> None:
    ask: dict[str, Callable[[], object]] = {
        "state": lambda: bench.query.state("org:nobody", at=NOON),
        "timeline": lambda: bench.query.timeline("org:nobody"),
        "diff": lambda: bench.query.diff("org:nobody", start=BEGUN, end=NOON),
        "history": lambda: history(bench.ledger, "org:nobody"),
    }
    with pytest.raises(NotFound):
        ask[question]()


def test_a_subject_of_which_everything_was_retracted_is_still_found(bench: Bench) -> None:
    (only,) = bench.submit(NOON, changed("org:acme", STORAGE, True, NOON + HOUR))
    bench.submit(NOON + 1, retracted(only.event_id))
    assert bench.query.state("org:acme", at=NOON + HOUR).settings[STORAGE].source == "default"


def test_known_at_counts_what_was_recorded_by_then_to_the_microsecond(bench: Bench) -> None:
    """Also where later events have been recorded, so that the stored timelines cannot answer."""
    (backdated,) = bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    for later in (False, True):
        if later:
            bench.submit(NOON + HOUR, changed("org:acme", STORAGE, False, NOON - HOUR))
        found = {
            step: bench.query.state("org:acme", at=NOON - 1, known_at=backdated.recorded_at + step).settings[STORAGE]
            for step in (-1, 0, 1)
        }
        assert [found[step].value for step in (-1, 0, 1)] == [False, True, True]
        assert [found[step].source for step in (-1, 0, 1)] == ["default", "explicit", "explicit"]


def test_without_known_at_everything_recorded_counts_and_the_answer_says_until_when(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.clock.now_us = NOON + HOUR
    answer = bench.query.state("org:acme", at=NOON)
    assert (answer.at, answer.known_at, answer.position) == (NOON, NOON + HOUR, bench.ledger.head().position)


def test_an_answer_never_claims_to_know_less_than_it_rests_on(bench: Bench) -> None:
    """A clock that stepped back does not make the coordinates of an answer irreproducible."""
    (on,) = bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    bench.clock.now_us = NOON - HOUR
    answer = bench.query.state("org:acme", at=NOON - HOUR)
    assert answer.known_at == on.recorded_at
    again = bench.query.state("org:acme", at=answer.at, known_at=answer.known_at)
    assert again.settings == answer.settings


def test_in_force_is_known_at_at(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    bench.submit(NOON + HOUR, changed("org:acme", CACHING, False))
    for at in (NOON - HOUR, NOON - 1, NOON, NOON + 1, NOON + HOUR - 1, NOON + HOUR):
        in_force = bench.query.state("org:acme", at=at, known_at=IN_FORCE)
        spelled_out = bench.query.state("org:acme", at=at, known_at=at)
        assert in_force == spelled_out
        assert in_force.known_at == at
        assert in_force.settings[STORAGE].value is (at >= NOON)


# Timelines.


def test_a_timeline_is_gapless_half_open_and_unbounded(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True, NOON + HOUR, NOON + 2 * HOUR))
    answer = bench.query.timeline("org:acme", setting=STORAGE)
    assert [(i.start, i.until, i.value, i.source) for i in answer.intervals] == [
        (BEGINNING, NOON + HOUR, False, "default"),
        (NOON + HOUR, NOON + 2 * HOUR, True, "explicit"),
        (NOON + 2 * HOUR, END, False, "default"),
    ]


def test_a_timeline_in_force_begins_with_what_was_not_known_yet(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    answer = bench.query.timeline("org:acme", setting=STORAGE, known_at=IN_FORCE)
    assert answer.known_at is None
    assert [(i.start, i.until, i.source) for i in answer.intervals] == [
        (BEGINNING, BEGUN, "undefined"),
        (BEGUN, NOON, "default"),
        (NOON, END, "explicit"),
    ]


def test_a_timeline_at_an_earlier_known_at(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True, NOON - HOUR))
    bench.submit(NOON + HOUR, changed("org:acme", STORAGE, False, NOON - HOUR))
    found = {
        known_at: [i.value for i in bench.query.timeline("org:acme", setting=STORAGE, known_at=known_at).intervals]
        for known_at in (NOON - 1, NOON, NOON + HOUR)
    }
    assert found == {NOON - 1: [False], NOON: [False, True], NOON + HOUR: [False, False]}


def test_a_timeline_known_at_the_beginning_of_time_is_not_the_one_in_force(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    assert bench.query.timeline("org:acme", known_at=BEGINNING).intervals == ()
    with pytest.raises(NotFound):
        bench.query.timeline("org:acme", setting=STORAGE, known_at=BEGINNING)


def test_without_a_setting_a_timeline_has_every_setting_that_was_ever_said(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True), cleared("org:acme", CACHING))
    answer = bench.query.timeline("org:acme")
    assert [(i.setting, i.source) for i in answer.intervals] == [
        (CACHING, "default"),
        (STORAGE, "default"),
        (STORAGE, "explicit"),
    ]


def test_a_timeline_of_a_setting_that_the_subject_cannot_have_is_not_found(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    for setting in ("no.such.setting", "owner"):
        with pytest.raises(NotFound):
            bench.query.timeline("org:acme", setting=setting)


# History, diff, catalog.


def test_history_is_newest_first_with_retracted_changes_marked(bench: Bench) -> None:
    (first,) = bench.submit(NOON, changed("org:acme", STORAGE, True))
    (second,) = bench.submit(NOON + 1, changed("org:acme", CACHING, False))
    (third,) = bench.submit(NOON + 2, retracted(first.event_id))
    rows = history(bench.ledger, "org:acme").rows
    assert [(row.entry.version, row.setting, row.retracted_by) for row in rows] == [
        (third.version, STORAGE, None),
        (second.version, CACHING, None),
        (first.version, STORAGE, third.event_id),
    ]
    assert {row.reason for row in rows} == {"a test"}


def test_history_of_one_setting(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True), changed("org:acme", CACHING, False))
    assert [row.setting for row in history(bench.ledger, "org:acme", setting=CACHING).rows] == [CACHING]
    assert history(bench.ledger, "org:acme", setting="no.such.setting").rows == ()


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
def test_history_in_pages_is_the_whole_history(bench: Bench, limit: int) -> None:
    """Marks are complete whatever the page."""
    (first,) = bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.submit(NOON + 1, *(changed("org:acme", CACHING, on) for on in (False, True, False)))
    bench.submit(NOON + 2, retracted(first.event_id))
    whole = history(bench.ledger, "org:acme").rows
    pages: list[HistoryRow] = []
    after = None
    while True:
        page = history(bench.ledger, "org:acme", after=after, limit=limit)
        assert len(page.rows) <= limit
        pages.extend(page.rows)
        after = page.next_after
        if after is None:
            break
    assert tuple(pages) == whole
    assert pages[-1].retracted_by is not None


def test_diff_has_the_settings_whose_value_differs_and_the_events_that_did_it(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", TRAINING, False), changed("org:acme", CACHING, True))
    (on,) = bench.submit(NOON + 1, changed("org:acme", STORAGE, True))
    _, position, differences = bench.query.diff("org:acme", start=NOON, end=NOON + 1)
    assert position == on.position
    (difference,) = differences
    assert (difference.before.setting, difference.before.value, difference.after.value) == (STORAGE, False, True)
    assert difference.after.change is not None
    assert difference.after.change.event_id == on.event_id
    assert bench.query.diff("org:acme", start=NOON + 1, end=NOON + HOUR).differences == ()


def test_diff_depends_on_what_was_known(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", CACHING, True))
    bench.submit(NOON + HOUR, changed("org:acme", STORAGE, True, NOON + 1))

    def differing(known_at: KnownAt) -> list[str]:
        return [
            d.after.setting
            for d in bench.query.diff("org:acme", start=NOON, end=NOON + 2, known_at=known_at).differences
        ]

    assert differing(None) == [STORAGE]
    assert differing(NOON + HOUR) == [STORAGE]
    assert differing(NOON + HOUR - 1) == []
    assert differing(IN_FORCE) == []


def test_diff_shows_a_default_that_changed(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.submit(NOON + 1, defined(CACHING, default=False))
    (difference,) = bench.query.diff("org:acme", start=NOON, end=NOON + 1).differences
    assert (difference.before.value, difference.after.value, difference.after.source) == (True, False, "default")


def test_diff_names_what_came_what_ended_and_what_was_taken_back(bench: Bench) -> None:
    (bounded,) = bench.submit(NOON, changed("org:acme", STORAGE, True, NOON, NOON + 10))
    (mistake,) = bench.submit(NOON + 1, changed("org:acme", TRAINING, True))
    (retraction,) = bench.submit(NOON + 2, retracted(mistake.event_id))

    def changed_by(start: int, end: int) -> dict[str, list[int]]:
        found = bench.query.diff("org:acme", start=start, end=end, known_at=IN_FORCE).differences
        return {d.after.setting: [said.position for said in d.changed_by] for d in found}

    assert changed_by(NOON - 1, NOON) == {STORAGE: [bounded.position]}
    assert bounded.position in changed_by(NOON + 9, NOON + 10)[STORAGE]
    assert retraction.position in changed_by(NOON + 1, NOON + 2)[TRAINING]
    backwards = bench.query.diff("org:acme", start=NOON, end=NOON - 1, known_at=IN_FORCE).differences
    assert [(d.before.value, d.after.value) for d in backwards] == [(True, False)]
    assert [said.position for said in backwards[0].changed_by] == [bounded.position]


def test_the_catalog_at_earlier_times(bench: Bench) -> None:
    bench.submit(NOON, defined("beta.search", NOON + HOUR))
    bench.submit(NOON + 2 * HOUR, defined("beta.search", NOON + HOUR, default=True))

    def default_of(at: int, known_at: KnownAt) -> Any:
        definition = bench.query.catalog(at=at, known_at=known_at).definitions.get("beta.search")
        return "undefined" if definition is None else dict(definition.value or {})["default"]  # type: ignore[arg-type]

    assert default_of(NOON + HOUR - 1, None) == "undefined"
    assert default_of(NOON + HOUR, None) is True
    assert default_of(NOON + HOUR, IN_FORCE) is False
    assert default_of(NOON + HOUR, NOON - 1) == "undefined"
    assert default_of(NOON + HOUR, NOON) is False
    assert default_of(NOON + 2 * HOUR, IN_FORCE) is True
    assert bench.query.catalog(at=BEGUN - 1, known_at=IN_FORCE).definitions == {}


# Pinning and freshness.


def test_a_read_after_an_acknowledged_write_sees_it_whoever_wrote(bench: Bench, database_url: str) -> None:
    with open_ledger(database_url, clock=bench.clock) as other_ledger:
        other = Query(other_ledger)
        for step in range(4):
            writer, reader = (bench.ledger, other) if step % 2 else (other_ledger, bench.query)
            bench.clock.now_us = NOON + step
            (receipt,) = writer.submit(parse_submissions(changed("org:acme", STORAGE, step % 2 == 0)), actor="ops")
            for query in (reader, bench.query, other):
                answer = query.state("org:acme", at=NOON + step)
                assert answer.position == receipt.position
                assert answer.settings[STORAGE].value is (step % 2 == 0)


def test_all_decisions_of_a_batch_are_pinned_to_one_position(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    records = [read_record({"org_id": f"o{index % 7}"}, NOON) for index in range(50)]
    decisions = bench.query.check_all(iter(records))
    assert {decision.as_of.position for decision in decisions} == {bench.ledger.head().position}
    assert {decision.as_of.known_at for decision in decisions} == {NOON}


def test_a_tiny_cache_gives_the_same_answers(bench: Bench) -> None:
    subjects = [f"org:o{index}" for index in range(6)]
    bench.submit(NOON, *(changed(subject, STORAGE, index % 2 == 0) for index, subject in enumerate(subjects)))
    tiny = Query(bench.ledger, cached_subjects_max=1)
    for known_at in (None, IN_FORCE):
        for _round in range(2):
            for subject in subjects:
                assert tiny.state(subject, at=NOON, known_at=known_at) == bench.query.state(
                    subject, at=NOON, known_at=known_at
                )
    bench.submit(NOON + 1, changed(subjects[0], STORAGE, False))
    assert tiny.state(subjects[0], at=NOON + 1).settings[STORAGE].value is False
    assert tiny.state(subjects[2], at=NOON + 1).settings[STORAGE].value is True


def test_a_question_keeps_to_its_moment_where_the_timelines_move_on_under_it(
    bench: Bench, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key was read before it changed hands, the organization's settings after."""
    bench.submit(NOON, changed("org:a", STORAGE, True, NOON - HOUR), changed("key:k1", "owner", "org:a", NOON - HOUR))
    record = read_record({"key_id": "k1", "handling": {"stored": True}}, NOON + HOUR)
    read = bench.query.store.subject
    moved: list[Receipt] = []

    def read_and_move_on(subject: str) -> Any:
        found = read(subject)
        if subject == "key:k1" and not moved:
            with open_ledger(database_url, clock=ManualClock(NOON + 1)) as ledger:
                events = [changed("key:k1", "owner", "org:b"), changed("org:a", STORAGE, False)]
                events.append(changed("org:b", STORAGE, True))
                moved.extend(ledger.submit(parse_submissions({"events": events}), actor="other"))
                Query(ledger).moment()
        return found

    monkeypatch.setattr(bench.query.store, "subject", read_and_move_on)
    decision = bench.query.check(record)
    assert (decision.outcome.verdict, decision.outcome.governed_by.subject) == ("compliant", "org:a")
    assert decision.as_of.position == moved[0].position - 1
    assert bench.query.check(record).outcome.governed_by.subject == "org:b"
    assert bench.query.check(record).as_of.position == moved[-1].position


def test_answers_stay_whole_while_another_writes_and_projects(bench: Bench, database_url: str) -> None:
    """The key changes hands with every submission, and only the org that has it then stores. No answer ever shows the
    new owner with the old settings, or an older position than the answer before."""

    def handed_over(step: int) -> list[Json]:
        orgs = ["org:a", "org:b"]
        until = NOON + 2 * HOUR
        stores = [changed(org, STORAGE, orgs.index(org) == step % 2, NOON - HOUR, until) for org in orgs]
        return [*stores, changed("key:k1", "owner", orgs[step % 2], NOON - HOUR, until)]

    bench.submit(NOON, *handed_over(0))
    rounds = 25
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with open_ledger(database_url, clock=ManualClock(NOON)) as ledger:
                other = Query(ledger)
                for step in range(1, rounds):
                    ledger.submit(parse_submissions({"events": handed_over(step)}), actor="other")
                    other.moment()
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    last = 0
    asked = 0
    record = read_record({"key_id": "k1", "handling": {"stored": True}}, NOON + HOUR)
    while writer.is_alive() or asked < 3:
        choices: list[KnownAt] = [None, IN_FORCE, NOON + asked]
        decision = bench.query.check(record, choices[asked % 3])
        asked += 1
        assert decision.outcome.verdict == "compliant"
        assert decision.as_of.position >= last
        last = decision.as_of.position
    writer.join()
    assert failures == []
    final = bench.query.check(record)
    assert final.as_of.position == bench.ledger.head().position
    assert final.outcome.governed_by.subject == "org:a"


# Everything at once, against the reference.


GOVERNORS = ["account:u1", "account:u2", "org:acme", "org:beta"]


def _grown(bench: Bench, chance: random.Random, steps: range) -> None:
    """A ledger in which everything happens within a few microseconds, one submission every two."""
    retractable: list[str] = []
    for step in steps:
        events = []
        for _ in range(chance.randint(1, 4)):
            if retractable and chance.random() < 0.07:
                events.append(retracted(retractable.pop(chance.randrange(len(retractable)))))
            else:
                events.append(_said(chance, NOON + 2 * step))
        for event, receipt in zip(events, bench.submit(NOON + 2 * step, *events), strict=True):
            if event["type"] in ("setting.changed", "setting.cleared"):
                retractable.append(receipt.event_id)


def _said(chance: random.Random, now: int) -> Json:
    start = None if chance.random() < 0.5 else NOON + chance.randint(-5, 75)
    until = None if chance.random() < 0.7 else (now if start is None else start) + chance.randint(4, 12)
    setting = chance.choice([TRAINING, STORAGE, CACHING])
    kind = chance.random()
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


@pytest.mark.parametrize("seed", range(3))
def test_any_question_about_any_ledger_gets_the_references_answer(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    # In small stages, so that what was kept from one is stale in the next.
    for steps in (range(12), *(range(first, first + 2) for first in range(12, 32, 2))):
        _grown(bench, chance, steps)
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
            told = reference.told(subject, setting, at, at if known_at == IN_FORCE else known_at)
            if state is None:
                assert told.source == "undefined"
            else:
                assert (state.value, state.source) == (told.value, told.source)
                assert state.newest is not None
                assert state.newest.position == told.position


def _assert_check(query: Query, reference: Reference, chance: random.Random, at: int, known_at: KnownAt) -> None:
    record: Json = {"handling": {"stored": chance.random() < 0.5, "trained": chance.random() < 0.5, "cached": True}}
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


def test_an_answer_claims_to_know_nothing_beyond_the_present(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    later = NOON + HOUR
    record = read_record({"org_id": "acme", "at": format_time(later)}, now=0)
    assert bench.query.check(record).as_of[:2] == (later, NOON)
    assert bench.query.check(record, later).as_of.known_at == NOON
    assert bench.query.state("org:acme", at=NOON, known_at=later).known_at == NOON
    assert bench.query.timeline("org:acme", known_at=later).known_at == NOON
    assert bench.query.diff("org:acme", start=BEGUN, end=later, known_at=later).known_at == NOON
    assert bench.query.catalog(at=later, known_at=IN_FORCE).known_at == NOON


def test_a_pinned_answer_claims_to_know_nothing_that_was_recorded_since(bench: Bench) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    pinned = PinnedQuery(bench.query)
    bench.submit(NOON + HOUR, changed("org:acme", STORAGE, False))
    bench.clock.now_us = NOON + 2 * HOUR
    decision = pinned.check(read_record({"org_id": "acme", "at": format_time(NOON)}, now=0), None)
    assert decision.outcome.handling.may_store
    assert decision.as_of.known_at == NOON


def test_timelines_kept_in_memory_follow_the_events_as_the_stored_ones_do(bench: Bench) -> None:
    past = History(bench.ledger, bench.clock, seed=11)
    for _ in range(40):
        past.go_on(2)
        kept, stored = bench.query.moment(), Query(bench.ledger).moment()
        for subject in (*SUBJECTS, CATALOG_SUBJECT):
            found = kept.history(subject)
            for setting, timelines in stored.history(subject).items():
                assert found[setting] == timelines, (subject, setting)
            for setting in found.keys() - stored.history(subject).keys():
                assert found[setting] == NOTHING, "of which everything was taken back"


def test_settings_with_and_without_a_course_are_answered_alike(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    past = History(bench.ledger, bench.clock, seed=12)
    past.go_on(80)
    last = bench.clock.now_us
    records = [
        read_record({"org_id": "acme", "account_id": None, "at": format_time(at), "handling": {"trained": True}}, now=0)
        for at in range(BEGUN, last + HOUR, max(1, (last - BEGUN) // 50))
    ]
    expected = bench.query.check_all(records)
    monkeypatch.setattr("projections.view.COURSE_STEPS_MAX", 0)
    assert Query(bench.ledger).check_all(records) == expected


def test_what_was_half_learned_when_the_database_failed_is_not_learned_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In force, a value must not show before the submission that brought it, which learning it again would do."""
    bench.submit(NOON, changed("org:a", STORAGE, False, NOON - HOUR))
    assert bench.query.state("org:a", at=NOON).settings[STORAGE].value is False
    bench.submit(NOON + 10, changed("org:a", STORAGE, True, NOON - HOUR))
    bench.submit(NOON + 20, changed("org:a", STORAGE, False, NOON + 15))
    bench.submit(NOON + 30, changed("org:b", STORAGE, True, NOON))
    page = bench.ledger.page
    asked: list[int] = []

    def page_that_fails_once(after: int, limit: int = 1000, until: int | None = None) -> list[Entry]:
        if until is None:
            return page(after, limit)
        asked.append(after)
        if len(asked) == 3:
            raise LedgerUnavailable("the database is gone")
        return page(after, 1, until)

    monkeypatch.setattr(bench.ledger, "page", page_that_fails_once)
    with pytest.raises(LedgerUnavailable):
        bench.query.state("org:a", at=NOON + 15, known_at=IN_FORCE)
    for query in (bench.query, Query(bench.ledger)):
        for at, value in ((NOON + 9, False), (NOON + 10, True), (NOON + 19, True), (NOON + 20, False)):
            assert query.state("org:a", at=at, known_at=IN_FORCE).settings[STORAGE].value is value
    assert len(asked) >= 3
