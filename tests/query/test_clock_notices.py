"""Answers about the stretch of a clock that was ahead say that they rest on it, and no other answer does."""

import json
from typing import Any

import pytest

from api.responses import catalog_json, diff_json, history_json, state_json, timeline_json
from ledger.diagnosis import acknowledge_clock, acknowledge_head
from ledger.times import DAY, SECOND, format_time
from projections.decisions.encoding import decision_bytes
from projections.decisions.model import RequestRecord, decision_json
from projections.query.decide import decide_from_memory
from projections.query.history import history
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery, Query
from projections.temporal.coordinates import clock_notice_json
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.support.going_back import delete_tail
from tests.support.ledgers import GENESIS, NOW, OPERATOR, change, open_with_clock, submit

YEAR = 365 * DAY


def notice_of_answers(query: Query, at: int, known_at: KnownAt = IN_FORCE) -> Any:
    """The notice of every kind of answer at these coordinates, which all give the same one."""
    record = RequestRecord(at, org_id="acme", model_id="a/b")
    decision = query.check(record, known_at)
    document = decision_json(decision)
    assert json.loads(decision_bytes(decision)) == document
    notices = [document["as_of"].get("clock_notice")]
    if known_at == IN_FORCE:
        from_memory = decide_from_memory([record], query.context())
        assert from_memory is not None
        assert decision_json(from_memory[0]) == document
    notices.append(state_json(query.state("org:acme", at=at, known_at=known_at)).get("clock_notice"))
    notices.append(catalog_json(at, query.catalog(at=at, known_at=known_at)).get("clock_notice"))
    notices.append(
        diff_json("org:acme", at, at, query.diff("org:acme", start=at, end=at, known_at=known_at)).get("clock_notice")
    )
    swept = query.snapshot(at=at, known_at=known_at).clock_notice
    notices.append(None if swept is None else clock_notice_json(swept))
    if isinstance(known_at, int):
        notices.append(timeline_json(query.timeline("org:acme", known_at=known_at)).get("clock_notice"))
    assert notices.count(notices[0]) == len(notices)
    return notices[0]


def test_the_stretch_lasts_from_the_last_right_event_to_the_clock_that_was_left_behind(database_url: str) -> None:
    ledger, clock = open_with_clock(database_url)
    with ledger:
        query = Query(ledger)
        (right,) = submit(ledger, change())
        assert notice_of_answers(query, right.recorded_at) is None
        clock.now_us = NOW + YEAR
        (poisoned,) = submit(ledger, change(value=False))
        # Until somebody acknowledges it, or the clock has caught up to the bound, the notice names no event.
        clock.now_us = poisoned.recorded_at - 60 * SECOND
        assert notice_of_answers(query, right.recorded_at + 1) is None
        clock.now_us -= 1
        doubt: dict[str, object] = {
            "from": format_time(right.recorded_at + 1),
            "until": format_time(poisoned.recorded_at + 1),
        }
        assert notice_of_answers(query, right.recorded_at + 1) == {**doubt, "acknowledged_at_position": None}
        clock.now_us = NOW + DAY
        for instant, notice in [
            (right.recorded_at, None),
            (right.recorded_at + 1, {**doubt, "acknowledged_at_position": None}),
            (NOW + DAY, {**doubt, "acknowledged_at_position": None}),
            (poisoned.recorded_at, {**doubt, "acknowledged_at_position": None}),
        ]:
            assert notice_of_answers(query, instant) == notice, format_time(instant)
            assert notice_of_answers(PinnedQuery(query), instant) == notice
        acknowledgement = acknowledge_clock(ledger, "node 3 was a year ahead", OPERATOR)
        (last,) = submit(ledger, change(value=True))
        start, until = right.recorded_at + 1, last.recorded_at + 1
        assert poisoned.recorded_at < acknowledgement.recorded_at < last.recorded_at
        expected = {
            "from": format_time(start),
            "until": format_time(until),
            "acknowledged_at_position": acknowledgement.position,
        }
        # A time to come is known at the head at most, and that is within the stretch until the clock has caught up.
        for instant, notice in [(start - 1, None), (start, expected), (NOW + DAY, expected), (until - 1, expected)]:
            assert notice_of_answers(query, instant) == notice, format_time(instant)
        assert notice_of_answers(PinnedQuery(query), start) == expected
        assert notice_of_answers(Query(ledger), start) == expected
        # One coordinate within the stretch is enough.
        assert notice_of_answers(query, NOW - DAY, known_at=start) == expected
        assert notice_of_answers(query, NOW - DAY, known_at=NOW - 1) is None
        in_force = timeline_json(query.timeline("org:acme", known_at=IN_FORCE))
        assert in_force["clock_notice"] == expected
        # The clock has caught up: the stretch ends, and stays where it was.
        clock.now_us = NOW + 2 * YEAR
        submit(ledger, change(value=False))
        assert notice_of_answers(query, NOW + 2 * YEAR) is None
        assert notice_of_answers(query, start)["until"] == format_time(poisoned.recorded_at + 1)
        assert notice_of_answers(query, poisoned.recorded_at + 1) is None


