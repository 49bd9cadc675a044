"""The value at a column's path in a row of JSON: by every way there, or a fault."""

import json
from typing import Any

import pytest

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
