"""The note of the newest acknowledged head: shared by processes, whole after a write that was cut off."""

from pathlib import Path
from random import Random

import pytest

from ledger.head_memory import HeadMemory, RememberedHead

PLACE = 1024


def head(position: int, generation: int = 1) -> RememberedHead:
    return RememberedHead(
        "test.example", "a" * 32, generation, position, 1000 + position, f"id-{generation}-{position}"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.db-head"


def test_the_newest_note_of_all_processes_counts_in_any_order(path: Path) -> None:
    chance = Random(17)
    memories = [HeadMemory(path) for _ in range(3)]
    newest = head(0)
    for _ in range(300):
        one = head(chance.randrange(1, 500), chance.choice((1, 1, 1, 1, 2)))
        chance.choice(memories).remember(one)
        newest = max(newest, one, key=lambda note: note.age)
        assert [memory.newest() for memory in (*memories, HeadMemory(path))] == [newest] * 4


def test_an_acknowledged_loss_is_newer_than_every_position_before_it(path: Path) -> None:
    memory = HeadMemory(path)
    memory.remember(head(100))
    memory.remember(head(7, generation=2))
    assert HeadMemory(path).newest() == head(7, generation=2)


@pytest.mark.parametrize("kept", [0, 1, 70, 150, PLACE - 1])
def test_a_write_that_was_cut_off_leaves_the_note_before(path: Path, kept: int) -> None:
    memory = HeadMemory(path)
    memory.remember(head(1))
    before = path.read_bytes()
    memory.remember(head(2))
    after = path.read_bytes()
    # The second note is in the second place. Of it, only the first bytes reached the disk.
    assert after[:PLACE] == before[:PLACE]
    path.write_bytes(after[: PLACE + kept])
    expected = head(2) if after[PLACE + kept :].strip() == b"" else head(1)
    assert HeadMemory(path).newest() == expected
    again = HeadMemory(path)
    again.remember(head(3))
    assert HeadMemory(path).newest() == head(3)


def test_a_note_that_was_deleted_is_written_again_and_for_its_owner_only(path: Path) -> None:
    memory = HeadMemory(path)
    memory.remember(head(1))
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    assert memory.newest() == head(1)
    memory.remember(head(2))
    assert HeadMemory(path).newest() == head(2)
    memory.close()
    assert HeadMemory(path).newest() == head(2)


def test_without_a_file_the_note_lasts_as_long_as_the_process() -> None:
    memory = HeadMemory()
    assert memory.newest() is None
    memory.remember(head(2))
    memory.remember(head(1))
    assert memory.newest() == head(2)
    memory.close()
