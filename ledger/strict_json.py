"""Strict parsing of JSON from outside (RFC 8259, and I-JSON's unique names from RFC 7493).

Refused: bytes that are not UTF-8, a repeated member, NaN and Infinity, numbers beyond a double's range, lone
surrogates, nesting deeper than 32, and bodies over the limit. Each has its own message, because each is corrected in a
different place. Proved by tests/test_strict_json.py.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ledger.errors import BadJson
from ledger.subjects import is_text

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
_BODY: Final = "the body"


def loads(body: bytes, max_bytes: int = MAX_BYTES, what: str = "the body", values_max: int | None = None) -> Any:
    """The JSON value of `body`. Raises `BadJson`, whose message calls the body `what` and repeats nothing of it.

    `values_max`: refuses a body with more values, which in memory take many times its size, before it is parsed.
    """
    try:
        return _loads(body, max_bytes, values_max)
    except BadJson as error:
        if what == _BODY:
            raise
        raise BadJson(error.detail.replace(_BODY, what, 1)) from None


def _loads(body: bytes, max_bytes: int, values_max: int | None) -> Any:
    if len(body) > max_bytes:
        raise BadJson(f"the body has {len(body)} bytes and at most {max_bytes} are allowed; send it in parts")
    if values_max is not None and _has_more_values(body, values_max):
        raise BadJson(f"the body holds more than {values_max} values; send it in parts")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not UTF-8: byte {error.start} is invalid") from None
    if text.startswith("\ufeff"):
        raise BadJson("the body begins with a byte order mark; send plain UTF-8")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise BadJson(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        fault = error.msg.removesuffix(" at")
        raise BadJson(f"the body is not JSON: {fault} at line {error.lineno} column {error.colno}") from None
    except ValueError:
        raise BadJson("the body holds a number that is too long") from None
    # The value is checked only if the text allows a fault: an escape can hide a surrogate, and brackets can nest.
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        _check(value)
    return value


def _has_more_values(body: bytes, values_max: int) -> bool:
    """Whether more commas and opening brackets than `values_max` stand outside of texts. Needs no memory."""
    if _separators(body, 0, len(body)) <= values_max:
        return False
    count = start = 0
    for text in _TEXT.finditer(body):
        count += _separators(body, start, text.start())
        if count > values_max:
            return True
        start = text.end()
    return count + _separators(body, start, len(body)) > values_max


def _separators(body: bytes, start: int, end: int) -> int:
    return body.count(b",", start, end) + body.count(b"{", start, end) + body.count(b"[", start, end)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadJson("an object of the body has the same member twice")
    return members


def _constant(_name: str) -> Any:
    raise BadJson("the body holds NaN or Infinity, which are not JSON")


def _float(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise BadJson("the body holds a number beyond the range of a double")
    return number


_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float)


def _check(value: Any) -> None:
    level: list[Any] = [value]
    depth = 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict | list):
                if depth == MAX_DEPTH:
                    raise BadJson(f"the body is nested deeper than {MAX_DEPTH} levels")
                if isinstance(item, dict):
                    for name in item:
                        _check_text(name)
                    below.extend(item.values())
                else:
                    below.extend(item)
        level = below
        depth += 1


def _check_text(text: str) -> None:
    if not is_text(text):
        raise BadJson("a text of the body holds half of a surrogate pair, which is not a character")
