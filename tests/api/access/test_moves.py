"""A key that moves to another org: neither org learns or rewrites what the other set while the key was the other's."""

import time
from typing import Any

import pytest

from ledger.times import DAY, format_time
from tests.api.access.world import World, change, make_token

KEY = "/v1/subjects/key:k2"
OWN = {"new": ("admin@org:globex", "corrector"), "old": ("admin@org:acme", "corrector")}


@pytest.fixture
def world(fresh_world: World) -> World:
    """The key k2 of acme, with a value that acme set."""
    tokens = {name: make_token(fresh_world.ledger, name, roles)[1] for name, roles in OWN.items()}
    world = fresh_world._replace(tokens={**fresh_world.tokens, **tokens})
    assert world.submit("old", change("key:k2", "beta.theme", "of acme")).status_code == 201
    return world


def instant(world: World, later: int = 0) -> str:
    """After everything recorded, and before everything to come."""
    time.sleep(0.002)
    now = world.ledger.clock.now()
    time.sleep(0.002)
    return format_time(now + later)


def test_who_will_own_a_key_learns_nothing_of_it_before(world: World) -> None:
    before, tomorrow, after = instant(world, -DAY), instant(world, DAY), instant(world, 2 * DAY)
    moved = world.submit("operator", change("key:k2", "owner", "org:globex", effective_from=tomorrow))
    assert moved.status_code == 201
    for path in (f"state?at={after}", f"diff?from={before}&to={after}", f"diff?from={after}&to={before}"):
        foreign = world.get("new", f"{KEY}/{path}")
        unknown = world.get("new", f"/v1/subjects/key:nobody/{path}")
        assert foreign.status_code == 404
        assert foreign.content == unknown.content
    for body in ({"key_id": "k2", "at": after}, {"requests": [{"key_id": "k2", "at": after}]}):
        assert world.send("new", "POST", "/v1/checks", json=body).status_code == 404


def test_the_owner_before_learns_nothing_of_what_follows(world: World) -> None:
    before = instant(world)
    assert world.submit("old", change("key:k2", "beta.theme", "last of acme")).status_code == 201
    last = instant(world)
    assert world.submit("operator", change("key:k2", "owner", "org:globex")).status_code == 201
    assert world.submit("new", change("key:k2", "beta.theme", "of globex")).status_code == 201

    def following(who: str, at: str) -> Any:
        return world.get(who, f"{KEY}/state?at={at}&setting=beta.theme").json()["settings"]["beta.theme"]["next"]

    assert "of globex" not in world.get("old", f"{KEY}/state?at={last}").text
    assert following("old", last) is None
    assert following("auditor", last)["value"] == "of globex"
    # Its own next change is still there.
    assert following("old", before)["value"] == "last of acme"


def test_the_new_owner_does_not_rewrite_the_time_before(world: World) -> None:
    theirs = world.get("operator", "/v1/events?subject=key:k2").json()["events"][-1]
    before = instant(world)
    assert world.submit("operator", change("key:k2", "owner", "org:globex")).status_code == 201
    moved = world.get("operator", f"{KEY}/state?setting=owner").json()["settings"]["owner"]["effective_from"]
    backdated = change("key:k2", "beta.theme", "rewritten", effective_from=before, reason="because")
    retraction = {"type": "change.retracted", "event_id": theirs["id"], "reason": "because"}
    assert world.submit("new", backdated).status_code == 404
    assert world.submit("new", retraction).status_code == 422
    assert world.submit("new", {**backdated, "effective_from": moved}).status_code == 201
    # Back at acme, which had it at both instants and not between them.
    assert world.submit("operator", change("key:k2", "owner", "org:acme")).status_code == 201
    assert world.submit("old", backdated).status_code == 404
    assert world.submit("old", change("key:k2", "beta.theme", "present")).status_code == 201
