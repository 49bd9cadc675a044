"""define: a setting of one's own, from options, from a file, or both; all faults at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from ledger.built_in_catalog import BUILT_IN
from tests.support.command import Inforce
from tests.support.ledgers import GENESIS

TIER = {
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
TEXTS = ("--title", "Tier", "--description", "What the organization has agreed on.", "--source", "Contract")
OPTIONS = (
    *("--kinds", "org", "--type", "one_of", "--members", "gold, silver", "--default", "silver"),
    *("--protective", "gold", "--writable-by", "owner", *TEXTS),
)


def members(inforce: Inforce, setting: str, at: str = "now") -> dict[str, Any]:
    settings = inforce("catalog", "--setting", setting, "--at", at, "--format", "json").json()["settings"]
    return {name: value for name, value in settings[setting].items() if name in TIER or name == "ref_kinds"}


def test_a_setting_of_ones_own_is_defined_and_used(inforce_on_both: Inforce, folder: Path) -> None:
    inforce = inforce_on_both
    (folder / "tier.json").write_text(json.dumps(TIER, indent=2))
    by_options = inforce("define", "acme.tier", *OPTIONS, "--format", "json", "--reason", "contract 7")
    assert by_options.code == 0, by_options.err
    (receipt,) = by_options.json()["receipts"]
    assert (receipt["subject"], receipt["position"]) == ("catalog:settings", GENESIS + 1)
    assert inforce("define", "acme.file", "tier.json").code == 0
    assert inforce("define", "acme.pipe", "-", stdin=json.dumps(TIER)).code == 0
    assert members(inforce, "acme.tier") == members(inforce, "acme.file") == members(inforce, "acme.pipe") == TIER
    assert inforce("submit", "org:acme", "acme.tier", "gold").code == 0
    assert inforce("submit", "org:acme", "acme.tier", "bronze").code == 2
    assert inforce("submit", "account:u1", "acme.tier", "gold").code == 2
    state = inforce("state", "org:acme", "--setting", "acme.tier", "--format", "json").json()
    assert state["settings"]["acme.tier"]["value"] == "gold"


def test_an_option_replaces_a_member_of_the_file(inforce: Inforce) -> None:
    assert inforce("define", "acme.tier", "-", "--default", "gold", stdin=json.dumps(TIER)).code == 0
    assert members(inforce, "acme.tier") == TIER | {"default": "gold"}


def test_an_existing_setting_keeps_what_is_not_named(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    assert inforce("define", "training.opt_in", "--default", "true", "--from", "2190-01-01T00:00:00Z").code == 0
    built_in = BUILT_IN["training.opt_in"].as_json()
    for at, default in (
        ("2189-12-31T23:59:59.999999Z", False),
        ("2190-01-01T00:00:00Z", True),
        ("2190-01-01T00:00:00.000001Z", True),
    ):
        assert members(inforce, "training.opt_in", at) == built_in | {"default": default}
    # Of several definitions, the one that holds when the new one begins.
    assert inforce("define", "training.opt_in", "--title", "Opt-in", "--from", "2191-01-01T00:00:00Z").code == 0
    assert members(inforce, "training.opt_in", "2191-01-01T00:00:00Z") == built_in | {
        "default": True,
        "title": "Opt-in",
    }


@pytest.mark.parametrize(
    ("value_type", "more", "words", "default"),
    [
        ("bool", (), ("--default", "true", "--protective", "false"), True),
        ("integer", (), ("--default", "-7", "--protective", "0"), -7),
        ("text", (), ("--default", "a, b"), "a, b"),
        ("set_of", (), ("--default", "b,a", "--protective", ""), ["a", "b"]),
        ("set_of", ("--members", "a,b"), ("--default", '["a"]'), ["a"]),
        ("one_of", ("--members", "a,b"), ("--default", "null"), None),
        ("subject_ref", ("--ref-kinds", "org,project"), ("--default", "org:acme"), "org:acme"),
        ("subject_ref", ("--ref-kinds", "org"), (), None),
    ],
)
def test_each_type_takes_its_values(
    value_type: str, more: tuple[str, ...], words: tuple[str, ...], default: object, inforce: Inforce
) -> None:
    options = ("--kinds", "org,account", "--type", value_type, "--writable-by", "admin", *TEXTS)
    result = inforce("define", "acme.own", *options, *more, *words)
    assert result.code == 0, result.err
    assert members(inforce, "acme.own")["default"] == default


def test_a_template_needs_no_name_and_a_definition_does(inforce: Inforce, folder: Path) -> None:
    template = inforce("define", "--template", "--type", "integer")
    assert template.json() == inforce("define", "acme.own", "--template", "--type", "integer").json()
    (folder / "days.json").write_text(template.out)
    for words in ((), ("days.json",), ("--kinds", "org")):
        refused = inforce("define", *words)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "write the name of the setting first" in refused.err


@pytest.mark.parametrize("value_type", ["bool", "one_of", "set_of", "text", "integer", "subject_ref"])
def test_a_template_is_a_definition_once_its_texts_are_written(value_type: str, inforce: Inforce, folder: Path) -> None:
    printed = inforce("define", "acme.own", "--template", "--type", value_type)
    assert (printed.code, printed.err) == (0, "")
    template = printed.json()
    refused = inforce("define", "acme.own", "-", stdin=printed.out)
    assert [line.partition(": ")[2].partition(": ")[0] for line in refused.err.splitlines()] == [
        "/definition/title",
        "/definition/description",
        "/definition/source",
    ]
    assert list(folder.iterdir()) == []
    filled = template | {"title": "T", "description": "D", "source": "S"}
    assert inforce("define", "acme.own", "-", stdin=json.dumps(filled)).code == 0
    assert members(inforce, "acme.own") == filled


def test_the_template_of_an_existing_setting_is_its_definition(inforce: Inforce) -> None:
    built_in = BUILT_IN["training.opt_in"].as_json()
    assert inforce("define", "training.opt_in", "--template").json() == built_in
    assert inforce("define", "training.opt_in", "--default", "true", "--from", "2190-01-01T00:00:00Z").code == 0
    assert inforce("define", "training.opt_in", "--template").json() == built_in
    later = inforce("define", "training.opt_in", "--template", "--from", "2190-01-01", "--timezone", "UTC")
    assert later.json() == built_in | {"default": True}


def faults(inforce: Inforce, *words: str, stdin: str = "") -> list[str]:
    """The faults that are printed, by their places."""
    result = inforce("define", *words, stdin=stdin)
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert all(line.startswith("inforce: ") for line in lines)
    return sorted(line.removeprefix("inforce: ").partition(": ")[0] for line in lines)


def test_all_faults_are_named_at_once(inforce: Inforce, folder: Path) -> None:
    every = ["kinds", "value_type", "writable_by", "title", "description", "source"]
    assert faults(inforce, "acme.own") == sorted(f"/definition/{name}" for name in every)
    wrong = TIER | {"kinds": ["team"], "members": ["a", "a"], "default": "c", "protective": 7, "title": "", "extra": 1}
    assert faults(inforce, "acme.own", "-", stdin=json.dumps(wrong)) == [
        "/definition/default",
        "/definition/extra",
        "/definition/kinds/0",
        "/definition/members",
        "/definition/protective",
        "/definition/title",
    ]
    rules = TIER | {"value_type": "bool", "ref_kinds": ["org"], "kinds": ["org", "org"]}
    assert faults(inforce, "acme.own", "-", stdin=json.dumps(rules)) == [
        "/definition/default",
        "/definition/kinds",
        "/definition/members",
        "/definition/protective",
        "/definition/ref_kinds",
    ]
    # The rules of the built-in settings, and that of the past, in the same answer.
    past = ("--from", "2020-01-01T00:00:00Z")
    assert faults(inforce, "training.opt_in", "--kinds", "org", "--default", "null", *past) == [
        "/definition/default",
        "/definition/kinds",
        "/effective_from",
    ]
    names = ("--type", "wrong", "--writable-by", "nobody", "--kinds", "team")
    assert faults(inforce, "acme own", *names) == [
        "/definition/description",
        "/definition/kinds/0",
        "/definition/source",
        "/definition/title",
        "/definition/value_type",
        "/definition/writable_by",
        "/setting",
    ]
    refused = inforce("define", "acme.own", "--template", "--type", "wrong").err
    assert "--type takes one of bool, one_of, set_of, text, integer, subject_ref" in refused
    assert list(folder.iterdir()) == []


def test_a_submission_names_all_faults_too(inforce: Inforce) -> None:
    change = {"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": 1}
    many = {"events": [change] * 25 + [{"type": "setting.defined", "setting": "a", "definition": {}}]}
    result = inforce("submit", "-", stdin=json.dumps({"events": many["events"][:25]}))
    lines = result.err.splitlines()
    assert (result.code, len(lines), lines[-1]) == (2, 21, "inforce: and 5 more")
    assert lines[19].startswith("inforce: /events/19/value: the value must be true or false")
    imported = "".join(json.dumps(change | {"recorded_at": "2026-01-01T00:00:00Z"}) + "\n" for _ in range(2))
    assert inforce("import", "-", stdin=imported).err.splitlines() == [
        f"inforce: line {line}: /value: the value must be true or false (writable by: admin)" for line in (1, 2)
    ]


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("acme own",), ""),
        (("acme.own", "nosuch.json"), ""),
        (("acme.own", "-"), "[]"),
        (("acme.own", "-"), "nonsense"),
        (("acme.own", "-"), json.dumps({"type": "setting.defined", "setting": "acme.own", "definition": TIER})),
        (("acme.own", "-", "--template"), json.dumps(TIER)),
        (("acme.own", *OPTIONS, "--type", "number"), ""),
        (("acme.own", *OPTIONS, "--expected-version", "3"), ""),
        (("acme.own", *OPTIONS, "--from", "2190-01-01"), ""),
        (("acme.own", *OPTIONS, "--title", "\udcff"), ""),
        (("acme.own", *OPTIONS, "--default", "\udcff"), ""),
        (("training.opt_in", "--type", "text"), ""),
        ((), ""),
    ],
)
def test_a_mistake_is_refused_and_creates_no_ledger(
    words: tuple[str, ...], stdin: str, inforce: Inforce, folder: Path
) -> None:
    result = inforce("define", *words, stdin=stdin)
    assert (result.code, result.out) == (2, ""), result
    assert result.err.startswith("inforce: ")
    assert list(folder.iterdir()) == []


def test_a_definition_is_recorded_once_for_a_key(inforce: Inforce) -> None:
    words = ("define", "acme.tier", *OPTIONS, "--idempotency-key", "k", "--format", "json")
    assert inforce(*words).json() == inforce(*words).json()
    assert inforce("catalog", "--format", "json").json()["position"] == GENESIS + 1
