"""The kept index: mapped, extended or made anew, it is what compiling it says; nothing else is ever used."""

import fcntl
import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.errors import LedgerUnavailable
from ledger.store import Ledger
from projections.audit.index import open as store
from projections.audit.index import schema as layout
from projections.audit.index import storage as files
from projections.audit.index.open import axis_name, folders, open_index
from projections.audit.index.pin import pin_of
from projections.audit.index.reference import compile_by_fold
from projections.audit.index.schema import FORMAT
from projections.temporal.coordinates import IN_FORCE, KnownAt
from tests.audit.index.canonical import assert_sound, canonical
from tests.audit.index.worlds import World
from tests.support.ledgers import NOW, change, open_with_clock, submit


def told(sentences: list[str]) -> Any:
    return sentences.append


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), growth=st.lists(st.integers(1, 12), min_size=1, max_size=4), fixed=st.booleans())
def test_an_extended_index_is_what_the_fold_comes_to(
    tmp_path_factory: pytest.TempPathFactory, seed: int, growth: list[int], fixed: bool
) -> None:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    known_at: KnownAt = NOW + 20_000_000 if fixed else IN_FORCE
    with ledger:
        world = World(ledger, clock, seed)
        world.go_on(40)
        open_index(ledger, known_at)
        made = generation(ledger, known_at)
        for submissions in growth:
            world.go_on(submissions)
            index = open_index(ledger, known_at)
            assert_sound(index)
            assert canonical(index) == canonical(compile_by_fold(ledger, known_at))
            assert canonical(open_index(ledger, known_at)) == canonical(index)
            # Made anew only where so many were new that the table of subjects had no room.
            assert generation(ledger, known_at) == made or len(index.subjects) > 8
            made = generation(ledger, known_at)


def generation(ledger: Ledger, known_at: KnownAt = IN_FORCE) -> str:
    stored = files.load(folders(ledger)[0] / axis_name(known_at))
    assert stored is not None
    return str(stored.body["generation"])


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        World(ledger, clock, 11).go_on(60)
        yield ledger


def test_it_lies_beside_the_ledger_and_is_only_mapped_the_second_time(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_index(ledger)
    assert (tmp_path / "ledger.db.index" / "in-force" / "manifest.json").is_file()
    monkeypatch.setattr(store, "compile_index", None)
    second = open_index(ledger)
    assert isinstance(second.since.base, np.ndarray)
    assert canonical(second) == canonical(first) == canonical(compile_by_fold(ledger))


def test_one_in_force_and_one_for_an_instant_are_different_files(ledger: Ledger, tmp_path: Path) -> None:
    for known_at in (IN_FORCE, None, NOW + 1000):
        assert canonical(open_index(ledger, known_at)) == canonical(compile_by_fold(ledger, known_at))
    names = sorted(folder.name for folder in (tmp_path / "ledger.db.index").iterdir())
    assert names == ["in-force", f"known-at-{NOW + 1000}", "now"]


def test_of_the_fixed_instants_only_a_few_are_kept(ledger: Ledger, tmp_path: Path) -> None:
    for instant in range(store.KEPT_INSTANTS + 2):
        open_index(ledger, NOW + instant)
    assert len(list((tmp_path / "ledger.db.index").iterdir())) == store.KEPT_INSTANTS


def test_one_of_a_later_position_is_not_used_for_an_earlier_pin(ledger: Ledger) -> None:
    pin = pin_of(ledger, ledger.head().position - 5)
    open_index(ledger)
    kept = generation(ledger)
    earlier = open_index(ledger, pin=pin)
    assert canonical(earlier) == canonical(compile_by_fold(ledger, IN_FORCE, pin))
    assert generation(ledger) == kept
    assert open_index(ledger).pin == pin_of(ledger)


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["since", "policies.rows", "subjects.references", "subjects.slots"])
def test_a_damaged_file_is_noticed_and_the_index_made_anew(ledger: Ledger, name: str) -> None:
    open_index(ledger)
    folder = folders(ledger)[0] / "in-force"
    damaged(folder / generation(ledger) / name)
    sentences: list[str] = []
    index = open_index(ledger, tell=told(sentences))
    assert canonical(index) == canonical(compile_by_fold(ledger))
    assert sentences == [f"the index in {folder} is not used: its file {name} is not what was written; it is made anew"]
    assert len([one for one in os.listdir(folder) if one.startswith("generation-")]) == 1


@pytest.mark.parametrize("harm", ["cut", "gone", "manifest", "format", "ledger"])
def test_what_cannot_be_used_is_made_anew(ledger: Ledger, harm: str, tmp_path: Path) -> None:
    open_index(ledger)
    folder = folders(ledger)[0] / "in-force"
    manifest, since = folder / "manifest.json", folder / generation(ledger) / "since"
    match harm:
        case "cut":
            os.truncate(since, since.stat().st_size - 8)
        case "gone":
            shutil.rmtree(since.parent)
        case "manifest":
            manifest.write_text(manifest.read_text().replace('"shape"', '"shop"', 1))
        case "format":
            whole = json.loads(manifest.read_text())
            manifest.write_text(json.dumps(whole | {"format": FORMAT + 1}))
        case "ledger":
            other, clock = open_with_clock(f"sqlite:///{tmp_path}/other.db")
            with other:
                World(other, clock, 12).go_on(60)
                open_index(other, folder=tmp_path / "others")
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "others" / "in-force", folder)
    sentences: list[str] = []
    index = open_index(ledger, tell=told(sentences))
    assert canonical(index) == canonical(compile_by_fold(ledger))
    assert len(sentences) == 1
    assert sentences[0].endswith("it is made anew")


