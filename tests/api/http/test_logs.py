"""The log in text and JSON: errors without their messages, lines of requests with their ids."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.http.logs import JsonFormatter, LogSettings, TextFormatter, catch_stray_errors, logging_to_stderr
from ledger.opening import open_ledger

SECRET = "hunter2"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The access lines, formatted as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("inforce.access")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield stream
    log.removeHandler(handler)
    log.setLevel(level)


def parsed(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_access_line_names_route_status_time_and_ids(lines: io.StringIO, tmp_path: Path) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with (
        closing(open_ledger(f"sqlite:///{tmp_path}/l.db", create=True)) as ledger,
        TestClient(create_app(ledger, access_log=True, sign_in=False)) as client,
    ):
        headers = {"X-Request-ID": "r-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        answered = client.get("/v1/subjects/org:acme/state?at=2026-01-01T00:00:00Z", headers=headers)
        client.head("/healthz")
        client.request("BREW", "/healthz")
        client.get("/nothing/org:acme")
    state, head, brew, nothing = parsed(lines)
    assert (state["method"], state["route"], state["status"]) == ("GET", "/v1/subjects/{subject}/state", 404)
    assert (state["request"], state["trace"], state["logger"]) == ("r-1", trace, "inforce.access")
    assert state["duration_ms"] > 0
    assert state["message"] == f"GET /v1/subjects/{{subject}}/state: 404 in {state['duration_ms']:.3f} ms"
    assert answered.headers["x-request-id"] == "r-1"
    assert (head["method"], head["status"]) == ("HEAD", 200)
    assert len(head["request"]) == 32
    assert (brew["method"], brew["status"]) == ("?", 405)
    assert (nothing["route"], nothing["status"]) == ("no route", 404)


def test_without_access_log_no_request_has_a_line(lines: io.StringIO, tmp_path: Path) -> None:
    with (
        closing(open_ledger(f"sqlite:///{tmp_path}/l.db", create=True)) as ledger,
        TestClient(create_app(ledger, sign_in=False)) as client,
    ):
        client.get("/healthz")
    assert lines.getvalue() == ""


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_an_exception_is_logged_by_type_and_place_only(formatter: logging.Formatter) -> None:
    record = logging.LogRecord("library", logging.ERROR, __file__, 1, "it failed", (), None)
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    line = formatter.format(record)
    assert "unexpected ValueError at test_an_exception_is_logged_by_type_and_place_only:" in line
    assert SECRET not in line


def test_a_line_in_json_is_one_line_of_utf_8() -> None:
    record = logging.LogRecord("inforce.ledger", logging.WARNING, __file__, 1, "opened %s\nagain", ("é\udcff",), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line.encode())["message"] == "opened é\\udcff\nagain"


def test_errors_of_the_event_loop_and_of_threads_are_logged_without_their_messages(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        catch_stray_errors(loop)
        loop.call_soon(fails)
        loop.call_exception_handler({"message": SECRET})
        await asyncio.sleep(0)

    asyncio.run(run())
    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    assert [message.partition(" at ")[0] for message in caplog.messages] == [
        "unexpected error in the event loop",
        "unexpected ValueError",
        "a thread ended: unexpected ValueError",
    ]
    assert SECRET not in caplog.text


def test_the_level_is_that_of_our_own_lines_and_ends_with_the_server() -> None:
    ours, access = logging.getLogger("inforce"), logging.getLogger("inforce.access")
    before, hook = (ours.level, access.level), threading.excepthook
    with logging_to_stderr(LogSettings(level="error", access=True)):
        assert (ours.level, access.level) == (logging.ERROR, logging.INFO)
    with logging_to_stderr(LogSettings(level="debug")):
        assert (ours.level, access.level) == (logging.DEBUG, logging.NOTSET)
        assert logging.getLogger("psycopg").getEffectiveLevel() >= logging.WARNING
        # Other programs, such as these tests, keep theirs.
        assert threading.excepthook is hook
    assert (ours.level, access.level) == before
