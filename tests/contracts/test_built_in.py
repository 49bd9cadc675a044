"""A ledger of an older inforce gets the built-in definitions that it never had when it is opened for writing."""

import io
import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from ledger.append import built_in, definitions
from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.recorders.contract import Entry
from ledger.transfer.export import export_lines
from ledger.transfer.import_ledger import import_ledger
from projections.audit.index.open import open_index
from projections.audit.index.reference import compile_by_fold
from projections.query.query import Query
from projections.temporal.coordinates import IN_FORCE
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.audit.index.canonical import assert_sound, canonical
from tests.support.command import run
from tests.support.ledgers import NOW, ORIGIN, change, define, definition, submit
from tests.support.programs import REPOSITORY, start_programs
from tests.support.waiting import GIVE_UP_S

NEW = ("training.opt_in", "model.revision", "attached_to")
"""Pretended to be new in this version: the first, one in the middle and the last."""
OLD = {setting: definition for setting, definition in BUILT_IN.items() if setting not in NEW}
HOUR = 3_600_000_000


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch, database_url: str) -> str:
    """The URL of a ledger that an inforce without the settings in `NEW` made."""
    with monkeypatch.context() as patch:
        patch.setattr(built_in, "BUILT_IN", OLD)
        with open_ledger(database_url, create=True, clock=ManualClock(NOW), origin=ORIGIN) as ledger:
            submit(ledger, {**change("org:acme", True), "setting": "storage.inputs_outputs"})
            assert set(ledger.catalog()._steps) == set(OLD)
    return database_url


def entries(url: str) -> list[Entry]:
    with open_ledger(url) as ledger:
        return ledger.page(0, 10_000)


def added(url: str) -> list[dict[str, Any]]:
    """The data of the events behind those of the older inforce."""
    return [json.loads(entry.leaf)["data"] for entry in entries(url)[len(OLD) + 1 :]]


def test_the_first_opening_for_writing_adds_what_was_never_defined(older: str) -> None:
    before = entries(older)
    open_ledger(older, write=True, clock=ManualClock(NOW + HOUR)).close()
    after = entries(older)
    assert after[: len(before)] == before
    new = added(older)
    assert [data["setting"] for data in new] == [setting for setting in BUILT_IN if setting in NEW]
    assert {data["actor"] for data in new} == {"inforce"}
    assert {(entry.recorded_at, entry.topic) for entry in after[len(before) :]} == {(NOW + HOUR, "setting.defined")}
    assert {data["effective_from"] for data in new} == {"2026-03-01T13:00:00.000000Z"}
    assert [data["definition"] for data in new] == [BUILT_IN[data["setting"]].as_json() for data in new]
    open_ledger(older, write=True).close()
    open_ledger(older, create=True).close()
    assert entries(older) == after


@pytest.mark.parametrize(("offset", "defined"), [(-1, False), (0, True), (1, True)])
def test_a_new_definition_is_in_force_from_its_recording_on(older: str, offset: int, defined: bool) -> None:
    with open_ledger(older, write=True, clock=ManualClock(NOW + HOUR)) as ledger:
        ledger.clock = ManualClock(NOW + 2 * HOUR)
        for known_at in (IN_FORCE, None):
            answer = Query(ledger).state("org:acme", at=NOW + HOUR + offset, known_at=known_at)
            assert ("training.opt_in" in answer.settings) is defined
        assert "training.opt_in" not in Query(ledger).state("org:acme", at=NOW + 2 * HOUR, known_at=NOW + 5).settings


def test_reading_adds_nothing(older: str) -> None:
    before = entries(older)
    with open_ledger(older) as ledger:
        Query(ledger).state("org:acme", at=NOW)
    for words in (("state", "org:acme"), ("history", "org:acme"), ("export",), ("rebuild", "--check")):
        assert run(*words, "--db", older).code == 0
    assert entries(older) == before


def test_a_file_opened_read_only_is_left_as_it_is(older: str, caplog: pytest.LogCaptureFixture) -> None:
    if not older.startswith("sqlite"):
        pytest.skip("a PostgreSQL ledger has no mode in its URL")
    before = entries(older)
    open_ledger(f"{older}?mode=ro", create=True).close()
    open_ledger(f"{older}?mode=ro", write=True).close()
    assert (entries(older), caplog.records) == (before, [])


def test_a_ledger_that_cannot_be_written_now_still_opens_and_says_so(
    older: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise LedgerUnavailable("the disk is full")

    before = entries(older)
    with monkeypatch.context() as patch:
        patch.setattr("ledger.recorders.sqlite.SQLiteLedgerRecorder.append", refuse)
        patch.setattr("ledger.recorders.postgres.PostgresLedgerRecorder.append", refuse)
        with open_ledger(older, create=True) as ledger:
            assert Query(ledger).state("org:acme", at=NOW + HOUR).settings["storage.inputs_outputs"].value is True
    (record,) = caplog.records
    assert (record.levelno, record.getMessage().endswith("the disk is full")) == (logging.WARNING, True)
    assert entries(older) == before


def test_many_openings_at_once_add_each_definition_once(older: str) -> None:
    barrier = Barrier(6)

    def open_at_once(_: int) -> None:
        barrier.wait()
        open_ledger(older, write=True).close()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(open_at_once, range(6)))
    assert sorted(data["setting"] for data in added(older)) == sorted(NEW)


