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
from ledger.subjects import is_text
from projections.audit.reading.fields import FIELDS, ColumnMapping

STDIN: Final = "-"
_FORMATS: Final = (".parquet", ".jsonl", ".ndjson", ".json", ".csv")
_PACKED: Final = (".gz", ".zst")
_PATTERN: Final = frozenset("*?[")
REJECTS_SUFFIX: Final = ".rejects.jsonl"
"""Of the file of lines that an audit could not read."""
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"


class LogFile(NamedTuple):
    """`name` as it is told; `size` in bytes, None for a stream; `mapping` with what the folders say."""

    name: str
    size: int | None
    mapping: ColumnMapping


def log_files(names: Iterable[str], mapping: ColumnMapping) -> list[LogFile]:
    """Every file that is meant, in order. Raises `BadRecord` where a name stands for none, or a file comes twice, and
    where the folders above it say what cannot be."""
    found = [file for name in names for file in _found(name)]
    seen: set[str] = set()
    for name in found:
        if not is_text(name):
            raise BadRecord(f"{name}: the log's name is not UTF-8, so no verdict could say where it is from; rename it")
        real = name if name == STDIN else os.path.realpath(name)
        if real in seen:
            raise BadRecord(f"{name}: this log is named twice, and its rows would count twice")
        seen.add(real)
    files = [LogFile(name, _size(name), with_path_values(name, mapping)) for name in found]
    for file in files:
        if file.mapping.path_values:
            _must_hold(file)
    return files


def _must_hold(file: LogFile) -> None:
    """Refuses what the folders say before the first row, because it would be wrong on all of them."""
    try:
        file.mapping.checked_constants()
    except BadRecord as error:
        raise BadRecord(f"{file.name}: what its folders say cannot be: {error.detail}") from None


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
                yield _no_rejects(match)
    else:
        yield name


def _in_folder(folder: str) -> list[str]:
    """Its files, deep down, also through links. What begins with a dot or an underscore is other programs' own, as
    Spark's `_SUCCESS`. Raises `OSError` for a folder that cannot be looked into: its logs must not just be missing."""
    found: list[str] = []
    above: dict[str, tuple[str, ...]] = {folder: ()}
    for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        above_it = (*above.pop(root), os.path.realpath(root))
        if above_it[-1] in above_it[:-1]:
            raise BadRecord(f"{root}: this link leads back to a folder above it; name the logs one by one")
        folders[:] = [name for name in folders if name[0] not in "._"]
        above |= {os.path.join(root, name): above_it for name in folders}
        for name in files:
            if name[0] in "._":
                continue
            path = os.path.join(root, name)
            plain = next((name[: -len(end)] for end in _PACKED if name.endswith(end)), name)
            if not plain.endswith(_FORMATS):
                raise BadRecord(f"{path}: by its name this is no log; name the logs in the folder, or use a pattern")
            found.append(_no_rejects(path))
    if not found:
        raise BadRecord(f"{folder}: no log is in this folder")
    return sorted(found, key=os.fsencode)


def _raise(error: OSError) -> None:
    raise error


def _no_rejects(path: str) -> str:
    """A log by its name, which nobody wrote out."""
    if path.endswith(REJECTS_SUFFIX):
        raise BadRecord(
            f"{path}: by its name this holds what an earlier audit could not read, and is no log; move it away, or "
            "name the logs one by one"
        )
    return path


def _size(name: str) -> int | None:
    path = Path(name)
    return path.stat().st_size if name != STDIN and path.is_file() else None


def with_path_values(name: str, mapping: ColumnMapping) -> ColumnMapping:
    """`mapping` with the fields that folders of the form column=value speak of."""
    said: dict[str, str] = {}
    for folder in Path(name).parts[:-1]:
        column, equals, value = folder.partition("=")
        if equals and unquote(value) not in ("", _NO_VALUE):
            said[unquote(column)] = unquote(value)
    fields = {field: said[mapping.column(field)] for field in FIELDS if mapping.column(field) in said}
    return mapping._replace(path_values=fields) if fields else mapping
