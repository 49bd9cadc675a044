"""Which members of a JSON line are which fields, as a tree in arrays that compiled loops can walk."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from projections.audit.arrays import in_words
from projections.audit.reading import scan_lines as scanning
from projections.audit.reading.fields import FIELDS
from projections.audit.reading.scan_lines import INNER, STRICT
from projections.audit.reading.strict import RowParser

NAMES: Final = tuple(FIELDS)
_NODES_MAX: Final = 60
_KINDS: Final = {"text": 0, "time": 1, "position": 2, "flag": 3}
WHO: Final = ("key_id", "account_id", "org_id", "project_id")
assert NAMES[scanning.WHO_FIRST : scanning.WHO_LAST + 1] == WHO


def field_specs(rows: RowParser) -> Any:
    """What `scanning` has to know of each field."""
    return np.array(
        [
            (_KINDS[kind], field in rows.named, field in (*WHO, "model_id"), field == "handling.network")
            for field, kind in FIELDS.items()
        ],
        np.int64,
    )


class PathTree(NamedTuple):
    """`edges`: a row for each member that is known: the node that it is a member of, where its name begins in `names`
    (in words: see `in_words`) and how long it is, the node that it leads to, and what that is: a field, INNER (an
    object), or STRICT (who has it goes to the strict reader). `lenient`: by node, whether members of other names are
    ignored."""

    edges: Any
    names: Any
    lenient: Any


class _Growing:
    def __init__(self, lenient: bool) -> None:
        self.edges: dict[tuple[int, str], int] = {}
        self.kinds = [INNER]
        self.lenient = [lenient]

    def add(self, parent: int, name: str, kind: int, lenient: bool = True) -> int:
        """The node there; one that would have to be two things is STRICT."""
        node = self.edges.get((parent, name))
        if node is None:
            node = self.edges[parent, name] = len(self.kinds)
            self.kinds.append(kind)
            self.lenient.append(lenient)
        elif self.kinds[node] != kind or kind != INNER:
            self.kinds[node] = STRICT
        return node

    def tree(self) -> PathTree:
        """In the order of the fields, an object's members behind it: so members mostly come."""
        order = sorted(self.edges, key=self._way)
        names = [name.encode() for _, name in order]
        firsts = [sum(map(len, names[:number])) for number in range(len(names))]
        rows = [
            (edge[0], first, len(name), self.edges[edge], self.kinds[self.edges[edge]])
            for edge, name, first in zip(order, names, firsts, strict=True)
        ]
        _, words = in_words(np.frombuffer(b"".join(names) + bytes(16), np.uint8))
        return PathTree(np.array(rows, np.int64), words, np.array(self.lenient, np.bool_))

    def _way(self, edge: tuple[int, str]) -> list[tuple[int, int]]:
        """The nodes down to where the edge leads, each behind the first field that is under it."""
        child = self.edges[edge]
        above = next((self._way(one) for one, node in self.edges.items() if node == edge[0]), [])
        return [*above, (self._first(child), child)]

    def _first(self, node: int) -> int:
        under = [self._first(child) for (parent, _), child in self.edges.items() if parent == node]
        return min([*under, self.kinds[node] if self.kinds[node] >= 0 else len(NAMES)])


def path_tree(rows: RowParser) -> PathTree | None:
    """None: more is wanted than a tree holds, or by names that JSON has to escape, and every line is for the strict
    reader."""
    growing = _Growing(rows.lenient)
    handling = growing.add(0, "handling", INNER, False)
    for number, field in enumerate(NAMES):
        column = rows.mapping.column(field)
        member = field.partition(".")[2]
        if column != field:
            # Its own name then is no field, and yet belongs to a record.
            if member:
                growing.add(handling, member, STRICT)
            elif not rows.lenient:
                growing.add(0, field, STRICT)
        if not column:
            continue
        if "." in column and rows.lenient:
            # Found under its whole name, a member comes before one at the end of a path.
            growing.add(0, column, STRICT)
        if column == field and member:
            growing.add(handling, member, number)
        elif column.startswith("handling."):
            growing.kinds[handling] = STRICT
        else:
            *path, last = column.split(".")
            node = 0
            for name in path:
                node = growing.add(node, name, INNER)
            growing.add(node, last, number)
    plain = all(map(_is_plain, (name for _, name in growing.edges)))
    return growing.tree() if plain and len(growing.kinds) <= _NODES_MAX else None


def _is_plain(name: str) -> bool:
    """Whether in JSON it is written as it is."""
    return bool(name) and all(byte >= 32 and byte not in b'"\\' for byte in name.encode())
