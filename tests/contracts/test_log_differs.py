"""A transparency log that was altered, lost or set back: nothing is signed, the cause is named, and reads go on."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.clock import ManualClock
from ledger.codec import leaf_hash
from ledger.diagnosis import acknowledge_head
from ledger.errors import LedgerCorrupt
from ledger.opening import database_file, open_ledger
from ledger.store import Ledger
from ledger.transfer.export import export_lines
from ledger.transfer.import_ledger import import_ledger
from ledger.transparency.checkpoint_memory import CheckpointMemory, memory_of
from ledger.transparency.integrator import Integrator, LogProblem
from ledger.transparency.note import SigningKey
from ledger.transparency.published_log import PublishedLog
from ledger.transparency.tiles import EntryBundle, Tile
from tests.support.going_back import copy_of, delete_tail
from tests.support.ledgers import GENESIS, NOW, OPERATOR, ORIGIN
from tests.support.log_ledger import NEW_KEY, execute, grow, integrator_of, reopened, require_published


@pytest.fixture
def integrator(ledger: Ledger) -> Integrator:
    return integrator_of(ledger)


@pytest.fixture
def server_url(request: pytest.FixtureRequest, database_url: str) -> str | None:
    return None if database_url.startswith("sqlite:") else str(request.getfixturevalue("postgres_server_url"))


def problem_of(integrator: Integrator, code: str) -> str:
    """The detail of the problem, which must have this code; and nothing was published."""
    integrator.catch_up()
    assert isinstance(integrator.problem, LogProblem)
    assert integrator.problem.code == code, integrator.problem
    return integrator.problem.detail


@pytest.fixture
def published(database_url: str) -> int:
    """The size of a published log, whose ledger is closed again."""
    with open_ledger(database_url, create=True, clock=ManualClock(NOW), origin=ORIGIN) as ledger:
        grow(ledger, 300)
        return integrator_of(ledger).catch_up()


@pytest.mark.parametrize(
    ("harm", "code", "words"),
    [
        ("UPDATE {}log_tiles SET hashes = ? WHERE level = 0 AND number = 1", "log_damaged", r"tile/0/001|right edge"),
        ("DELETE FROM {}log_tiles WHERE level = 1", "log_damaged", r"tile/1/000\.p/1 is missing"),
        ("UPDATE {}log_heads SET root = ? WHERE name = 'integrated'", "log_damaged", "right edge"),
        ("UPDATE {}log_heads SET root = ? WHERE name = 'published'", "log_damaged", "its head is another one"),
        ("UPDATE {}log_heads SET note = ? WHERE name = 'published'", "log_damaged", "published checkpoint is not what"),
        ("UPDATE {}log_heads SET size = size - 1 WHERE name = 'published'", "log_damaged", "its head is another one"),
        ("UPDATE {}log_heads SET size = size - 1 WHERE name = 'integrated'", "log_damaged", "right edge|bytes"),
    ],
)
def test_a_tree_that_was_altered_signs_nothing_and_reads_go_on(
    database_url: str, published: int, harm: str, code: str, words: str
) -> None:
    with reopened(database_url) as ledger:
        before = ledger.recorder.log_tables().head("published")
        execute(database_url, harm, *([bytes(32)] if "?" in harm else []))
        grow(ledger, 5)
        altered = ledger.recorder.log_tables().head("published") if "published" not in harm else None
        assert re.search(words, problem_of(integrator_of(ledger), code))
        assert ledger.head().position == published + 5, "recording goes on"
        assert ledger.page(0, 3), "reads go on"
        if altered is not None:
            assert ledger.recorder.log_tables().head("published") == before


def test_a_tile_that_was_altered_is_never_served(database_url: str, published: int) -> None:
    execute(database_url, "UPDATE {}log_tiles SET hashes = ? WHERE level = 0 AND number = 0", bytes(8192))
    with reopened(database_url) as ledger:
        log = PublishedLog(ledger.recorder)
        assert log.checkpoint() is not None
        asks: list[Callable[[], object]] = [
            lambda: log.tile(Tile(0, 0)),
            lambda: log.proof(3),
            lambda: log.bundle(EntryBundle(0)),
        ]
        for ask in asks:
            with pytest.raises(LedgerCorrupt, match="the log is damaged: tile/0/000 is not the one"):
                ask()
        assert log.tile(Tile(0, 1, 1)) is not None


def test_an_event_that_was_replaced_with_its_hash_is_never_served(database_url: str, published: int) -> None:
    """Another event in its place, as it could have been recorded: only the tree knows."""
    with reopened(database_url) as ledger:
        leaf = ledger.page(published - 1)[0].leaf
        forged = leaf.replace(b'"value":true', b'"value":false') if b"true" in leaf else leaf.replace(b"false", b"true")
        put_event(database_url, published, forged, leaf_hash(forged))
        assert ledger.page(published - 1)[0].leaf == forged, "in itself it is sound"
        log = PublishedLog(ledger.recorder)
        bundle = EntryBundle(1, published - 256)
        asks: list[Callable[[], object]] = [lambda: log.proof(published), lambda: log.bundle(bundle)]
        for ask in asks:
            with pytest.raises(LedgerCorrupt, match=f"the event at position {published} is not the one under"):
                ask()
        grow(ledger, 3)
        assert f"the event at position {published}" in problem_of(integrator_of(ledger), "log_damaged")


def put_event(url: str, position: int, leaf: bytes, hash_: bytes) -> None:
    if database_file(url) is None:
        execute(url, "ALTER TABLE {}events DISABLE TRIGGER USER")
    else:
        execute(url, "DROP TRIGGER events_no_update")
    execute(url, "UPDATE {}events SET state = ?, leaf_hash = ? WHERE position = ?", leaf, hash_, position)


def test_a_ledger_that_was_restored_to_an_older_state_signs_nothing(
    database_url: str, tmp_path: Path, server_url: str | None
) -> None:
    """The note outside the ledger knows what was signed; nothing in the older copy does."""
    with open_ledger(database_url, create=True, clock=ManualClock(NOW), origin=ORIGIN) as ledger:
        grow(ledger, 10)
        integrator_of(ledger).catch_up()
    put_older = copy_of(database_url, tmp_path, server_url)
    with reopened(database_url) as ledger:
        grow(ledger, 20)
        signed = integrator_of(ledger).catch_up()
    put_older()
    with reopened(database_url) as ledger:
        integrator = integrator_of(ledger)
        detail = problem_of(integrator, "log_went_back")
        assert f"{signed} events are under a signed checkpoint, and the ledger ends at" in detail
        assert PublishedLog(ledger.recorder).size() == GENESIS + 10, "the older log is still served"
        # The operator lets the ledger go on: other events, so the log would fork.
        acknowledge_head(ledger, "the backup of Monday", OPERATOR)
        grow(ledger, 40)
        assert ledger.head().position > signed
        assert f"a checkpoint of {signed} events was signed" in problem_of(integrator, "log_forked")
        assert PublishedLog(ledger.recorder).size() == GENESIS + 10


def test_a_ledger_whose_tail_was_cut_off_signs_nothing_until_it_is_back(
    database_url: str, tmp_path: Path, server_url: str | None, published: int
) -> None:
    put_whole = copy_of(database_url, tmp_path, server_url)
    delete_tail(database_url, published - 7)
    with reopened(database_url) as ledger:
        assert "it went back" in problem_of(integrator_of(ledger), "log_went_back")
    put_whole()
    with reopened(database_url) as ledger:
        grow(ledger, 1)
        assert integrator_of(ledger).catch_up() == published + 1


def test_a_tree_that_was_lost_is_made_anew_and_compared(database_url: str, published: int) -> None:
    with reopened(database_url) as ledger:
        before = PublishedLog(ledger.recorder).checkpoint()
        ledger.recorder.log_tables().clear_tree()
        integrator = integrator_of(ledger, page_events=100)
        assert integrator.integrate()
        integrator.publish()
        assert "is integrated again up to" in str(integrator.problem)
        assert integrator.catch_up() == published
        assert str(integrator.problem) == "None"
        assert PublishedLog(ledger.recorder).checkpoint() == before


def test_a_note_that_cannot_be_read_or_written_stops_the_signing(database_url: str, published: int) -> None:
    with reopened(database_url) as ledger:
        path = memory_of(ledger).path
        assert path is not None
        content = path.read_bytes()
        grow(ledger, 1)
        path.write_bytes(b"nonsense")
        assert "a fork could be signed" in problem_of(integrator_of(ledger), "log_damaged")
        path.write_bytes(content)
        path.unlink()
        path.mkdir()
        with pytest.raises(Exception, match="cannot be read"):
            integrator_of(ledger).catch_up()
        path.rmdir()
        path.write_bytes(content)
        assert integrator_of(ledger).catch_up() == published + 1


def test_a_published_checkpoint_of_an_unknown_key_stops_the_signing(database_url: str, published: int) -> None:
    stranger = SigningKey(ORIGIN, b"s" * 32)
    with reopened(database_url) as ledger:
        integrator = integrator_of(ledger, stranger, memory=CheckpointMemory(None))
        integrator.catch_up()
        assert integrator.problem is None, "a key that takes over from one that the ledger knows"
    execute(database_url, "DELETE FROM {}log_keys")
    with reopened(database_url) as ledger:
        grow(ledger, 1)
        other = integrator_of(ledger, NEW_KEY, memory=CheckpointMemory(None))
        assert "no signature of a known key" in problem_of(other, "log_damaged")


def test_an_export_that_is_restored_goes_on_with_its_log(
    ledger: Ledger, integrator: Integrator, tmp_path: Path
) -> None:
    """The tree is a function of the events: a restored ledger has the same, and the note of the old one fits."""
    grow(ledger, 50)
    integrator.catch_up()
    before = require_published(ledger, GENESIS + 50)
    import_ledger(f"sqlite:///{tmp_path}/restored.db", io.BytesIO(b"".join(export_lines(ledger))))
    with open_ledger(f"sqlite:///{tmp_path}/restored.db") as restored:
        memory = CheckpointMemory(None)
        memory.remember(before)
        integrator_of(restored, memory=memory).catch_up()
        assert require_published(restored, GENESIS + 50) == before


@pytest.mark.parametrize("what", ["an event", "a tile"])
def test_damage_that_nobody_reads_is_noticed_and_stops_the_signing_until_it_is_mended(
    database_url: str, published: int, what: str
) -> None:
    with reopened(database_url) as ledger:
        grow(ledger, 600)
        integrator = integrator_of(ledger)
        size = integrator.catch_up()
        entry = ledger.page(published - 1)[0]
        tile = ledger.recorder.log_tables().tiles([(0, 1)])[0, 1]
        if what == "an event":
            forged = entry.leaf.replace(b'"org:', b'"org:x')
            put_event(database_url, published, forged, leaf_hash(forged))
        else:
            execute(database_url, "UPDATE {}log_tiles SET hashes = ? WHERE level = 0 AND number = 1", bytes(8192))
        for _ in range(4):
            integrator.patrol()
        assert integrator.problem is not None
        assert re.search(f"position {published} |tile/0/001", integrator.problem.detail)
        grow(ledger, 1)
        problem_of(integrator, "log_damaged")
        assert PublishedLog(ledger.recorder).size() == size
        if what == "an event":
            execute(
                database_url,
                "UPDATE {}events SET state = ?, leaf_hash = ? WHERE position = ?",
                *(entry.leaf, entry.leaf_hash, published),
            )
        else:
            execute(database_url, "UPDATE {}log_tiles SET hashes = ? WHERE level = 0 AND number = 1", tile)
        assert integrator.catch_up() == size + 1
        for _ in range(4):
            integrator.patrol()
        assert str(integrator.problem) == "None"
        require_published(ledger, size + 1)