def test_many_events_are_not_taken_in_one_by_one(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index(ledger)
    before = generation(ledger)
    monkeypatch.setattr(store, "_FEW_EVENTS", 1)
    submit(ledger, *(change(f"org:new{number}") for number in range(50)))
    index = open_index(ledger)
    assert canonical(index) == canonical(compile_by_fold(ledger))
    assert generation(ledger) != before


def test_rows_that_extensions_left_behind_are_let_go_before_they_are_too_many(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = len(open_index(ledger).policies.at)
    monkeypatch.setattr(layout, "ROWS_MAX", rows + 40)
    before = generation(ledger)
    for turn in range(5):
        submit(ledger, change("org:acme", value=turn == 1))
        index = open_index(ledger)
        assert canonical(index) == canonical(compile_by_fold(ledger))
        assert len(index.policies.at) <= rows + 40
    assert generation(ledger) != before


def test_more_rows_or_events_than_can_be_counted_are_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "ROWS_MAX", 10)
    with pytest.raises(LedgerUnavailable, match="at most 10 states of subjects, and the index has"):
        open_index(ledger)
    monkeypatch.setattr("projections.audit.index.pin.POSITION_MAX", 30)
    with pytest.raises(LedgerUnavailable, match="at most 30 events, and the ledger has"):
        open_index(ledger)


def test_what_a_killed_process_left_behind_is_written_over(ledger: Ledger) -> None:
    open_index(ledger)
    kept = generation(ledger)
    folder = folders(ledger)[0] / "in-force" / kept
    for path in folder.iterdir():
        with path.open("ab") as file:
            file.write(b"half a row")
    submit(ledger, change("org:later"))
    assert canonical(open_index(ledger)) == canonical(compile_by_fold(ledger))
    assert canonical(open_index(ledger)) == canonical(compile_by_fold(ledger))
    assert generation(ledger) == kept


def test_who_has_mapped_it_sees_what_was_there(ledger: Ledger) -> None:
    old = open_index(ledger)
    before = canonical(old)
    submit(ledger, change("org:acme", value=False), change("org:later"))
    open_index(ledger)
    assert canonical(old) == before


@pytest.mark.parametrize("harm", ["made anew", "taken away"])
def test_what_goes_between_looking_at_it_and_mapping_it_is_looked_for_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    made = open_index(ledger)
    folder = folders(ledger)[0] / "in-force"
    verify, times = files.StoredIndex.verify, []

    def verify_and_lose(stored: files.StoredIndex) -> None:
        verify(stored)
        times.append(stored)
        if len(times) > 1:
            return
        if harm == "made anew":
            files.clear_others(files.write(folder, made))
        else:
            files.remove(folder)

    monkeypatch.setattr(files.StoredIndex, "verify", verify_and_lose)
    made = compile_by_fold(ledger)
    assert canonical(open_index(ledger)) == canonical(made)
    assert files.load(folder) is not None


def test_an_index_that_is_being_made_is_not_forgotten(ledger: Ledger, tmp_path: Path) -> None:
    for instant in range(store.KEPT_INSTANTS):
        open_index(ledger, NOW + instant)
    oldest = folders(ledger)[0] / axis_name(NOW)
    with (oldest / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        open_index(ledger, NOW + 100)
        assert files.load(oldest) is not None
    open_index(ledger, NOW + 101)
    assert not oldest.exists()


def test_a_lock_that_was_taken_away_is_none(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index(ledger)
    lock = folders(ledger)[0] / "in-force" / "lock"
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            # Who held it is gone, and so is the lock that we wait for; another one holds the new one.
            pauses.append(seconds)
            if len(pauses) == 1:
                lock.unlink()
                newer = stack.enter_context(lock.open("ab"))
                fcntl.flock(newer, fcntl.LOCK_EX)
                fcntl.flock(held, fcntl.LOCK_UN)
            elif len(pauses) == 3:
                stack.close()

        monkeypatch.setattr("time.sleep", pause)
        submit(ledger, change("org:later"))
        with ExitStack() as stack:
            assert canonical(open_index(ledger)) == canonical(compile_by_fold(ledger))
    assert len(pauses) == 3


def test_where_nothing_can_be_kept_the_audit_makes_its_own(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file where a folder belongs: as good as a folder that may not be written, for root as well.
    (tmp_path / "ledger.db.index").write_text("")
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sentences: list[str] = []
    assert canonical(open_index(ledger, tell=told(sentences))) == canonical(compile_by_fold(ledger))
    assert len(sentences) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache2"))
    open_index(ledger)
    assert list((tmp_path / "cache2" / "inforce" / "index").iterdir()) == [folders(ledger)[1]]


def test_a_postgres_ledger_has_its_index_in_the_cache_folder(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ledger, clock = open_with_clock(postgres_url)
    with ledger:
        world = World(ledger, clock, 21)
        world.go_on(60)
        open_index(ledger)
        world.go_on(10)
        assert canonical(open_index(ledger)) == canonical(compile_by_fold(ledger))
        assert [path.parent.parent for path in folders(ledger)] == [tmp_path / "inforce"]
