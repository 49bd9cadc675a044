"""GET /metrics: what is counted, in a format that Prometheus reads, with labels that the code fixes."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from api.app import create_app
from api.metrics import GROUP_SIZES, SECONDS, Buckets, Metrics, SignIn
from api.routing import BareRoute
from api.service import Service
from ledger.errors import LedgerUnavailable
from ledger.transparency.note import SigningKey
from projections.decisions.model import Verdict
from tests.api.client import changed, submit
from tests.support.waiting import until

OPERATING = Path(__file__).parents[2] / "scripts" / "OPERATING.md"
Sample = Callable[..., float]
KEY = SigningKey("log.example/eu", bytes(32))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(
        create_app(f"sqlite:///{tmp_path}/ledger.db", sign_in=False), raise_server_exceptions=False
    ) as client:
        yield client


def samples(client: TestClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(client: TestClient, name: str, **labels: str) -> float:
    return samples(client)[name, frozenset(labels.items())]


def test_submissions_are_counted_by_outcome(client: TestClient) -> None:
    body = changed("org:acme", "training.opt_in", True)
    for _ in range(3):
        submit(client, body)
    client.post("/v1/events", json=body | {"expected_version": 99})
    client.post("/v1/events", json=body | {"setting": "no.such"})
    seen = samples(client)
    outcomes = {dict(key[1])["outcome"]: n for key, n in seen.items() if key[0] == "inforce_submissions_total"}
    expected = {"recorded": 3, "version_conflict": 1, "bad_submission": 1, "ledger_busy": 0, "ledger_unavailable": 0}
    assert outcomes == expected
    route = {"route": "/v1/events", "method": "POST"}
    assert value(client, "inforce_http_requests_total", **route, status="201") == 3
    assert value(client, "inforce_http_requests_total", **route, status="409") == 1
    assert value(client, "inforce_http_problems_total", **route, code="version_conflict") == 1
    # A refusal before the commit takes no transaction; the conflict is decided in one.
    assert value(client, "inforce_commit_seconds_count") >= 4
    assert value(client, "inforce_commit_submissions_sum") == value(client, "inforce_commit_seconds_count")
    assert 0 < value(client, "inforce_commit_seconds_sum") < 60


def test_checks_are_counted_by_verdict_from_memory_and_from_the_database(client: TestClient) -> None:
    submit(client, changed("org:acme", "training.opt_in", True))
    submit(client, changed("model:m", "model.hosting", "hosted"))
    question = {"org_id": "acme", "model_id": "m"}
    for _ in range(3):
        assert client.post("/v1/checks", json=question).json()["verdict"] == "allowed"
    done = question | {"handling": {"stored": True}}
    many = [question, done, {"org_id": "acme", "model_id": "nix"}]
    verdicts = [one["verdict"] for one in client.post("/v1/checks", json={"requests": many * 50}).json()["decisions"]]
    assert {verdict: verdicts.count(verdict) for verdict in set(verdicts)} == {
        "allowed": 50,
        "violation": 50,
        "indeterminate": 50,
    }
    seen = samples(client)
    counted = {dict(key[1])["verdict"]: n for key, n in seen.items() if key[0] == "inforce_checks_total"}
    assert counted == dict.fromkeys(get_args(Verdict), 0) | {"allowed": 53, "violation": 50, "indeterminate": 50}
    assert value(client, "inforce_http_request_seconds_count", route="/v1/checks") == 4
    assert value(client, "inforce_decision_cache_misses_total") >= 2
    assert value(client, "inforce_subject_cache_lookups_total", result="miss") >= 1


def test_lag_position_and_readers_are_those_of_the_moment(client: TestClient) -> None:
    begun = value(client, "inforce_ledger_position")
    submit(client, changed("org:acme", "training.opt_in", True))
    assert value(client, "inforce_ledger_position") == begun + 1
    assert value(client, "inforce_timelines_lag_events") >= 1
    client.get("/v1/subjects/org:acme/state")
    assert value(client, "inforce_timelines_lag_events") == 0
    assert time.time() - value(client, "inforce_ledger_last_recorded_timestamp_seconds") < 600
    assert value(client, "inforce_ledger_up") == value(client, "inforce_ledger_writable") == 1
    # This request itself.
    assert value(client, "inforce_http_requests_in_progress") == 1
    for name in ("inforce_feed_readers", "inforce_submissions_waiting", "inforce_positions_awaited"):
        assert value(client, name) == 0
    assert value(client, "inforce_disk_free_bytes", place="ledger") > 0


def test_without_the_database_the_process_still_answers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: Service) -> None:
        raise LedgerUnavailable("the database is gone")

    monkeypatch.setattr(Service, "figures", fails)
    names = {name for name, _ in samples(client)}
    assert value(client, "inforce_ledger_up") == 0
    assert "inforce_ledger_position" not in names
    assert "inforce_submissions_waiting" in names


def test_a_database_that_hangs_delays_a_scrape_for_two_seconds_only(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "figures", lambda _self: time.sleep(3))
    assert value(client, "inforce_ledger_up") == 0


def test_audits_and_sign_ins_are_counted_by_states_that_the_code_fixes(client: TestClient) -> None:
    seen = samples(client)
    states = {dict(key[1])["state"] for key in seen if key[0] == "inforce_audits"}
    assert states == {"queued", "running", "done", "failed"}
    metrics: Metrics = client.app.state.metrics  # type: ignore[attr-defined]  # the application's own
    metrics.add_sign_in("expired")
    for outcome in get_args(SignIn):
        assert value(client, "inforce_sign_ins_total", outcome=outcome) == (outcome == "expired")


def test_a_route_is_labelled_by_its_template_and_an_unknown_path_by_none(client: TestClient) -> None:
    client.get("/v1/subjects/org:acme/state")
    client.request("BREW", "/nothing/org:acme")
    client.get("/org:acme")
    routes = {dict(labels).get("route") for _, labels in samples(client)} - {None}
    templates = {route.path_format for route in client.app.routes if isinstance(route, BareRoute)}  # type: ignore[attr-defined]  # the application's own
    assert routes <= templates | {"no route"}
    assert "/v1/subjects/{subject}/state" in routes
    assert value(client, "inforce_http_requests_total", route="no route", method="?", status="404") == 1


def test_openmetrics_is_served_where_it_is_asked_for(client: TestClient) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = parse_open_metrics(answer.text)  # type: ignore[no-untyped-call]  # the library's is not annotated
    assert {family.name for family in families} >= {"inforce_checks", "inforce_commit_seconds"}
    assert client.get("/metrics?x=1").status_code == 422


def test_two_applications_count_apart(tmp_path: Path) -> None:
    with (
        TestClient(create_app(f"sqlite:///{tmp_path}/a.db", sign_in=False)) as one,
        TestClient(create_app(f"sqlite:///{tmp_path}/b.db", sign_in=False)) as other,
    ):
        submit(one, changed("org:acme", "training.opt_in", True))
        assert value(one, "inforce_submissions_total", outcome="recorded") == 1
        assert value(other, "inforce_submissions_total", outcome="recorded") == 0


@pytest.mark.parametrize("bounds", [SECONDS, GROUP_SIZES])
def test_a_value_on_a_bound_counts_below_it(bounds: tuple[float, ...]) -> None:
    buckets = Buckets(bounds)
    for bound in bounds:
        buckets.add(bound)
    buckets.add(bounds[-1] + 1)
    assert [count for _, count in buckets.cumulative()] == list(range(1, len(bounds) + 2))


def test_the_log_of_a_server_with_a_key_is_measured(tmp_path: Path) -> None:
    service = Service.open(f"sqlite:///{tmp_path}/ledger.db", signing_keys=[KEY])
    try:
        with TestClient(create_app(service, sign_in=False)) as client:
            submit(client, changed("org:acme", "training.opt_in", True))
            until(lambda: value(client, "inforce_log_events") == value(client, "inforce_ledger_position"))
            assert value(client, "inforce_log_integrates") == value(client, "inforce_log_signing") == 1
            (tmp_path / "ledger.db-checkpoint").write_bytes(b"nonsense")
            submit(client, changed("org:acme", "training.opt_in", False))
            until(lambda: value(client, "inforce_log_signing") == 0)
    finally:
        service.close()


def test_every_metric_is_documented_and_every_documented_one_exists(tmp_path: Path) -> None:
    service = Service.open(f"sqlite:///{tmp_path}/ledger.db", signing_keys=[KEY])
    try:
        with TestClient(create_app(service, sign_in=False)) as client:
            client.get("/nothing")
            lines = client.get("/metrics").text.splitlines()
    finally:
        service.close()
    exposed = {line.split()[2] for line in lines if line.startswith("# TYPE inforce_")}
    documented = set(re.findall(r"^\| `(inforce_\w+)", OPERATING.read_text(encoding="utf-8"), re.M))
    assert exposed == documented
