"""Every error path returns an RFC 9457 problem that tells the client what to do and repeats nothing of the input."""

import asyncio
import inspect
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from api.http.bodies import read_body
from api.http.middleware import RequestMiddleware
from api.http.problems import PROBLEM_CODES
from ledger import errors
from projections.query.query import Query
from tests.api.client import GENESIS, changed, get, head, problem, submit

JSON = {"Content-Type": "application/json"}
SECRET = "sesame-4711"


def test_every_code_of_the_error_tree_is_known() -> None:
    tree = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.InforceError)]
    assert {kind.code for kind in tree} <= set(PROBLEM_CODES)


def test_the_type_of_every_problem_is_served_with_its_meaning(shared_client: TestClient) -> None:
    listed = get(shared_client, "/problems")["problems"]
    assert [kind["code"] for kind in listed] == list(PROBLEM_CODES)
    for kind in listed:
        assert get(shared_client, kind["type"]) == kind
        assert kind["meaning"]
    problem(shared_client.get("/problems/nobody_knows"), "not_found")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/events/", "/v1/subjects/org:a", "/v1/subjects/org:a/nope", "/docs", "//healthz"]
)
def test_an_unknown_path(shared_client: TestClient, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        problem(shared_client.request(method, path), "no_such_path")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/events", "GET, HEAD, OPTIONS, POST"),
        ("/v1/checks", "OPTIONS, POST"),
        ("/v1/subjects/model:a/b/state", "GET, HEAD, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
def test_allow_names_every_method_of_the_path(shared_client: TestClient, path: str, allowed: str) -> None:
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
        answer = shared_client.request(method, path)
        problem(answer, "method_not_allowed")
        assert answer.headers["allow"] == allowed
    options = shared_client.options(path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, allowed, b"")
    assert not [name for name in options.headers if name.startswith("access-control")]


def test_head_is_get_without_the_body(shared_client: TestClient) -> None:
    get_answer, head_answer = (
        shared_client.get("/v1/catalog?at=2026-01-01T00:00:00Z&known_at=2026-01-01T00:00:00Z"),
        None,
    )
    head_answer = shared_client.head("/v1/catalog?at=2026-01-01T00:00:00Z&known_at=2026-01-01T00:00:00Z")
    assert (head_answer.status_code, head_answer.content) == (200, b"")
    assert head_answer.headers["content-length"] == get_answer.headers["content-length"]
    assert shared_client.head("/v1/checks").status_code == 405
    assert shared_client.head("/nope").status_code == 404


@pytest.mark.parametrize("path", ["/v1/events", "/v1/checks"])
@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "application/jsonp"],
)
def test_another_media_type(shared_client: TestClient, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = shared_client.post(path, content=b"{}", headers=headers)
    problem(answer, "unsupported_media_type")
    assert answer.headers["accept"] == "application/json"


def test_a_compressed_body(shared_client: TestClient) -> None:
    answer = shared_client.post("/v1/checks", content=b"{}", headers=JSON | {"Content-Encoding": "gzip"})
    problem(answer, "unsupported_media_type")


def test_json_with_its_charset_is_accepted(shared_client: TestClient) -> None:
    answer = shared_client.post(
        "/v1/checks", content=b'{"org_id":"a"}', headers={"Content-Type": "Application/JSON; charset=UTF-8"}
    )
    assert answer.status_code == 200


def test_a_body_over_a_mebibyte(shared_client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"x":"'
        for _ in range(17):
            yield b"x" * 65536

    problem(shared_client.post("/v1/events", content=b"x" * 1_048_577, headers=JSON), "body_too_large")
    # Chunked: nothing announces the length.
    problem(shared_client.post("/v1/events", content=chunks(), headers=JSON), "body_too_large")
    problem(shared_client.post("/v1/events", content=b" " * 1_048_576, headers=JSON), "bad_json")


BAD_JSON = {
    "nothing": b"",
    "no JSON": b"{type: 1}",
    "two values": b"{} {}",
    "not UTF-8": b'{"type":"\xff"}',
    "UTF-16": '{"type":"x"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"type":NaN}',
    "Infinity": b'{"type":-Infinity}',
    "beyond a double": b'{"type":1e999}',
    "a member twice": b'{"type":"setting.changed","type":"setting.cleared"}',
    "half a surrogate pair": b'{"type":"\\ud800"}',
    "deep": b"[" * 34 + b"]" * 34,
    "very deep": b"[" * 500_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a long number": b'{"type":' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("path", ["/v1/events", "/v1/checks"])
@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_a_body_that_is_not_strict_json(shared_client: TestClient, path: str, body: bytes) -> None:
    problem(shared_client.post(path, content=body, headers=JSON), "bad_json")
    assert head(shared_client) == GENESIS


CHANGE = changed("org:acme", "training.opt_in", True)
NO_EVENT = "00000000-0001-8000-8000-000000000000"
BAD_SUBMISSIONS: dict[str, tuple[Any, str]] = {
    "no object": ([], ""),
    "nothing": ({}, ""),
    "unknown type": (CHANGE | {"type": "setting.exploded"}, ""),
    "reserved type": ({"type": "personal_data.erased", "subject": "account:u1"}, "/type"),
    "unknown member": (CHANGE | {"colour": "red"}, "/colour"),
    "missing member": ({k: v for k, v in CHANGE.items() if k != "subject"}, "/subject"),
    "unknown setting": (CHANGE | {"setting": "no.such"}, "/setting"),
    "unknown kind": (CHANGE | {"subject": "team:acme"}, "/subject"),
    "the catalog itself": (CHANGE | {"subject": "catalog:settings"}, "/subject"),
    "a number for a bool": (CHANGE | {"value": 1}, "/value"),
    "a word for a bool": (CHANGE | {"value": "yes"}, "/value"),
    "null for a bool": (CHANGE | {"value": None}, "/value"),
    "not one of": (changed("model:m", "model.hosting", "mars"), "/value"),
    "a text for a set": (changed("org:acme", "residency.regions", "eu"), "/value"),
    "another kind's setting": (changed("account:u1", "passthrough.allowed", True), "/setting"),
    "a naive time": (CHANGE | {"effective_from": "2026-01-01T00:00:00"}, "/effective_from"),
    "a numeric time": (CHANGE | {"effective_from": 1767225600}, "/effective_from"),
    "an absurd time": (CHANGE | {"effective_from": "9999-01-01T00:00:00Z"}, "/effective_from"),
    "no such day": (CHANGE | {"effective_from": "2026-02-30T00:00:00Z"}, "/effective_from"),
    "an end before its start": (
        CHANGE | {"effective_from": "2190-01-02T00:00:00Z", "effective_until": "2190-01-01T00:00:00Z"},
        "/effective_until",
    ),
    "an end at its start": (
        CHANGE | {"effective_from": "2190-01-01T00:00:00Z", "effective_until": "2190-01-01T00:00:00Z"},
        "/effective_until",
    ),
    "backdated without a reason": (CHANGE | {"effective_from": "2020-01-01T00:00:00Z"}, "/effective_from"),
    "an empty reason": (CHANGE | {"reason": ""}, "/reason"),
    "a bad id": (CHANGE | {"subject": "org:a b"}, "/subject"),
    "a long id": (CHANGE | {"subject": "org:" + "a" * 257}, "/subject"),
    "a bad key": (CHANGE | {"setting": "a b"}, "/setting"),
    "a bad version": (CHANGE | {"expected_version": -1}, "/expected_version"),
    "a fractional version": (CHANGE | {"expected_version": 1.5}, "/expected_version"),
    "an unknown event": ({"type": "change.retracted", "event_id": NO_EVENT, "reason": "x"}, "/event_id"),
    "no event id": ({"type": "change.retracted", "event_id": "x", "reason": "x"}, "/event_id"),
    "an empty batch": ({"events": []}, "/events"),
    "too large a batch": ({"events": [CHANGE] * 1001}, "/events"),
    "a batch with more": ({"events": [CHANGE], "type": "setting.changed"}, ""),
    "one bad in a batch": ({"events": [CHANGE, CHANGE | {"value": 1}]}, "/events/1/value"),
}


@pytest.mark.parametrize(("body", "pointer"), BAD_SUBMISSIONS.values(), ids=BAD_SUBMISSIONS.keys())
def test_a_bad_submission_names_its_fault_and_writes_nothing(
    shared_client: TestClient, body: Any, pointer: str
) -> None:
    document = problem(shared_client.post("/v1/events", json=body), "bad_submission")
    assert pointer in [fault["pointer"] for fault in document["errors"]]
    assert head(shared_client) == GENESIS


def test_retractions_and_definitions_cannot_be_retracted(client: TestClient) -> None:
    (first,) = submit(client, CHANGE)
    retraction = {"type": "change.retracted", "event_id": first["event_id"], "reason": "mistake"}
    (second,) = submit(client, retraction)
    problem(client.post("/v1/events", json=retraction), "bad_submission")
    problem(client.post("/v1/events", json=retraction | {"event_id": second["event_id"]}), "bad_submission")
    definition = get(client, "/v1/events?limit=1")["events"][0]["id"]
    problem(client.post("/v1/events", json=retraction | {"event_id": definition}), "bad_submission")
    assert head(client) == GENESIS + 2


def test_no_problem_repeats_the_input(shared_client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    headers = JSON | {"X-Request-ID": f"<{SECRET}>", "Idempotency-Key": SECRET}
    answers = [
        shared_client.get(f"/{SECRET}"),
        shared_client.get(f"/v1/events/{SECRET}"),
        shared_client.get(f"/v1/events?{SECRET}=1"),
        shared_client.get(f"/v1/events?after={SECRET}"),
        shared_client.get(f"/v1/catalog?at={SECRET}"),
        shared_client.get(f"/v1/subjects/{SECRET}/state"),
        shared_client.get(f"/v1/subjects/org:{SECRET}/state"),
        shared_client.get(f"/v1/subjects/org:{SECRET}/history"),
        shared_client.get(f"/v1/subjects/catalog:settings/timeline?setting={SECRET}"),
        shared_client.get(f"/problems/{SECRET}"),
        shared_client.request(SECRET.upper().replace("-", ""), "/healthz"),
        shared_client.post("/v1/events", content=SECRET, headers=JSON),
        shared_client.post("/v1/events", json={f"<{SECRET}> and more": SECRET}),
        shared_client.post("/v1/events", json=CHANGE | {"value": SECRET}),
        shared_client.post("/v1/events", json=CHANGE | {"effective_from": SECRET}),
        shared_client.post("/v1/events", json=CHANGE, headers=headers),
        shared_client.post("/v1/checks", json={"org_id": f"<{SECRET}>", f"<{SECRET}>": 1}),
        shared_client.post("/v1/checks", content="{}", headers={"Content-Type": SECRET}),
    ]
    for answer in answers:
        assert answer.status_code in range(400, 500), answer.text
        text = answer.text + str(answer.headers)
        assert SECRET not in text.lower(), text
        assert SECRET.replace("-", "") not in text.lower(), text
    assert SECRET not in caplog.text


def test_a_valid_request_id_is_echoed(shared_client: TestClient) -> None:
    for sane in ("abc-123", "a" * 128, "00-4bf92f3577b34da6a3ce929d0e0e4736"):
        assert shared_client.get("/healthz", headers={"X-Request-ID": sane}).headers["x-request-id"] == sane
    for insane in (b"", b"a b", b"a" * 129, b"<script>", "é".encode()):
        given_id = shared_client.get("/healthz", headers={b"X-Request-ID": insane}).headers["x-request-id"]
        assert len(given_id) == 32
    assert shared_client.get("/nope", headers={"X-Request-ID": "me"}).json()["instance"] == "urn:inforce:request:me"


def test_an_unexpected_error_reveals_nothing_and_is_logged_with_its_trace(
    sqlite_client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Query, "state", explode)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with caplog.at_level(logging.CRITICAL, "inforce.api"):
        answer = sqlite_client.get("/v1/subjects/org:acme/state", headers={"X-Request-ID": "r1", "traceparent": trace})
    problem(answer, "internal_error")
    assert SECRET not in answer.text
    assert SECRET not in caplog.text
    for text in (
        "RuntimeError",
        "explode",
        "request=r1",
        "trace=4bf92f3577b34da6a3ce929d0e0e4736",
        "/v1/subjects/{subject}/state",
    ):
        assert text in caplog.text
    assert "org:acme" not in caplog.text
    assert sqlite_client.get("/healthz").status_code == 200


def test_a_client_that_hangs_up_before_the_body_ends_is_no_failure_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    arriving: list[Message] = [
        {"type": "http.request", "body": b'{"type":', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return arriving.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        await read_body(Request(scope, receive), 100)

    scope = {"type": "http", "method": "POST", "path": "/v1/events", "headers": []}
    with caplog.at_level(logging.WARNING):
        asyncio.run(RequestMiddleware(app)(scope, receive, send))
    # The answer is for a client whose chunks are malformed; one that hung up never reads it.
    assert (arriving, [message.get("status", 400) for message in sent], caplog.text) == ([], [400, 400], "")


def test_every_answer_forbids_caching_and_sniffing(shared_client: TestClient) -> None:
    for path in ("/healthz", "/v1/catalog", "/nope", "/openapi.json"):
        answer = shared_client.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control")]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = ("type", "subject", "setting", "value", "effective_from", "effective_until", "reason", "expected_version")
MEMBERS = st.sampled_from(
    (*NAMES, "event_id", "definition", "events", "requests", "org_id", "key_id", "at", "handling")
)
WORDS = st.sampled_from(
    (
        "setting.changed",
        "setting.cleared",
        "change.retracted",
        "setting.defined",
        "org:acme",
        "training.opt_in",
        NO_EVENT,
    )
)
BODIES = ANY_JSON | st.dictionaries(MEMBERS, WORDS | ANY_JSON, max_size=8)
QUIET = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(path=st.sampled_from(("/v1/events", "/v1/checks")), body=BODIES)
@QUIET
def test_no_body_makes_the_server_fail(shared_client: TestClient, path: str, body: Any) -> None:
    import json

    answer = shared_client.post(path, content=json.dumps(body).encode(), headers=JSON)
    assert answer.status_code < 500, answer.text


@given(path=st.sampled_from(("/v1/events", "/v1/checks")), body=st.binary(max_size=200))
@QUIET
def test_no_bytes_make_the_server_fail(shared_client: TestClient, path: str, body: bytes) -> None:
    assert shared_client.post(path, content=body, headers=JSON).status_code in range(400, 500)


@given(
    call=st.sampled_from(("/v1/events", "/v1/subjects", "/v1/catalog", "/v1/subjects/org:acme/state", "/healthz")),
    name=st.sampled_from(("at", "known_at", "after", "limit", "subject", "kind", "prefix", "setting", "from", "to"))
    | st.text(),
    value=st.text(),
)
@QUIET
def test_no_parameter_makes_the_server_fail(shared_client: TestClient, call: str, name: str, value: str) -> None:
    assert shared_client.get(call, params={name: value}).status_code < 500


@given(path=st.text(), raw=st.binary(max_size=40))
@QUIET
def test_no_path_makes_the_server_fail(shared_client: TestClient, path: str, raw: bytes) -> None:
    from urllib.parse import quote

    for url in (quote(path), "v1/subjects/" + quote(raw, safe="") + "/state", "v1/events/" + quote(raw, safe="")):
        assert shared_client.get("/" + url.lstrip("/")).status_code < 500
