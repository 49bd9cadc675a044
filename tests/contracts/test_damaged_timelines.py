"""No answer is made from a row of the stored timelines that is not what was written: it is made from the events, and
the row is written anew. That goes for flipped bits, for deleted rows, and for older rows put back in their place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.query.query import Query
from projections.timelines.contract import FORMAT, LIVE, TrackingDamaged
from projections.timelines.encoding import BLOCK_STEPS
from projections.timelines.projector import Projector
from projections.timelines.store import TimelineStore, open_timelines
from tests.support.ledgers import change, submit
from tests.support.random_history import alter, assert_timelines, stored_timelines

LONG = "org:long"
SHORT = "org:acme"


@pytest.fixture
def ledger(ledger: Ledger, clock: ManualClock) -> Ledger:
    """`LONG` has blocks on both axes, because a change was backdated."""
    for number in range(2 * BLOCK_STEPS + 5):
        clock.now_us += 10
        submit(ledger, change(LONG, value=number % 2 == 0))
    clock.now_us += 10
    backdated = "2026-03-01T12:00:00.000500Z"
    submit(ledger, change(LONG, effective_from=backdated, effective_until=backdated[:-2] + "5Z", reason="late"))
    for value in (True, False, True):
        clock.now_us += 10
        submit(ledger, change(SHORT, value=value))
    submit(ledger, change("account:u1"))
    Projector(ledger, open_timelines(ledger)).catch_up()
    return ledger


def answers(ledger: Ledger) -> list[object]:
    """The answers of a new process."""
    query = Query(ledger)
    now = ledger.clock.now()
    given: list[object] = []
    for subject in (LONG, SHORT, "account:u1", "org:nobody"):
        try:
            for known_at in (None, "at"):
                given.append(query.state(subject, at=now - 700, known_at=known_at))
        except Exception as error:
            given.append(repr(error))
    for kind in ("org", None):
        given.append(query.subjects(kind=kind))
        given += [query.snapshot(at=now - before, kind=kind) for before in (0, 700)]
    given.append(query.subjects(kind="org", limit=1))
    return given


def older_row(ledger: Ledger, store: TimelineStore) -> None:
    """Puts the row of `SHORT` back as it was one event earlier, with its right checksum."""
    from projections.timelines.heal import folded_rows

    position = ledger.stream(SHORT)[-2].position
    row, blocks = folded_rows(ledger, SHORT, position)
    with store.writing(LIVE) as tables:
        tables.replace(LIVE, SHORT, row, blocks)


def older_block(ledger: Ledger, store: TimelineStore) -> None:
    """Puts another block in the place of one, with its right checksum."""
    with store.writing(LIVE) as tables:
        row, blocks = tables.stored(LIVE, LONG)
        assert row is not None
        tables.replace(LIVE, LONG, row, [blocks[0], *[block._replace(steps=blocks[0].steps) for block in blocks[1:]]])


def sql(statement: str, *parameters: object) -> Callable[[Ledger, TimelineStore], None]:
    return lambda ledger, _store: alter(ledger, statement, *parameters)


DAMAGE: dict[str, Callable[[Ledger, TimelineStore], None]] = {
    "a byte of a row": sql("UPDATE {timelines_subjects} SET settings = ? WHERE subject = ?", b"\x80", SHORT),
    "the subject of a row": sql("UPDATE {timelines_subjects} SET subject = 'org:acmd' WHERE subject = ?", SHORT),
    "the kind in a row": sql("UPDATE {timelines_subjects} SET subject = 'orh:acme' WHERE subject = ?", SHORT),
    "the version of a row": sql("UPDATE {timelines_subjects} SET version = version + 1 WHERE subject = ?", SHORT),
    "the position of a row": sql("UPDATE {timelines_subjects} SET position = position - 1 WHERE subject = ?", SHORT),
    "the checksum of a row": sql("UPDATE {timelines_subjects} SET checksum = checksum + 1 WHERE subject = ?", SHORT),
    "a deleted row": sql("DELETE FROM {timelines_subjects} WHERE subject = ?", SHORT),
    "all rows deleted": sql("DELETE FROM {timelines_subjects}"),
    "an older row": older_row,
    "a byte of a block": sql("UPDATE {timelines_blocks} SET steps = ? WHERE number = 0", b"\x80"),
    "the place of a block": sql("UPDATE {timelines_blocks} SET number = number + 100 WHERE number = 0"),
    "a deleted block": sql("DELETE FROM {timelines_blocks} WHERE number = 0 AND axis = 'in_force'"),
    "a deleted current block": sql("DELETE FROM {timelines_blocks} WHERE number = 0 AND axis = 'current'"),
    "all blocks deleted": sql("DELETE FROM {timelines_blocks}"),
    "another block": older_block,
    "the period of a block": sql("UPDATE {timelines_blocks} SET until_us = start_us + 1"),
    "a number of events": sql("UPDATE {timelines_tracking} SET position = position - 1 WHERE name = 'events org'"),
    "no number of events": sql("DELETE FROM {timelines_tracking} WHERE name = 'events org'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_answers_are_made_from_the_events_and_the_rows_written_anew(
    ledger: Ledger, store: TimelineStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, right = stored_timelines(store), answers(ledger)
    DAMAGE[damage](ledger, store)
    if "number of events" in damage:
        # It is a help to find missing rows, and none is.
        assert answers(ledger) == right
        return
    assert stored_timelines(store) != whole or damage == "the checksum of a row"
    with caplog.at_level(logging.WARNING):
        assert answers(ledger) == right
    assert "damaged" in caplog.text
    assert not any(name in caplog.text for name in ("acme", "acmd", "long"))
    _, rows, blocks = stored_timelines(store)
    assert {row for row in rows if row.subject in (LONG, SHORT)} == {
        row for row in whole[1] if row.subject in (LONG, SHORT)
    }
    if damage != "the place of a block":
        assert blocks == whole[2]


def test_a_projector_makes_a_damaged_row_anew_before_it_adds_to_it(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    for damage in ("a byte of a row", "a deleted row", "an older row"):
        DAMAGE[damage](ledger, store)
        clock.now_us += 10
        submit(ledger, change(SHORT))
        Projector(ledger, store).catch_up()
        assert_timelines(ledger, store)
    for damage in ("a byte of a block", "a deleted block", "another block"):
        DAMAGE[damage](ledger, store)
        clock.now_us += 10
        submit(ledger, change(LONG, effective_from="2026-03-01T12:00:00.000001Z", reason="late"))
        Projector(ledger, store).catch_up()
        assert_timelines(ledger, store)
    assert store.damaged_rows == 6


def test_a_damaged_position_makes_the_timelines_anew_at_the_next_opening(
    ledger: Ledger, store: TimelineStore, database_url: str
) -> None:
    whole = stored_timelines(store)
    alter(ledger, "UPDATE {timelines_tracking} SET position = position - 8 WHERE name = ?", FORMAT)
    with pytest.raises(TrackingDamaged):
        store.tracked()
    with open_ledger(database_url, clock=ledger.clock) as again:
        made = open_timelines(again)
        Projector(again, made).catch_up()
        assert stored_timelines(made) == whole


def test_damaged_rows_of_a_ledger_that_cannot_be_written_are_read_from_the_events(
    ledger: Ledger, store: TimelineStore, database_url: str
) -> None:
    right = answers(ledger)
    DAMAGE["a deleted row"](ledger, store)
    DAMAGE["a byte of a block"](ledger, store)
    harmed = stored_timelines(store)
    if not database_url.startswith("sqlite"):
        pytest.skip("a file")
    with open_ledger(f"{database_url}?mode=ro", clock=ledger.clock) as reader:
        assert answers(reader) == right
    assert stored_timelines(store) == harmed


def test_the_same_rows_have_the_same_checksums_whoever_wrote_them(ledger: Ledger, store: TimelineStore) -> None:
    def checksums() -> list[Any]:
        with store.reading() as tables:
            return [
                sorted(tables._engine.execute(f"SELECT * FROM {tables._engine.prefix}timelines_{table}"))
                for table in ("subjects", "blocks", "tracking")
            ]

    before = checksums()
    from projections.timelines.rebuild.rebuild import rebuild

    assert rebuild(Projector(ledger, store)).live_equal
    assert checksums() == before


def test_readyz_says_how_many_were_found(ledger: Ledger, store: TimelineStore) -> None:
    with TestClient(create_app(ledger, sign_in=False)) as client:
        assert client.get("/readyz").json()["damaged_timelines"] == 0
        DAMAGE["a byte of a row"](ledger, store)
        assert client.get(f"/v1/subjects/{SHORT}/state").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["damaged_timelines"]) == (200, 1)
