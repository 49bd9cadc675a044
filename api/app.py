"""The application: one flat table of routes, one handler per kind of error, one door around it all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from api.event_stream import OpenStreams
from api.http.middleware import RequestMiddleware
from api.http.problems import HANDLERS
from api.routes import audits, checks, events, operations, subjects
from api.routing import ExactPathRouter
from api.schemas import components
from api.service import Service
from ledger.store import Ledger

_DESCRIPTION: Final = (
    "Which privacy policy was in force when that request was made? Every change is an immutable event; every answer "
    "names its two coordinates (`at`: valid time, `known_at`: what had been recorded by then) and the ledger position "
    "it is pinned to. Every error is an RFC 9457 problem whose `type` says what its code means."
)


class Application(FastAPI):
    """Every request pays for what stands around the calls, so there is the door, what turns errors into problems, and
    no more: the door is the last resort that FastAPI's own outermost layer would be, bodies are bounded in `bodies`,
    and the stack of contexts is for routes that are not ours."""

    hosts: Collection[str] | None = None

    def build_middleware_stack(self) -> ASGIApp:
        ROUTES = ExactPathRouter(self.router, AsyncExitStackMiddleware(self.router))
        return RequestMiddleware(ExceptionMiddleware(ROUTES, handlers=self.exception_handlers), self.hosts)


def create_app(source: str | Ledger | Service, *, hosts: Collection[str] | None = None) -> FastAPI:
    """The application over `source`: a database URL, opened at start-up and begun if it holds no ledger yet, or a
    ledger or service that is open, and stays so. `hosts`: the names in the Host header that are answered; None: any."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if isinstance(source, Service):
            app.state.service = source
            yield
            return
        app.state.service = service = Service.open(source)
        try:
            yield
        finally:
            service.close()

    app = Application(
        title="inforce",
        version=_version(),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        # The documentation pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # A redirect would not be a problem document, and a path has one spelling.
        redirect_slashes=False,
        exception_handlers=HANDLERS,
        # Nothing here sets a provider up, and looking for one at every request costs as much as finding its route.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.hosts = hosts
    app.state.streams = OpenStreams()
    # Not include_router: it matches every path twice.
    app.router.routes.extend(
        call.route() for call in (*checks.ROUTES, *subjects.ROUTES, *events.ROUTES, *audits.ROUTES, *operations.ROUTES)
    )
    _document(app)
    return app


def _version() -> str:
    try:
        return version("inforce")
    except PackageNotFoundError:
        return "not installed"


def _document(app: FastAPI) -> None:
    """Adds the schemas, which no signature names, to the OpenAPI document that FastAPI writes."""
    write = app.openapi

    def openapi() -> dict[str, Any]:
        document = write()
        document.setdefault("components", {})["schemas"] = components()
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
