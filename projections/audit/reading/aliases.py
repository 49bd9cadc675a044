"""Aliases: the ids of the ledger for names that a log has in their place (`Acme Inc`, `auth0|5f1`, an e-mail address).

The table is CSV: kind, name in the log, id. Other names keep their meaning. An audit states the digest of the table,
which is the same for the same aliases in any order. Proved by tests/audit/io/test_aliases.py.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from ledger.errors import BadRecord
from ledger.subjects import is_id, is_text

FIELD_OF_KIND: Final = {kind: f"{kind}_id" for kind in ("key", "account", "org", "project", "model")}
HEADER: Final = ("kind", "name", "id")
NAME_LENGTH_MAX: Final = 1_000
FILE_BYTES_MAX: Final = 1 << 28
_FORM: Final = "a row is KIND,NAME,ID, as in org,Globex Ltd,globex"


class Alias(NamedTuple):
    kind: str
    name: str
    id: str


class Aliases(NamedTuple):
    """`rows`: ascending, each once. `file`: the name of the table, if it was a file."""

    rows: tuple[Alias, ...] = ()
    file: str | None = None

    def by_field(self) -> dict[str, dict[str, str]]:
        """Field → name in the log → id."""
        fields: dict[str, dict[str, str]] = {}
        for kind, name, id_ in self.rows:
            fields.setdefault(FIELD_OF_KIND[kind], {})[name] = id_
        return fields

    def json(self) -> dict[str, Any] | None:
        """The digest and the count, and none of the names, which may be somebody's data."""
        if not self.rows:
            return None
        lines = (f"{kind}\0{name}\0{id_}\n".encode() for kind, name, id_ in self.rows)
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line)
        return {"sha256": digest.hexdigest(), "count": len(self.rows)}


NO_ALIASES: Final = Aliases()


def read_aliases(name: str) -> Aliases:
    """The table in a file; a first row `kind,name,id` is its header. Raises `BadRecord` and `OSError`."""
    path = Path(name)
    if path.is_file() and path.stat().st_size > FILE_BYTES_MAX:
        raise BadRecord(f"{name}: a table of aliases has at most {FILE_BYTES_MAX} bytes")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRecord(f"{name}: the table of aliases is not UTF-8") from None
    rows = list(_numbered_rows(text, name))
    if rows and tuple(cell.strip().lower() for cell in rows[0][1]) == HEADER:
        del rows[0]
    if not rows:
        raise BadRecord(f"{name}: the table has no aliases; {_FORM}")
    return Aliases(_checked((f"{name} line {number}", row) for number, row in rows), name)


def aliases_of_rows(texts: Iterable[str]) -> Aliases:
    """The table whose rows are these texts. Raises `BadRecord`."""
    rows = [row for text in texts for _, row in _numbered_rows(text, "the alias")]
    return Aliases(_checked(("the alias", row) for row in rows))


def _numbered_rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    # Not by `splitlines`, which would cut a name at other signs than the ends of lines, and drop them from it.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error:
        raise BadRecord(f"{where} line {reader.line_num}: this is not CSV; {_FORM}") from None


def _checked(rows: Iterable[tuple[str, list[str]]]) -> tuple[Alias, ...]:
    ids: dict[tuple[str, str], str] = {}
    for where, cells in rows:
        if len(cells) != len(HEADER):
            raise BadRecord(f"{where}: the row has {len(cells)} cells; {_FORM}")
        kind, name, id_ = cells[0].strip(), cells[1], cells[2].strip()
        if kind not in FIELD_OF_KIND:
            raise BadRecord(f"{where}: the kind is none of {', '.join(FIELD_OF_KIND)}; {_FORM}")
        if not 1 <= len(name) <= NAME_LENGTH_MAX or not is_text(name):
            raise BadRecord(f"{where}: a name in the log has 1 to {NAME_LENGTH_MAX} characters")
        if not is_id(id_) or id_.startswith(f"{kind}:"):
            raise BadRecord(f"{where}: the third cell is no id of the ledger; ids are bare, as in acme")
        if ids.setdefault((kind, name), id_) != id_:
            raise BadRecord(f"{where}: the name has another id above, and a log could mean either")
    return tuple(sorted(Alias(kind, name, id_) for (kind, name), id_ in ids.items()))