def test_many_processes_at_once_add_each_definition_once(older: str) -> None:
    with start_programs(*[("begin", older)] * 4) as programs:
        for program in programs:
            assert program.wait(60) == 0
    assert sorted(data["setting"] for data in added(older)) == sorted(NEW)


def test_every_verb_that_writes_adds_them(older: str) -> None:
    result = run("submit", "account:u1", "attached_to", "org:acme", "--db", older)
    assert result.code == 0
    assert "new in this inforce" in result.err
    assert [data["setting"] for data in added(older)] == [*sorted(NEW, key=list(BUILT_IN).index), "attached_to"]


# An older export


def test_a_restored_export_stays_what_it_was_until_it_is_opened_for_writing(older: str, tmp_path: Path) -> None:
    with open_ledger(older) as ledger:
        exported = b"".join(export_lines(ledger))
    restored = f"sqlite:///{tmp_path}/restored.db"
    import_ledger(restored, io.BytesIO(exported))
    with open_ledger(restored) as ledger:
        assert b"".join(export_lines(ledger)) == exported
    open_ledger(restored, create=True).close()
    assert sorted(data["setting"] for data in added(restored)) == sorted(NEW)
    with open_ledger(restored) as ledger:
        assert b"".join(export_lines(ledger)).startswith(exported)


# A setting that an operator defined before it was built in


def test_an_operators_own_setting_of_the_name_stays_and_another_type_is_warned_of(
    older: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, other = "training.opt_in", "model.revision"
    own = definition(kinds=["model"], value_type="integer", default=0, protective=0)
    with open_ledger(older, clock=ManualClock(NOW + 1)) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(definitions, "BUILT_IN", OLD)
            submit(ledger, define(same, definition=definition(title="Ours")), define(other, definition=own))
        submit(ledger, {**change("model:m", 7), "setting": other})
    for _ in range(2):
        caplog.clear()
        with open_ledger(older, create=True) as ledger:
            assert ledger.catalog().value_type(other) == "integer"
            period = ledger.catalog().definition_at(same, NOW + HOUR)
            assert period is not None
            assert period.definition.title == "Ours"
            assert "model.revision is integer in this ledger and text in this inforce" in caplog.messages[-1]
    assert len(caplog.messages) == 1
    assert [data["setting"] for data in added(older)] == [same, other, other, "attached_to"]


def test_the_warning_reaches_standard_error(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ledger(older) as ledger, monkeypatch.context() as patch:
        patch.setattr(definitions, "BUILT_IN", OLD)
        own = definition(kinds=["model"], value_type="integer", default=0, protective=0)
        submit(ledger, define("training.opt_in"), define("model.revision", definition=own))
    words = [sys.executable, "-m", "scripts.main", "submit", "org:acme", "training.opt_in", "true", "--db", older]
    program = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=GIVE_UP_S, check=True)
    added, conflict = program.stderr.splitlines()
    assert added.endswith("new in this inforce, from now on in force: attached_to")
    assert "integer in this ledger and text in this inforce" in conflict


# All that reads the ledger goes on


def test_feed_timelines_rebuild_and_index_follow(older: str) -> None:
    with open_ledger(older, clock=ManualClock(NOW + HOUR)) as reader:
        query = Query(reader)
        query.state("org:acme", at=NOW)
        open_index(reader, IN_FORCE)
        head = reader.head().position
        with open_ledger(older, write=True, clock=ManualClock(NOW + HOUR)) as writer:
            submit(writer, change("org:acme", True))
            new_head = writer.head().position
        reader.at_least(new_head)
        assert [entry.position for entry in reader.page(head)] == list(range(head + 1, new_head + 1))
        assert query.state("org:acme", at=NOW + 2 * HOUR).settings["training.opt_in"].value is True
        checked = rebuild(Projector(reader, open_timelines(reader)), check_only=True)
        assert (checked.live_equal, checked.differences) == (True, ())
        index = open_index(reader, IN_FORCE)
        assert_sound(index)
        assert canonical(index) == canonical(compile_by_fold(reader, IN_FORCE))


def test_replay_tells_the_beginning_apart_from_what_was_added(older: str) -> None:
    with open_ledger(older, write=True, clock=ManualClock(NOW + HOUR)):
        lines = run("replay", "--db", older).out.splitlines()
    assert f"#1 to #{len(OLD)}  the ledger begins" in lines[0]
    assert len(lines) == 2 + len(NEW)
    assert "training.opt_in  defined: bool of account, org, default false  from now on  (inforce)" in lines[2]


def test_replay_of_a_ledger_that_got_them_at_once(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(built_in, "BUILT_IN", OLD)
        open_ledger(database_url, create=True).close()
    open_ledger(database_url, create=True).close()
    assert f"#1 to #{len(OLD)}  the ledger begins" in run("replay", "--db", database_url).out.splitlines()[0]
