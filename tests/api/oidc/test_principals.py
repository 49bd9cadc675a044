"""Every `sub` that fits becomes a principal of its own, which a URL keeps as it is."""

import posixpath
import re
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.oidc.faults import TokenRefused
from api.oidc.principals import principal_of, roles_of
from ledger.subjects import is_id

SUBS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80) | st.text("./~|%:a", min_size=1)


def decoded(principal: str) -> str:
    """The reverse, written by itself: `~XX` is a byte."""
    sub = principal.removeprefix("principal:corp/").encode("ascii")
    return re.sub(rb"~([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), sub).decode()


@given(SUBS)
@example("/")
@example("//")
@example("..")
@example("a/../b/./c")
@example("~7E")
@example("a\u0301")
def test_a_principal_fits_the_grammar_and_leads_back_to_its_sub(sub: str) -> None:
    try:
        principal = principal_of("corp", sub)
    except TokenRefused:
        assert len(sub.encode()) * 3 + len("principal:corp/") > 256
        return
    identifier = principal.removeprefix("principal:")
    assert is_id(identifier)
    assert len(principal) <= 256
    # So no two of them are the same.
    assert decoded(principal) == sub


@given(SUBS)
@example("..")
@example("a//b/")
@example("./a")
def test_clients_and_proxies_keep_the_path_of_a_principal(sub: str) -> None:
    try:
        principal = principal_of("corp", sub)
    except TokenRefused:
        return
    for path in (f"/v1/subjects/{principal}", f"/v1/subjects/{quote(principal, safe='')}"):
        assert posixpath.normpath(unquote(urlsplit(path).path)) == f"/v1/subjects/{principal}"


@pytest.mark.parametrize(
    ("sub", "written"),
    [
        ("248289761001", "248289761001"),
        ("repo:octo/app:ref:refs/heads/main", "repo:octo/app:ref:refs/heads/main"),
        ("system:serviceaccount:prod:gateway", "system:serviceaccount:prod:gateway"),
        ("ana.b@example.com", "ana.b@example.com"),
        ("auth0|5f7c", "auth0~7C5f7c"),
        ("a b", "a~20b"),
        ("é", "~C3~A9"),
        ("~", "~7E"),
        (".", "~2E"),
        ("..", "~2E."),
        ("...", "..."),
        ("/a//b/", "~2Fa/~2Fb~2F"),
    ],
)
def test_a_sub_is_changed_only_where_it_must_be(sub: str, written: str) -> None:
    assert principal_of("corp", sub) == f"principal:corp/{written}"


@pytest.mark.parametrize("sub", [None, "", 7, ["a"], {"a": 1}, "\ud800", "a" * 257, "a" * 242, "é" * 41, "x" * 100_000])
def test_a_sub_that_does_not_fit_is_refused(sub: Any) -> None:
    with pytest.raises(TokenRefused) as refused:
        principal_of("corp", sub)
    assert refused.value.reason == "subject"


def test_the_longest_sub_fits_exactly() -> None:
    assert len(principal_of("corp", "a" * 241)) == 256


ROLES = {"ops": ("operator", "privacy"), "acme-admins": ("admin@org:acme",)}


@pytest.mark.parametrize(
    ("claims", "claim", "roles"),
    [
        ({"groups": ["ops", "unknown"]}, "groups", {"operator", "privacy"}),
        ({"groups": ["ops", "acme-admins"]}, "groups", {"operator", "privacy", "admin@org:acme"}),
        ({"groups": "ops"}, "groups", {"operator", "privacy"}),
        ({"groups": ["Ops", " ops", 1, None, ["ops"], {"ops": 1}]}, "groups", set()),
        ({"groups": {"ops": True}}, "groups", set()),
        ({"groups": None}, "groups", set()),
        ({}, "groups", set()),
        ({"realm_access": {"roles": ["ops"]}}, "/realm_access/roles", {"operator", "privacy"}),
        ({"realm_access": ["ops"]}, "/realm_access/roles", set()),
        ({"https://example.com/groups": ["ops"]}, "https://example.com/groups", {"operator", "privacy"}),
        ({"a/b": {"c~d": ["ops"]}}, "/a~1b/c~0d", {"operator", "privacy"}),
        ({"/groups": ["ops"]}, "/groups", set()),
    ],
)
def test_groups_give_the_configured_roles_only(claims: dict[str, Any], claim: str, roles: set[str]) -> None:
    assert {*map(str, roles_of(claims, claim, ROLES))} == roles


def test_without_a_mapping_no_group_gives_a_role() -> None:
    assert roles_of({"groups": ["operator"]}, "groups", {}) == ()
