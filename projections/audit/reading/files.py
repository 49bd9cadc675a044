"""What the names of logs stand for: files, folders, patterns, and what folders like `org_id=acme` say of the rows.

Order: as named, and within a folder or a pattern by name. Proved by tests/audit/io/test_files.py.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from ledger.errors import BadRecord
from projections.audit.fields import FIELDS, Shape

STDIN: Final = "-"
_FORMATS: Final = (".parquet", ".jsonl", ".ndjson", ".json", ".csv")
_PACKED: Final = (".gz", ".zst")
_PATTERN: Final = frozenset("*?[")
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"


class LogFile(NamedTuple):
    """`name` as it is told; `size` in bytes, None for a stream; `shape` with what the folders say."""

    name: str
    size: int | None
    shape: Shape


def log_files(names: Iterable[str], shape: Shape) -> list[LogFile]:
    """Every file that is meant, in order. Raises `BadRecord` where a name stands for none, or a file comes twice."""
    found = [file for name in names for file in _found(name)]
    seen: set[str] = set()
    for name in found:
        real = name if name == STDIN else os.path.realpath(name)
        if real in seen:
            raise BadRecord(f"{name}: this log is named twice, and its rows would count twice")
        seen.add(real)
    return [LogFile(name, _size(name), of_path(name, shape)) for name in found]


def _found(name: str) -> Iterator[str]:
    if name == STDIN:
        yield name
    elif os.path.isdir(name):
        yield from _in_folder(name)
    elif not os.path.lexists(name) and _PATTERN & set(name):
        matches = sorted(glob.glob(name, recursive=True), key=os.fsencode)
        if not matches:
            raise BadRecord(f"{name}: no file's name is like that")
        for match in matches:
            if os.path.isdir(match):
                if "**" not in name:
                    yield from _in_folder(match)
            else:
                yield match
    else:
        yield name


def _in_folder(folder: str) -> list[str]:
    """Its files, deep down. What begins with a dot or an underscore is other programs' own, as Spark's `_SUCCESS`."""
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in files:
            if name[0] in "._":
                continue
            path = os.path.join(root, name)
            plain = next((name[: -len(end)] for end in _PACKED if name.endswith(end)), name)
            if not plain.endswith(_FORMATS):
                raise BadRecord(f"{path}: by its name this is no log; name the logs in the folder, or use a pattern")
            found.append(path)
    if not found:
        raise BadRecord(f"{folder}: no log is in this folder")
    return sorted(found, key=os.fsencode)


def _size(name: str) -> int | None:
    path = Path(name)
    return path.stat().st_size if name != STDIN and path.is_file() else None


def of_path(name: str, shape: Shape) -> Shape:
    """`shape` with the fields that folders of the form column=value speak of."""
    said: dict[str, str] = {}
    for folder in Path(name).parts[:-1]:
        column, equals, value = folder.partition("=")
        if equals and unquote(value) not in ("", _NO_VALUE):
            said[unquote(column)] = unquote(value)
    fields = {field: said[shape.column(field)] for field in FIELDS if shape.column(field) in said}
    return shape._replace(of_path=fields) if fields else shape
