"""Files in and out: `-` is standard input or output, what is written appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from ledger.errors import BadInput

_SQLITE: Final = b"SQLite format 3\x00"


@contextmanager
def reading(name: str) -> Iterator[BinaryIO]:
    """Raises `OSError` with the file's name."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def read_body(name: str, bytes_max: int, instead: str) -> bytes:
    """All of a file that is to be one body. Raises `BadInput` where it is too large to be one."""
    with reading(name) as file:
        body = file.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise BadInput(f"more than {bytes_max} bytes at once; send it in parts; {instead}")
    return body


@contextmanager
def writing(name: str) -> Iterator[BinaryIO]:
    """A file that is there, whole and durable, once the block has ended well, and otherwise is as it was before.
    Raises `BadInput` where it would take the place of a database."""
    if name == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    if is_stream(name):
        # By this name: what /dev/stdout leads to may have none.
        with Path(name).open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(name))
    _refuse_database(path, name)
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename == str(beside):
            # The name that was asked for, not the one beside it.
            raise OSError(error.errno, error.strerror, name) from None
        raise
    finally:
        beside.unlink(missing_ok=True)


def is_stream(name: str) -> bool:
    """Whether it is a pipe or a device (or `-`): it cannot be replaced, and nothing lies beside it."""
    return name == "-" or (Path(name).exists() and not Path(name).is_file())


def _refuse_database(path: Path, name: str) -> None:
    """A slip of the hand must not put an export in the place of the ledger that it was made from."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) == _SQLITE:
            raise BadInput(f"{name} is a database, perhaps a ledger, and is not overwritten; name another file")


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error while somebody watches; is told what is done of `total`, and in what words."""
    if not sys.stderr.isatty():
        yield lambda _done, _words: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[words]}"))
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *times, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, words="")
        yield lambda done, words: bar.update(task, completed=done, words=words)


def size_of(name: str) -> int | None:
    """A file's bytes, if it has a size."""
    if name == "-":
        return None
    path = Path(name)
    return path.stat().st_size if path.is_file() else None
