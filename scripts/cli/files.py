"""Input and output files, and progress bars. `-` is standard input or output; an output file appears whole or not at
all.

Proved by tests/cli/test_transfer.py and tests/cli/audit/test_files.py.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from ledger.errors import BadInput
from ledger.private_files import open_private
from scripts.cli import exits

ReportProgress = Callable[[int, str], None]
"""Call it with how much of the total is done, and a text to show beside the bar."""

_SQLITE_HEADER: Final = b"SQLite format 3\x00"


@contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """Raises `OSError` with the file's name."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def read_body(name: str, bytes_max: int, advice: str) -> bytes:
    """The whole file. Raises `BadInput` with `advice`, what to do instead, if it has more than `bytes_max`."""
    with open_input(name) as file:
        body = file.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise BadInput(f"{name} has more than {bytes_max} bytes{advice}")
    return body


def numbered_lines(body: bytes) -> list[tuple[int, bytes]]:
    """The lines that are not blank, each with its number as editors count."""
    return [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]


@contextmanager
def open_output(name: str) -> Iterator[BinaryIO]:
    """A file that replaces `name`, whole and flushed to disk, when the block ends without an error.

    After an error the file `name` is as it was before. Raises `BadInput` if `name` is a database.
    """
    if name == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    if is_stream(name):
        # Opened by its own name: the target of /dev/stdout may have no name.
        with Path(name).open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(name))
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER:
                # A mistyped name must not replace the ledger by an export of it.
                raise BadInput(f"{name} is a database, perhaps a ledger, and is not overwritten; name another file")
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        with open_private(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            # The user knows the name of the output, not that of the temporary file.
            raise OSError(error.errno, error.strerror, name) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_stream(name: str) -> bool:
    """Whether `name` is `-`, a pipe or a device: it cannot be replaced, and no file can lie beside it."""
    return name == "-" or (Path(name).exists() and not Path(name).is_file())


@contextmanager
def progress(title: str, total: int | None) -> Iterator[ReportProgress]:
    """A progress bar on standard error if that is a terminal; nothing otherwise, or with --quiet."""
    if exits.is_quiet() or not sys.stderr.isatty():
        yield lambda _done, _text: None
        return
    from rich import progress as rich
    from rich.console import Console
    from rich.text import Text

    class Compiler(rich.ProgressColumn):
        """Says why an audit is slow at first: it is drawn again ten times a second."""

        def render(self, task: rich.Task) -> Text:
            return Text("compiling, once" + "." * (int(2 * (task.elapsed or 0)) % 4) if _is_compiling() else "")

    text = rich.TextColumn("{task.fields[text]}")
    columns = (rich.TextColumn(title), rich.BarColumn(), rich.TaskProgressColumn(), text, Compiler())
    times = (rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn())
    with rich.Progress(*columns, *times, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, text="")
        yield lambda done, text: bar.update(task, completed=done, text=text)


def _is_compiling() -> bool:
    """Whether the compiler of audits is at work, if this process audits at all."""
    numba_support = sys.modules.get("projections.audit.numba_support")
    return numba_support is not None and numba_support.is_compiling()
