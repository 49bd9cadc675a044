"""Strict parsing of JSON from outside."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadJson
from ledger.strict_json import MAX_BYTES, MAX_DEPTH, loads

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_every_json_value_is_read(value: Any, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "white space": (b"  ", "not JSON"),
    "two values": (b"1 2", "not JSON"),
    "single quotes": (b"{'a':1}", "not JSON"),
    "a trailing comma": (b"[1,]", "not JSON"),
    "a comment": (b"[1] // one", "not JSON"),
    "a raw control character": (b'"a\x00"', "not JSON"),
    "not UTF-8": (b'"\xff"', "not UTF-8: byte 1"),
    "an encoded surrogate": (b'"\xed\xa0\x80"', "not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf1", "byte order mark"),
    "UTF-16": ("1".encode("utf-16-le") + b"\xff", "not"),
    "NaN": (b"[NaN]", "NaN or Infinity"),
    "Infinity": (b'{"a":-Infinity}', "NaN or Infinity"),
    "beyond a double": (b"[1e999]", "beyond the range"),
    "beyond a double below zero": (b'{"a":{"b":-1e400}}', "beyond the range"),
    "an immense integer": (b"[" + b"9" * 5000 + b"]", "too long"),
    "a member twice": (b'{"a":1,"b":2,"a":1}', "same member twice"),
    "a member twice, one escaped": (b'{"a":1,"\\u0061":2}', "same member twice"),
    "a member twice, deep": (b'[[{"x":{"a":1,"a":2}}]]', "same member twice"),
    "a lone high surrogate": (b'"\\ud83d"', "surrogate"),
    "a lone low surrogate": (b'["\\uDE00"]', "surrogate"),
    "surrogates in the wrong order": (b'{"a":"\\ude00\\ud83d"}', "surrogate"),
    "a lone surrogate in a name": (b'{"\\ud800":1}', "surrogate"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_violation_of_strict_json_has_its_own_message(name: str) -> None:
    body, message = BAD[name]
    with pytest.raises(BadJson, match=message):
        loads(body)


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_goes_to_its_limit_and_no_deeper(brackets: tuple[bytes, bytes]) -> None:
    opening, closing = brackets
    loads(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 5_000, 100_000):
        with pytest.raises(BadJson, match="nested deeper than 32"):
            loads(opening * depth + b"1" + closing * depth)


def test_brackets_inside_texts_and_side_by_side_do_not_nest() -> None:
    assert loads(json.dumps(["[" * 100, *[[]] * 100]).encode()) == ["[" * 100, *[[]] * 100]


def test_a_body_goes_to_its_limit_and_no_further() -> None:
    body = b'"' + b"x" * (MAX_BYTES - 2) + b'"'
    assert len(loads(body)) == MAX_BYTES - 2
    with pytest.raises(BadJson, match=f"at most {MAX_BYTES}"):
        loads(body + b" ")


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert loads(b'"\\ud83d\\ude42"') == "🙂"


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        value = loads(body)
    except BadJson:
        return
    assert json.loads(body) == value


@pytest.mark.parametrize("name", BAD)
def test_a_message_names_the_thing_that_was_read(name: str) -> None:
    with pytest.raises(BadJson) as refused:
        loads(BAD[name][0], what="the line")
    assert "the line" in refused.value.detail
    assert "body" not in refused.value.detail


def count_separators(value: Any) -> int:
    """Commas and opening brackets of the value's JSON, outside of texts."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(count_separators, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(count_separators, value))
    return 0


@given(VALUES, st.booleans())
def test_a_body_with_more_values_than_allowed_is_refused_whatever_its_texts_hold(value: Any, escape: bool) -> None:
    body = json.dumps([value, ',{[",\\', {"{,[": ","}], ensure_ascii=escape).encode()
    count = count_separators([value, "", {"": ""}])
    assert loads(body, values_max=count) == json.loads(body)
    with pytest.raises(BadJson, match=f"more than {count - 1} values"):
        loads(body, values_max=count - 1)


@pytest.mark.parametrize("body", [b"[,,,", b'["', b'["\\', b'[",,,,"', b"\xff,,,,"])
def test_a_body_that_is_no_json_is_refused_with_a_bound_of_values(body: bytes) -> None:
    for values_max in (0, 100):
        with pytest.raises(BadJson):
            loads(body, values_max=values_max)
