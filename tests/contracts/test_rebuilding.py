"""Rebuilt timelines equal the live ones, and replace damaged ones."""

import msgspec
import pytest

from ledger.clock import ManualClock
from ledger.store import Ledger
from projections.timelines.contract import FORMAT, LIVE, REBUILD, TablesMissing
from projections.timelines.encoding import BLOCK_STEPS
from projections.timelines.projector import Projector
from projections.timelines.rebuild.differences import StepRow, Unlike
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import TimelineStore
from tests.support.ledgers import change, submit
from tests.support.random_history import RandomHistory, alter, assert_timelines, stored_timelines


@pytest.mark.parametrize("seed", [1, 2])
def test_a_rebuild_equals_the_live_timelines_byte_for_byte(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, seed: int
) -> None:
    history, projector = RandomHistory(ledger, clock, seed), Projector(ledger, store, page_events=9)
    for _ in range(10):
        history.extend(8)
        projector.catch_up()
    live = stored_timelines(store)
    head = ledger.head().position
    reached: list[tuple[int, int]] = []
    rebuilt = rebuild(projector, progress=lambda position, of: reached.append((position, of)))
    assert (rebuilt.position, rebuilt.events, rebuilt.subjects) == (head, head, len(live[1]))
    assert (rebuilt.live_equal, rebuilt.differences, rebuilt.swapped) == (True, (), True)
    assert reached[-1] == (head, head)
    assert stored_timelines(store) == live
    with pytest.raises(TablesMissing):
        stored_timelines(store, REBUILD)
    assert rebuild(projector).live_equal
    history.extend(5)
    projector.catch_up()
    assert_timelines(ledger, store)


def test_a_check_leaves_everything_as_it_was(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    RandomHistory(ledger, clock, seed=4).extend(30)
    projector = Projector(ledger, store)
    projector.catch_up()
    before = stored_timelines(store)
    checked = rebuild(projector, check_only=True)
    assert (checked.live_equal, checked.swapped) == (True, False)
    assert stored_timelines(store) == before
    with pytest.raises(TablesMissing):
        stored_timelines(store, REBUILD)


def test_a_row_that_was_tampered_with_is_reported_and_repaired(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    (receipt,) = submit(ledger, change())
    clock.now_us += 5
    (second,) = submit(ledger, change(value=False))
    projector = Projector(ledger, store)
    projector.catch_up()
    right = stored_timelines(store)
    row = next(row for row in right[1] if row.subject == "org:acme")
    actor, other = b"operator:test", b"operator:evil"
    alter(
        ledger,
        "UPDATE {timelines_subjects} SET settings = ? WHERE subject = ?",
        row.settings.replace(actor, other),
        row.subject,
    )
    harmed = stored_timelines(store)
    for check_only in (True, False):
        result = rebuild(projector, check_only=check_only)
        assert not result.live_equal
        first = result.differences[0]
        assert isinstance(first.live, StepRow)
        assert isinstance(first.rebuilt, StepRow)
        assert (first.subject, first.setting, first.axis) == ("org:acme", "training.opt_in", "current")
        assert first.live == first.rebuilt._replace(change=first.rebuilt.change.replace(actor.decode(), other.decode()))
        assert (first.live.start, first.live.until) == (receipt.recorded_at, second.recorded_at)
        assert {one.axis for one in result.differences} == {"current", "in_force"}
        assert stored_timelines(store) == (harmed if check_only else right)
    assert rebuild(projector).live_equal


def test_the_same_steps_in_other_bytes_are_a_difference(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    submit(ledger, change())
    projector = Projector(ledger, store)
    projector.catch_up()
    settings = next(row.settings for row in stored_timelines(store)[1] if row.subject == "org:acme")
    blob = msgspec.msgpack.decode(settings)
    blob["training.opt_in"][1] = blob["training.opt_in"][0]
    with store.writing(LIVE) as tables:
        row, blocks = tables.stored(LIVE, "org:acme")
        assert row is not None
        tables.replace(LIVE, "org:acme", row._replace(settings=msgspec.msgpack.encode(blob)), blocks)
    assert_timelines(ledger, store)
    (result,) = rebuild(projector).differences
    assert (result.subject, result.live) == ("org:acme", Unlike("the same steps in other bytes"))


@pytest.mark.parametrize(
    ("damage", "subject"),
    [
        ("UPDATE {timelines_subjects} SET settings = ? WHERE subject = 'org:acme'", "org:acme"),
        (
            "INSERT INTO {timelines_blocks} (subject, setting, axis, number, start_us, until_us, steps, checksum)"
            " VALUES ('org:none', 's', 'current', 1, 2, 3, ?, 0)",
            "org:none",
        ),
        ("DELETE FROM {timelines_blocks} WHERE subject = 'org:long' AND ? IS NOT NULL", "org:long"),
        ("UPDATE {timelines_blocks} SET steps = ? WHERE subject = 'org:long' AND number = 0", "org:long"),
        ("UPDATE {timelines_subjects} SET position = 999999 WHERE subject = 'org:acme' AND ? IS NOT NULL", "org:acme"),
        ("DELETE FROM {timelines_subjects} WHERE subject = 'org:acme' AND ? IS NOT NULL", "org:acme"),
        (
            "INSERT INTO {timelines_subjects} (subject, version, position, settings, block_sum, checksum)"
            " VALUES ('org:none', 1, 1, ?, 0, 0)",
            "org:none",
        ),
    ],
)
def test_every_kind_of_damage_is_found_while_events_go_on(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, damage: str, subject: str
) -> None:
    history, projector = RandomHistory(ledger, clock, seed=8), Projector(ledger, store)
    history.extend(30)
    for number in range(BLOCK_STEPS + 5):
        clock.now_us += 1
        submit(ledger, change("org:long", value=number % 2 == 0))
    projector.catch_up()
    alter(ledger, damage, b"\x80")
    history.extend(3)
    rebuilt = rebuild(projector)
    assert not rebuilt.live_equal
    assert {difference.subject for difference in rebuilt.differences} >= {subject}
    assert len(rebuilt.differences) <= 10
    assert_timelines(ledger, store)
    assert rebuild(projector).live_equal


def test_timelines_of_another_format_are_replaced(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    RandomHistory(ledger, clock, seed=2).extend(10)
    projector = Projector(ledger, store)
    projector.catch_up()
    right = stored_timelines(store)
    alter(ledger, "UPDATE {timelines_tracking} SET name = 'steps.v0' WHERE name = ?", FORMAT)
    rebuilt = rebuild(projector)
    assert (rebuilt.live_equal, rebuilt.differences, rebuilt.swapped) == (False, (), True)
    assert stored_timelines(store) == right
