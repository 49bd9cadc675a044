"""An index is read a page of bytes at a time, and is the same as if all were read at once."""

from pathlib import Path

import pytest

from ledger.store import Ledger
from projections.audit.index import read_leaves
from projections.audit.index.compile import compile_index
from projections.audit.index.open import open_index
from projections.audit.index.read_leaves import history_pages, leaf_pages
from projections.audit.index.reference import compile_by_fold
from tests.audit.index.canonical import assert_sound, canonical
from tests.audit.index.random_ledger import RandomLedger
from tests.support.ledgers import GENESIS, change, open_with_clock, submit

SMALL = 4_000
"""Bytes: some events."""


def _with_large_values(ledger: Ledger) -> None:
    for subject in ("org:a", "org:b", "org:a", "org:c", "org:a"):
        value = [f"r{number:03}" for number in range(250)]
        submit(ledger, change(subject, value, setting="residency.regions"), change(subject))


def test_a_page_ends_with_the_leaf_that_reaches_its_size(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_leaves, "READ_BYTES", SMALL)
    monkeypatch.setattr(read_leaves, "STREAM_BYTES", SMALL)
    ledger, _ = open_with_clock(database_url)
    with ledger:
        _with_large_values(ledger)
        head, recorder = ledger.head().position, ledger.recorder
        pages = list(leaf_pages(ledger, 0, head, 5))
        assert b"\n".join(page.leaves for page in pages) == recorder.leaves(0, head)
        assert [page.after for page in pages] == [0, *(page.until for page in pages[:-1])]
        subjects = ["org:b", "org:nobody", "org:a", "org:c", "account:none"]
        sizes = recorder.stream_sizes(subjects, head - 1)
        assert [size.events for size in sizes.values()] == [2, 0, 5, 2, 0]
        assert list(sizes) == subjects
        for subject, size in sizes.items():
            leaves = [entry.leaf for entry in ledger.stream(subject) if entry.position < head]
            assert size == (len(leaves), sum(map(len, leaves)))
        histories = list(history_pages(ledger, sizes, head - 1))
        assert sorted(b"\n".join(histories).split(b"\n")) == sorted(recorder.leaves_of(subjects, head - 1).split(b"\n"))
        for joined in (*(page.leaves for page in pages), *histories):
            before_last, _, _ = joined.rpartition(b"\n")
            assert len(before_last) < SMALL + joined.count(b"\n")
        assert not list(history_pages(ledger, recorder.stream_sizes([], head), head))


def test_an_index_read_in_small_pages_equals_the_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_leaves, "READ_BYTES", SMALL)
    monkeypatch.setattr(read_leaves, "STREAM_BYTES", SMALL)
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        random = RandomLedger(ledger, clock, 11)
        for _ in range(3):
            # The first time it is compiled, and then extended.
            random.go_on(20)
            _with_large_values(ledger)
            index = open_index(ledger)
            assert_sound(index)
            assert canonical(index) == canonical(compile_index(ledger)) == canonical(compile_by_fold(ledger))
        assert ledger.head().position > GENESIS + 60
