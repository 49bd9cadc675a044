"""Definitions of settings: their own rules, those of built-in settings, and the bounds of built-in values."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.append import decide
from ledger.built_in_catalog import BUILT_IN
from ledger.errors import BadInput
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.times import format_time
from ledger.transfer.export import export_lines
from projections.query.query import Query
from tests.support.ledgers import NOW, change, define, definition, open_with_clock, submit
from tests.support.refusals import faults
from tests.support.transfers import AT, at, entries, import_lines, jsonl

HOUR = 3_600_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db", NOW - HOUR)
    clock.now_us = NOW
    with ledger:
        yield ledger


WRONG_DEFINITION: dict[str, tuple[dict[str, Any], str, str]] = {
    "no kind": (definition(kinds=[]), "/definition/kinds", "at least 1"),
    "an unknown kind": (definition(kinds=["planet"]), "/definition/kinds/0", "'account'"),
    "a kind twice": (definition(kinds=["org", "org"]), "/definition/kinds", "twice"),
    "an unknown type": (definition(value_type="SECRET"), "/definition/value_type", "'bool'"),
    "a default of the wrong type": (definition(default=1), "/definition/default", "the value must be true or false"),
    "a protective value of the wrong type": (definition(protective="yes"), "/definition/protective", "true or false"),
    "one_of without members": (
        definition(value_type="one_of", default=None, protective=None),
        "/definition/members",
        "members",
    ),
    "members of a bool": (definition(members=["a"]), "/definition/members", "members"),
    "a reference without kinds": (
        definition(value_type="subject_ref", default=None, protective=None),
        "/definition/ref_kinds",
        "ref_kinds",
    ),
    "an unknown writer": (definition(writable_by="anyone"), "/definition/writable_by", "'owner'"),
    "no title": (definition(title=""), "/definition/title", "at least 1"),
    "an unknown member": (definition(colour="red"), "/definition/colour", "does not belong"),
}


@pytest.mark.parametrize("name", WRONG_DEFINITION)
def test_a_definition_that_contradicts_itself_is_refused(ledger: Ledger, name: str) -> None:
    body, pointer, message = WRONG_DEFINITION[name]
    fault, *_ = faults(ledger, {**define(), "definition": body})
    assert fault.pointer == pointer
    assert message in fault.detail


def test_a_setting_keeps_its_type(ledger: Ledger) -> None:
    text = define(definition=definition(value_type="text", default="", protective=""))
    (fault,) = faults(ledger, define(), text)
    assert fault.pointer == "/events/1/definition/value_type"
    submit(ledger, define())
    (fault,) = faults(ledger, text)
    assert fault.pointer == "/definition/value_type"


def test_a_definition_holds_for_the_changes_that_come_with_it(ledger: Ledger) -> None:
    beta = {**change(), "setting": "beta.search"}
    (fault,) = faults(ledger, beta, define())
    assert fault.pointer == "/events/0/setting"
    submit(ledger, define(), beta)


@pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, True), (1, True)])
def test_a_setting_can_be_changed_from_when_it_is_defined(ledger: Ledger, offset: int, accepted: bool) -> None:
    start = NOW + HOUR
    submit(ledger, define(effective_from=format_time(start)))
    body = {**change(effective_from=format_time(start + offset)), "setting": "beta.search"}
    if accepted:
        submit(ledger, body)
    else:
        (fault,) = faults(ledger, body)
        assert "not defined yet" in fault.detail


def test_of_two_definitions_in_one_batch_the_later_one_holds_whatever_their_order(ledger: Ledger) -> None:
    for_accounts = define(definition=definition(kinds=["account"]), effective_from=format_time(NOW + HOUR))
    for_orgs = define()
    now = {**change(), "setting": "beta.search"}
    later = {**now, "effective_from": format_time(NOW + HOUR)}
    for definitions in ((for_accounts, for_orgs), (for_orgs, for_accounts)):
        (fault,) = faults(ledger, *definitions, now, later)
        assert fault == (
            "/events/3/setting",
            "this setting belongs to subjects of kind account, not org (writable by: admin)",
        )


@pytest.mark.parametrize(
    ("setting", "member", "value"),
    [
        ("model.hosting", "members", ["hosted", "passthrough", "edge"]),
        ("residency.regions", "members", ["eu"]),
        ("training.opt_in", "kinds", ["org"]),
        ("passthrough.allowed", "kinds", ["org", "account"]),
        ("owner", "ref_kinds", ["org"]),
        ("storage.inputs_outputs", "protective", True),
        ("network.private_only", "protective", None),
        ("network.private_only", "default", None),
        ("residency.regions", "default", None),
        ("training.opt_in", "default", None),
        ("storage.inputs_outputs", "default", None),
        ("caching.temporary", "default", None),
        ("passthrough.allowed", "default", None),
    ],
)
def test_a_definition_of_a_built_in_setting_keeps_what_decisions_rest_on(
    ledger: Ledger, setting: str, member: str, value: Any
) -> None:
    (fault,) = faults(ledger, define(setting, definition=BUILT_IN[setting].as_json() | {member: value}))
    assert fault.pointer == f"/definition/{member}"
    assert setting in fault.detail


@pytest.mark.parametrize("setting", BUILT_IN)
def test_a_definition_of_a_built_in_setting_may_change_its_texts_and_writers(ledger: Ledger, setting: str) -> None:
    built_in = BUILT_IN[setting].as_json()
    texts = {"title": "Ours", "description": "Our words.", "source": "Our rules", "writable_by": "operator"}
    submit(ledger, define(setting, definition=built_in | texts | {"kinds": built_in["kinds"][::-1]}))


def test_the_default_of_a_built_in_setting_may_change_to_another_value(ledger: Ledger) -> None:
    for setting, default in (("training.opt_in", True), ("residency.regions", ["eu"]), ("model.hosting", "hosted")):
        submit(ledger, define(setting, definition=BUILT_IN[setting].as_json() | {"default": default}))


DIGEST = "0f" * 32
OUT_OF_BOUNDS: dict[str, tuple[list[Any], list[Any], str]] = {
    "provider.retention_days": ([-1, -(2**53) + 1], [0, 1, 2**53 - 1], "the value must be 0 or more"),
    "provider.policy_sha256": (
        ["", DIGEST[1:], DIGEST + "0", DIGEST.upper(), f" {DIGEST}", DIGEST[1:] + "g", DIGEST[1:] + "\n", "unknown"],
        [DIGEST, "0123456789abcdef" * 4],
        "the value must be the SHA-256 of the policy's text in hex: 64 of 0-9 a-f",
    ),
}


@pytest.mark.parametrize("setting", OUT_OF_BOUNDS)
def test_a_value_out_of_the_bounds_of_a_built_in_setting_is_refused_as_value_and_as_default(
    ledger: Ledger, setting: str
) -> None:
    bad, good, words = OUT_OF_BOUNDS[setting]
    for value in bad:
        (fault,) = faults(ledger, {**change("provider:p", value), "setting": setting})
        assert (fault.pointer, words in fault.detail) == ("/value", True)
        (fault,) = faults(ledger, define(setting, definition=BUILT_IN[setting].as_json() | {"default": value}))
        assert (fault.pointer, words in fault.detail) == ("/definition/default", True)
    for value in good:
        submit(ledger, {**change("provider:p", value), "setting": setting})
        submit(ledger, define(setting, definition=BUILT_IN[setting].as_json() | {"default": value}))


@pytest.mark.parametrize("setting", OUT_OF_BOUNDS)
def test_an_import_refuses_such_a_value_and_a_ledger_that_has_it_stays_readable_and_is_restored(
    ledger: Ledger, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bad, *_), _, words = OUT_OF_BOUNDS[setting]
    body = {**change("provider:p", bad), "setting": setting}
    url = f"sqlite:///{tmp_path}/imported.db"
    with pytest.raises(BadInput, match=f"line 1: /value: {re.escape(words)}"):
        import_lines(url, jsonl(at(AT, body)))
    with monkeypatch.context() as older:
        older.setattr(decide, "fault_of_built_in_value", lambda *_: None)
        submit(ledger, body)
    import_lines(url, b"".join(export_lines(ledger)))
    with open_ledger(url) as restored:
        for one in (ledger, restored):
            assert Query(one).state("provider:p", at=NOW + HOUR).settings[setting].value == bad
    assert [entry.leaf for entry in entries(url)] == [entry.leaf for entry in ledger.page(0, 1000)]
