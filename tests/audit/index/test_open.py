"""The stored index, mapped, extended or compiled anew, equals a compiled one; a damaged one is never used."""

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
from projections.audit.index import open as index_open
from projections.audit.index import schema, storage
from projections.audit.index.open import axis_name, folders, open_index
from projections.audit.index.pin import pin_of
from projections.audit.index.reference import compile_by_fold
from projections.audit.index.schema import FORMAT
from projections.temporal.coordinates import IN_FORCE, KnownAt
from tests.audit.index.canonical import assert_sound, canonical
from tests.audit.index.random_ledger import RandomLedger
from tests.support.ledgers import NOW, change, open_with_clock, submit


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), growth=st.lists(st.integers(1, 12), min_size=1, max_size=4), fixed=st.booleans())
def test_an_extended_index_equals_the_fold(
    tmp_path_factory: pytest.TempPathFactory, seed: int, growth: list[int], fixed: bool
) -> None:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    known_at: KnownAt = NOW + 20_000_000 if fixed else IN_FORCE
    with ledger:
        world = RandomLedger(ledger, clock, seed)
        world.go_on(40)
        open_index(ledger, known_at)
        made = generation(ledger, known_at)
        for submissions in growth:
            world.go_on(submissions)
            index = open_index(ledger, known_at)
            assert_sound(index)
            assert canonical(index) == canonical(compile_by_fold(ledger, known_at))
            assert canonical(open_index(ledger, known_at)) == canonical(index)
            # Compiled anew only if the table of subjects had no room for the new ones.
            assert generation(ledger, known_at) == made or len(index.subjects) > 8
            made = generation(ledger, known_at)


def generation(ledger: Ledger, known_at: KnownAt = IN_FORCE) -> str:
    stored = storage.load(folders(ledger)[0] / axis_name(known_at))
    assert stored is not None
    return str(stored.body["generation"])


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        RandomLedger(ledger, clock, 11).go_on(60)
        yield ledger


def test_it_lies_beside_the_ledger_and_the_second_audit_only_maps_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_index(ledger)
    assert (tmp_path / "ledger.db.index" / "in-force" / "manifest.json").is_file()
    monkeypatch.setattr(index_open, "compile_index", None)
    second = open_index(ledger)
    assert isinstance(second.since.base, np.ndarray)
    assert canonical(second) == canonical(first) == canonical(compile_by_fold(ledger))


def test_each_axis_has_an_index_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    for known_at in (IN_FORCE, None, NOW + 1000):
        assert canonical(open_index(ledger, known_at)) == canonical(compile_by_fold(ledger, known_at))
    names = sorted(folder.name for folder in (tmp_path / "ledger.db.index").iterdir())
    assert names == ["in-force", f"known-at-{NOW + 1000}", "now"]


def test_only_a_few_indexes_for_fixed_instants_stay(ledger: Ledger, tmp_path: Path) -> None:
    for instant in range(index_open.KEPT_INSTANTS + 2):
        open_index(ledger, NOW + instant)
    assert len(list((tmp_path / "ledger.db.index").iterdir())) == index_open.KEPT_INSTANTS


def test_a_newer_index_does_not_serve_an_earlier_pin(ledger: Ledger) -> None:
    pin = pin_of(ledger, ledger.head().position - 5)
    open_index(ledger)
    kept = generation(ledger)
    earlier = open_index(ledger, pin=pin)
    assert canonical(earlier) == canonical(compile_by_fold(ledger, IN_FORCE, pin))
    assert generation(ledger) == kept
    assert open_index(ledger).pin == pin_of(ledger)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["since", "policies.rows", "subjects.references", "subjects.slots"])
def test_an_index_with_a_damaged_file_is_compiled_anew(ledger: Ledger, name: str) -> None:
    open_index(ledger)
    folder = folders(ledger)[0] / "in-force"
    damage(folder / generation(ledger) / name)
    sentences: list[str] = []
    index = open_index(ledger, tell=sentences.append)
    assert canonical(index) == canonical(compile_by_fold(ledger))
    reason = f"its file {name} is not what was written"
    assert sentences == [f"the index in {folder} is not used: {reason}; it is compiled anew"]
    assert len([one for one in os.listdir(folder) if one.startswith("generation-")]) == 1


