"""JSON of which only the values in use are judged: by Python's own reader, or without recursion, to the same value."""

import json
import random
from typing import Any

import pytest

from projections.audit.reading import json_values
from projections.audit.reading.json_values import Members, Odd, is_repeated, read_json
from projections.audit.reading.log_times import UnreadableValue

NAMES = frozenset({"at", "user", "id", "a"})
ODD = ["NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', "[" * 40 + "]" * 40, '{"x":1,"x":2}']


def projected(value: Any) -> Any:
    """Both readers keep these: members in use, and lists without their items."""
    if isinstance(value, Members | dict):
        repeated = sorted(name for name in NAMES if is_repeated(value, name))
        return {name: projected(value[name]) for name in sorted(value.keys() & NAMES)}, repeated
    return [] if isinstance(value, list) else value


@pytest.mark.parametrize("odd", ODD)
def test_odd_values_of_members_that_nobody_reads_are_no_fault(odd: str) -> None:
    value = read_json(f'{{"prompt":{odd},"at":"now"}}'.encode(), NAMES)
    assert value["at"] == "now"


def test_a_long_number_beside_deep_nesting_is_no_fault() -> None:
    """Python's reader refuses both, each in another way."""
    deep = "[" * 3000 + "]" * 3000
    text = f'{{"at":"now","usage":{"9" * 5000},"prompt":{deep}}}'
    assert read_json(text.encode(), NAMES)["at"] == "now"


@pytest.mark.parametrize("odd", ["NaN", "1e999", "9" * 5000])
def test_an_odd_number_says_why_it_is_no_value(odd: str) -> None:
    assert isinstance(read_json(f'{{"at":{odd}}}'.encode(), NAMES)["at"], Odd)


def test_a_text_may_nest_as_deeply_as_it_likes_where_nobody_reads() -> None:
    for deep in ("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000):
        value = read_json(f'{{"prompt":{deep},"at":"now"}}'.encode(), NAMES)
        assert value["at"] == "now"
    with pytest.raises(UnreadableValue, match="not JSON"):
        read_json(('{"prompt":' + "[" * 100_000 + "]" * 99_999 + "}").encode(), NAMES)


def random_text(chance: random.Random, depth: int = 0) -> str:
    kind = chance.random()
    if depth > 5 or kind < 0.4:
        return chance.choice([*ODD[:4], "1", "-0.5e+3", "true", "null", '"a\\n"', '"é"', '"\\u0041"', '""', "{}", "[]"])
    space = chance.choice(["", "", " ", "\n", "\r\t"])
    if kind < 0.6:
        return "[" + f"{space},".join(random_text(chance, depth + 1) for _ in range(chance.randrange(4))) + "]"
    names = [chance.choice([*NAMES, "b", "\\u0061", ""]) for _ in range(chance.randrange(5))]
    return "{" + f"{space},{space}".join(f'"{n}"{space}:{random_text(chance, depth + 1)}' for n in names) + "}" + space


def test_both_readers_keep_the_same_values_and_refuse_the_same_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(18)
    refused = 0
    for _ in range(3000):
        text = random_text(chance)
        if chance.random() < 0.4:
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(['"', "{", "}", "[", "]", ",", ":", "0", "\x00", "\\", "x"]) + text[at:]
        body = text.encode()
        outcomes = []
        for values_max in (1 << 30, -1):
            monkeypatch.setattr(json_values, "VALUES_MAX", values_max)
            try:
                outcomes.append(projected(read_json(body, NAMES)))
            except UnreadableValue:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1], text
        refused += outcomes[0] == "refused"
    assert 300 < refused < 2500


def test_a_fault_names_the_column_of_its_line() -> None:
    with pytest.raises(UnreadableValue, match=r"^the row is not JSON: .* at column 7$"):
        read_json(b'{"at":}', NAMES)
    with pytest.raises(UnreadableValue, match=r"at line 31 column 6$"):
        read_json(b'{\n"at":}', NAMES, 30)
    with pytest.raises(UnreadableValue, match="its byte 4 is invalid"):
        read_json(b'{"a\xff":1}', NAMES)


def test_the_values_of_a_large_text_are_not_all_kept() -> None:
    text = '{"at":"now","prompt":[' + "[]," * 200_000 + "[]]}"
    assert read_json(text.encode(), NAMES) == {"at": "now", "prompt": None}
    assert json.loads(text)["at"] == "now"


SHALLOW = [
    "[]",
    "{}",
    "[1, 2]",
    '{"a":1}',
    '{"a":[{}],"b":"]"}',
    '[[[1,"x"],2],{}]',
    "-1.5e3",
    '"\\u0041,"',
    "NaN",
    " null ",
]


@pytest.mark.parametrize("shallow", SHALLOW)
@pytest.mark.parametrize("form", ["list", "members", "members of a kept object", "members of a member"])
def test_shallow_values_that_nobody_reads_take_no_step_each(
    form: str, shallow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "VALUES_MAX", 1)
    monkeypatch.setattr(json_values, "STEPPED_MAX", 12)
    values = [shallow] * 1000
    members = ",".join(f'"m{number}":{value}' for number, value in enumerate(values))
    text = {
        "list": f'{{"x":[{",".join(values)}],"at":"now","user":{{"id":7}}}}',
        "members": f'{{{members},"at":"now","user":{{"id":7}}}}',
        "members of a kept object": f'{{"at":"now","user":{{{members},"id":7}}}}',
        "members of a member": f'{{"x":{{"y":{{{members}}}}},"at":"now","user":{{"id":7}}}}',
    }[form]
    value = read_json(text.encode(), NAMES)
    assert (value["at"], value["user"]["id"]) == ("now", 7)
    assert ("m0" in text) is (form != "list")
    with pytest.raises(UnreadableValue, match="not JSON"):
        read_json(text.replace(shallow, "nonsense", 500).encode(), NAMES)


@pytest.mark.parametrize("name", ["at", "a\\u0074"])
def test_a_member_in_use_is_met_among_any_number_of_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "VALUES_MAX", 1)
    for before in (0, 1, 2, 500):
        members = [*(f'"att{number}":[]' for number in range(before)), f'"{name}":"now"', '"z":1', '"at":2', '"y":1']
        value = read_json(f"{{{','.join(members)}}}".encode(), NAMES, prefix="att4")
        assert (value["at"], is_repeated(value, "at")) == (2, True)
        assert ("att4" in value) is (before > 4)


def test_a_text_with_too_many_deep_values_is_one_fault_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "STEPPED_MAX", 1000)
    deep = "[[[[[]],1]]],"
    text = '{"at":"now","prompt":[' + deep * 100_000 + "[]]}"
    with pytest.raises(UnreadableValue, match="more than 1000 lists and objects that hold deeper ones"):
        read_json(text.encode(), NAMES)
    # A text that Python's own reader takes has no such bound.
    assert read_json(f'{{"at":"now","prompt":[{deep * 2000}[]]}}'.encode(), NAMES)["at"] == "now"