@pytest.mark.parametrize("more", [0, 5])
def test_a_running_query_forgets_the_lost_tail_once_its_loss_is_acknowledged(database_url: str, more: int) -> None:
    """Its memory holds answers of positions that other events take from then on."""
    ledger, clock = open_with_clock(database_url)
    with ledger:
        query = Query(ledger)
        for value in (True, False, True, False):
            clock.now_us += 1000
            submit(ledger, change(value=value))
        record = RequestRecord(NOW + DAY, org_id="acme", model_id="a/b")
        before = query.check(record)
        assert before.as_of.position == GENESIS + 4
        delete_tail(database_url, GENESIS + 1)
        operator, _ = open_with_clock(database_url, clock.now_us)
        with operator:
            acknowledge_head(operator, "the tail is lost", OPERATOR)
            # As inforce doctor does.
            rebuild(Projector(operator, open_timelines(operator)))
            for _ in range(more):
                submit(operator, change("org:other"))
        clock.now_us += 1000
        state = query.state("org:acme", at=NOW + DAY)
        assert state.position == GENESIS + 3 + more
        assert state.settings["training.opt_in"].value is True
        assert query.check(record).as_of.position == GENESIS + 3 + more
        assert ledger.follower.position <= GENESIS + 3 + more


def test_a_difference_and_a_history_say_which_of_their_instants_rest_on_the_clock(database_url: str) -> None:
    ledger, clock = open_with_clock(database_url)
    with ledger:
        query = Query(ledger)
        (right,) = submit(ledger, change())
        clock.now_us = NOW + YEAR
        (poisoned,) = submit(ledger, change(value=False))
        clock.now_us = NOW + DAY
        assert history_json(history(ledger, "org:acme"))["clock_notice"]["acknowledged_at_position"] is None
        acknowledge_clock(ledger, "node 3 was a year ahead", OPERATOR)
        start, until = right.recorded_at + 1, poisoned.recorded_at + 1
        clock.now_us = NOW + 2 * YEAR
        submit(ledger, change("org:other"))

        def of_diff(first: int, last: int, known_at: KnownAt = IN_FORCE) -> bool:
            answer = query.diff("org:acme", start=first, end=last, known_at=known_at)
            return "clock_notice" in diff_json("org:acme", first, last, answer)

        for first, last, expected in [
            (start - 1, until, False),
            (start, until, True),
            (start - 1, until - 1, True),
            (until, start, True),
        ]:
            assert of_diff(first, last) is expected, (first, last)
        assert of_diff(start - 1, until, known_at=start)
        assert not of_diff(start - 1, until, known_at=until)
        # A page says so only if an event of its own was recorded then.
        newest = history_json(history(ledger, "org:acme", limit=1))
        assert newest["clock_notice"]["until"] == format_time(until)
        older = history(ledger, "org:acme", limit=1, after=poisoned.version)
        assert [row.entry.position for row in older.rows] == [right.position]
        assert older.clock_notice is None
