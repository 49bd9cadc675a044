"""Timelines hold the name of the event in the place of a large value."""

import msgspec
import pytest

from projections.temporal.changes import (
    LARGE_BYTES,
    Change,
    JsonValue,
    LargeValue,
    Retraction,
    large_value_bytes,
    large_value_json,
    large_value_position,
    without_large_value,
)

POSITION = 2**40 + 7


def _change(value: JsonValue) -> Change:
    return Change(POSITION, 3, "id", 5, "actor", "residency.regions", value, 5, None)


@pytest.mark.parametrize(
    "value", [None, True, 2**60, "x" * (LARGE_BYTES // 2), ["eu-west"] * 13, [], {"default": "x" * 9_999}]
)
def test_small_values_and_definitions_stay(value: JsonValue) -> None:
    change = _change(value)
    assert without_large_value(change) is change


@pytest.mark.parametrize("value", ["x" * (LARGE_BYTES // 2 + 1), ["eu-west"] * 14, ["é" * 10_000]])
def test_a_large_value_is_named_by_its_event(value: JsonValue) -> None:
    change = without_large_value(_change(value))
    assert isinstance(change, Change)
    assert isinstance(change.value, LargeValue)
    assert large_value_position(change.value) == POSITION
    assert large_value_bytes(change.value) == len(msgspec.json.encode(value))
    assert msgspec.structs.replace(change, value=value) == _change(value)
    stored = msgspec.msgpack.encode(change)
    assert len(stored) < 100
    assert msgspec.msgpack.decode(stored, type=Change) == change
    assert large_value_json(change.value) == {"in_event": POSITION, "bytes": len(msgspec.json.encode(value))}
    # The same again: it is not large any more.
    assert without_large_value(change) is change


def test_a_retraction_has_no_value() -> None:
    retraction = Retraction(1, 1, "id", 5, "actor", "residency.regions", "other")
    assert without_large_value(retraction) is retraction


def test_only_large_values_have_their_json() -> None:
    with pytest.raises(TypeError, match="object has no JSON"):
        large_value_json(object())
