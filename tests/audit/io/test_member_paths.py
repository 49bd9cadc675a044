"""The value at a column's path in a row of JSON: by every way there, or a fault."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.audit.reading.json_values import read_json
from projections.audit.reading.log_times import UnreadableValue
from projections.audit.reading.member_paths import ABSENT, all_names, find, log_column


def at(row: str, column: str) -> Any:
    path = log_column(column)
    return find(read_json(row.encode(), all_names(path)), path)


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        ('{"user":"u"}', "user", "u"),
        ('{"user":{"id":"u"}}', "user.id", "u"),
        ('{"user.id":"u"}', "user.id", "u"),
        ('{"a.b":{"c":"u"}}', "a.b.c", "u"),
        ('{"a":{"b.c":"u"}}', "a.b.c", "u"),
        ('{"a":{"b":null},"a.b":"u"}', "a.b", "u"),
        ('{"a":"text","a.b":"u"}', "a.b", "u"),
        ('{"a":null}', "a.b", ABSENT),
        ('{"a":{"b":null}}', "a.b", None),
        ('{"a":{}}', "a.b", ABSENT),
        ('{"meta":"{\\"user\\":{\\"id\\":\\"u\\"}}"}', "meta:user.id", "u"),
        ('{"meta":{"user":{"id":"u"}}}', "meta:user.id", "u"),
        ('{"meta:user.id":"u","meta":7}', "meta:user.id", "u"),
        ('{"meta":""}', "meta:user.id", ABSENT),
        ('{"meta":"null"}', "meta:user.id", ABSENT),
        ('{"meta":"{\\"inner\\":\\"{\\\\\\"id\\\\\\":\\\\\\"u\\\\\\"}\\"}"}', "meta:inner:id", "u"),
        ('{"a..b":"u"}', "a..b", "u"),
        ('{":a":"u"}', ":a", "u"),
    ],
)
def test_a_path_leads_to_a_value_by_objects_and_by_names_with_dots(row: str, column: str, value: Any) -> None:
    assert at(row, column) == value


@pytest.mark.parametrize(
    ("row", "column", "fault"),
    [
        ('{"a":"text"}', "a.b", "through a text where an object is required"),
        ('{"a":7}', "a.b", "through a number"),
        ('{"a":[{"b":1}]}', "a.b", "through a list"),
        ('{"a":true}', "a.b", "through true or false"),
        ('{"a":{"b":1},"a.b":1}', "a.b", "in two ways"),
        ('{"a":{"b":1},"a":{"b":1}}', "a.b", "on the way to this one is there twice"),
        ('{"a":{"b":1,"b":1}}', "a.b", "on the way to this one is there twice"),
        ('{"a":{"b":1,"b":1},"a.b":null}', "a.b", "on the way to this one is there twice"),
        ('{"a":1,"a":1}', "a", "is there twice"),
        ('{"meta":7}', "meta:id", "holds a number"),
        ('{"meta":"[1]"}', "meta:id", "holds a list"),
        ('{"meta":"nonsense"}', "meta:id", "a text of JSON: it is not JSON"),
        ('{"meta":"{\\"id\\":1,\\"id\\":2}"}', "meta:id", "is there twice"),
    ],
)
def test_a_path_that_leads_nowhere_or_to_two_values_is_a_fault(row: str, column: str, fault: str) -> None:
    with pytest.raises(UnreadableValue, match=fault):
        at(row, column)


def test_what_is_not_on_the_path_is_not_judged() -> None:
    row = {"x": 1, "meta": json.dumps({"id": "u"})}
    text = json.dumps(row)[:-1] + ',"x":NaN,"deep":' + "[" * 5000 + "]" * 5000 + ',"half":"\\ud800"}'
    assert at(text, "meta:id") == "u"


Pairs = list[tuple[str, Any]]
"""An object of JSON whose names may stand twice."""
LEAVES = st.sampled_from(["null", '"v"', "7", "[]"])
PAIRS = st.recursive(
    LEAVES, lambda inner: st.lists(st.tuples(st.sampled_from(["a", "b", "c", "a.b", "b.c"]), inner), max_size=3)
).filter(lambda value: isinstance(value, list))


def as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "{" + ",".join(f"{json.dumps(name)}:{as_text(inner)}" for name, inner in value) + "}"


def leaves_at(value: Any, pieces: list[str]) -> list[Any]:
    """Each way's leaf; "fault" for a way that leads through a name that stands twice, "blocked" into no object."""
    if not pieces:
        return [value]
    if isinstance(value, str):
        return [] if value == "null" else ["blocked"]
    leaves = []
    for count in range(1, len(pieces) + 1):
        inner = [member for name, member in value if name == ".".join(pieces[:count])]
        leaves += ["fault"] if len(inner) > 1 else [leaf for one in inner for leaf in leaves_at(one, pieces[count:])]
    return leaves


@given(PAIRS, st.sampled_from(["a", "a.b", "b.c", "a.b.c"]))
def test_every_way_to_a_column_is_searched(row: Pairs, column: str) -> None:
    leaves = leaves_at(row, column.split("."))
    values = [leaf for leaf in leaves if leaf not in ("fault", "blocked", "null")]
    if "fault" in leaves or len(values) > 1 or (not values and "blocked" in leaves):
        with pytest.raises(UnreadableValue):
            at(as_text(row), column)
    elif values and isinstance(values[0], str):
        assert at(as_text(row), column) == json.loads(values[0])
    elif values:
        assert isinstance(at(as_text(row), column), dict)
    else:
        assert at(as_text(row), column) is (None if "null" in leaves else ABSENT)
