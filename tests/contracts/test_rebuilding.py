"""Timelines made anew equal the live ones, and replace them where these were harmed."""

import pytest

from ledger.clock import ManualClock
from ledger.store import Ledger
from projections.runner import Runner
from projections.timelines import TimelineStore
from projections.timelines.contract import REBUILD, NotThere
from tests.support.histories import History, alter, assert_right, stored


@pytest.mark.parametrize("seed", [1, 2])
def test_a_rebuild_equals_the_live_timelines_byte_for_byte(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, seed: int
) -> None:
    history, runner = History(ledger, clock, seed), Runner(ledger, store, page_events=9)
    for _ in range(10):
        history.go_on(8)
        runner.catch_up()
    live = stored(store)
    head = ledger.head().position
    reached: list[tuple[int, int]] = []
    rebuilt = runner.rebuild(progress=lambda position, of: reached.append((position, of)))
    assert (rebuilt.position, rebuilt.events, rebuilt.subjects) == (head, head, len(live[2]))
    assert (rebuilt.live_equal, rebuilt.differences, rebuilt.swapped) == (True, (), True)
    assert reached[-1] == (head, head)
    assert stored(store) == live
    with pytest.raises(NotThere):
        stored(store, REBUILD)
    assert runner.rebuild().live_equal
    history.go_on(5)
    runner.catch_up()
    assert_right(ledger, store)


def test_a_check_leaves_everything_as_it_was(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    History(ledger, clock, seed=4).go_on(30)
    runner = Runner(ledger, store)
    runner.catch_up()
    before = stored(store)
    checked = runner.rebuild(check_only=True)
    assert (checked.live_equal, checked.swapped) == (True, False)
    assert stored(store) == before
    with pytest.raises(NotThere):
        stored(store, REBUILD)


def test_a_row_that_was_tampered_with_is_reported_and_mended(
    ledger: Ledger, clock: ManualClock, store: TimelineStore
) -> None:
    History(ledger, clock, seed=6).go_on(40)
    runner = Runner(ledger, store)
    runner.catch_up()
    right = stored(store)
    row = next(row for row in right[1] if row.subject == "org:acme" and row.axis == "in_force")
    harm = "UPDATE {timelines_steps} SET until_us = ? WHERE subject = ? AND setting = ? AND axis = ? AND start_us = ?"
    alter(ledger, harm, row.until - 1, *row[:4])
    harmed = stored(store)
    for check_only in (True, False):
        (difference,) = (found := runner.rebuild(check_only=check_only)).differences
        assert not found.live_equal
        assert difference == (row.subject, row.setting, row.axis, row._replace(until=row.until - 1), row)
        assert stored(store) == (harmed if check_only else right)
    assert runner.rebuild().live_equal


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        ("DELETE FROM {timelines_steps} WHERE subject = 'org:acme'", "org:acme"),
        ("UPDATE {timelines_steps} SET change = 'x' WHERE subject = 'org:acme'", "org:acme"),
        ("INSERT INTO {timelines_steps} VALUES ('org:none', 's', 'current', 1, 2, 3, 'x')", "org:none"),
        ("UPDATE {timelines_subjects} SET position = 999999 WHERE subject = 'org:acme'", "org:acme"),
        ("DELETE FROM {timelines_subjects} WHERE subject = 'org:acme'", "org:acme"),
        ("INSERT INTO {timelines_subjects} VALUES ('org:none', 1, 1)", "org:none"),
    ],
)
def test_every_kind_of_harm_is_found_although_events_go_on(
    ledger: Ledger, clock: ManualClock, store: TimelineStore, harm: str, found: str
) -> None:
    history, runner = History(ledger, clock, seed=8), Runner(ledger, store)
    history.go_on(30)
    runner.catch_up()
    alter(ledger, harm)
    history.go_on(3)
    rebuilt = runner.rebuild()
    assert not rebuilt.live_equal
    assert {difference.subject for difference in rebuilt.differences} >= {found}
    assert len(rebuilt.differences) <= 10
    assert_right(ledger, store)
    assert runner.rebuild().live_equal


def test_timelines_of_another_format_are_replaced(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    History(ledger, clock, seed=2).go_on(10)
    runner = Runner(ledger, store)
    runner.catch_up()
    right = stored(store)
    alter(ledger, "UPDATE {timelines_tracking} SET name = 'steps.v0'")
    rebuilt = runner.rebuild()
    assert (rebuilt.live_equal, rebuilt.differences, rebuilt.swapped) == (False, (), True)
    assert stored(store) == right
