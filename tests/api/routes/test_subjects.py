"""State, timeline, history, diff and catalog over HTTP, as in `api/README.md`, "Wire contract"."""

from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from freezegun import freeze_time
from starlette.testclient import TestClient

from tests.api.client import GENESIS, changed, get, problem, submit

MODEL = "model:deepseek-ai/DeepSeek-V3"


@pytest.fixture
def acme(client: TestClient) -> TestClient:
    """org:acme opts in at 2026-01-01, recorded on 01-15, and opts out on 02-01, recorded on time."""
    # The frozen moments are months before the genesis catalog.
    assert isinstance(client.app, FastAPI)
    client.app.state.service.ledger.recorder.append_guard.behind_max_us = 100 * 365 * 86_400 * 1_000_000
    with freeze_time("2026-01-15T09:30:00Z"):
        first = changed(
            "org:acme", "training.opt_in", True, effective_from="2026-01-01T00:00:00Z", reason="ticket 4711"
        )
        submit(client, first)
    with freeze_time("2026-02-01T00:00:00Z"):
        submit(client, changed("org:acme", "training.opt_in", False))
    return client


# The genesis catalog of these ledgers is recorded when the test runs, after those frozen moments would be; so
# recorded times go on from there, and only the effective times above are exact.


def test_state_shows_each_setting_with_its_source(acme: TestClient) -> None:
    state = get(acme, "/v1/subjects/org:acme/state?at=2026-01-10T00:00:00Z")
    assert (state["subject"], state["at"], state["position"]) == (
        "org:acme",
        "2026-01-10T00:00:00.000000Z",
        GENESIS + 2,
    )
    own = state["settings"]["training.opt_in"]
    assert (own["value"], own["source"], own["position"], own["version"]) == (True, "explicit", GENESIS + 1, 1)
    assert (own["effective_from"], own["effective_until"]) == ("2026-01-01T00:00:00.000000Z", None)
    default = state["settings"]["caching.temporary"]
    assert (default["value"], default["source"], default["effective_from"]) == (
        *(True, "default"),
        "0001-01-01T00:00:00.000000Z",
    )
    definition = get(acme, f"/v1/events/{default['event_id']}")
    assert (definition["subject"], definition["data"]["setting"]) == ("catalog:settings", "caching.temporary")
    assert "model.hosting" not in state["settings"]


def test_state_of_some_settings(acme: TestClient) -> None:
    state = get(acme, "/v1/subjects/org:acme/state?setting=training.opt_in&setting=caching.temporary")
    assert list(state["settings"]) == ["training.opt_in", "caching.temporary"]
    problem(acme.get("/v1/subjects/org:acme/state?setting=nobody.knows"), "not_found")


def test_known_at_at_is_in_force(acme: TestClient) -> None:
    answer = acme.get("/v1/subjects/org:acme/state?at=2026-01-10T00:00:00Z&known_at=at&setting=training.opt_in")
    state = answer.json()
    assert state["known_at"] == state["at"]
    assert "training.opt_in" not in state["settings"] or state["settings"]["training.opt_in"]["source"] == "default"


def test_state_is_of_now_by_default(client: TestClient) -> None:
    with freeze_time("2099-01-01T00:00:00Z"):
        submit(client, changed("org:acme", "training.opt_in", True))
        state = get(client, "/v1/subjects/org:acme/state?setting=training.opt_in")
    assert (state["at"], state["known_at"]) == ("2099-01-01T00:00:00.000000Z",) * 2
    assert state["settings"]["training.opt_in"]["value"] is True


def test_a_read_after_a_write_sees_it_though_the_clock_stands_still(client: TestClient) -> None:
    with freeze_time("2099-01-01T00:00:00Z"):
        for value in (True, False, True, False):
            submit(client, changed("org:acme", "training.opt_in", value))
            state = get(client, "/v1/subjects/org:acme/state?setting=training.opt_in")
            assert state["settings"]["training.opt_in"]["value"] is value


def test_a_timeline_is_gapless_and_open_at_both_ends(acme: TestClient) -> None:
    timeline = get(acme, "/v1/subjects/org:acme/timeline?setting=training.opt_in")
    intervals = timeline["intervals"]
    assert list(intervals[0]) == ["setting", "value", "source", "from", "until", "event_id"]
    assert [(i["value"], i["source"]) for i in intervals] == [
        *((False, "default"), (True, "explicit"), (False, "explicit"))
    ]
    assert (intervals[0]["from"], intervals[-1]["until"]) == (None, None)
    assert [i["until"] for i in intervals[:-1]] == [i["from"] for i in intervals[1:]]
    assert intervals[1]["from"] == "2026-01-01T00:00:00.000000Z"
    assert get(acme, "/v1/subjects/org:acme/timeline?known_at=at")["known_at"] == "at"
    problem(acme.get("/v1/subjects/org:acme/timeline?setting=model.hosting"), "not_found")


