"""Files and folders that only their owner may read, whatever the umask: all files of inforce hold settings of somebody,
and often reasons.

Files that exist keep their mode, because an operator may have opened one to a group on purpose.
Proved by tests/cli/test_private_files.py.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Literal

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


def open_private(path: Path, mode: Literal["xb", "wb", "ab"], buffering: int = -1) -> BinaryIO:
    """`open` for writing: a file that it creates has mode 0600. Raises `OSError`."""
    return open(path, mode, buffering, opener=_create_private)


def write_private(path: Path, content: bytes) -> None:
    """`Path.write_bytes` with `open_private`."""
    with open_private(path, "wb") as file:
        file.write(content)


def make_private_folder(path: Path, *, exist_ok: bool = True) -> None:
    """Makes the folder and those above it, each with mode 0700 if it was not there. Raises `OSError`."""
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileNotFoundError:
        make_private_folder(path.parent)
        make_private_folder(path, exist_ok=exist_ok)
    except FileExistsError:
        # Not Path.mkdir, which gives the folders above whatever mode the umask leaves.
        if not exist_ok or not path.is_dir():
            raise


def make_private_file(path: Path) -> None:
    """Makes an empty file that another library will open by its name, unless something has that name.

    No descriptor of `path` itself is opened: closing one would drop the locks that this process holds on the file.
    Raises `OSError`.
    """
    real = Path(os.path.realpath(path))
    if real.exists():
        return
    beside = real.with_name(f".{real.name[:200]}.{secrets.token_hex(4)}")
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
    try:
        with suppress(FileExistsError):
            os.link(beside, real)
    except OSError:
        # Some file systems have no hard links.
        with suppress(FileExistsError):
            os.close(os.open(real, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
    finally:
        beside.unlink(missing_ok=True)


def _create_private(name: str, flags: int) -> int:
    return os.open(name, flags, FILE_MODE)
