"""Definitions over valid time, and the built-in catalog."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ledger.built_in_catalog import BUILT_IN
from ledger.catalog import Catalog, Definition, DefinitionPeriod, WrongValue
from tests.support.ledgers import definition


def make_definition(**more: Any) -> Definition:
    return Definition.model_validate(definition(**more))


RULES: dict[str, tuple[set[str], str, Any, str]] = {
    "training.opt_in": ({"account", "org"}, "bool", False, "admin"),
    "storage.inputs_outputs": ({"account", "org"}, "bool", False, "admin"),
    "caching.temporary": ({"account", "org"}, "bool", True, "admin"),
    "passthrough.allowed": ({"org"}, "bool", False, "admin"),
    "residency.regions": ({"org"}, "set_of", (), "operator"),
    "network.private_only": ({"org"}, "bool", False, "operator"),
    "model.hosting": ({"model"}, "one_of", None, "operator"),
    "model.author": ({"model"}, "text", None, "operator"),
    "model.provider": ({"model"}, "text", None, "operator"),
    "model.policy_url": ({"model"}, "text", None, "operator"),
    "model.regions": ({"model"}, "set_of", (), "operator"),
    "model.precision": ({"model"}, "text", None, "operator"),
    "model.distilled": ({"model"}, "bool", None, "operator"),
    "model.system_prompt_forced": ({"model"}, "bool", None, "operator"),
    "model.censorship_layer": ({"model"}, "bool", None, "operator"),
    "model.revision": ({"model"}, "text", None, "operator"),
    "subjects.must_be_known": ({"account", "org", "project", "key"}, "set_of", (), "operator"),
    "owner": ({"key", "project"}, "subject_ref", None, "operator"),
    "attached_to": ({"account"}, "subject_ref", None, "admin"),
    "region.within": ({"region"}, "subject_ref", None, "operator"),
    "region.names": ({"region"}, "set_of", (), "operator"),
    "provider.names": ({"provider"}, "set_of", (), "operator"),
    "provider.policy_url": ({"provider"}, "text", None, "operator"),
    "provider.policy_sha256": ({"provider"}, "text", None, "operator"),
    "provider.trains": ({"provider"}, "bool", None, "operator"),
    "provider.stores": ({"provider"}, "bool", None, "operator"),
    "provider.retention_days": ({"provider"}, "integer", None, "operator"),
    "provider.regions": ({"provider"}, "set_of", (), "operator"),
    "access.roles": ({"principal"}, "set_of", (), "operator"),
    "access.disabled": ({"principal"}, "bool", False, "operator"),
    "token.principal": ({"token"}, "subject_ref", None, "operator"),
    "token.secret_sha256": ({"token"}, "text", None, "operator"),
}


def test_the_built_in_catalog_is_unchanged() -> None:
    assert {setting: (set(d.kinds), d.value_type, d.default, d.writable_by) for setting, d in BUILT_IN.items()} == RULES


def test_every_built_in_definition_cites_its_rule() -> None:
    for built_in in BUILT_IN.values():
        assert built_in.source.startswith("Published")
        assert built_in.description.endswith(".")


def test_no_protective_value_permits_anything() -> None:
    for setting in ("training.opt_in", "storage.inputs_outputs", "caching.temporary", "passthrough.allowed"):
        assert BUILT_IN[setting].protective is False
    assert BUILT_IN["network.private_only"].protective is True
    assert BUILT_IN["model.hosting"].protective == "passthrough"


@pytest.mark.parametrize("setting", BUILT_IN)
def test_a_definition_reads_back_from_its_json(setting: str) -> None:
    assert Definition.model_validate(BUILT_IN[setting].as_json()) == BUILT_IN[setting]


def test_a_set_is_stored_sorted() -> None:
    assert make_definition(value_type="set_of", default=["b", "a"], protective=None).default == ("a", "b")


def test_members_bound_a_set_and_a_choice() -> None:
    regions = make_definition(value_type="set_of", members=["eu", "us"], default=[], protective=None)
    assert regions.accept(["us", "eu"]) == ("eu", "us")
    with pytest.raises(WrongValue, match="among eu, us"):
        regions.accept(["mars"])
    choice = make_definition(value_type="one_of", members=["on", "off"], default="off", protective="off")
    assert choice.accept("on") == "on"
    with pytest.raises(WrongValue, match="one of on, off"):
        choice.accept("maybe")
    with pytest.raises(ValidationError):
        make_definition(value_type="one_of", members=["on"], default="off", protective="on")


def test_a_refusal_lists_only_the_first_members() -> None:
    many = [f"{number:04}{'x' * 4000}" for number in range(1000)]
    for value_type, wrong in (("one_of", "none"), ("set_of", ["none"])):
        for members in (many, many[:2], [str(number) for number in range(21)]):
            with pytest.raises(WrongValue) as refused:
                make_definition(value_type=value_type, members=members, default=None, protective=None).accept(wrong)
            assert len(str(refused.value)) < 500
            assert str(refused.value).endswith(f"({len(members)} in all; the catalog lists them)")


def test_a_definition_is_frozen() -> None:
    with pytest.raises(ValidationError):
        make_definition().default = True  # type: ignore[misc]  # wrong on purpose


STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.sampled_from("xyz")), max_size=12)


def slowly(steps: list[tuple[str, int, str]], setting: str, at: int) -> tuple[str, int] | None:
    """The definition with the latest start at or before `at`; of equal starts, the one recorded last."""
    latest: tuple[str, int] | None = None
    for name, start, title in steps:
        if name == setting and start <= at and (latest is None or start >= latest[1]):
            latest = (title, start)
    return latest


@given(STEPS, st.integers(0, 12))
def test_the_definition_that_holds_is_the_latest_that_has_started(
    steps: list[tuple[str, int, str]], split: int
) -> None:
    definitions = [(setting, start, make_definition(title=title)) for setting, start, title in steps]
    at_once = Catalog(definitions, len(definitions))
    in_parts = Catalog(definitions[:split]).extended(definitions[split:], len(definitions))
    for setting in "abc":
        starts = {start for name, start, _ in steps if name == setting}
        for at in range(-1, 8):
            period = at_once.definition_at(setting, at)
            assert in_parts.definition_at(setting, at) == period
            assert (period and (period.definition.title, period.effective_from)) == slowly(steps, setting, at)
            if period is not None:
                assert period.effective_until == min((start for start in starts if start > at), default=None)
        assert (setting in at_once) == bool(starts)
    assert in_parts.version == at_once.version


def test_extending_a_catalog_does_not_change_it() -> None:
    before = Catalog([("a", 0, make_definition(title="first"))], 1)
    before.extended([("a", 0, make_definition(title="second")), ("b", 0, make_definition())], 3)
    assert before.definition_at("a", 0) == DefinitionPeriod(make_definition(title="first"), 0, None)
    assert ("b" in before, before.version) == (False, 1)


@pytest.mark.parametrize("blank", [" ", "\t\n", "\u3164", "\u200b"])
def test_a_new_set_has_no_member_that_names_nothing_and_a_recorded_one_is_read(blank: str) -> None:
    regions = BUILT_IN["residency.regions"]
    with pytest.raises(WrongValue, match="a text of spaces names nothing"):
        regions.accept_new(["eu", blank])
    assert regions.accept(["eu", blank]) == tuple(sorted(("eu", blank)))
