"""The tables of the transparency log: tiles, heads and verifier keys. The statements are the same on both databases.

Tiles are a function of the events; the published head is not, because others have seen it. Each head is replaced only
if it is still the one that the writer read, so two writers never store two trees of one size.
Proved by tests/contracts/test_log.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, NamedTuple, Protocol

from ledger.errors import LedgerCorrupt

LOG_TILES: Final = "log_tiles"
LOG_HEADS: Final = "log_heads"
LOG_KEYS: Final = "log_keys"

HeadName = Literal["integrated", "published"]
"""Of the tree that the stored tiles form; of the tree of the last checkpoint."""

TilePlace = tuple[int, int]
"""(level, number)"""

_TILES_MAX: Final = 200
"""Tiles that one statement reads."""


class StoredHead(NamedTuple):
    """`note`: the signed checkpoint; empty for the integrated tree."""

    size: int
    root: bytes
    note: bytes = b""


class _Begin(Protocol):
    def __call__(self, *, commit: bool) -> AbstractContextManager[Any]: ...


class LogTables:
    """Raises `LedgerUnavailable` where the database cannot answer, and `LedgerCorrupt` where a stored value cannot be
    what was written."""

    def __init__(self, begin: _Begin, existing: str, prefix: str, placeholder: str) -> None:
        """`begin`: the recorder's transaction. `existing`: SELECTs a row if a table of the name ? exists. `prefix`:
        before the name of a table."""
        self._begin = begin
        self._existing = existing
        self._exist = False
        self._prefix = prefix
        self._placeholder = placeholder

    def _statement(self, text: str) -> str:
        return text.replace("{", self._prefix).replace("}", "").replace("?", self._placeholder)

    def exist(self) -> bool:
        """Whether the ledger has these tables: one of an older format that may not be written has none."""
        if not self._exist:
            with self._begin(commit=False) as cursor:
                self._exist = bool(cursor.execute(self._statement(self._existing), (LOG_HEADS,)).fetchone())
        return self._exist

    def head(self, name: HeadName) -> StoredHead | None:
        """None: there is none yet."""
        if not self.exist():
            return None
        with self._begin(commit=False) as cursor:
            statement = f"SELECT size, root, note FROM {{{LOG_HEADS}}} WHERE name = ?"
            row = cursor.execute(self._statement(statement), (name,)).fetchone()
        if row is None:
            return None
        size, root, note = row
        if type(size) is not int or size < 1 or not _is_bytes(root) or len(root) != 32 or not _is_bytes(note):
            raise LedgerCorrupt(f"the {name} head of the log is not what was written; see inforce doctor log")
        return StoredHead(size, bytes(root), bytes(note))

    def tiles(self, places: Sequence[TilePlace]) -> dict[TilePlace, bytes]:
        """The stored bytes of these tiles; a tile that is not stored is left out."""
        by_place: dict[TilePlace, bytes] = {}
        with self._begin(commit=False) as cursor:
            for start in range(0, len(places), _TILES_MAX):
                some = places[start : start + _TILES_MAX]
                either = " OR ".join(["(level = ? AND number = ?)"] * len(some))
                statement = f"SELECT level, number, hashes FROM {{{LOG_TILES}}} WHERE {either}"
                parameters = [value for place in some for value in place]
                for level, number, hashes in cursor.execute(self._statement(statement), parameters).fetchall():
                    if not _is_bytes(hashes):
                        raise LedgerCorrupt(f"tile {number} of level {level} of the log is not what was written")
                    by_place[level, number] = bytes(hashes)
        return by_place

    def grow(self, before: StoredHead | None, after: StoredHead, tiles: Mapping[TilePlace, bytes]) -> bool:
        """Stores tiles and the head of the integrated tree, in one transaction. False: the head was not `before` any
        more, and nothing was stored."""
        with self._begin(commit=True) as cursor:
            if not self._replace(cursor, "integrated", before, after):
                return False
            statement = (
                f"INSERT INTO {{{LOG_TILES}}} (level, number, hashes) VALUES (?, ?, ?)"
                " ON CONFLICT (level, number) DO UPDATE SET hashes = excluded.hashes"
            )
            cursor.executemany(self._statement(statement), [(*place, hashes) for place, hashes in tiles.items()])
            return True

    def clear_tree(self) -> None:
        """Deletes the tiles and the head of the integrated tree, which the next integrator makes anew. The published
        head stays, and the new tree is compared with it."""
        with self._begin(commit=True) as cursor:
            cursor.execute(self._statement(f"DELETE FROM {{{LOG_HEADS}}} WHERE name = ?"), ("integrated",))
            cursor.execute(self._statement(f"DELETE FROM {{{LOG_TILES}}}"))

    def publish(self, before: StoredHead | None, after: StoredHead, keys: Sequence[str]) -> bool:
        """Stores the head of a checkpoint, and the verifier keys that signed it. False: as in `grow`."""
        with self._begin(commit=True) as cursor:
            if not self._replace(cursor, "published", before, after):
                return False
            statement = f"INSERT INTO {{{LOG_KEYS}}} (verifier_key, first_size) VALUES (?, ?) ON CONFLICT DO NOTHING"
            cursor.executemany(self._statement(statement), [(key, after.size) for key in keys])
            return True

    def _replace(self, cursor: Any, name: HeadName, before: StoredHead | None, after: StoredHead) -> bool:
        if before is None:
            statement = (
                f"INSERT INTO {{{LOG_HEADS}}} (name, size, root, note) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            )
            changed = cursor.execute(self._statement(statement), (name, *after))
        else:
            statement = (
                f"UPDATE {{{LOG_HEADS}}} SET size = ?, root = ?, note = ? WHERE name = ? AND size = ? AND root = ?"
                " AND note = ?"
            )
            changed = cursor.execute(self._statement(statement), (*after, name, *before))
        return bool(changed.rowcount == 1)

    def verifier_keys(self) -> list[tuple[str, int]]:
        """(verifier key, the size of the first tree that it signed), by that size."""
        if not self.exist():
            return []
        with self._begin(commit=False) as cursor:
            statement = f"SELECT verifier_key, first_size FROM {{{LOG_KEYS}}} ORDER BY first_size, verifier_key"
            return [(str(key), size) for key, size in cursor.execute(self._statement(statement)).fetchall()]

    def places(self, after: TilePlace | None, limit: int) -> list[TilePlace]:
        """Up to `limit` places of stored tiles behind `after`, in order."""
        level, number = (-1, -1) if after is None else after
        with self._begin(commit=False) as cursor:
            statement = (
                f"SELECT level, number FROM {{{LOG_TILES}}} WHERE level > ? OR (level = ? AND number > ?)"
                " ORDER BY level, number LIMIT ?"
            )
            return [tuple(row) for row in cursor.execute(self._statement(statement), (level, level, number, limit))]


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes | memoryview)
