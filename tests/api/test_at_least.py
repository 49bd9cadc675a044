"""The next answer of any process includes every acknowledged write; `at_least` waits for a position."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message

from api import service as service_module
from api.service import Service
from ledger.clock import ManualClock, SystemClock
from ledger.errors import PositionNotReached
from ledger.opening import open_ledger
from projections.query.query import Query
from tests.api.client import GENESIS, changed, get, problem, submit
from tests.api.server_process import running, talk
from tests.support import ledgers
from tests.support.waiting import GIVE_UP_S

CHANGE = changed("org:acme", "training.opt_in", True)
QUESTIONS = [
    "/v1/events?limit=1",
    "/v1/events?subject=org:acme",
    "/v1/events/{event_id}",
    "/v1/subjects?kind=org",
    "/v1/subjects/org:acme/state",
    "/v1/subjects/org:acme/timeline",
    "/v1/subjects/org:acme/history",
    "/v1/subjects/org:acme/diff?from=2020-01-01T00:00:00Z",
    "/v1/catalog",
    "POST /v1/checks",
]


def service_of(client: TestClient) -> Service:
    app: Any = client.app
    service: Service = app.state.service
    return service


def ask(client: TestClient, question: str, at_least: object, **named: str) -> Any:
    path = question.removeprefix("POST ").format(**named)
    path += f"{'&' if '?' in path else '?'}at_least={at_least}"
    return client.post(path, json={"org_id": "acme"}) if question.startswith("POST ") else client.get(path)


def until(condition: Callable[[], Any], seconds: float = GIVE_UP_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_at_the_position_and_not_before_it(client: TestClient, question: str) -> None:
    (receipt,) = submit(client, CHANGE)
    service_of(client).at_least_s_max = 0.05
    for at_least in (0, 1, receipt["position"]):
        assert ask(client, question, at_least, **receipt).status_code == 200
    answer = ask(client, question, receipt["position"] + 1, **receipt)
    body = problem(answer, "position_not_reached")
    assert (body["at_least"], body["position"]) == (receipt["position"] + 1, receipt["position"])
    assert int(answer.headers["retry-after"]) > 0
    submit(client, CHANGE)
    assert ask(client, question, receipt["position"] + 1, **receipt).status_code == 200


def test_every_question_to_the_ledger_accepts_at_least(shared_client: TestClient) -> None:
    taking, others = set(), set()
    for path, item in get(shared_client, "/openapi.json")["paths"].items():
        for method, operation in item.items():
            named = {parameter["name"] for parameter in operation.get("parameters", ())}
            if path.startswith("/v1/") and "at_least" in named:
                taking.add(f"{method} {path}")
                assert "503" in operation["responses"]
            elif path.startswith("/v1/"):
                others.add(f"{method} {path}")
    # A stored audit depends on its own pin only.
    of_audits = {other for other in others if "/v1/audits" in other}
    assert others - of_audits == {"post /v1/events", "get /v1/events/stream"}
    assert (len(taking), "post /v1/audits" in taking) == (11, True)


@pytest.mark.parametrize("at_least", ["-1", "x", "", "1.5", "1e3", "+1", str(10**18), "1&at_least=1"])
def test_an_invalid_position_is_refused(shared_client: TestClient, at_least: str) -> None:
    for question in ("/v1/catalog", "POST /v1/checks"):
        body = problem(ask(shared_client, question, at_least), "bad_parameter")
        assert body["errors"][0]["pointer"] == "/at_least"


@pytest.mark.parametrize("question", ["/v1/subjects/org:acme/state?setting=training.opt_in", "POST /v1/checks"])
def test_a_question_waits_for_what_another_process_records(
    client: TestClient, database_url: str, question: str
) -> None:
    submit(client, CHANGE | {"value": False})
    with open_ledger(database_url) as other, ThreadPoolExecutor(1) as pool:
        for number in range(2, 7):
            future = pool.submit(ask, client, question, GENESIS + number)
            until(lambda: service_of(client).ledger.follower._waiters)
            assert not future.done()
            ledgers.submit(other, ledgers.change(value=number % 2 == 0))
            answer = future.result(GIVE_UP_S)
            assert answer.status_code == 200
            # The answer takes "now" after the wait.
            document = answer.json()
            allowed = document["handling"]["may_train"] if "handling" in document else _opt_in(document)
            assert allowed is (number % 2 == 0)
    until(lambda: not service_of(client).ledger.follower._waiters)


def _opt_in(state: Any) -> bool:
    value: bool = state["settings"]["training.opt_in"]["value"]
    return value


def test_a_question_about_now_sees_the_events_of_a_machine_whose_clock_is_ahead(
    client: TestClient, database_url: str
) -> None:
    ahead = ManualClock(SystemClock().now() + 3_600_000_000)
    with open_ledger(database_url, clock=ahead) as other:
        for value in (True, False, True):
            (receipt,) = ledgers.submit(other, ledgers.change(value=value))
            assert _opt_in(get(client, "/v1/subjects/org:acme/state?setting=training.opt_in")) is value
            answer = ask(client, "POST /v1/checks", receipt.position)
            assert answer.json()["handling"]["may_train"] is value
            differences = get(client, "/v1/subjects/org:acme/diff?from=2020-01-01T00:00:00Z")["differences"]
            assert (differences[0]["after"]["value"] if differences else False) is value


def test_a_waiting_question_delays_no_other(sqlite_client: TestClient) -> None:
    service_of(sqlite_client).at_least_s_max = 2 * GIVE_UP_S
    asking = service_module.READERS * 3
    with ThreadPoolExecutor(asking) as pool:
        waits = [pool.submit(ask, sqlite_client, "/v1/catalog", GENESIS + 1) for _ in range(asking)]
        until(lambda: len(service_of(sqlite_client).ledger.follower._waiters) == asking)
        for _ in range(10):
            get(sqlite_client, "/v1/catalog")
        # Nobody waited for them: they would wait for minutes more.
        assert not any(wait.done() for wait in waits)
        submit(sqlite_client, CHANGE)
        assert [wait.result(GIVE_UP_S).status_code for wait in waits] == [200] * asking


def test_the_number_of_waiting_questions_is_limited(sqlite_client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "WAITING_MAX", 1)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(ask, sqlite_client, "/v1/catalog", GENESIS + 1)
        until(lambda: service_of(sqlite_client).ledger.follower._waiters)
        problem(ask(sqlite_client, "/v1/catalog", GENESIS + 1), "position_not_reached")
        assert ask(sqlite_client, "/v1/catalog", GENESIS).status_code == 200
        submit(sqlite_client, CHANGE)
        assert wait.result(GIVE_UP_S).status_code == 200


def test_a_client_that_hangs_up_leaves_no_waiter_behind(tmp_path: Path) -> None:
    arriving: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return arriving.pop(0)

    service = Service.open(f"sqlite:///{tmp_path}/ledger.db")
    service.at_least_s_max = 2 * GIVE_UP_S
    try:
        with pytest.raises(ClientDisconnect):
            asyncio.run(asyncio.wait_for(service.wait_for_position(GENESIS + 1, receive), GIVE_UP_S))
        assert not service.ledger.follower._waiters
        assert service._waiting == 0
    finally:
        service.close()


def test_a_client_that_hangs_up_over_a_socket_is_forgotten(tmp_path: Path) -> None:
    before = "import ledger.follower\nledger.follower.AT_LEAST_SECONDS_MAX = 3600.0\n"
    with running(f"sqlite:///{tmp_path}/ledger.db", before=before) as (process, port):
        talk(port, "GET", "/v1/catalog")
        threads = Path(f"/proc/{process.pid}/task")
        if not threads.exists():
            pytest.skip("only Linux lists the threads of a process")
        idle = len(list(threads.iterdir()))
        clients = [HTTPConnection("127.0.0.1", port) for _ in range(20)]
        for client in clients:
            client.request("GET", f"/v1/catalog?at_least={GENESIS + 1}")
        until(lambda: len(list(threads.iterdir())) > idle)
        for client in clients:
            client.close()
        # The thread that watches for all clients ends with the last one.
        until(lambda: len(list(threads.iterdir())) <= idle + service_module.READERS - 1)
        assert talk(port, "GET", "/healthz")[0] == 200


def test_at_least_works_without_a_server_too(database_url: str) -> None:
    with open_ledger(database_url, create=True) as ledger, open_ledger(database_url) as other:
        query = Query(ledger)
        ledger.at_least(GENESIS, 0)
        with pytest.raises(PositionNotReached):
            ledger.at_least(GENESIS + 1, 0.01)
        ledgers.submit(other, ledgers.change())
        ledger.at_least(GENESIS + 1, 0)
        assert query.context().position == GENESIS + 1


CALLERS = 3
ROUNDS = 100


@pytest.fixture
def two_ports(database_url: str) -> Iterator[tuple[int, int]]:
    with ExitStack() as stack:
        ports = [stack.enter_context(running(database_url))[1] for _ in range(2)]
        yield ports[0], ports[1]


def test_a_write_that_one_server_acknowledged_is_in_the_next_answer_of_another(
    two_ports: tuple[int, int], record_property: Callable[[str, object], None], database_url: str
) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        reads = sum(pool.map(lambda caller: write_and_read(two_ports, f"org:caller{caller}"), range(CALLERS)))
    name = database_url.partition(":")[0]
    record_property("figure", f"read-your-writes across two servers on {name}: {reads} reads of {reads} saw the write")


def write_and_read(two_ports: tuple[int, int], subject: str) -> int:
    """Asks every question in turn, with and without `at_least`, of the server that did not record the write."""
    servers = [HTTPConnection("127.0.0.1", port, timeout=60) for port in two_ports]
    for number in range(ROUNDS):
        writer, reader = servers[number % 2], servers[1 - number % 2]
        value = number % 4 < 2
        written = changed(subject, "training.opt_in", value)
        position = talk_json(writer, "POST", "/v1/events", written)["position"]
        at_least = f"at_least={position}&" if number % 3 else ""
        about = f"/v1/subjects/{subject}"
        match number % 5:
            case 0:
                document = talk_json(reader, "GET", f"{about}/state?{at_least}setting=training.opt_in")
                assert _opt_in(document) is value
            case 1:
                document = talk_json(reader, "POST", f"/v1/checks?{at_least}", {"org_id": subject.removeprefix("org:")})
                assert document["handling"]["may_train"] is value
                document = document["as_of"]
            case 2:
                document = talk_json(reader, "GET", f"/v1/events?{at_least}after={position - 1}")
                assert document["events"][0]["data"]["value"] is value
                document["position"] = document["head"]
            case 3:
                document = talk_json(reader, "GET", f"{about}/history?{at_least}limit=1")
                assert document["events"][0]["event"]["data"]["position"] == position
            case _:
                document = talk_json(reader, "GET", f"{about}/timeline?{at_least}setting=training.opt_in")
                assert document["intervals"][-1]["value"] is value
        assert document["position"] >= position
    for server in servers:
        server.close()
    return ROUNDS


def talk_json(server: HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    server.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    answer = server.getresponse()
    text = answer.read()
    assert answer.status in (200, 201), text
    return json.loads(text)
