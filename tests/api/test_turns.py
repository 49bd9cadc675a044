"""Questions about subjects with very many events are answered one at a time; others do not wait for them."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import service as api_service
from api.app import create_app
from api.http.problems import RequestRefused
from api.service import Service
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.timelines import turns
from projections.timelines.turns import TurnNeeded, answer_beside_others, in_turn, require_turn
from tests.api.client import get, problem
from tests.support.ledgers import GENESIS, change, submit

FEW = GENESIS + 9
"""More events than those of the catalog."""
PATHS = ("state", "state?at={then}&known_at=at", "state?known_at={then}", "timeline", "history", "diff?from={then}")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with open_ledger(database_url, create=True) as ledger:
        for number in range(2 * FEW):
            submit(ledger, change("org:large", bool(number % 2)))
        submit(ledger, change("org:small"))
        yield ledger


def _answers(ledger: Ledger) -> dict[str, Any]:
    then = get_then(ledger)
    with TestClient(create_app(ledger, sign_in=False)) as client:
        answers = {path: get(client, f"/v1/subjects/org:large/{path.format(then=then)}") for path in PATHS}
        for known_at in ("", f"?known_at={then}"):
            record = {"org_id": "large", "at": then, "handling": {"trained": True}}
            answer = client.post(f"/v1/checks{known_at}", json=record)
            assert answer.status_code == 200
            answers[f"checks{known_at}"] = answer.json()
        return answers


def get_then(ledger: Ledger) -> str:
    entry = ledger.recorder.stream("org:large", after=FEW + 5, limit=1)[0]
    text: str = entry.leaf.decode().partition('"time":"')[2].partition('"')[0]
    return text


def _without_now(answers: Any) -> Any:
    for answer in answers.values():
        for name in ("at", "known_at", "to"):
            answer.pop(name, None)
        answer.pop("as_of", None)
    return answers


def test_the_answers_are_the_same_in_turn(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _without_now(_answers(ledger))
    large: list[str] = []
    ask_large = Service.ask_large

    async def counted(self: Service, question: Any) -> Any:
        large.append("")
        return await ask_large(self, question)

    monkeypatch.setattr(Service, "ask_large", counted)
    assert _without_now(_answers(ledger)) == expected
    assert not large
    monkeypatch.setattr(turns, "EVENTS_MAX", FEW)
    assert _without_now(_answers(ledger)) == expected
    # The last questions find the timelines in memory.
    assert len(large) >= 4


def test_a_question_waits_for_its_turn_and_gives_up_and_others_do_not_wait(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "EVENTS_MAX", FEW)
    monkeypatch.setattr(api_service, "TURN_S_MAX", 0.05)
    app = create_app(ledger, sign_in=False)
    with TestClient(app) as client, ThreadPoolExecutor(1) as pool:
        begun, go_on = threading.Event(), threading.Event()

        def question() -> str:
            begun.set()
            go_on.wait()
            return "answered"

        service: Service = app.state.service
        assert client.portal is not None
        first = pool.submit(client.portal.call, service.ask_large, question)
        begun.wait()
        try:
            refused = client.get("/v1/subjects/org:large/history")
            problem(refused, "server_busy")
            assert int(refused.headers["retry-after"]) > 0
            assert client.get("/v1/subjects/org:small/history").status_code == 200
            assert client.get("/v1/subjects/org:small/state").status_code == 200
        finally:
            go_on.set()
        assert first.result() == "answered"
        assert client.get("/v1/subjects/org:large/history").status_code == 200


def test_a_turn_ends_with_an_error_and_not_with_the_caller(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service.open(ledger)

    async def ask() -> None:
        begun, go_on = threading.Event(), threading.Event()

        def question() -> None:
            begun.set()
            go_on.wait()
            raise LookupError

        gone = asyncio.create_task(service.ask_large(question))
        await asyncio.to_thread(begun.wait)
        gone.cancel()
        monkeypatch.setattr(api_service, "TURN_S_MAX", 0.05)
        with pytest.raises(RequestRefused, match="one at a time"):
            await service.ask_large(lambda: None)
        monkeypatch.setattr(api_service, "TURN_S_MAX", 60.0)
        go_on.set()
        assert await service.ask_large(lambda: 7) == 7
        with pytest.raises(LookupError):
            await service.ask_large(lambda: dict[str, int]()["missing"])
        assert await service.ask_large(lambda: 8) == 8

    try:
        asyncio.run(ask())
    finally:
        service.close()


def test_only_threads_beside_others_need_a_turn() -> None:
    many = turns.EVENTS_MAX + 1
    require_turn(many)
    assert len(list(in_turn(range(many)))) == many
    with ThreadPoolExecutor(1, initializer=answer_beside_others) as pool:
        pool.submit(require_turn, turns.EVENTS_MAX).result()
        assert pool.submit(lambda: len(list(in_turn(range(many - 1))))).result() == many - 1
        with pytest.raises(TurnNeeded):
            pool.submit(require_turn, many).result()
        with pytest.raises(TurnNeeded):
            pool.submit(lambda: list(in_turn(range(many)))).result()
