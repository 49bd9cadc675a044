"""Every route × role × own, foreign and unknown subject: who gets an answer, and who gets which refusal."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from fastapi.routing import APIRoute

from api.routing import BareRoute, RouteSpec
from projections.access.rights import Need
from tests.api.access.world import FOREIGN, OWN, PRINCIPALS, PUBLISHED, UNKNOWN, World, change
from tests.api.client import problem

EVERYBODY = frozenset(PRINCIPALS)
READERS = frozenset(("operator", "auditor"))
SCOPED = frozenset(OWN)

# The expected table, written by hand: what each kind of question needs, and how far.
EVERYWHERE: dict[str, frozenset[str]] = {
    "state": READERS | {"gateway"},
    "feed": READERS | {"gateway"},
    "check": READERS | {"gateway"},
    "history": READERS | {"privacy"},
    "subjects": READERS | {"privacy"},
    "submit": frozenset(("operator",)),
    "log": READERS | {"gateway"},
    "audit": READERS,
}


def reads(name: str, path: str) -> tuple[str, str, Callable[[World, str], dict[str, Any]]]:
    return name, "GET", lambda _world, subject: {"path": path.replace("SUBJECT", quote(subject, safe=""))}


ABOUT_A_SUBJECT = {
    "/v1/subjects/{subject:path}/state": reads("state", "/v1/subjects/SUBJECT/state"),
    "/v1/subjects/{subject:path}/timeline": reads("history", "/v1/subjects/SUBJECT/timeline"),
    "/v1/subjects/{subject:path}/history": reads("history", "/v1/subjects/SUBJECT/history"),
    "/v1/subjects/{subject:path}/diff": reads("history", "/v1/subjects/SUBJECT/diff?from=2026-01-01T00:00:00Z"),
}
OPEN = {
    *("/healthz", "/readyz", "/metrics", "/problems", "/problems/{code}"),
    *("/log/checkpoint", "/log/vkeys", "/log/tile/{path:path}"),
}
OTHERS = {
    "/v1/events",
    "/v1/events/stream",
    "/v1/events/{event_id}",
    "/v1/events/{event_id}/proof",
    "/log/tile/entries/{path:path}",
    "/log/tile/large-entries/{path:path}",
    "/v1/subjects",
    "/v1/catalog",
    "/v1/checks",
    "/v1/audits",
    "/v1/audits/{audit_id}",
    "/v1/audits/{audit_id}/findings",
    "/v1/audits/{audit_id}/rejects",
}
"""Routes with tests of their own below."""


def routes(world: World) -> list[APIRoute]:
    return [route for route in world.client.app.routes if isinstance(route, APIRoute)]  # type: ignore[attr-defined]


def test_every_route_declares_its_need_and_no_route_goes_round_the_gate(world: World) -> None:
    declared = routes(world)
    for route in declared:
        assert isinstance(route, BareRoute), route.path
        assert isinstance(route.need, Need), route.path
    others = {getattr(route, "path", None) for route in world.client.app.routes} - {one.path for one in declared}  # type: ignore[attr-defined]
    assert others == {"/openapi.json"}


def test_every_route_is_tried_here(world: World) -> None:
    assert {route.path for route in routes(world)} == OPEN | OTHERS | ABOUT_A_SUBJECT.keys()


def test_a_route_without_a_declaration_cannot_be_written() -> None:
    spec = {"method": "GET", "path": "/v1/x", "endpoint": None, "tag": "x", "response_models": ()}
    with pytest.raises(TypeError, match="need"):
        RouteSpec(**spec)  # type: ignore[arg-type]  # what a careless author would write


@pytest.mark.parametrize("token", [None, "ift_" + "A" * 43, "wrong", "Basic"])
def test_without_a_valid_token_every_route_but_the_open_ones_answers_401(world: World, token: str | None) -> None:
    for route in routes(world):
        path = route.path.replace("{subject:path}", "org:acme").replace("{event_id}", world.events["org:acme"])
        path = path.replace("{audit_id}", "0" * 32).replace("{code}", "forbidden")
        rest = "0/000" if "tile/{" in path else "000"
        path = path.replace("{path:path}", f"{rest}.p/{world.ledger.head().position}")
        for method in route.methods or ():
            answer = world.send(token, method, path, json={} if method == "POST" else None)
            if route.path in OPEN:
                assert answer.status_code == 200, path
                continue
            body = problem(answer, "not_signed_in")
            assert answer.headers["www-authenticate"].startswith("Bearer ")
            assert ("invalid_token" in answer.headers["www-authenticate"]) == (token is not None)
            assert "org:acme" not in body["detail"]
    assert world.get(token, "/openapi.json").status_code == 200
    problem(world.get(token, "/v1/nothing"), "no_such_path")


@pytest.mark.parametrize("who", PRINCIPALS)
@pytest.mark.parametrize("route", ABOUT_A_SUBJECT)
def test_questions_about_a_subject(world: World, route: str, who: str) -> None:
    right, method, request = ABOUT_A_SUBJECT[route]
    own = set(OWN.get(who, ()))
    everywhere = who in EVERYWHERE[right]
    for subject in (*own, *OWN["admin"], *OWN["self"], *FOREIGN, *UNKNOWN, *PUBLISHED):
        answer = world.send(who, method, request(world, subject)["path"])
        if not everywhere and who not in SCOPED:
            problem(answer, "forbidden")
        elif subject in UNKNOWN:
            problem(answer, "not_found")
        elif everywhere or subject in own or subject in PUBLISHED:
            assert answer.status_code == 200, (who, subject, answer.text)
            assert answer.json()["subject"] == subject
        else:
            problem(answer, "not_found")


def same_as_unknown(world: World, who: str, ask: Callable[[str], httpx2.Response]) -> None:
    for foreign in FOREIGN:
        unknown = f"{foreign.partition(':')[0]}:nobody"
        first, second = ask(foreign), ask(unknown)
        assert first.content == second.content, (who, foreign)
        assert (first.status_code, dict(first.headers)) == (second.status_code, dict(second.headers))


@pytest.mark.parametrize("who", sorted(SCOPED))
def test_a_foreign_subject_is_answered_in_the_bytes_of_an_unknown_one(world: World, who: str) -> None:
    for _, method, request in ABOUT_A_SUBJECT.values():
        same_as_unknown(world, who, lambda s, m=method, r=request: world.send(who, m, r(world, s)["path"]))  # type: ignore[misc]
    for more in ("?setting=no.such", "?at=2026-01-01T00:00:00Z&known_at=at", "?setting=trainin.opt_in"):
        same_as_unknown(world, who, lambda s, q=more: world.get(who, f"/v1/subjects/{s}/state{q}"))  # type: ignore[misc]
    same_as_unknown(world, who, lambda s: world.get(who, f"/v1/events?subject={s}"))
    same_as_unknown(world, who, lambda s: world.get(who, f"/v1/subjects?prefix={s}"))
    for event in (
        lambda s: change(s, "training.opt_in", True),
        lambda s: change(s, "training.opt_in", "no bool"),
        lambda s: change(s, "no.such", True),
        lambda s: change(s, "network.private_only", True, expected_version=99),
        lambda s: change(s, "owner", "org:acme", effective_from="2020-01-01T00:00:00Z"),
    ):
        same_as_unknown(world, who, lambda s, e=event: world.submit(who, e(s)))  # type: ignore[misc]
    event_of = [world.events[subject] for subject in FOREIGN if subject in world.events]
    nowhere = "00000000-0001-8c4f-a1d2-5b6e7f809a1b"
    for id_ in event_of:
        assert world.get(who, f"/v1/events/{id_}").content == world.get(who, f"/v1/events/{nowhere}").content
        for reason in ({}, {"reason": "wrong"}):
            retract = {"type": "change.retracted", **reason}
            answers = [world.submit(who, {**retract, "event_id": one}) for one in (id_, nowhere)]
            assert answers[0].content == answers[1].content
            problem(answers[0], "bad_submission")
    for subject in FOREIGN[:4]:
        kind, _, id_ = subject.partition(":")
        answers = [
            world.send(who, "POST", "/v1/checks", json={"requests": [{f"{kind}_id": one, "model_id": "house"}]})
            for one in (id_, "nobody")
        ]
        assert answers[0].content == answers[1].content
        problem(answers[0], "not_found")


@pytest.mark.parametrize("who", PRINCIPALS)
def test_the_feed_holds_what_the_caller_reaches(world: World, who: str) -> None:
    answer = world.get(who, "/v1/events?limit=1000")
    if who not in EVERYWHERE["feed"] | SCOPED:
        problem(answer, "forbidden")
        return
    page = answer.json()
    subjects = {event["subject"] for event in page["events"]}
    everything = {event["subject"] for event in world.get("operator", "/v1/events?limit=1000").json()["events"]}
    if who in SCOPED:
        assert subjects == {*OWN[who], *PUBLISHED, "catalog:settings"}
    else:
        assert subjects == everything
        assert set(FOREIGN[:4]) < subjects
    assert page["next_after"] == page["head"]
    # Page by page it is the same.
    after, paged = 0, []
    while after < page["head"]:
        part = world.get(who, f"/v1/events?limit=3&after={after}").json()
        paged += part["events"]
        after = part["next_after"]
    assert paged == page["events"]


@pytest.mark.parametrize("who", PRINCIPALS)
def test_one_event(world: World, who: str) -> None:
    for subject, id_ in world.events.items():
        answer = world.get(who, f"/v1/events/{id_}")
        if who not in EVERYWHERE["feed"] | SCOPED:
            problem(answer, "forbidden")
        elif who in SCOPED and subject not in {*OWN[who], *PUBLISHED, "catalog:settings"}:
            problem(answer, "not_found")
        else:
            assert answer.json()["subject"] == subject


@pytest.mark.parametrize("who", PRINCIPALS)
def test_the_proof_of_an_event_is_for_those_who_may_read_it(world: World, who: str) -> None:
    for id_ in world.events.values():
        event, proof = (world.get(who, f"/v1/events/{id_}{more}") for more in ("", "/proof"))
        assert proof.status_code == event.status_code
        if proof.status_code != 200:
            assert proof.content == event.content
    missing = "00000000-0001-8c4f-a1d2-5b6e7f809a1b"
    if who in SCOPED:
        foreign = world.get(who, f"/v1/events/{world.events['org:globex']}/proof")
        assert foreign.content == world.get(who, f"/v1/events/{missing}/proof").content


@pytest.mark.parametrize("who", PRINCIPALS)
def test_bundles_hold_the_events_of_all(world: World, who: str) -> None:
    size = world.ledger.head().position
    for form, status in (("entries", 200), ("large-entries", 404)):
        answer = world.get(who, f"/log/tile/{form}/000.p/{size}")
        if who in EVERYWHERE["log"]:
            assert answer.status_code == status
        else:
            problem(answer, "forbidden")
    # Not by the way of the tiles, which need no sign-in.
    for path in (f"/log/tile/0/../entries/000.p/{size}", f"/log/tile//entries/000.p/{size}"):
        assert world.get(None, path).status_code in (401, 404)


@pytest.mark.parametrize("who", PRINCIPALS)
def test_the_list_of_subjects(world: World, who: str) -> None:
    answer = world.get(who, "/v1/subjects?limit=1000")
    if who not in EVERYWHERE["subjects"] | SCOPED:
        problem(answer, "forbidden")
        return
    listed = [row["subject"] for row in answer.json()["subjects"]]
    assert listed == sorted(listed)
    if who in SCOPED:
        assert set(listed) == {*OWN[who], *PUBLISHED, "catalog:settings"}
    else:
        assert set(FOREIGN) < set(listed)
    after, paged = "", []
    for _ in range(len(listed) + 1):
        part = world.get(who, f"/v1/subjects?limit=1{after and '&after=' + quote(after, safe='')}").json()
        paged += [row["subject"] for row in part["subjects"]]
        after = part["next_after"]
        # No cursor names a foreign subject.
        assert after is None or after in listed
        if after is None:
            break
    assert paged == listed
    for kind in ("key", "org", "account", "model"):
        of_kind = world.get(who, f"/v1/subjects?kind={kind}").json()["subjects"]
        assert [row["subject"] for row in of_kind] == [one for one in listed if one.startswith(f"{kind}:")]


@pytest.mark.parametrize("who", PRINCIPALS)
def test_the_catalog_is_for_everybody_who_signed_in(world: World, who: str) -> None:
    assert "training.opt_in" in world.get(who, "/v1/catalog").json()["settings"]


@pytest.mark.parametrize("who", PRINCIPALS)
def test_checks(world: World, who: str) -> None:
    records = {
        "org:acme": {"org_id": "acme"},
        "key:k1": {"key_id": "k1", "project_id": "p1", "org_id": "acme"},
        "account:u1": {"account_id": "u1"},
        "org:globex": {"org_id": "globex"},
        "key:gk": {"key_id": "gk"},
        "both": {"key_id": "k1", "org_id": "globex"},
    }
    for subject, record in records.items():
        for body in (record, {"requests": [record]}, {"requests": [record] * 2}):
            answer = world.send(who, "POST", "/v1/checks", json=body)
            if who in EVERYWHERE["check"] or subject in OWN.get(who, ()):
                assert answer.status_code == 200, (who, subject)
            elif who in SCOPED:
                problem(answer, "not_found")
            else:
                problem(answer, "forbidden")


@pytest.mark.parametrize("who", PRINCIPALS)
def test_audits_are_for_those_who_read_everything(world: World, who: str) -> None:
    line = b'{"org_id": "globex", "at": "2026-11-01T00:00:00Z"}\n'
    sent = world.send(who, "POST", "/v1/audits", content=line, headers={"Content-Type": "application/x-ndjson"})
    if who not in EVERYWHERE["audit"]:
        problem(sent, "forbidden")
        for method, path in (("GET", ""), ("GET", "/" + "0" * 32), ("DELETE", "/" + "0" * 32)):
            problem(world.send(who, method, f"/v1/audits{path}"), "forbidden")
        for path in ("findings", "rejects"):
            problem(world.get(who, f"/v1/audits/{'0' * 32}/{path}"), "forbidden")
        return
    audit = sent.json()
    assert audit["created_by"] == f"principal:{who}"
    other = next(one for one in EVERYWHERE["audit"] if one != who)
    assert world.get(other, f"/v1/audits/{audit['id']}").json()["created_by"] == f"principal:{who}"
    assert audit["id"] in [one["id"] for one in world.get(other, "/v1/audits").json()["audits"]]
    if who == "operator":
        problem(world.send("auditor", "DELETE", f"/v1/audits/{audit['id']}"), "forbidden")
    assert world.send(who, "DELETE", f"/v1/audits/{audit['id']}").status_code == 204


@pytest.mark.parametrize("who", PRINCIPALS)
def test_reasons_are_for_the_role_privacy(world: World, who: str) -> None:
    answer = world.get(who, "/v1/subjects/org%3Aacme/history")
    if answer.status_code != 200:
        return
    (row,) = answer.json()["events"]
    if who == "privacy":
        assert (row["reason"], "reason_withheld" in row) == ("personal reason of acme", False)
    else:
        assert (row["reason"], row["reason_withheld"]) == (None, True)


# The submissions of each role: (submission, the code of the refusal of each role that is refused).

SUBMISSIONS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "own org, admin's": (
        change("org:acme", "training.opt_in", False),
        {"member": "forbidden", "self": "not_found"},
    ),
    "own org, owner's": (change("org:acme", "beta.theme", "dark"), {"self": "not_found"}),
    "own key, owner's": (change("key:k1", "beta.theme", "dark"), {"self": "not_found"}),
    "own org, operator's": (
        change("org:acme", "network.private_only", True),
        {"admin": "forbidden", "member": "forbidden", "self": "not_found"},
    ),
    "own key's owner": (
        change("key:k2", "owner", "project:p1"),
        {"admin": "forbidden", "member": "forbidden", "self": "not_found"},
    ),
    "own account": (
        change("account:u1", "training.opt_in", False),
        {"admin": "not_found", "member": "not_found"},
    ),
    "attach own account": (
        change("account:u1", "attached_to", "org:acme"),
        {"admin": "not_found", "member": "not_found", "self": "not_found"},
    ),
    "foreign org": (
        change("org:globex", "training.opt_in", False),
        dict.fromkeys(SCOPED, "not_found"),
    ),
    "a model": (change("model:house", "model.author", "Us"), dict.fromkeys(SCOPED, "not_found")),
    "own roles": (
        change("principal:admin", "access.roles", ["operator"]),
        dict.fromkeys(SCOPED, "not_found"),
    ),
    "a definition": (
        {"type": "setting.defined", "setting": "beta.more", "definition": {
            "kinds": ["org"], "value_type": "bool", "default": False, "protective": False, "writable_by": "owner",
            "title": "More", "description": "More.", "source": "Product notes"}},
        dict.fromkeys(SCOPED, "forbidden"),
    ),
    "a correction": (
        change("org:acme", "training.opt_in", False, effective_from="2026-01-01T00:00:00Z", reason="late"),
        {"operator": "forbidden", "admin": "forbidden", "member": "forbidden", "self": "not_found"},
    ),
    "cancelling": (
        change("org:acme", "training.opt_in", False, cancels_scheduled=True),
        {"operator": "forbidden", "admin": "forbidden", "member": "forbidden", "self": "not_found"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("who", PRINCIPALS)
@pytest.mark.parametrize("name", SUBMISSIONS)
def test_submissions(fresh_world: World, name: str, who: str) -> None:
    submission, refusals = SUBMISSIONS[name]
    head = fresh_world.ledger.head()
    fine = change("org:acme", "beta.theme", "light") if who != "self" else change("account:u1", "beta.theme", "light")
    # In a batch with something that the caller may do: all or nothing.
    answer = fresh_world.submit(who, fine, submission)
    if who not in {"operator"} | SCOPED:
        problem(answer, "forbidden")
    elif who in refusals:
        body = problem(answer, refusals[who])
        assert all(error["pointer"].startswith("/events/1/") for error in body["errors"])
        assert "globex" not in answer.text
    else:
        assert answer.status_code == 201, answer.text
        event = fresh_world.get("operator", f"/v1/events/{answer.json()['receipts'][0]['event_id']}").json()
        assert event["data"]["actor"] == f"principal:{who}"
        return
    assert fresh_world.ledger.head() == head
