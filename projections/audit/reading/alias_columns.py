"""Aliases for a column of ids at once. The rule for one value is in `projections.audit.reading.fields`."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc


class AliasColumns:
    def __init__(self, aliases: Mapping[str, Mapping[str, str]]) -> None:
        """`aliases`: field → name in the log → id."""
        self._tables = {
            field: (pa.array([name.encode() for name in ids], pa.binary()), pa.array(list(ids.values()), pa.string()))
            for field, ids in aliases.items()
        }

    def resolved(self, field: str, column: pa.Array) -> pa.Array:
        """The column of texts, whose bytes need not be UTF-8, with ids for the names that have one."""
        if field not in self._tables:
            return column
        names, ids = self._tables[field]
        # Compared as bytes: a text that is not UTF-8 equals no name.
        places = pc.index_in(column.view(pa.binary()), value_set=names)
        if places.null_count == len(places):
            return column
        return pc.if_else(places.is_valid(), ids.take(places), column)
