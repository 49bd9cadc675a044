"""Traces: a span for each request, named by the route's template, with nothing of the caller's."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from api.app import create_app
from api.tracing import KEPT, OFF, telemetry, tracer_provider
from ledger.errors import BadInput
from projections.query.query import Query
from tests.api.client import changed, submit
from tests.support.waiting import GIVE_UP_S

MARK = "zzmarked"
TRACE = "0af7651916cd43dd8448eb211c80319c"
LATER = frozenset(("http.route", "http.response.status_code", "error.type"))


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(tmp_path: Path, spans: InMemorySpanExporter) -> Iterator[TestClient]:
    provider = tracer_provider(SimpleSpanProcessor(spans))
    app = create_app(f"sqlite:///{tmp_path}/ledger.db", tracing=provider, sign_in=False)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
    provider.shutdown()


def texts(span: ReadableSpan) -> str:
    return json.dumps([span.name, dict(span.attributes or {}), str(span.status.description), str(span.events)]) + str(
        span.context
    )


def test_a_span_has_the_template_the_status_and_the_callers_trace(
    client: TestClient, spans: InMemorySpanExporter
) -> None:
    submit(client, changed("org:acme", "training.opt_in", True))
    parent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": f"vendor={MARK}", "baggage": f"a={MARK}"}
    client.get("/v1/subjects/org:acme/state?setting=training.opt_in&at=2026-01-01T00:00:00Z", headers=parent)
    client.post("/v1/checks", json={"org_id": "acme"})
    client.get("/nothing")
    submitted, state, check, nothing = spans.get_finished_spans()
    assert [span.name for span in (submitted, state, check)] == [
        "POST /v1/events",
        "GET /v1/subjects/{subject}/state",
        "POST /v1/checks",
    ]
    attributes = state.attributes or {}
    assert attributes["http.route"] == "/v1/subjects/{subject}/state"
    assert attributes["http.response.status_code"] == 200
    assert state.context is not None
    assert f"{state.context.trace_id:032x}" == TRACE
    assert dict(state.context.trace_state) == {}
    assert nothing.name == "GET"
    for span in (submitted, state, check, nothing):
        assert set(span.attributes or {}) <= KEPT | LATER
        assert span.events == ()


def test_no_span_holds_anything_of_a_callers(
    client: TestClient, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: Any, **_more: Any) -> None:
        raise ValueError(MARK)

    monkeypatch.setattr(Query, "timeline", fails)
    client.post("/v1/events", json=changed(f"org:{MARK}", "training.opt_in", True) | {"reason": MARK})
    for path in (f"/v1/subjects/org:{MARK}/state?{MARK}={MARK}", f"/{MARK}", f"/v1/subjects/org:{MARK}/timeline"):
        client.get(
            path, headers={"X-Request-ID": MARK, "User-Agent": MARK, "Idempotency-Key": MARK, "Host": f"{MARK}.example"}
        )
    client.request(MARK.upper(), "/v1/catalog")
    finished = spans.get_finished_spans()
    assert len(finished) == 5
    assert "internal_error" not in "".join(map(texts, finished))
    assert [span.attributes["http.response.status_code"] for span in finished if span.attributes][3] == 500
    assert MARK not in "".join(map(texts, finished)).lower()


def test_probes_scrapes_and_streams_have_no_span(client: TestClient, spans: InMemorySpanExporter) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    assert client.get("/v1/events/stream?after=99").status_code == 409
    assert spans.get_finished_spans() == ()


def test_without_a_provider_fastapi_looks_for_none() -> None:
    assert telemetry(None) is OFF
    assert OFF == {"tracing": False, "metrics": False, "logs": False}


def test_without_the_extra_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(BadInput, match=r"pip install 'inforce\[tracing\]'"):
        tracer_provider()


class Collector(BaseHTTPRequestHandler):
    received: list[bytes]

    def do_POST(self) -> None:
        self.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


def test_a_server_sends_its_spans_to_the_collector_and_the_last_ones_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []
    handler = type("Handler", (Collector,), {"received": received})
    with HTTPServer(("127.0.0.1", 0), handler) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "scripts.main",
                "serve",
                "--no-auth",
                "--port",
                "0",
                "--tracing",
                "--db",
                f"sqlite:///{tmp_path}/l",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            from tests.api.server_process import talk

            assert talk(port, "GET", "/v1/subjects/org:acme/state")[0] == 404
            process.terminate()
            _, log = process.communicate(timeout=GIVE_UP_S)
        finally:
            process.kill()
            process.communicate()
            collector.shutdown()
            thread.join()
    names = [
        span.name
        for body in received
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert names == ["GET /v1/subjects/{subject}/state"], log
    assert b"org:acme" not in b"".join(received)
