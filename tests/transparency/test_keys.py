"""Keys come from a file that only its owner may read, or from the environment; a fault never shows a key."""

from pathlib import Path

import pytest

from ledger.errors import BadInput
from ledger.transparency.keys import KEY_VARIABLE, configured_keys, new_key, read_key_file

ORIGIN = "log.example/eu"


def write(path: Path, *lines: str, mode: int = 0o600) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    return path


def test_keys_of_a_file_and_of_the_environment(tmp_path: Path) -> None:
    first, second = new_key(ORIGIN), new_key(ORIGIN)
    assert first.verifier != second.verifier
    file = write(tmp_path / "key", "# a comment", first.secret_text(), "", f"  {second.secret_text()} ")
    assert [key.verifier for key in configured_keys(file, {})] == [first.verifier, second.verifier]
    both = {KEY_VARIABLE: f"{first.secret_text()}\n{second.secret_text()}"}
    assert [key.verifier for key in configured_keys(None, both)] == [first.verifier, second.verifier]
    assert configured_keys(None, {KEY_VARIABLE: " "}) == []
    with pytest.raises(BadInput, match="not from both"):
        configured_keys(file, both)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path / "key", new_key(ORIGIN).secret_text(), mode=mode)
    with pytest.raises(BadInput, match=f"has the mode 0{mode:o}, so others may read the key; set it to 0600"):
        read_key_file(file)


def test_what_is_no_file_of_keys_is_refused(tmp_path: Path) -> None:
    key, other = new_key(ORIGIN).secret_text(), new_key("log.example/us").secret_text()
    for lines, fault in (
        (["# nothing"], "holds no key"),
        (["secret-that-is-no-key"], "key 1 of .* cannot be read: a signing key begins with"),
        ([key, key[:-3]], "key 2 of .* cannot be read"),
        ([key, key], "is there twice"),
        ([key, other], "different names"),
        ([new_key(ORIGIN).secret_text() for _ in range(9)], "9 keys, and 8 are enough"),
    ):
        with pytest.raises(BadInput, match=fault) as error:
            read_key_file(write(tmp_path / "key", *lines))
        assert "secret" not in error.value.detail
        assert not any(line.split("+", 4)[-1] in error.value.detail for line in lines)
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="holds no key of inforce keygen"):
        read_key_file(tmp_path / "key")
    with pytest.raises(FileNotFoundError):
        read_key_file(tmp_path / "absent")
