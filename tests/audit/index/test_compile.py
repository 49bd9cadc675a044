"""The compiled index equals the index by the fold, array by array, for any ledger."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.opening import open_ledger
from projections.audit.index.compile import compile_index
from projections.audit.index.hashing import hash_id, hash_ids
from projections.audit.index.pin import pin_of
from projections.audit.index.reference import compile_by_fold
from projections.temporal.coordinates import IN_FORCE, KnownAt
from tests.audit.index.canonical import assert_sound, canonical
from tests.audit.index.random_ledger import RandomLedger
from tests.support.ledgers import GENESIS, NOW, change, open_with_clock, submit


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), submissions=st.integers(0, 80), instants=st.lists(st.integers(-50, 10_000_000)))
def test_it_equals_the_fold_on_every_axis(
    tmp_path_factory: pytest.TempPathFactory, seed: int, submissions: int, instants: list[int]
) -> None:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    with ledger:
        RandomLedger(ledger, clock, seed).go_on(submissions)
        axes: list[KnownAt] = [IN_FORCE, None, *(NOW + instant for instant in instants[:3])]
        for known_at in axes:
            index = compile_index(ledger, known_at, read_events=7)
            assert_sound(index)
            assert canonical(index) == canonical(compile_by_fold(ledger, known_at))


@pytest.mark.parametrize("known_at", [IN_FORCE, None, NOW + 1_000_000])
def test_it_equals_the_fold_on_both_databases(database_url: str, known_at: KnownAt) -> None:
    ledger, clock = open_with_clock(database_url)
    with ledger:
        RandomLedger(ledger, clock, 4711).go_on(200)
        pin = pin_of(ledger, ledger.head().position - 20)
        for at in (None, pin):
            index = compile_index(ledger, known_at, at, read_events=50)
            assert canonical(index) == canonical(compile_by_fold(ledger, known_at, at))


def test_it_equals_the_fold_without_compiled_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        RandomLedger(ledger, clock, 3).go_on(100)
        expected = canonical(compile_index(ledger))
        without_compiled_code(monkeypatch)
        assert canonical(compile_index(ledger)) == expected


def test_a_new_ledger_has_definitions_and_no_subject(tmp_path: Path) -> None:
    ledger, _clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        index = compile_index(ledger)
        assert (len(index.subjects), index.pin.position, len(index.since)) == (0, GENESIS, GENESIS + 1)
        assert index.subjects.code("org:acme") is None
        assert canonical(index) == canonical(compile_by_fold(ledger))


def without_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.audit.numba_support.AVAILABLE", False)


@pytest.mark.parametrize("compiled", [True, False])
def test_subjects_with_the_same_hash_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        RandomLedger(ledger, clock, 5).go_on(60)
        expected = canonical(compile_by_fold(ledger))["subjects"]
        # With four hashes for all subjects, only their bytes tell them apart.
        few = lambda *given, compiled: hash_ids(*given, compiled=compiled) & np.uint64(3)  # noqa: E731
        for module in ("parse_leaves", "hash_table"):
            monkeypatch.setattr(f"projections.audit.index.{module}.hash_ids", few)
        monkeypatch.setattr("projections.audit.index.schema.hash_id", lambda *given: hash_id(*given) & 3)
        if not compiled:
            without_compiled_code(monkeypatch)
        assert canonical(compile_index(ledger))["subjects"] == expected


def test_it_reads_no_further_than_its_pin(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger, clock = open_with_clock(url)
    with ledger:
        submit(ledger, change())
        pin = pin_of(ledger)
        before = canonical(compile_index(ledger))
        clock.now_us += 1
        submit(ledger, change(value=False), change("org:other"))
    with open_ledger(url) as again:
        assert canonical(compile_index(again, pin=pin)) == before
