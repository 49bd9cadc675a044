"""The last signed checkpoint is kept outside the ledger, and what cannot be read or written stops the signing."""

from pathlib import Path

import pytest

from ledger.errors import LedgerUnavailable
from ledger.transparency.checkpoint import Checkpoint, SignedCheckpoint
from ledger.transparency.checkpoint_memory import CheckpointMemory
from ledger.transparency.merkle import TreeHead
from ledger.transparency.note import BadNote, SigningKey, sign_note

KEY = SigningKey("log.example/eu", bytes(32))


def signed(size: int) -> SignedCheckpoint:
    text = Checkpoint("log.example/eu", TreeHead(size, bytes(32))).text
    return SignedCheckpoint.parse(bytes(sign_note(text, [KEY])))


def test_the_file_holds_the_signed_note_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "ledger.db-checkpoint"
    memory = CheckpointMemory(file)
    assert memory.newest() is None
    memory.remember(signed(3))
    memory.remember(signed(5))
    assert file.read_bytes() == bytes(signed(5).note)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert CheckpointMemory(file).newest() == signed(5)
    assert list(file.parent.iterdir()) == [file]


def test_another_process_may_have_signed_a_newer_one(tmp_path: Path) -> None:
    one, other = CheckpointMemory(tmp_path / "c"), CheckpointMemory(tmp_path / "c")
    one.remember(signed(3))
    other.remember(signed(4))
    assert one.newest() == signed(4)
    # A file that went back, or was deleted, does not take back what this process knows.
    CheckpointMemory(tmp_path / "c").remember(signed(2))
    assert one.newest() == signed(4)
    (tmp_path / "c").unlink()
    assert one.newest() == signed(4)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"nonsense\n"])
def test_a_file_that_cannot_be_read_is_never_taken_for_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(BadNote, match=r"/c should hold the last checkpoint .* a fork could be signed"):
        CheckpointMemory(tmp_path / "c").newest()


def test_a_place_that_cannot_be_written_stops_the_signing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = CheckpointMemory(tmp_path / "file" / "c")
    with pytest.raises(LedgerUnavailable, match="so none is published"):
        memory.remember(signed(3))


def test_without_a_file_the_memory_ends_with_the_process() -> None:
    memory = CheckpointMemory(None)
    memory.remember(signed(3))
    assert memory.newest() == signed(3)
    assert CheckpointMemory(None).newest() is None
