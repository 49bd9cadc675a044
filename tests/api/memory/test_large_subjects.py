"""Questions at once about subjects that hold 25 MB of values each: the server's memory stays below its bound."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.times import format_time
from tests.api.memory.served import MIB, Served, large_set, request, served
from tests.api.server_process import talk
from tests.support.ledgers import change, define, definition, submit

Record = Callable[[str, object], None]

SUBJECTS = [f"org:o{number}" for number in range(4)]
VALUES = 450
"""Of each subject, 25 MB together."""
BATCH = 50
ANSWER_BYTES_MAX = 4 * MIB


def fill_with_versions(ledger: Ledger) -> None:
    """Each subject gets one setting with many values, some of them backdated, temporary or retracted."""
    for subject in SUBJECTS:
        for first in range(0, VALUES, BATCH):
            changes = [_region_change(subject, number) for number in range(first, first + BATCH)]
            receipts = submit(ledger, *changes)
            submit(ledger, {"type": "change.retracted", "event_id": receipts[0].event_id, "reason": "a mistake"})


def _region_change(subject: str, number: int) -> dict[str, Any]:
    value = [f"{number:03}{member}" for member in large_set(256, 57_000)]
    more: dict[str, Any] = {}
    if number % 8 == 3:
        more = {"effective_from": f"2025-{number % 12 + 1:02}-01T00:00:00Z", "reason": "found late"}
    elif number % 8 == 5:
        more = {"effective_until": f"2100-01-{number % 28 + 1:02}T00:00:00Z"}
    return change(subject, value, setting="residency.regions", **more)


def fill_with_settings(ledger: Ledger) -> None:
    """Each subject gets many settings with one value each."""
    names = [f"wide.s{number}" for number in range(VALUES)]
    texts = definition(value_type="set_of", default=[], protective=[])
    for first in range(0, VALUES, BATCH):
        submit(ledger, *(define(name, definition=texts) for name in names[first : first + BATCH]))
    for subject in SUBJECTS:
        for first in range(0, VALUES, BATCH):
            some = names[first : first + BATCH]
            submit(ledger, *(change(subject, [name, *large_set(255, 57_000)], setting=name) for name in some))


SHAPES = {"versions": fill_with_versions, "settings": fill_with_settings}


@contextmanager
def _filled(url: str, shape: str) -> Iterator[tuple[Served, str]]:
    """The server, and an instant in the midst of what was recorded."""
    with open_ledger(url, create=True) as ledger:
        SHAPES[shape](ledger)
        middle = ledger.recorder.stream(SUBJECTS[1], after=5, limit=1)[0].recorded_at
    with served(url) as server:
        # Stored timelines are made before the memory is compared: that is a cost of the start.
        assert server.ask("GET", "/v1/subjects?limit=1")[0] == 200
        yield server, format_time(middle)


def _paths(subject: str, then: str) -> list[str]:
    at = f"/v1/subjects/{subject}"
    return [
        f"{at}/state",
        f"{at}/state?at={then}&known_at={then}",
        f"{at}/state?at={then}&known_at=at",
        f"{at}/state?known_at={then}",
        f"{at}/timeline",
        f"{at}/timeline?known_at={then}",
        f"{at}/timeline?known_at=at",
        f"{at}/history?limit=1000",
        f"{at}/diff?from={then}",
        f"{at}/diff?from={then}&known_at=at",
        f"{at}/diff?from=2025-02-01T00:00:00Z&known_at={then}",
        f"/v1/events?limit=1000&subject={subject}",
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_questions_at_once_about_large_subjects_are_bounded(
    database_url: str, record_property: Record, shape: str
) -> None:
    with _filled(database_url, shape) as (server, then), server.bounded_memory(record_property):
        for at_once in (4, 8):
            _ask_at_once(server, then, at_once)


def _ask_at_once(server: Served, then: str, count: int) -> None:
    def ask(number: int, kind: int) -> tuple[int, bytes]:
        path = _paths(SUBJECTS[number % len(SUBJECTS)], then)[kind]
        status, _, text = talk(server.port, "GET", path)
        return status, text

    def check(number: int, query: str) -> tuple[int, bytes]:
        record = {"org_id": SUBJECTS[number % len(SUBJECTS)].partition(":")[2], "model_id": "m", "at": then}
        body = json.dumps(record | {"handling": {"region": "eu"}})
        status, _, text = talk(server.port, "POST", f"/v1/checks{query}", body)
        return status, text

    with ThreadPoolExecutor(count) as pool:
        for kind in range(len(_paths("", ""))):
            _require_bounded(pool.map(partial(ask, kind=kind), range(count)))
        for query in ("", f"?known_at={then}", "?known_at=2200-01-01T00:00:00Z"):
            _require_bounded(pool.map(partial(check, query=query), range(count)))
        with server.connections(count, request("GET", "/v1/events/stream?after=0")) as streams:
            assert all(stream.recv(64).startswith(b"HTTP/1.1 200") for stream in streams)


def _require_bounded(answers: Iterable[tuple[int, bytes]]) -> None:
    """All are answers of at most some megabytes, and a server that is busy says so."""
    statuses = set()
    for status, text in answers:
        statuses.add(status)
        assert status == 200 or (status, json.loads(text)["code"]) == (503, "server_busy")
        assert len(text) < ANSWER_BYTES_MAX
    assert 200 in statuses
