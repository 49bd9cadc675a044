"""One text of JSON from a log, read so that only what is used of it is judged.

The text must be JSON; NaN and Infinity, repeated members, halves of surrogate pairs, deep nesting and numbers out of
range are kept as what they are, and are faults only where a field is read from them. Proved by
tests/audit/io/test_json_values.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ledger.strict_json import MAX_DEPTH
from projections.audit.reading.log_times import UnreadableValue

VALUES_MAX: Final = 1 << 17
"""In memory, small values take many times the bytes of their text: a text with more keeps only the values in use."""


class Odd(NamedTuple):
    """A value that no field can have. `fault`: why."""

    fault: str


class Members(dict[str, Any]):
    """An object, and the names that stand more than once in it."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated: set[str] = set()

    def add(self, name: str, value: Any) -> None:
        if name in self:
            self.repeated.add(name)
        self[name] = value


def is_repeated(members: dict[str, Any], name: str) -> bool:
    return isinstance(members, Members) and name in members.repeated


def read_json(body: bytes, names: Set[str], line: int | None = None, prefix: str | None = None) -> Any:
    """The value of `body`. Members that are not in `names` may be left out, and so may the items of lists.

    `prefix`: of further names, of which the outermost object keeps at least one. `line`: where the text begins, if it
    is not one line of a log of lines. Raises `UnreadableValue`.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableValue(f"the row is not UTF-8: its byte {error.start + 1} is invalid") from None
    try:
        return _value(text, body, names, prefix)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if line is None else f"line {line + error.lineno - 1} column {error.colno}"
        raise UnreadableValue(f"the row is not JSON: {error.msg.removesuffix(' at')} at {place}") from None


def _value(text: str, body: bytes, names: Set[str], prefix: str | None) -> Any:
    if _separators(body) <= VALUES_MAX:
        # The second one takes whole numbers of any length, at the cost of a call for each.
        for decoder in (_DECODER, _LONG_NUMBERS):
            try:
                return decoder.decode(text)
            except json.JSONDecodeError:
                raise
            except RecursionError:
                break
            except ValueError:
                continue
    return _Skimmer(text, names, prefix).read()


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    with_repeated = Members()
    for name, value in pairs:
        with_repeated.add(name, value)
    return with_repeated


_NO_NUMBER: Final = Odd("NaN and Infinity are no values")
_TOO_LARGE: Final = Odd("the number is beyond the range of a double")
_TOO_LONG: Final = Odd("the number has too many digits")
_TOO_DEEP: Final = Odd(f"the value is nested deeper than {MAX_DEPTH} levels")


def _float(digits: str) -> float | Odd:
    number = float(digits)
    return number if number - number == 0 else _TOO_LARGE


def _int(digits: str) -> int | Odd:
    return int(digits) if len(digits) <= 1000 else _TOO_LONG


def _constant(_name: str) -> Odd:
    return _NO_NUMBER


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
_LONG_NUMBERS: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
)
_SPACE: Final = re.compile(r"[ \t\n\r]*+")
_TEXT: Final = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
_SCALAR: Final = re.compile(
    r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null|NaN|-?Infinity", re.ASCII
)
_OBJECT: Final = ord("{")
_SHALLOW: Final = 3
"""Lists and objects of so many levels that nobody reads are passed over without a step of the interpreter."""
STEPPED_MAX: Final = 1 << 19
"""The most lists and objects of a text that hold deeper ones: each takes some microseconds."""


def _shallow_value(levels: int) -> str:
    space, text = _SPACE.pattern, _TEXT.pattern
    value = f"(?:{text}|{_SCALAR.pattern})"
    for _ in range(levels):
        items = f"{value}{space}(?:,{space}{value}{space})*+"
        member = f"{text}{space}:{space}{value}{space}"
        members = f"{member}(?:,{space}{member})*+"
        value = f"(?:{text}|{_SCALAR.pattern}|\\[{space}(?:{items})?+\\]|\\{{{space}(?:{members})?+\\}})"
    return f"{value}{space}"


@lru_cache
def _items() -> re.Pattern[str]:
    """Shallow items of a list, each with its comma."""
    return re.compile(f"(?:{_shallow_value(_SHALLOW)},{_SPACE.pattern})*+", re.ASCII)


@lru_cache(maxsize=64)
def _members_but(names: frozenset[str], prefix: str | None) -> re.Pattern[str]:
    """Shallow members with other names than these, each with its comma. A name with an escape may be any."""
    kept = [f'{re.escape(name)}"' for name in sorted(names)] + ([re.escape(prefix)] if prefix is not None else [])
    name = (f'"(?!{"|".join(kept)})' if kept else '"') + r'[^"\\\x00-\x1f]*+"'
    space = _SPACE.pattern
    return re.compile(f"(?:{name}{space}:{space}{_shallow_value(_SHALLOW)},{space})*+", re.ASCII)


class _Skimmer:
    """Reads a text without recursion, to the depth of a record: of each object it keeps the members with these names,
    and one other that shows that there are others. Lists are kept without their items."""

    def __init__(self, text: str, names: Set[str], prefix: str | None) -> None:
        self._text = text
        self._names = names
        self._prefix = prefix
        self._stepped = 0
        self._at = 0
        self._kinds = bytearray()
        """A bracket for each open object or list."""
        self._kept: list[tuple[str | None, Members | None]] = []
        """Of the outer ones: its name, and its members so far. None: it is not kept."""

    def read(self) -> Any:
        name: str | None = ""
        """Of the next value; None: it is not kept."""
        value: Any = None
        while True:
            byte = self._next()
            if byte in "{[":
                self._open(byte, name)
                if self._next() not in "}]":
                    self._pass_shallow()
                    name = self._name() if byte == "{" else None
                    continue
            else:
                value = self._scalar(_TEXT if byte == '"' else _SCALAR, keep=name is not None)
                self._add(name, value)
            # After a value: the object or list around it goes on, or ends.
            while self._kinds and self._next() != ",":
                value = self._close()
            if not self._kinds:
                if self._next() != "\0" or self._at < len(self._text):
                    raise self._fault("Extra data")
                return value
            self._at += 1
            self._next()
            self._pass_shallow()
            name = self._name() if self._kinds[-1] == _OBJECT else None

    def _pass_shallow(self) -> None:
        """Passes over the items of a list, or the members of an object, of which nothing is kept and that are not the
        last."""
        if self._kinds[-1] != _OBJECT:
            pattern = _items()
        else:
            members = self._kept[-1][1] if len(self._kinds) <= MAX_DEPTH else None
            if members is None:
                pattern = _members_but(frozenset(), None)
            elif members.keys() - self._names:
                pattern = _members_but(frozenset(self._names), self._prefix if len(self._kinds) == 1 else None)
            else:
                # The object is to show that it has others.
                return
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _open(self, bracket: str, name: str | None) -> None:
        self._at += 1
        self._stepped += 1
        if self._stepped > STEPPED_MAX:
            raise UnreadableValue(f"the row has more than {STEPPED_MAX} lists and objects that hold deeper ones")
        if len(self._kinds) < MAX_DEPTH:
            self._kept.append((name, Members() if bracket == "{" and name is not None else None))
        else:
            self._add(name, _TOO_DEEP)
        self._kinds.append(ord(bracket))

    def _close(self) -> Any:
        if self._next() != ("}" if self._kinds[-1] == _OBJECT else "]"):
            raise self._fault("Expecting ',' delimiter")
        self._at += 1
        kind = self._kinds.pop()
        if len(self._kinds) >= MAX_DEPTH:
            return None
        name, members = self._kept.pop()
        value: Any = members if kind == _OBJECT else []
        self._add(name, value)
        return value

    def _add(self, name: str | None, value: Any) -> None:
        members = self._kept[-1][1] if 0 < len(self._kinds) <= MAX_DEPTH else None
        if members is not None and name is not None:
            members.add(name, value)

    def _name(self) -> str | None:
        """The next member's name, or None if it is not kept."""
        if self._next() != '"':
            raise self._fault("Expecting property name enclosed in double quotes")
        name: str = self._scalar(_TEXT, keep=True)
        if self._next() != ":":
            raise self._fault("Expecting ':' delimiter")
        self._at += 1
        if name in self._names:
            return name
        if self._prefix is not None and len(self._kinds) == 1 and name.startswith(self._prefix):
            # One is enough, and there may be a million.
            self._prefix = None
            return name
        members = self._kept[-1][1] if len(self._kinds) <= MAX_DEPTH else None
        if members is not None and len(members) <= len(self._names) and not members.keys() - self._names:
            members[name] = None
        return None

    def _next(self) -> str:
        """The next character that is no white space, or a character that stands nowhere in JSON."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1] or "\0"

    def _scalar(self, pattern: re.Pattern[str], *, keep: bool) -> Any:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._fault("Expecting value")
        self._at = match.end()
        return _LONG_NUMBERS.decode(match.group()) if keep else None

    def _fault(self, message: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(message, self._text, self._at)
