"""The server's log: text or JSON on standard error, and one access line a request if it is wanted.

No line holds personal data or anything else of a caller's but the request's id. So an exception is logged by its type
and place, never by its message, also where a library, a thread or the event loop reports it; an access line has the
template of the route, not the path, and no address of the client. Proved by tests/api/test_log_names_nobody.py and
tests/api/http/test_logs.py.
"""

from __future__ import annotations

import logging
import sys
import threading
from asyncio import AbstractEventLoop
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

import msgspec
from starlette.types import Scope

from api.http.problems import error_location
from api.http.scope import RequestLabel, log_label
from ledger.times import format_time

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_ours: Final = logging.getLogger("inforce")
_access: Final = logging.getLogger("inforce.access")
_log: Final = logging.getLogger("inforce.api")


class LogSettings(NamedTuple):
    format: LogFormat = "text"
    level: LogLevel = "warning"
    """The lowest level of inforce's own lines. Of libraries, warnings and errors are logged in any case."""
    access: bool = False
    """Whether each request gets a line."""


GRANIAN_LOGGERS: Final = {"loggers": {"_granian": {"handlers": [], "propagate": True}}}
"""For granian, which would print lines of its own on standard output, with tracebacks."""


@contextmanager
def logging_to_stderr(settings: LogSettings) -> Iterator[None]:
    """Logs on standard error within the block. A program that has set up handlers of its own keeps them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    before = [(logger, logger.level) for logger in (_ours, _access)]
    _ours.setLevel(settings.level.upper())
    # At any level of the other lines.
    _access.setLevel(logging.INFO if settings.access else logging.NOTSET)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


def log_access(scope: Scope, status: int, seconds: float) -> None:
    """Writes the access line of an answered request. `status`: 0 if no answer was begun."""
    ms = round(seconds * 1000, 3)
    _access.info("%s: %d in %.3f ms", log_label(scope), status, ms, extra={"status": status, "duration_ms": ms})


def catch_stray_errors(loop: AbstractEventLoop) -> None:
    """Logs the errors that no caller waits for, of the event loop and of threads. For the main program of a process."""
    loop.set_exception_handler(on_loop_error)
    threading.excepthook = on_thread_error


def on_loop_error(_loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's handler of errors that no caller waits for."""
    error = context.get("exception")
    _log.critical("unexpected %s", "error in the event loop" if error is None else error_location(error))


def on_thread_error(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _log.critical("a thread ended: unexpected %s", error_location(arguments.exc_value))


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return "" if ei[1] is None else f"unexpected {error_location(ei[1])}"


class JsonFormatter(TextFormatter):
    """One object a line: time, level, logger, message, and what belongs to a request."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": format_time(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        arguments = record.args if isinstance(record.args, tuple) else ()
        label = next((one for one in arguments if isinstance(one, RequestLabel)), None)
        if label is not None:
            line["message"] = str(record.msg) % tuple(one.call if one is label else one for one in arguments)
            line |= {"method": label.method, "route": label.route, "request": label.request_id}
            if label.trace_id is not None:
                line["trace"] = label.trace_id
        for name in ("status", "duration_ms"):
            if name in record.__dict__:
                line[name] = record.__dict__[name]
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        # Bytes that are no UTF-8 can stand in a path of this machine.
        return msgspec.json.encode(_encodable(line)).decode()


def _encodable(line: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in line.items()
    }