def test_history_is_newest_first_and_names_retractions(acme: TestClient) -> None:
    newest, oldest = get(acme, "/v1/subjects/org:acme/history")["events"]
    (receipt,) = submit(
        acme, {"type": "change.retracted", "event_id": oldest["event"]["id"], "reason": "wrong organization"}
    )
    page = get(acme, "/v1/subjects/org:acme/history?limit=2")
    assert page["position"] == GENESIS + 3
    assert [row["event"]["data"]["version"] for row in page["events"]] == [3, 2]
    assert page["next_after"] == 2
    (last,) = get(acme, f"/v1/subjects/org:acme/history?after={page['next_after']}")["events"]
    assert (last["reason"], last["retracted_by"]) == ("ticket 4711", receipt["event_id"])
    assert newest["retracted_by"] is None
    exact = acme.get(f"/v1/events/{last['event']['id']}").text
    assert exact in acme.get("/v1/subjects/org:acme/history").text


def test_a_difference_names_the_events_that_changed_it(acme: TestClient) -> None:
    diff = get(acme, "/v1/subjects/org:acme/diff?from=2025-12-31T00:00:00Z&to=2026-01-20T00:00:00Z")
    (difference,) = diff["differences"]
    assert (difference["setting"], difference["before"]["value"], difference["after"]["value"]) == (
        *("training.opt_in", False),
        True,
    )
    assert [by["version"] for by in difference["changed_by"]] == [1]
    same = get(acme, "/v1/subjects/org:acme/diff?from=2026-01-02T00:00:00Z&to=2026-01-20T00:00:00Z")
    assert same["differences"] == []
    fault = problem(acme.get("/v1/subjects/org:acme/diff"), "bad_parameter")["errors"][0]
    assert (fault["in"], fault["pointer"]) == ("query", "/from")


def test_a_bounded_change_that_ended_is_named(client: TestClient) -> None:
    bounded = changed("org:acme", "training.opt_in", True, reason="trial")
    submit(client, bounded | {"effective_from": "2026-01-01T00:00:00Z", "effective_until": "2026-02-01T00:00:00Z"})
    diff = get(client, "/v1/subjects/org:acme/diff?from=2026-01-15T00:00:00Z&to=2026-02-15T00:00:00Z")
    (difference,) = diff["differences"]
    assert [by.get("effective_until") for by in difference["changed_by"]][-1] == "2026-02-01T00:00:00.000000Z"


def test_the_catalog_of_a_moment(client: TestClient) -> None:
    catalog = get(client, "/v1/catalog")
    assert len(catalog["settings"]) == GENESIS
    assert catalog["settings"]["caching.temporary"]["default"] is True
    assert catalog["position"] == GENESIS
    assert get(client, "/v1/catalog?known_at=2000-01-01T00:00:00Z")["settings"] == {}


def test_subjects_that_have_a_history(client: TestClient) -> None:
    for subject in ("org:b", "org:a", "org:ab", "account:u1"):
        submit(client, changed(subject, "training.opt_in", True))

    def listed(query: str) -> list[str]:
        return [row["subject"] for row in get(client, f"/v1/subjects{query}")["subjects"]]

    assert listed("") == ["account:u1", "catalog:settings", "org:a", "org:ab", "org:b"]
    assert listed("?kind=org") == ["org:a", "org:ab", "org:b"]
    assert listed("?prefix=org:a") == ["org:a", "org:ab"]
    assert listed("?kind=org&after=org:a") == ["org:ab", "org:b"]
    page = get(client, "/v1/subjects?kind=org&limit=2")
    assert (page["next_after"], page["position"]) == ("org:ab", GENESIS + 4)
    assert page["subjects"][0] == {"subject": "org:a", "version": 1, "position": GENESIS + 2}
    assert get(client, f"/v1/subjects?kind=org&limit=2&after={page['next_after']}")["next_after"] is None


