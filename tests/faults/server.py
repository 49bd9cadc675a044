"""The real server under constant load, and checks of the ledger after a fault."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import sample
from secrets import token_hex
from typing import Any, NamedTuple

from ledger.opening import open_ledger
from ledger.times import parse_time
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.support.reference import Json
from tests.support.waiting import GIVE_UP_S

REPOSITORY = Path(__file__).resolve().parents[2]
SERVE = (
    "import sys; from api.network import NetworkSettings; from api.server import ServerSettings, serve;"
    "serve(sys.argv[1], port=0, settings=ServerSettings(network=NetworkSettings(signs_in=False)))"
)
ANSWER_SECONDS_MAX = GIVE_UP_S
"""The longest time for a response: a server that never responds is no better than one that is down."""
UNAVAILABLE = 503
RETRIED_MAX = 60
"""The number of acknowledged keys to send again at the end."""


class ServerAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any

    def unavailable(self) -> Json:
        """Asserts a 503 with Retry-After. Returns its problem document."""
        assert self.status == UNAVAILABLE, (self.status, self.body)
        assert int(self.headers["retry-after"]) > 0
        assert self.headers["content-type"] == "application/problem+json"
        body: Json = self.body
        return body


class ServerProcess:
    """A server process that listens on `port`."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: list[str]) -> None:
        """`log`: the lines on standard error so far; it grows."""
        self.process = process
        self.port = port
        self.log = log

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> ServerAnswer:
        """Raises `TimeoutError` if no response comes in time, and `OSError` if no server listens."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS_MAX)
        headers = {} if key is None else {"Idempotency-Key": f'"{key}"'}
        sent = None if body is None else json.dumps(body)
        if sent is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return ServerAnswer(answer.status, fields, json.loads(answer.read()))
        finally:
            connection.close()

    def submit(self, body: Any, key: str | None = None) -> ServerAnswer:
        return self.ask("POST", "/v1/events", body, key)

    def state(self, subject: str) -> ServerAnswer:
        return self.ask("GET", f"/v1/subjects/{subject}/state")

    def wait_until_ready(self, seconds: float = GIVE_UP_S) -> None:
        """Waits until the server has recovered its database, without help."""
        deadline = time.monotonic() + seconds
        while (answer := self.ask("GET", "/readyz")).status != 200:
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)


@contextmanager
def run_server(url: str, *, before: str = "", command: tuple[str, ...] = ()) -> Iterator[ServerProcess]:
    """Runs the server over `url`. `before`: Python code that runs first. `command`: a prefix of its command line."""
    process = subprocess.Popen(
        [*command, sys.executable, "-c", before + SERVE, url],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    # A thread reads all the time, so that the log never fills the pipe.
    reader = threading.Thread(target=log.extend, args=(process.stderr,))
    reader.start()
    try:
        line = process.stdout.readline()
        listens = re.fullmatch(r"inforce listens on http://127\.0\.0\.1:(\d+)\n", line)
        assert listens, (line, log)
        yield ServerProcess(process, int(listens[1]), log)
    finally:
        process.kill()
        reader.join()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    assert not [line for line in log if "Traceback" in line], "".join(log)


def training(subject: str, value: bool, **more: Any) -> Json:
    return {"type": "setting.changed", "subject": subject, "setting": "training.opt_in", "value": value, **more}


class Callers:
    """Threads that each submit changes of their own organization, retry with the same key until each is acknowledged,
    and then read it. Any response but 201, 200 and a correct 503 is a failure."""

    def __init__(self, server: ServerProcess, count: int = 6) -> None:
        self.server = server
        self._name = token_hex(4)
        self.acknowledged: dict[str, Json] = {}
        """Idempotency key → receipt."""
        self.sent: dict[str, Json] = {}
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self.since = int(server.ask("GET", "/readyz").body["position"])
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._go, args=(number,)) for number in range(count)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_SECONDS_MAX)
            assert not thread.is_alive(), "a caller never got its response"

    def _go(self, number: int) -> None:
        step = 0
        try:
            while not self._stopping.is_set() and not self.failures:
                self._once(f"org:{self._name}-{number}", f"{self._name}-{number}-{step}", step % 2 == 0)
                step += 1
        except (OSError, HTTPException, AssertionError, ValueError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def _once(self, subject: str, key: str, value: bool) -> None:
        body = training(subject, value)
        self.sent[key] = body
        answer = self._until(201, "POST", "/v1/events", body, key)
        if answer is None:
            return
        receipt = answer.body["receipts"][0]
        self.acknowledged[key] = receipt
        answer = self._until(200, "GET", f"/v1/subjects/{subject}/state?setting=training.opt_in")
        if answer is not None:
            setting = answer.body["settings"]["training.opt_in"]
            assert answer.body["position"] >= receipt["position"], (answer.body, receipt)
            assert (setting["value"], setting["event_id"]) == (value, receipt["event_id"]), (setting, receipt)

    def _until(
        self, status: int, method: str, path: str, body: Any = None, key: str | None = None
    ) -> ServerAnswer | None:
        """Repeats the request until the response has this status; None: the callers were stopped first."""
        while True:
            answer = self.server.ask(method, path, body, key)
            self.answers[answer.status] += 1
            if answer.status == status:
                return answer
            if answer.status == 409:
                # The first attempt with this key is still running.
                assert answer.body["code"] == "idempotency_key_in_flight", answer.body
            else:
                answer.unavailable()
            if self._stopping.is_set():
                return None
            time.sleep(0.02)

    def expect_progress(self, more: int = 12, seconds: float = 30.0) -> None:
        """Waits until `more` submissions are acknowledged: the server works without help."""
        target = len(self.acknowledged) + more
        deadline = time.monotonic() + seconds
        while len(self.acknowledged) < target and not self.failures:
            assert time.monotonic() < deadline, f"nothing more is acknowledged: {self.answers}"
            time.sleep(0.01)
        assert self.failures == []

    def wait_for(self, status: int, more: int, seconds: float = 30.0) -> None:
        """Waits until the callers got `more` responses of this status."""
        target = self.answers[status] + more
        deadline = time.monotonic() + seconds
        while self.answers[status] < target and not self.failures:
            assert time.monotonic() < deadline, f"no response {status}: {self.answers}"
            time.sleep(0.01)
        assert self.failures == []

    def submit_until_refused(self, subject: str, **more: Any) -> None:
        for number in range(5000):
            key = f"{self._name}-{subject}-{len(self.sent)}-{number}"
            self.sent[key] = training(subject, number % 2 == 0, **more)
            answer = self.server.submit(self.sent[key], key)
            if answer.status != 201:
                answer.unavailable()
                return
            self.acknowledged[key] = answer.body["receipts"][0]
        raise AssertionError("the server never refused a submission")

    def assert_nothing_lost(self, url: str) -> None:
        """Every acknowledged event is recorded once and as in its receipt. A submission without acknowledgement is
        complete or absent; a retry with its key tells which. Positions are dense; timelines equal a rebuild."""
        assert_intact(url, self.since, self.retry_all())

    def retry_all(self) -> list[Json]:
        """The receipts of every submission; a retry of an acknowledged one must return the first receipt."""
        assert self.failures == []
        receipts = dict(self.acknowledged)
        again = set(sample(sorted(receipts), min(RETRIED_MAX, len(receipts))))
        for key, body in self.sent.items():
            if key not in receipts or key in again:
                answer = self.server.submit(body, key)
                assert answer.status == 201, answer
                receipt = answer.body["receipts"][0]
                assert self.acknowledged.get(key, receipt) == receipt
                receipts[key] = receipt
        return list(receipts.values())


def assert_intact(url: str, since: int, receipts: list[Json]) -> None:
    """`receipts` are those of every event after position `since`."""
    with open_ledger(url) as ledger:
        entries = ledger.page(0, 1_000_000)
        assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
        instants = sorted({entry.recorded_at for entry in entries})
        assert [entry.recorded_at for entry in entries] == sorted(entry.recorded_at for entry in entries)
        ids = {entry.position: json.loads(entry.leaf)["id"] for entry in entries}
        acknowledged = {receipt["position"]: receipt["event_id"] for receipt in receipts}
        assert len(acknowledged) == len(receipts), "two receipts have one position"
        assert {position: ids[position] for position in ids if position > since} == acknowledged
        assert {parse_time(receipt["recorded_at"]) for receipt in receipts} <= set(instants)
        rebuilt = rebuild(Projector(ledger, open_timelines(ledger)), check_only=True)
        assert (rebuilt.position, rebuilt.live_equal, rebuilt.differences) == (len(entries), True, ())