@pytest.mark.parametrize("harm", ["cut", "gone", "manifest", "newer format", "older format", "ledger"])
def test_an_unusable_index_is_compiled_anew(ledger: Ledger, harm: str, tmp_path: Path) -> None:
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
        case "newer format" | "older format":
            # An older one has steps that an earlier law of time folded.
            whole = json.loads(manifest.read_text())
            manifest.write_text(json.dumps(whole | {"format": FORMAT + 1 if harm == "newer format" else FORMAT - 1}))
        case "ledger":
            other, clock = open_with_clock(f"sqlite:///{tmp_path}/other.db")
            with other:
                RandomLedger(other, clock, 12).go_on(60)
                open_index(other, folder=tmp_path / "others")
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "others" / "in-force", folder)
    sentences: list[str] = []
    index = open_index(ledger, tell=sentences.append)
    assert canonical(index) == canonical(compile_by_fold(ledger))
    assert len(sentences) == 1
    assert sentences[0].endswith("it is compiled anew")


def test_many_new_events_compile_the_index_anew(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index(ledger)
    before = generation(ledger)
    monkeypatch.setattr(index_open, "_FEW_EVENTS", 1)
    submit(ledger, *(change(f"org:new{number}") for number in range(50)))
    index = open_index(ledger)
    assert canonical(index) == canonical(compile_by_fold(ledger))
    assert generation(ledger) != before


def test_the_index_is_compiled_anew_before_unused_rows_fill_a_table(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = len(open_index(ledger).policies.at)
    monkeypatch.setattr(schema, "ROWS_MAX", rows + 40)
    before = generation(ledger)
    for turn in range(5):
        submit(ledger, change("org:acme", value=turn == 1))
        index = open_index(ledger)
        assert canonical(index) == canonical(compile_by_fold(ledger))
        assert len(index.policies.at) <= rows + 40
    assert generation(ledger) != before


def test_too_many_rows_or_events_are_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "ROWS_MAX", 10)
    with pytest.raises(LedgerUnavailable, match="at most 10 states of subjects, and the index has"):
        open_index(ledger)
    monkeypatch.setattr("projections.audit.index.pin.POSITION_MAX", 30)
    with pytest.raises(LedgerUnavailable, match="at most 30 events, and the ledger has"):
        open_index(ledger)


def test_the_remains_of_a_killed_process_are_overwritten(ledger: Ledger) -> None:
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


def test_a_mapped_index_does_not_change(ledger: Ledger) -> None:
    old = open_index(ledger)
    before = canonical(old)
    submit(ledger, change("org:acme", value=False), change("org:later"))
    open_index(ledger)
    assert canonical(old) == before


@pytest.mark.parametrize("harm", ["replaced", "removed"])
def test_an_index_that_vanishes_before_it_is_mapped_is_opened_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    made = open_index(ledger)
    folder = folders(ledger)[0] / "in-force"
    verify, times = storage.StoredIndex.verify, []

    def verify_and_lose(stored: storage.StoredIndex) -> None:
        verify(stored)
        times.append(stored)
        if len(times) > 1:
            return
        if harm == "replaced":
            storage.clear_others(storage.write(folder, made))
        else:
            storage.remove(folder)

    monkeypatch.setattr(storage.StoredIndex, "verify", verify_and_lose)
    made = compile_by_fold(ledger)
    assert canonical(open_index(ledger)) == canonical(made)
    assert storage.load(folder) is not None


def test_an_index_that_another_process_compiles_is_not_removed(ledger: Ledger, tmp_path: Path) -> None:
    for instant in range(index_open.KEPT_INSTANTS):
        open_index(ledger, NOW + instant)
    oldest = folders(ledger)[0] / axis_name(NOW)
    with (oldest / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        open_index(ledger, NOW + 100)
        assert storage.load(oldest) is not None
    open_index(ledger, NOW + 101)
    assert not oldest.exists()


def test_a_removed_lock_does_not_count(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index(ledger)
    lock = folders(ledger)[0] / "in-force" / "lock"
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            # The process with the lock removed it and is gone; another process holds a new one.
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


def test_an_audit_that_cannot_store_an_index_compiles_its_own(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file in place of the folder: nothing can be written there, not even by root.
    (tmp_path / "ledger.db.index").write_text("")
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sentences: list[str] = []
    assert canonical(open_index(ledger, tell=sentences.append)) == canonical(compile_by_fold(ledger))
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
        world = RandomLedger(ledger, clock, 21)
        world.go_on(60)
        open_index(ledger)
        world.go_on(10)
        assert canonical(open_index(ledger)) == canonical(compile_by_fold(ledger))
        assert [path.parent.parent for path in folders(ledger)] == [tmp_path / "inforce"]
