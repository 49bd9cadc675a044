"""Traces for OpenTelemetry: FastAPI's own span for each request, sent by OTLP over HTTP. Opt-in, an extra.

FastAPI's span holds the path and the query, in which subjects stand, and the trace state that the caller sent. The
sampler here leaves of its first attributes only those in `KEPT`, and no trace state; FastAPI later adds the route's
template, the status and the type of an error. Where spans are sent, and how many, OTEL_ variables say, as the SDK
documents them. Proved by tests/api/test_tracing.py.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from fastapi.telemetry import TelemetryConfig
from starlette.types import Scope

from api.http.shared import HEALTH_PATHS
from ledger.errors import BadInput

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

KEPT: Final = frozenset(("http.request.method", "network.protocol.version", "url.scheme"))
"""FastAPI has the method among known ones; the server says the others."""
NOT_TRACED: Final = HEALTH_PATHS | {"/v1/events/stream"}
"""Probes and scrapes would be most spans, and a stream's span would last for days."""
MISSING: Final = "--tracing needs the extra: pip install 'inforce[tracing]'"
OFF: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False}


def telemetry(provider: TracerProvider | None) -> TelemetryConfig:
    """For `FastAPI(telemetry=…)`. None: nothing is looked for on a request, which would cost as much as routing."""
    if provider is None:
        return OFF
    # Its logs hold the messages of exceptions, and its metrics are ours (`api.metrics`).
    return {**OFF, "tracing": True, "tracer_provider": provider, "operation_spans": False, "exclude": _is_excluded}


def _is_excluded(scope: Scope) -> bool:
    return scope["path"] in NOT_TRACED


def tracer_provider(processor: SpanProcessor | None = None) -> TracerProvider:
    """`processor` None: spans go to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, else to this machine's. The
    caller shuts it down, which sends the last ones. Raises `BadInput` without the extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from api.span_sampler import NothingOfCallers
    except ImportError:
        raise BadInput(MISSING) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "inforce", "service.version": _version()}))
    # The default is what the environment says.
    provider.sampler = NothingOfCallers(provider.sampler, KEPT)
    provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _version() -> str:
    try:
        return version("inforce")
    except PackageNotFoundError:
        return "not installed"
