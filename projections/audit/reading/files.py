"""The log files that names stand for (files, folders, patterns), and the values in folder names like `org_id=acme`.

Order: as named, and by name within a folder or a pattern. Proved by tests/audit/io/test_files.py.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from ledger.errors import BadRecord
from ledger.subjects import is_text
from projections.audit.reading.fields import FIELDS, ColumnMapping

STDIN: Final = "-"
_FORMATS: Final = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx")
_PACKED: Final = (".gz", ".zst", ".bz2", ".xz")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9a-fA-F]{2})")
PATTERN: Final = frozenset("*?[")
REJECTS_SUFFIX: Final = ".rejects.jsonl"
"""Suffix of the files with an audit's unreadable lines."""
PIN_SUFFIX: Final = ".pin.json"
"""Suffix of the files beside an audit's verdicts: what they rest on."""
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"


class LogFile(NamedTuple):
    """`name`: as shown in results. `size`: bytes, None for a stream. `mapping`: with the values in the folder names."""

    name: str
    size: int | None
    mapping: ColumnMapping


def log_files(names: Iterable[str], mapping: ColumnMapping) -> list[LogFile]:
    """All files, in order. Raises `BadRecord` if a name matches no log, if a file comes twice, and if a folder's name
    has an invalid value."""
    paths = [path for name in names for path in _paths(name)]
    real_paths: set[str] = set()
    for name in paths:
        if not is_text(name):
            raise BadRecord(f"{name}: the log's name is not UTF-8, so no verdict could name its log; rename it")
        real = name if name == STDIN else os.path.realpath(name)
        if real in real_paths:
            raise BadRecord(f"{name}: this log is named twice, and its rows would count twice")
        real_paths.add(real)
    files = [LogFile(name, _size(name), with_path_values(name, mapping)) for name in paths]
    for file in files:
        if file.mapping.path_values:
            _check_path_values(file)
    return files


def _check_path_values(file: LogFile) -> None:
    """Fails before the first row: an invalid value would reject them all."""
    try:
        file.mapping.checked_constants()
    except BadRecord as error:
        raise BadRecord(f"{file.name}: a value in the names of its folders is invalid: {error.detail}") from None


def _paths(name: str) -> Iterator[str]:
    if name == STDIN:
        yield name
    elif os.path.isdir(name):
        yield from _in_folder(name)
    elif not os.path.lexists(name) and PATTERN & set(name):
        matches = sorted(glob.glob(name, recursive=True), key=os.fsencode)
        if not matches:
            raise BadRecord(f"{name}: no file matches this pattern")
        for match in matches:
            if os.path.isdir(match):
                if "**" not in name:
                    yield from _in_folder(match)
            else:
                yield _not_results(match)
    else:
        yield name


def _in_folder(folder: str) -> list[str]:
    """The logs in a folder and below it, through links, too. Names that begin with a dot or an underscore are other
    programs' own files, such as Spark's `_SUCCESS`.

    Raises `OSError` for a folder that cannot be read: its logs must not be missing without a word.
    """
    paths: list[str] = []
    parents: dict[str, tuple[str, ...]] = {folder: ()}
    for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        chain = (*parents.pop(root), os.path.realpath(root))
        if chain[-1] in chain[:-1]:
            raise BadRecord(f"{root}: this link leads back to a folder above it; name the logs one by one")
        folders[:] = [name for name in folders if name[0] not in "._"]
        parents |= {os.path.join(root, name): chain for name in folders}
        for name in files:
            if name[0] in "._":
                continue
            path = os.path.join(root, name)
            plain = next((name[: -len(end)] for end in _PACKED if name.endswith(end)), name)
            if not plain.endswith(_FORMATS):
                raise BadRecord(f"{path}: by its name this is no log; name the logs in the folder, or use a pattern")
            paths.append(_not_results(path))
    if not paths:
        raise BadRecord(f"{folder}: no log is in this folder")
    return sorted(paths, key=os.fsencode)


def _raise(error: OSError) -> None:
    raise error


def _not_results(path: str) -> str:
    """`path`, unless a folder or pattern matched a file that an audit wrote beside its verdicts: an audit of it is
    hardly ever meant."""
    if path.endswith(PIN_SUFFIX):
        raise BadRecord(
            f"{path}: by its name this says what an earlier audit rests on, and is no log; move it away with its "
            "verdicts, or name the logs one by one"
        )
    if path.endswith(REJECTS_SUFFIX):
        raise BadRecord(
            f"{path}: by its name this holds the lines that an earlier audit could not read, and is no log; move it "
            "away, or name the logs one by one"
        )
    return path


def _size(name: str) -> int | None:
    path = Path(name)
    return path.stat().st_size if name != STDIN and path.is_file() else None


def with_path_values(name: str, mapping: ColumnMapping) -> ColumnMapping:
    """`mapping` with the fields whose columns stand in folder names of the form column=value. Raises `BadRecord` for
    such a value whose escapes are wrong."""
    columns: dict[str, str] = {}
    for folder in Path(name).parts[:-1]:
        column, equals, value = folder.partition("=")
        if equals:
            columns[unquote(column)] = value
    values = {field: columns[mapping.column(field)] for field in FIELDS if mapping.column(field) in columns}
    fields = {field: _unescaped(name, value) for field, value in values.items()}
    present = {field: value for field, value in fields.items() if value not in ("", _NO_VALUE)}
    return mapping._replace(path_values=present) if present else mapping


def _unescaped(name: str, value: str) -> str:
    text = unquote(value, errors="surrogateescape")
    if _BAD_ESCAPE.search(value) or not is_text(text):
        raise BadRecord(
            f"{name}: {value}, in the name of a folder, has a % without two hexadecimal digits, or bytes that are not "
            "UTF-8; write a percent sign as %25, or rename the folder"
        )
    return text
