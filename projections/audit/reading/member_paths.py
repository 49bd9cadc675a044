"""A column of a log as its user names it, and the value that a row of JSON has there.

`user.id` is the member `id` of the member `user`, or a member that is named `user.id`: names may hold dots at any
depth. `metadata:user.id` looks for `user.id` in the JSON text that `metadata` holds. Proved by
tests/audit/io/test_member_paths.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from projections.audit.reading.json_values import is_repeated, read_json
from projections.audit.reading.log_times import UnreadableValue

JSON_TEXT: Final = ":"
PIECES_MAX: Final = 16
"""The most dots of a column's name that may lead into members."""
_TWICE_ON_THE_WAY: Final = "a member on the way to this one is there twice"


class Absent:
    """No member is there."""


ABSENT: Final = Absent()


class LogColumn(NamedTuple):
    """`name`: as the user writes it. `outer`: the pieces of the name before the first colon, `inner`: the column in the
    JSON text there; None: the name has no colon."""

    name: str
    outer: tuple[str, ...]
    inner: LogColumn | None


def log_column(name: str) -> LogColumn:
    outer, _, inner = name.partition(JSON_TEXT)
    if not outer or not inner:
        return LogColumn(name, _pieces(name), None)
    return LogColumn(name, _pieces(outer), log_column(inner))


def _pieces(name: str) -> tuple[str, ...]:
    pieces = tuple(name.split(".", PIECES_MAX))
    return pieces if all(pieces) else (name,)


def all_names(column: LogColumn) -> set[str]:
    """Every name of a member on a way to the column."""
    names = {column.name}
    for pieces in {column.outer, tuple(column.name.split(".", PIECES_MAX))}:
        names |= {
            ".".join(pieces[start:end]) for start in range(len(pieces)) for end in range(start + 1, len(pieces) + 1)
        }
    return names | (all_names(column.inner) if column.inner is not None else set())


def find(members: dict[str, Any], column: LogColumn) -> Any:
    """The value at the column, or ABSENT. Raises `UnreadableValue` if it is there in two ways, if a name on the way
    stands twice in its object, and if the way runs into another value than an object."""
    if column.inner is None:
        return _at(members, column.outer)
    whole = _at(members, _pieces(column.name)) if column.name in members else ABSENT
    if whole is not ABSENT:
        return whole
    return inside(_at(members, column.outer), column.inner)


def inside(text: Any, column: LogColumn) -> Any:
    """The value at the column in a JSON text, or in the object itself: some programs write one or the other."""
    if text is None or text is ABSENT or text == "":
        return ABSENT
    if isinstance(text, str):
        try:
            text = read_json(text.encode(), all_names(column))
        except UnicodeEncodeError:
            raise UnreadableValue("the column holds half of a surrogate pair, which is not a character") from None
        except UnreadableValue as error:
            raise UnreadableValue(f"the column is to hold a text of JSON: {error}".replace("the row", "it")) from None
        if text is None:
            return ABSENT
    if not isinstance(text, dict):
        raise UnreadableValue(f"the column is to hold an object of JSON, as a text, and holds {kind_of(text)}")
    return find(text, column)


def _at(members: dict[str, Any], pieces: tuple[str, ...]) -> Any:
    if len(pieces) == 1:
        return _member(members, pieces[0], "the member is there twice")
    if len(pieces) == 2 and f"{pieces[0]}.{pieces[1]}" not in members:
        # One way only, as for nearly every column with a dot: no search, which would take a third of a row's time.
        outer = members.get(pieces[0], ABSENT)
        if outer is ABSENT:
            return ABSENT
        if isinstance(outer, dict) and not is_repeated(members, pieces[0]):
            return _member(outer, pieces[1], _TWICE_ON_THE_WAY)
    return _by_every_way(members, pieces)


def _member(members: dict[str, Any], name: str, fault: str) -> Any:
    if name not in members:
        return ABSENT
    if is_repeated(members, name):
        raise UnreadableValue(fault)
    return members[name]


def _by_every_way(members: dict[str, Any], pieces: tuple[str, ...]) -> Any:
    is_null = False
    values: list[Any] = []
    blocked: list[str] = []
    for value in _ways(members, pieces, blocked):
        if value is None:
            is_null = True
        else:
            values.append(value)
    if len(values) > 1:
        raise UnreadableValue("the member is there in two ways, as a name with dots and as a member of a member")
    if values:
        return values[0]
    if blocked:
        raise UnreadableValue(f"the way to this member leads through {blocked[0]} where an object is required")
    return None if is_null else ABSENT


def _ways(members: dict[str, Any], pieces: tuple[str, ...], blocked: list[str]) -> Iterator[Any]:
    """The values at the pieces, by each way there; appends the kinds of values that are in the way."""
    for count in range(1, len(pieces) + 1):
        name = ".".join(pieces[:count])
        if name not in members:
            continue
        if is_repeated(members, name):
            raise UnreadableValue(_TWICE_ON_THE_WAY)
        value = members[name]
        if count == len(pieces):
            yield value
        elif isinstance(value, dict):
            yield from _ways(value, pieces[count:], blocked)
        elif value is not None:
            blocked.append(kind_of(value))


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, list):
        return "a list"
    return "a number" if isinstance(value, int | float) else "an object" if isinstance(value, dict) else "an odd value"
