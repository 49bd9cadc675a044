"""catalog: the settings that are defined at a moment, and who may write them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.built_in_catalog import BUILT_IN
from tests.support.command import Inforce

REDEFINED_AT = "2190-03-01T12:00:00.000000Z"
BEFORE, AFTER = "2190-03-01T11:59:59.999999Z", "2190-03-01T12:00:00.000001Z"
OWN = {
    "kinds": ["org"],
    "value_type": "one_of",
    "members": ["gold", "silver"],
    "default": "silver",
    "protective": "gold",
    "writable_by": "owner",
    "title": "Tier",
    "description": "What the organization has agreed on.",
    "source": "Contract",
}


def define(inforce: Inforce, setting: str, definition: Mapping[str, object], effective_from: str) -> int:
    """The position of the definition."""
    body = {
        "type": "setting.defined",
        "setting": setting,
        "definition": definition,
        "effective_from": effective_from,
    }
    result = inforce("submit", "-", "--format", "json", stdin=json.dumps(body))
    assert result.code == 0, result.err
    position: int = result.json()["position"]
    return position


def redefine(inforce: Inforce) -> int:
    opt_in = BUILT_IN["training.opt_in"].as_json() | {"default": True, "writable_by": "operator"}
    return define(inforce, "training.opt_in", opt_in, REDEFINED_AT)


def test_the_table_shows_who_may_write_each_setting(ledger: Inforce) -> None:
    position = define(ledger, "acme.tier", OWN, REDEFINED_AT)
    title, heads, _, *lines = ledger("catalog", "--at", REDEFINED_AT).out.splitlines()
    assert title.startswith("catalog at 2190-03-01 12:00:00Z, known at ")
    assert title.endswith(f", position {position}")
    columns = ("setting", "kinds", "type", "default", "protective", "writable by", "since", "#")
    starts = [heads.index(column) for column in columns]
    assert starts == sorted(starts)
    table = [
        [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)] for line in lines
    ]
    by_setting = {row[0]: row[1:] for row in table}
    assert list(by_setting) == sorted({*BUILT_IN, "acme.tier"})
    assert {key: row[4] for key, row in by_setting.items()} == {
        key: definition.writable_by for key, definition in BUILT_IN.items()
    } | {"acme.tier": "owner"}
    since = "2190-03-01 12:00:00Z"
    assert by_setting["acme.tier"] == [
        "org",
        "one of gold, silver",
        '"silver"',
        '"gold"',
        "owner",
        since,
        f"{position}",
    ]
    assert by_setting["training.opt_in"][:-1] == ["account, org", "bool", "false", "false", "admin", ""]
    assert by_setting["owner"][:2] == ["key, project", "subject ref project, org, account"]
    assert by_setting["model.author"][2:4] == ["", ""]


@pytest.mark.parametrize("at", [BEFORE, REDEFINED_AT, AFTER])
@pytest.mark.parametrize("known_at", ["at", "now", "2190-01-01T00:00:00Z", "2020-01-01T00:00:00Z"])
def test_json_is_what_http_answers(inforce_on_both: Inforce, at: str, known_at: str) -> None:
    redefine(inforce_on_both)
    result = inforce_on_both("catalog", "--at", at, "--known-at", known_at, "--format", "json")
    assert result.code == 0
    with TestClient(create_app(os.environ["INFORCE_DATABASE"], sign_in=False)) as client:
        known = "" if known_at == "now" else f"&known_at={known_at}"
        answer = client.get(f"/v1/catalog?at={at}{known}").json()
    document = result.json()
    if not known_at.startswith("2020"):
        # Nothing later than the question is known: the moments of the two questions.
        assert document.pop("known_at") < answer.pop("known_at")
    assert document == answer
    assert [*document["settings"]] == ([] if known_at.startswith("2020") else sorted(BUILT_IN))


def test_a_definition_holds_from_its_first_microsecond(inforce_on_both: Inforce) -> None:
    position = redefine(inforce_on_both)
    own = define(inforce_on_both, "acme.tier", OWN, REDEFINED_AT)

    def rows(at: str, *more: str) -> list[tuple[object, ...]]:
        question = ("catalog", "--at", at, "--setting", "training.opt_in", "--format", "ndjson")
        lines = inforce_on_both(*question, *more).lines()
        return [(line["setting"], line["writable_by"], line["default"], line["position"]) for line in lines]

    for known_at in ("now", "at"):
        before = rows(BEFORE, "--known-at", known_at)
        assert before == [("training.opt_in", "admin", False, 1)]
        for at in (REDEFINED_AT, AFTER):
            after = rows(at, "--known-at", known_at, "--setting", "acme.tier")
            assert after == [("acme.tier", "owner", "silver", own), ("training.opt_in", "operator", True, position)]
        undefined = inforce_on_both("catalog", "--at", BEFORE, "--known-at", known_at, "--setting", "acme.tier")
        assert (undefined.code, undefined.out) == (2, "")


def test_an_unknown_setting_is_one_line_and_exit_2(inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    for format_ in ("table", "json", "ndjson", "csv"):
        wanted = ("--setting", "nosuch", "--setting", "training.opt_in", "--setting", "also.not", "--format", format_)
        result = inforce("catalog", *wanted)
        assert (result.code, result.out) == (2, "")
        assert result.err == (
            "inforce: no such setting was defined then: also.not, nosuch; leave --setting out to see those that were\n"
        )


def test_every_format_has_the_same_settings_and_members(inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    settings = inforce("catalog", "--format", "json").json()["settings"]
    lines = inforce("catalog", "--format", "ndjson").lines()
    head, *rows = inforce("catalog", "--format", "csv").out.splitlines()
    assert lines == [{"setting": setting} | members for setting, members in settings.items()]
    assert [row.split(",")[0] for row in rows] == list(settings)
    assert set(head.split(",")) == {name for line in lines for name in line}
    only = inforce("catalog", "--setting", "owner", "--setting", "owner", "--format", "json").json()["settings"]
    assert only == {"owner": settings["owner"]}


def test_a_ledger_that_is_read_only_shows_its_catalog_and_stays_as_it_is(inforce: Inforce, folder: Path) -> None:
    redefine(inforce)
    question = ("catalog", "--at", REDEFINED_AT, "--known-at", "at", "--format", "json")
    expected = inforce(*question).json()
    path = folder / "inforce.db"
    before = path.read_bytes()
    path.chmod(0o400)
    result = inforce(*question, "--db", "sqlite:///inforce.db?mode=ro")
    assert (result.code, result.err) == (0, "")
    assert result.json() | {"known_at": ""} == expected | {"known_at": ""}
    assert path.read_bytes() == before
