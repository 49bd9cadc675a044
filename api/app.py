"""The FastAPI application: a flat table of routes, a handler for each kind of error, one middleware around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from api.event_stream import OpenStreams
from api.gate import Gate
from api.http.forwarded import TrustedProxies
from api.http.logs import log_access
from api.http.middleware import Observer, RequestMiddleware
from api.http.problem_responses import HANDLERS
from api.http.shared import SharedResources
from api.metrics import Metrics
from api.network import Listening
from api.routes import audits, checks, events, log, operations, subjects
from api.routing import ExactPathRouter, RouteSpec
from api.schemas.base import components
from api.service import Service
from api.sign_in import NO_MEANS, SIGN_IN_SETTINGS, SignInSettings, make_means
from api.tracing import telemetry
from ledger.store import Ledger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_DESCRIPTION: Final = (
    "Which privacy policy was in force when that request was made? Every change is an immutable event. Every answer "
    "names its two coordinates (`at`: valid time, `known_at`: only what was recorded by then is used) and the ledger "
    "position it is pinned to. Every error is an RFC 9457 problem whose `type` explains its code.\n\n"
    "Bounds. A body has at most 1 MiB (submissions), 8 MiB and 250,000 JSON values (checks) or the operator's limit "
    "(logs), and arrives within 30 s; all bodies that are being read or worked on share 32 MiB. A page, state, "
    "timeline, diff or catalog ends with the item that reaches 2 MiB, a batch of decisions with the one that reaches "
    "8 MiB; `next_after` then leads to the rest. A client that takes nothing of an answer for 30 s, or less than "
    "64 KiB a second of a large one, loses its connection; all large answers share 32 MiB. At most 640 requests are "
    "answered at once, 128 of them streams, besides health checks; beyond 800 connections idle ones are ended. Beyond "
    "a bound of the server: 503 `server_busy` with `Retry-After`."
)


class Application(FastAPI):
    """Wraps the routes in as little as possible, because every request pays for it: the request middleware, and the
    handlers that turn errors into problems. The middleware replaces FastAPI's outermost error layer, `api.http.bodies`
    limits bodies, and FastAPI's exit stack serves routes that are not ours only."""

    hosts: Collection[str] | None = None
    listening: Listening | None = None
    shared: SharedResources
    observers: list[Observer]

    def build_middleware_stack(self) -> ASGIApp:
        router = ExactPathRouter(self.router, AsyncExitStackMiddleware(self.router))
        answering = ExceptionMiddleware(router, handlers=self.exception_handlers)
        at = self.listening
        return RequestMiddleware(
            answering,
            self.hosts,
            self.shared,
            self.observers,
            is_https=at is not None and at.is_https,
            is_local=at is None or at.is_loopback,
        )


def create_app(
    source: str | Ledger | Service,
    *,
    hosts: Collection[str] | None = None,
    listening: Listening | None = None,
    access_log: bool = False,
    sign_in: bool = True,
    sign_in_settings: SignInSettings = SIGN_IN_SETTINGS,
    tracing: TracerProvider | None = None,
) -> Application:
    """The application over `source`: a database URL, opened at start-up, where a ledger is created if there is none; or
    an open ledger or service, which the application does not close. `hosts`: the names that the Host header may hold;
    None: those of `listening`, and without that any. `access_log`: log a line for each request. `sign_in` False: every
    caller may do everything, as `ANONYMOUS`. `tracing`: of the spans of requests; None: there are none. Raises
    `BadInput` for settings that contradict each other."""
    means = make_means(sign_in_settings) if sign_in else NO_MEANS

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = source if isinstance(source, Service) else Service.open(source)
        app.state.service = service
        access, count = service.access if sign_in else None, app.state.metrics.add_sign_in
        app.state.gate = Gate(access, service.ask, count, means, app.state.proxies.caller_network)
        service.ledger.writer.on_commit = app.state.metrics.add_commit
        if means.oidc is not None:
            means.oidc.begin()
        try:
            yield
        finally:
            if means.oidc is not None:
                await means.oidc.close()
            if service is not source:
                service.close()

    app = Application(
        title="inforce",
        version=_version(),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        # Every path has one spelling, and a redirect would not be a problem document.
        redirect_slashes=False,
        exception_handlers=HANDLERS,
        telemetry=telemetry(tracing),
    )
    app.hosts = listening.hosts if hosts is None and listening is not None else hosts
    app.listening = listening
    app.state.proxies = TrustedProxies() if listening is None else listening.proxies
    app.state.metrics = metrics = Metrics()
    app.observers = [metrics.observe, log_access] if access_log else [metrics.observe]
    app.shared = SharedResources()
    app.state.streams = OpenStreams()
    # Not include_router, which matches every path twice.
    specs = (*checks.ROUTES, *subjects.ROUTES, *log.ROUTES, *events.ROUTES, *audits.ROUTES, *operations.ROUTES)
    app.router.routes.extend(spec.route() for spec in specs)
    _document(app, specs)
    return app


def _version() -> str:
    try:
        return version("inforce")
    except PackageNotFoundError:
        return "not installed"


def _document(app: FastAPI, specs: Sequence[RouteSpec]) -> None:
    """Adds the schemas to FastAPI's OpenAPI document: no function signature names them."""
    without_schemas = app.openapi

    def openapi() -> dict[str, Any]:
        document = without_schemas()
        parts = document.setdefault("components", {})
        parts["schemas"] = components(model for spec in specs for model in spec.models())
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