@pytest.mark.parametrize("plus", ["+", "%2B", "%2b"])
def test_a_plus_in_a_query_may_be_raw_or_encoded(client: TestClient, plus: str) -> None:
    for subject in ("org:a", "org:a+b", "org:a+c"):
        submit(client, changed(subject, "training.opt_in", True))

    def listed(query: str) -> list[str]:
        return [row["subject"] for row in get(client, f"/v1/subjects?{query}")["subjects"]]

    assert listed(f"prefix=org:a{plus}") == ["org:a+b", "org:a+c"]
    assert listed(f"kind=org&after=org:a{plus}b") == ["org:a+c"]
    assert [event["subject"] for event in get(client, f"/v1/events?subject=org:a{plus}b")["events"]] == ["org:a+b"]


@pytest.mark.parametrize("verb", ["state", "timeline", "history", "diff?from=2026-01-01T00:00:00Z"])
@pytest.mark.parametrize(
    "spelling", [MODEL, quote(MODEL, safe=""), MODEL.replace("/", "%2f"), MODEL.replace("D", "%44")]
)
def test_a_subject_in_a_path_may_be_raw_or_encoded(shared_client: TestClient, verb: str, spelling: str) -> None:
    if not shared_client.get(f"/v1/events?subject={MODEL}").json()["events"]:
        submit(shared_client, changed(MODEL, "model.hosting", "hosted"))
    assert get(shared_client, f"/v1/subjects/{spelling}/{verb}")["subject"] == MODEL


@pytest.mark.parametrize("subject", ["key:a/state", "key:a//b", "key:a:b", "key:a@b~c+d-e._", "key:/state/"])
def test_unusual_subjects_are_found(client: TestClient, subject: str) -> None:
    submit(client, changed(subject, "owner", "org:acme"))
    for spelling in (subject, quote(subject, safe="")):
        assert get(client, f"/v1/subjects/{spelling}/state")["subject"] == subject


@pytest.mark.parametrize("verb", ["state", "timeline", "history", "diff?from=2026-01-01T00:00:00Z"])
def test_a_subject_without_a_history_is_not_found(client: TestClient, verb: str) -> None:
    problem(client.get(f"/v1/subjects/org:nobody/{verb}"), "not_found")


@pytest.mark.parametrize(
    "subject", ["acme", "team:a", "org:", "org:a b", "org:%C3%A9", "org:%00", "%FF", ":", "org:" + "a" * 257]
)
def test_a_subject_outside_the_grammar_is_refused(shared_client: TestClient, subject: str) -> None:
    problem(shared_client.get(f"/v1/subjects/{subject}/state"), "bad_subject")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z"),
        ("2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00.123456Z"),
        ("2026-01-01T02:00:00%2B02:00", "2026-01-01T00:00:00.000000Z"),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00.000000Z"),
        ("2025-12-31T22:00:00-02:00", "2026-01-01T00:00:00.000000Z"),
    ],
)
def test_times_in_a_query(shared_client: TestClient, text: str, instant: str) -> None:
    assert get(shared_client, f"/v1/catalog?at={text}")["at"] == instant


@pytest.mark.parametrize("name", ["at", "known_at"])
@pytest.mark.parametrize(
    "text", ["", "0", "1767225600", "2026-01-01", "2026-01-01T00:00:00", "now", "2026-01-01 00:00:00Z", "AT"]
)
def test_bad_times_in_a_query(shared_client: TestClient, name: str, text: str) -> None:
    body = problem(shared_client.get(f"/v1/catalog?{name}={text}"), "bad_time")
    assert body["errors"][0]["pointer"] == f"/{name}"


@pytest.mark.parametrize(
    "query",
    [
        *("nope=1", "limit=0", "limit=1001", "limit=ten", "limit=1.0", "limit=%D9%A1", "limit=1&limit=2", "limit=%FF"),
        *("after=-1", "after=1e3", "after=" + "9" * 30, "kind=org", "subject=acme", "%FF=1"),
        "&".join(f"a{n}=1" for n in range(200)),
    ],
)
def test_bad_parameters(shared_client: TestClient, query: str) -> None:
    problem(shared_client.get(f"/v1/events?{query}"), "bad_parameter")


def test_every_call_refuses_an_unknown_parameter(shared_client: TestClient) -> None:
    paths: dict[str, Any] = get(shared_client, "/openapi.json")["paths"]
    for path, item in paths.items():
        url = path.replace("{subject}", "org:a").replace("{event_id}", "x").replace("{code}", "not_found")
        for method in item:
            answer = shared_client.request(method, f"{url}?from=2026-01-01T00:00:00Z&colour=red", json={})
            problem(answer, "bad_parameter")
