"""`log_faults` finds a flipped bit in every stored column of the log, and places it, on both databases."""

from __future__ import annotations

import re

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.transparency.checkpoint_memory import memory_of
from ledger.transparency.log_check import log_faults
from tests.support.checking import all_faults
from tests.support.ledgers import NOW, ORIGIN
from tests.support.log_ledger import NEW_KEY, execute, grow, integrator_of

TILE = "UPDATE {}log_tiles SET hashes = ? WHERE level ="
HARM = {
    "a full tile": (f"{TILE} 0 AND number = 1", bytes(8192), "tile/0/001 is not that of"),
    "a partial tile": (f"{TILE} 1", bytes(64), r"tile/1/000\.p/2 is not that of"),
    "a longer tile": (
        "UPDATE {}log_tiles SET hashes = hashes || ? WHERE level = 0 AND number = 2",
        bytes(32),
        r"tile/0/002\.p/\d+ is not that of|the file is damaged",
    ),
    "a lost tile": ("DELETE FROM {}log_tiles WHERE level = 0 AND number = 0", None, "tile/0/000 is not that of"),
    "the number of a tile": (
        "UPDATE {}log_tiles SET number = 7 WHERE number = 1",
        None,
        "level 0 and number 7, where",
    ),
    "the level of a tile": ("UPDATE {}log_tiles SET level = 5 WHERE level = 1", None, "level 5 and number 0, where"),
    "the integrated size": (
        "UPDATE {}log_heads SET size = size - 1 WHERE name = 'integrated'",
        None,
        "the integrated tree has another root|is not that of",
    ),
    "the integrated root": (
        "UPDATE {}log_heads SET root = ? WHERE name = 'integrated'",
        bytes(32),
        "the integrated tree has another root",
    ),
    "the published size": ("UPDATE {}log_heads SET size = 3 WHERE name = 'published'", None, "its head is another one"),
    "the published root": (
        "UPDATE {}log_heads SET root = ? WHERE name = 'published'",
        bytes(32),
        "its head is another one",
    ),
    "the published note": (
        "UPDATE {}log_heads SET note = ? WHERE name = 'published'",
        b"x",
        "the published checkpoint is not what was written",
    ),
    "the name of a head": (
        "UPDATE {}log_heads SET name = 'x' WHERE name = 'integrated'",
        None,
        "where its tree has none",
    ),
    "a verifier key": (
        "UPDATE {}log_keys SET verifier_key = ?",
        str(NEW_KEY.verifier),
        "the published checkpoint cannot be believed: the note has no signature of a known key",
    ),
    "a verifier key that is none": ("UPDATE {}log_keys SET verifier_key = ?", "x", "a verifier key of the log is not"),
    "a lost verifier key": ("DELETE FROM {}log_keys", None, "cannot be believed"),
}


@pytest.fixture
def published_url(database_url: str) -> str:
    with open_ledger(database_url, create=True, clock=ManualClock(NOW), origin=ORIGIN) as ledger:
        grow(ledger, 600)
        integrator_of(ledger).catch_up()
    return database_url


def faults_of(url: str) -> list[str]:
    with open_ledger(url) as ledger:
        return list(log_faults(ledger.recorder, ledger.origin, memory_of(ledger).newest()))


def test_a_log_that_is_right_has_no_fault(published_url: str) -> None:
    assert faults_of(published_url) == []
    assert all_faults(published_url) == []


@pytest.mark.parametrize("harm", HARM)
def test_every_altered_column_is_named(published_url: str, harm: str) -> None:
    statement, value, fault = HARM[harm]
    execute(published_url, statement, *([] if value is None else [value]))
    faults = faults_of(published_url)
    assert any(re.search(fault, one) for one in faults), faults
    assert any(re.search(fault, one) for one in all_faults(published_url)), "inforce backup --check names it, too"


def test_the_outside_note_is_compared_with_the_events(published_url: str) -> None:
    with open_ledger(published_url, clock=ManualClock(NOW), write=True) as ledger:
        noted = memory_of(ledger).newest()
        assert noted is not None
        head = noted.head._replace(root=bytes(32))
        forged = noted._replace(checkpoint=noted.checkpoint._replace(head=head))
        assert any(
            "noted outside the ledger has another root" in fault
            for fault in log_faults(ledger.recorder, ledger.origin, forged)
        )
        beyond = noted._replace(checkpoint=noted.checkpoint._replace(head=head._replace(size=10**6)))
        assert any(
            f"is of 1000000 events, and the ledger ends at position {noted.head.size}" in fault
            for fault in log_faults(ledger.recorder, ledger.origin, beyond)
        )
