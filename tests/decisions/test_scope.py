"""Which subject governs: the corners that the scenarios leave out."""

from itertools import pairwise
from typing import Any

import pytest

from ledger.built_in_catalog import BUILT_IN
from ledger.drafts import Draft
from ledger.times import parse_time
from projections.decisions.model import RequestRecord
from projections.decisions.scope import CHAIN_MAX, Scope, resolve
from tests.support.memory_ledger import FoldedStates, MemoryLedger, changed, cleared, defined

BEGUN = parse_time("2026-01-01T00:00:00Z")


def resolved(*drafts: Draft, at: int = BEGUN + 100, **named: Any) -> Scope:
    book = MemoryLedger(BEGUN)
    for after, draft in enumerate(drafts, 1):
        book.record(BEGUN + after, draft)
    return resolve(RequestRecord(at=at, **named), FoldedStates(book, at, "at"))


def owner(subject: str, value: str) -> Draft:
    return changed(subject, "owner", value)


def chain(subjects: int) -> list[Draft]:
    """A key, then projects, then an org: `subjects` of them in all."""
    links = ["key:k1", *(f"project:p{index}" for index in range(subjects - 2)), "org:acme"]
    return [owner(one, two) for one, two in pairwise(links)]


@pytest.mark.parametrize("subjects", [2, 3, CHAIN_MAX])
def test_a_chain_of_owners_is_followed_to_its_end(subjects: int) -> None:
    scope = resolved(*chain(subjects), key_id="k1")
    assert scope.governing == "org:acme"
    assert len(scope.via) == subjects
    assert [state.setting for state in scope.evidence] == ["owner"] * (subjects - 1)


def test_a_longer_chain_has_an_unknown_owner() -> None:
    scope = resolved(*chain(CHAIN_MAX + 1), key_id="k1")
    assert (scope.governing, scope.problem, len(scope.via)) == (None, "unknown_owner", CHAIN_MAX)


def test_a_chain_may_end_at_an_attached_account_and_still_reach_its_org() -> None:
    links = ["key:k1", *(f"project:p{index}" for index in range(CHAIN_MAX - 2)), "account:u1"]
    drafts = [owner(one, two) for one, two in pairwise(links)]
    scope = resolved(*drafts, changed("account:u1", "attached_to", "org:acme"), key_id="k1")
    assert scope.governing == "org:acme"
    assert scope.via == (*links, "org:acme")


def test_owners_in_a_circle_are_unknown() -> None:
    drafts = [owner("project:p1", "project:p2"), owner("project:p2", "project:p1")]
    assert resolved(*drafts, project_id="p1").problem == "unknown_owner"


def test_a_key_goes_before_a_project_an_org_and_an_account() -> None:
    drafts = [owner("key:k1", "account:u1"), owner("project:p1", "account:u1")]
    scope = resolved(*drafts, key_id="k1", project_id="p1", account_id="u1")
    assert (scope.governing, scope.via) == ("account:u1", ("key:k1", "account:u1"))


def test_a_project_on_the_way_from_the_key_is_not_followed_twice() -> None:
    drafts = [owner("key:k1", "project:p1"), owner("project:p1", "org:acme")]
    scope = resolved(*drafts, key_id="k1", project_id="p1", org_id="acme")
    assert scope.governing == "org:acme"
    assert [(state.subject, state.setting) for state in scope.evidence] == [
        ("key:k1", "owner"),
        ("project:p1", "owner"),
    ]


def test_a_project_beside_the_key_must_lead_to_the_same_subject_by_any_way() -> None:
    drafts = [
        owner("key:k1", "account:u1"),
        changed("account:u1", "attached_to", "org:acme"),
        owner("project:p1", "org:acme"),
    ]
    assert resolved(*drafts, key_id="k1", project_id="p1").governing == "org:acme"
    scope = resolved(*drafts, cleared("account:u1", "attached_to"), key_id="k1", project_id="p1")
    assert (scope.governing, scope.problem) == (None, "scope_conflict")
    assert [state.subject for state in scope.evidence] == ["key:k1", "account:u1", "project:p1"]


def test_a_project_beside_the_key_without_an_owner_is_unknown_and_not_a_conflict() -> None:
    assert resolved(owner("key:k1", "org:acme"), key_id="k1", project_id="p1").problem == "unknown_owner"


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ({"account_id": "u1"}, None),
        ({"account_id": "u2"}, "scope_conflict"),
        ({"org_id": "acme"}, None),
        ({"org_id": "beta"}, "scope_conflict"),
        ({"org_id": "acme", "account_id": "u1"}, None),
        ({"org_id": "acme", "account_id": "u2"}, "scope_conflict"),
    ],
)
def test_ids_besides_the_key_of_an_attached_account(named: dict[str, Any], problem: str | None) -> None:
    drafts = [owner("key:k1", "account:u1"), changed("account:u1", "attached_to", "org:acme")]
    scope = resolved(*drafts, key_id="k1", **named)
    assert scope.problem == problem
    assert scope.governing == (None if problem else "org:acme")


def test_an_org_named_besides_an_unattached_account_that_a_key_leads_to_is_a_conflict() -> None:
    assert resolved(owner("key:k1", "account:u1"), key_id="k1", org_id="acme").problem == "scope_conflict"


def test_an_account_beside_an_org_contradicts_nothing_wherever_it_is_attached() -> None:
    scope = resolved(changed("account:u1", "attached_to", "org:beta"), org_id="acme", account_id="u1")
    assert (scope.governing, scope.via, scope.evidence) == ("org:acme", ("org:acme",), ())


def test_before_the_ledger_began_a_key_a_project_and_an_account_are_indeterminate() -> None:
    for named in ("key_id", "project_id", "account_id"):
        scope = resolved(at=BEGUN - 1, **{named: "x"})
        assert (scope.governing, scope.problem) == (None, "before_first_record")
        assert [state.source for state in scope.evidence] == ["undefined"]


def test_a_default_owner_that_an_operator_defines_counts() -> None:
    definition = {**BUILT_IN["owner"].as_json(), "default": "org:acme"}
    scope = resolved(defined("owner", definition), key_id="k1")
    assert scope.governing == "org:acme"
    assert scope.evidence[0].source == "default"


def test_projects_have_no_owner_once_the_setting_is_not_for_them() -> None:
    definition = {**BUILT_IN["owner"].as_json(), "kinds": ["key"]}
    drafts = [owner("project:p1", "org:acme"), defined("owner", definition)]
    assert resolved(*drafts, project_id="p1").problem == "unknown_owner"


def test_a_chain_that_ends_at_neither_an_org_nor_an_account_is_unknown_owner() -> None:
    definition = {**BUILT_IN["owner"].as_json(), "ref_kinds": ["model", "org"]}
    drafts = [defined("owner", definition), owner("key:k1", "model:m1")]
    scope = resolved(*drafts, key_id="k1")
    assert (scope.governing, scope.via, scope.problem) == (None, ("key:k1", "model:m1"), "unknown_owner")
