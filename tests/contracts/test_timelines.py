"""The contract of stored timelines: the same suite on SQLite and on a real PostgreSQL."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.clock import ManualClock
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.recorders.sqlite import SQLiteLedgerRecorder
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING, END
from projections.timelines.contract import (
    FORMAT,
    LIVE,
    OLD,
    REBUILD,
    Axis,
    DamagedRows,
    NotStored,
    OtherFormat,
    TablesMissing,
)
from projections.timelines.projector import Projector
from projections.timelines.store import TimelineStore, open_timelines
from tests.support.ledgers import NOW, change, submit
from tests.support.random_history import RandomHistory, alter, assert_timelines, expected_timelines, stored_timelines


@pytest.fixture
def history(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> RandomHistory:
    history = RandomHistory(ledger, clock, seed=7)
    history.extend(60)
    Projector(ledger, store).catch_up()
    return history


# Making the tables


def test_new_timelines_are_empty_and_at_position_0(store: TimelineStore) -> None:
    assert stored_timelines(store) == (0, [], [])
    assert store.subject("org:acme") == (0, {})


def test_opening_again_keeps_what_is_stored(ledger: Ledger, store: TimelineStore, history: RandomHistory) -> None:
    assert stored_timelines(open_timelines(ledger)) == stored_timelines(store)


def test_several_processes_may_open_at_the_same_time(database_url: str, ledger: Ledger) -> None:
    start = threading.Barrier(6)

    def tracked(_: int) -> int:
        with open_ledger(database_url, clock=ledger.clock) as another:
            start.wait()
            return open_timelines(another).tracked()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(tracked, range(6))) == [0] * 6


def test_a_read_only_ledger_without_timelines_has_empty_ones_that_cannot_be_written(
    ledger: Ledger, database_url: str
) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("PostgreSQL's roles decide who may write, not the URL")
    with open_ledger(database_url + "?mode=ro") as reader:
        store = open_timelines(reader)
        assert store.tracked() == 0
        with (
            pytest.raises(LedgerUnavailable, match=r"no stored timelines yet, and none can be made: .*read-only"),
            store.writing(LIVE),
        ):
            pass


def test_a_read_only_ledger_with_timelines_can_be_asked(
    ledger: Ledger, database_url: str, store: TimelineStore, history: RandomHistory
) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("PostgreSQL's roles decide who may write, not the URL")
    with open_ledger(database_url + "?mode=ro") as reader:
        timelines = open_timelines(reader)
        assert timelines.subject("org:acme") == store.subject("org:acme")
        assert Projector(reader, timelines).catch_up() == ledger.head().position
        submit(ledger, change())
        with pytest.raises(LedgerUnavailable, match="read-only"):
            Projector(reader, timelines).catch_up()


def test_dropped_timelines_are_an_error_and_are_made_again(ledger: Ledger, store: TimelineStore) -> None:
    with store.writing(LIVE) as tables:
        tables.drop(LIVE)
        assert not tables.exists(LIVE)
    with pytest.raises(TablesMissing, match="run inforce rebuild"):
        store.subject("org:acme")
    assert open_timelines(ledger).tracked() == 0


def test_half_a_set_of_tables_is_made_whole(ledger: Ledger, store: TimelineStore) -> None:
    alter(ledger, "DROP TABLE {timelines_blocks}")
    with store.writing(LIVE) as tables:
        tables.create(LIVE)
    assert stored_timelines(store) == (0, [], [])


@pytest.mark.parametrize("name", ["steps.v0", "subjects.v2"])
def test_rows_of_another_format_are_never_read(
    ledger: Ledger, store: TimelineStore, history: RandomHistory, name: str
) -> None:
    """`subjects.v2` has the same shape, but was folded by an earlier law of time."""
    alter(ledger, f"UPDATE {{timelines_tracking}} SET name = '{name}' WHERE name = ?", FORMAT)
    with pytest.raises(OtherFormat, match="another version of inforce"):
        store.subject("org:acme")
    with pytest.raises(NotStored):
        Projector(ledger, store).catch_up()


def as_version_1_left_them(ledger: Ledger) -> None:
    """The live tables in the format of the first release, up to date with the ledger."""
    for table in ("subjects", "blocks", "tracking"):
        alter(ledger, f"DROP TABLE {{timelines_{table}}}")
    alter(
        ledger,
        "CREATE TABLE {timelines_steps} (subject TEXT NOT NULL, setting TEXT NOT NULL, axis TEXT NOT NULL,"
        " start_us BIGINT NOT NULL, until_us BIGINT NOT NULL, position BIGINT NOT NULL, change TEXT NOT NULL,"
        " PRIMARY KEY (subject, setting, axis, start_us))",
    )
    alter(
        ledger,
        "CREATE TABLE {timelines_subjects} (subject TEXT PRIMARY KEY, version BIGINT NOT NULL,"
        " position BIGINT NOT NULL)",
    )
    alter(ledger, "CREATE TABLE {timelines_tracking} (name TEXT PRIMARY KEY, position BIGINT NOT NULL)")
    for number in range(3):
        alter(ledger, "INSERT INTO {timelines_subjects} VALUES (?, 1, 1)", f"org:o{number}")
    alter(ledger, "INSERT INTO {timelines_steps} VALUES ('org:o1', 'training.opt_in', 'current', 1, 2, 3, '[]')")
    alter(ledger, "INSERT INTO {timelines_tracking} VALUES ('steps.v1', ?)", ledger.head().position)


def as_format_2_left_them(ledger: Ledger) -> None:
    """The same tables, folded by an earlier law of time: here without any subject."""
    alter(ledger, "DELETE FROM {timelines_tracking} WHERE name <> ?", FORMAT)
    alter(ledger, "UPDATE {timelines_tracking} SET name = 'subjects.v2'")
    alter(ledger, "DELETE FROM {timelines_subjects}")
    for table in ("subjects", "blocks", "tracking"):
        alter(ledger, f"ALTER TABLE {{timelines_{table}}} DROP COLUMN checksum")


@pytest.mark.parametrize("left", [as_version_1_left_them, as_format_2_left_them])
def test_timelines_of_an_older_format_are_made_anew_by_any_process_that_may_write(
    ledger: Ledger, database_url: str, store: TimelineStore, history: RandomHistory, left: Callable[[Ledger], None]
) -> None:
    right = stored_timelines(store)
    left(ledger)
    if database_url.startswith("sqlite"):
        with open_ledger(database_url + "?mode=ro") as reader:
            store_of_reader = open_timelines(reader)
            assert store_of_reader.tracked() == 0
            with (
                pytest.raises(LedgerUnavailable, match=r"has those of another version, and none can be made: .*read-"),
                store_of_reader.writing(LIVE),
            ):
                pass
    again = open_timelines(ledger)
    assert again.tracked() == 0
    Projector(ledger, again).catch_up()
    assert stored_timelines(again) == right
    assert_timelines(ledger, again)
    with again.writing(OLD) as tables:
        assert not tables.exists(OLD)


def test_replaced_tables_are_cleared_in_small_pieces(
    ledger: Ledger, store: TimelineStore, history: RandomHistory
) -> None:
    if not isinstance(ledger.recorder, SQLiteLedgerRecorder):
        pytest.skip("PostgreSQL takes a table away at once")
    with store.writing(LIVE, OLD) as tables:
        tables.set_aside(LIVE)
        tables.create(LIVE)
    pieces = 0
    while True:
        with store.writing(OLD) as tables:
            if tables.clear_old(2):
                break
        pieces += 1
    assert pieces > 2
    assert stored_timelines(store) == (0, [], [])


# Reading


def test_stored_timelines_are_those_of_the_stream(ledger: Ledger, store: TimelineStore, history: RandomHistory) -> None:
    folded = expected_timelines(ledger)
    position, by_subject = store.timelines([*folded, "account:nobody"])
    assert position == ledger.head().position
    assert by_subject == folded
    for subject, timelines in folded.items():
        assert store.subject(subject) == (position, timelines)


def test_a_setting_without_any_step_is_absent(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    (receipt,) = submit(ledger, change(effective_from="2030-01-01T00:00:00Z"))
    clock.now_us += 1
    submit(ledger, {"type": "change.retracted", "event_id": receipt.event_id})
    Projector(ledger, store).catch_up()
    position, timelines = store.subject("org:acme")
    assert (position, timelines) == (receipt.position + 1, {})
    assert store.subjects(kind="org")[1].rows == [("org:acme", 2, position)]


@pytest.mark.parametrize("axis", ["current", "in_force"])
def test_changes_at_an_instant_are_every_timeline_read_there(
    ledger: Ledger, store: TimelineStore, history: RandomHistory, axis: Axis
) -> None:
    folded = expected_timelines(ledger)
    boundaries = {
        start
        for settings in folded.values()
        for both in settings.values()
        for start in getattr(both, axis).starts
        if start > BEGINNING
    }
    instants = {instant + step for instant in boundaries for step in (-1, 0, 1)} | {BEGINNING, END - 1}
    for at in sorted(instants):
        held = [
            (subject, setting, change)
            for subject, settings in folded.items()
            for setting, both in sorted(settings.items())
            if (change := getattr(both, axis).at(at)) is not None
        ]
        with store.changes_at(axis, at) as (position, changes):
            assert position == ledger.head().position
            assert list(changes) == held
        with store.changes_at(axis, at, kind="account") as (_, changes):
            assert list(changes) == [one for one in held if one[0].startswith("account:")]


def test_a_clear_is_among_the_changes_at_an_instant(ledger: Ledger, clock: ManualClock, store: TimelineStore) -> None:
    submit(ledger, {"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in"})
    Projector(ledger, store).catch_up()
    with store.changes_at("in_force", clock.now_us + 10, kind="org") as (_, changes):
        ((subject, setting, change),) = changes
    assert (subject, setting, change.value, change.event_id == "") == ("org:acme", "training.opt_in", None, False)


def test_changes_read_after_their_transaction_are_refused_not_cut_short(
    store: TimelineStore, history: RandomHistory
) -> None:
    with store.changes_at("current", NOW) as (_, changes):
        rest = iter(changes)
        next(rest)
    with pytest.raises(Exception, match="closed"):
        list(rest)


def test_a_kind_outside_the_grammar_has_no_changes(store: TimelineStore, history: RandomHistory) -> None:
    with store.changes_at("current", NOW, kind="acc\x00unt") as (_, changes):
        assert list(changes) == []


def test_subjects_come_in_the_order_of_their_bytes(
    ledger: Ledger, store: TimelineStore, history: RandomHistory
) -> None:
    position, (rows, damaged) = store.subjects()
    assert not damaged
    entries = ledger.page(0, 1_000_000)
    assert position == entries[-1].position
    assert rows == sorted({entry.subject: (entry.subject, entry.version, entry.position) for entry in entries}.values())
    names = [row.subject for row in rows]
    assert names.index("account:U3") < names.index("account:_") < names.index("account:u1")
    assert CATALOG_SUBJECT in names


def test_subjects_can_be_paged_by_kind_and_prefix(store: TimelineStore, history: RandomHistory) -> None:
    names = [row.subject for row in store.subjects()[1].rows]
    for limit in (1, 2, 3):
        paged: list[str] = []
        while page := store.subjects(after=paged[-1] if paged else None, limit=limit)[1].rows:
            assert len(page) <= limit
            paged += [row.subject for row in page]
        assert paged == names

    def listed(**among: Any) -> list[str]:
        return [row.subject for row in store.subjects(**among)[1].rows]

    for kind in ("account", "org", "acc", "model"):
        assert listed(kind=kind) == [n for n in names if n.startswith(f"{kind}:")]
    for prefix in ("account:u", "a", "org:acme", "z"):
        assert listed(prefix=prefix) == [n for n in names if n.startswith(prefix)]
    assert listed(kind="account", prefix="account:u", after="account:u1") == ["account:u2"]
    assert store.subjects(kind="org", prefix="account:")[1].rows == []
    assert store.subjects(prefix="account:\x00")[1].rows == store.subjects(prefix="account:\udc80")[1].rows == []


def test_everything_read_in_one_transaction_is_of_one_moment(
    ledger: Ledger, store: TimelineStore, history: RandomHistory
) -> None:
    with store.reading() as tables:
        position = tables.tracked()
        history.extend(20)
        assert Projector(ledger, store).catch_up() > position
        assert tables.tracked() == position
        before = tables.timelines(["account:u1", "org:acme"])
        rows = list(tables.rows())
        assert max(row.position for row in rows) == position
    assert store.timelines(["account:u1", "org:acme"])[1] != before


def test_two_streams_of_rows_can_be_read_side_by_side(store: TimelineStore, history: RandomHistory) -> None:
    with store.reading() as tables:
        assert all(one == other for one, other in zip(tables.rows(), tables.rows(), strict=True))


@pytest.mark.parametrize(
    "harm",
    [
        b"not msgpack",
        msgspec.msgpack.encode({"training.opt_in": "no steps"}),
        # Steps that do not start at BEGINNING, go backwards, differ in number from their changes, or are none.
        msgspec.msgpack.encode({"training.opt_in": [[0, [5], [None]], None]}),
        msgspec.msgpack.encode({"training.opt_in": [[0, [BEGINNING, 9, 5], [None, None, None]], None]}),
        msgspec.msgpack.encode({"training.opt_in": [[0, [BEGINNING], [None, None]], None]}),
        msgspec.msgpack.encode({"training.opt_in": [[0, [], []], None]}),
        # An index beyond the current changes, and a missing block.
        msgspec.msgpack.encode({"training.opt_in": [[0, [BEGINNING], [None]], [0, [BEGINNING], [7]]]}),
        msgspec.msgpack.encode({"training.opt_in": [[1, [5], [None]], None]}),
    ],
)
def test_rows_that_make_no_timeline_are_refused(
    ledger: Ledger, store: TimelineStore, history: RandomHistory, harm: bytes
) -> None:
    with store.writing(LIVE) as tables:
        row, _ = tables.stored(LIVE, "org:acme")
        assert row is not None
        # With its checksum.
        tables.replace(LIVE, "org:acme", row._replace(settings=harm, block_sum=0), [])
    with pytest.raises(DamagedRows, match="the stored timelines of 1 subjects cannot be right; run inforce rebuild"):
        store.subject("org:acme")


# The side of a rebuild


def test_reading_a_missing_side_raises(store: TimelineStore) -> None:
    with pytest.raises(TablesMissing), store.reading(REBUILD) as tables:
        tables.tracked(REBUILD)
    with pytest.raises(TablesMissing), store.writing(REBUILD) as tables:
        tables.tracked(REBUILD)


def test_a_transaction_that_fails_writes_nothing(store: TimelineStore, history: RandomHistory) -> None:
    before = stored_timelines(store)

    def swap_and_fail() -> None:
        with store.writing(LIVE, REBUILD) as tables:
            tables.drop(REBUILD)
            tables.create(REBUILD)
            tables.swap()
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        swap_and_fail()
    assert stored_timelines(store) == before


def test_the_subjects_that_differ_are_found(ledger: Ledger, store: TimelineStore, history: RandomHistory) -> None:
    _, rows, _ = stored_timelines(store)
    names = [row.subject for row in rows]
    with store.writing(LIVE, REBUILD) as tables:
        tables.create(REBUILD)
        assert tables.differing(3) == names[:3]
        assert tables.differing(100_000) == names
        assert tables.differing(100_000, among=["org:acme", "org:beta"], but=["org:beta"]) == ["org:acme"]
        assert tables.differing(100_000, among=[]) == []


def test_sqlite_users_need_no_psycopg(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from ledger.opening import open_ledger\n"
        "from projections.timelines.store import open_timelines\n"
        "with open_ledger(sys.argv[1], create=True) as ledger:\n"
        "    assert open_timelines(ledger).tracked() == 0\n"
    )
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{tmp_path}/ledger.db"], check=True)
