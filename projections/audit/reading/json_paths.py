"""The JSON members that hold fields, as a tree in arrays that compiled loops can walk."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from projections.audit.arrays import in_words
from projections.audit.reading import scan_lines
from projections.audit.reading.columns import holds_observations
from projections.audit.reading.fields import FIELDS, WHO
from projections.audit.reading.scan_lines import ANY_MEMBERS, INNER, STRICT, STRICT_HANDLING, STRICT_MEMBERS
from projections.audit.reading.strict import RowParser

NAMES: Final = tuple(FIELDS)
_NODES_MAX: Final = 60
_STRICT_NODE: Final = 1
"""The child of all edges to members that are for the strict reader."""
_KINDS: Final = {"text": 0, "time": 1, "position": 2, "flag": 3}
assert len(NAMES) == scan_lines.AT_KIND
assert NAMES[scan_lines.WHO_FIRST : scan_lines.WHO_LAST + 1] == WHO


def field_specs(parser: RowParser) -> Any:
    """The `spec` of `scan_lines`: a row for each field."""
    return np.array(
        [
            (_KINDS[kind], field in parser.mapped_columns, field in (*WHO, "model_id"), field == "handling.network")
            for field, kind in FIELDS.items()
        ],
        np.int64,
    )


class PathTree(NamedTuple):
    """The members to look for.

    edges: a row for each known member: its parent node, where its name begins in `names` (in words: see `in_words`),
    the name's length, its child node, and the child's kind: a field, INNER (an object) or STRICT (a line with this
    member goes to the strict reader). lenient: by node, what becomes of unknown members (STRICT_MEMBERS, ANY_MEMBERS or
    STRICT_HANDLING).
    """

    edges: Any
    names: Any
    lenient: Any


class _TreeBuilder:
    def __init__(self) -> None:
        self.edges: dict[tuple[int, str], int] = {}
        self.kinds = [INNER, STRICT]
        self.lenient = [ANY_MEMBERS, ANY_MEMBERS]

    def add(self, parent: int, name: str, kind: int, lenient: int = ANY_MEMBERS) -> int:
        """The child node of that name. A node that would need two kinds becomes STRICT."""
        node = self.edges.get((parent, name))
        if node is None and kind == STRICT:
            node = self.edges[parent, name] = _STRICT_NODE
        elif node is None:
            node = self.edges[parent, name] = len(self.kinds)
            self.kinds.append(kind)
            self.lenient.append(lenient)
        elif self.kinds[node] != kind or kind != INNER:
            self.kinds[node] = STRICT
        return node

    def add_ways(self, parent: int, pieces: tuple[str, ...], kind: int) -> None:
        """Every way to the member: the pieces of its name may each be an object's name, or several of them one. Only
        the way by an object for each piece is read here."""
        for count in range(1, len(pieces)):
            whole = ".".join(pieces[:count])
            if count > 1:
                self.add(parent, whole, STRICT)
            else:
                node = self.add(parent, whole, INNER)
                if node != _STRICT_NODE:
                    self.add_ways(node, pieces[1:], kind)
        self.add(parent, ".".join(pieces), kind if len(pieces) == 1 else STRICT)

    def tree(self) -> PathTree:
        """Edges in the order of the fields, an object's members after it: most logs write them in this order."""
        order = sorted(self.edges, key=self._sort_key)
        names = [name.encode() for _, name in order]
        firsts = [sum(map(len, names[:number])) for number in range(len(names))]
        rows = [
            (edge[0], first, len(name), self.edges[edge], self.kinds[self.edges[edge]])
            for edge, name, first in zip(order, names, firsts, strict=True)
        ]
        _, words = in_words(np.frombuffer(b"".join(names) + bytes(16), np.uint8))
        return PathTree(np.array(rows, np.int64), words, np.array(self.lenient, np.int8))

    def _sort_key(self, edge: tuple[int, str]) -> list[tuple[int, int]]:
        """The nodes from the root to the edge's child, each with the first field below it."""
        child = self.edges[edge]
        above = next((self._sort_key(one) for one, node in self.edges.items() if node == edge[0]), [])
        return [*above, (self._first(child), child)]

    def _first(self, node: int) -> int:
        below = [self._first(child) for (parent, _), child in self.edges.items() if parent == node]
        return min([*below, self.kinds[node] if self.kinds[node] >= 0 else len(NAMES)])


def path_tree(parser: RowParser) -> PathTree | None:
    """None if a tree cannot hold the mapping (too many members, or names that JSON must escape): then every line is for
    the strict reader."""
    builder = _TreeBuilder()
    handling = builder.add(0, "handling", INNER, STRICT_MEMBERS)
    if holds_observations(parser.mapping):
        builder.lenient[0] = STRICT_HANDLING
    for number, field in enumerate(NAMES):
        column = parser.columns.get(field)
        member = field.partition(".")[2]
        if member and (column is None or column.name != field):
            # The member's own name is no field any more, but still belongs to the handling of a record.
            builder.add(handling, member, STRICT)
        if column is None:
            continue
        if column.inner is not None:
            builder.add(0, column.name, STRICT)
            builder.add_ways(0, column.outer, STRICT)
        else:
            if column.outer[0] == "handling" and column.name != field:
                builder.kinds[handling] = STRICT
            builder.add_ways(0, column.outer, number)
    plain = all(map(_is_plain, (name for _, name in builder.edges)))
    return builder.tree() if plain and len(builder.kinds) <= _NODES_MAX else None


def _is_plain(name: str) -> bool:
    """Whether JSON writes the name without escapes."""
    return bool(name) and all(byte >= 32 and byte not in b'"\\' for byte in name.encode())
