"""Answers that reach their size end early, with the cursor of the rest: page by page they hold what one answer held."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import responses, service
from api.app import create_app
from api.audits import service as audits_service
from api.routes import subjects
from ledger.store import Ledger
from tests.api.client import changed, get, problem, submit
from tests.support.ledgers import change, define, open_with_clock
from tests.support.ledgers import submit as submit_to

VALUES = [[f"{letter}{number}" * 50 for number in range(5)] for letter in "abcdefgh"]


@pytest.fixture
def ledger(database_url: str) -> Ledger:
    """One organization with ten settings of its own, and eight changes of one of them."""
    ledger, clock = open_with_clock(database_url)
    regions = {"kinds": ["org"], "value_type": "set_of", "default": [], "protective": None}
    for number in range(10):
        definition = {**define()["definition"], **regions}
        submit_to(ledger, define(f"beta.n{number}", definition=definition))
    for day, value in enumerate(VALUES, 1):
        clock.now_us += 1_000_000
        setting = {"setting": "residency.regions", "effective_from": f"2027-01-0{day}T00:00:00Z"}
        submit_to(ledger, {**change("org:acme", value), **setting, "reason": "r" * 300})
        submit_to(ledger, {**change("org:acme", value), "setting": f"beta.n{day}"})
    return ledger


@pytest.fixture
def client(ledger: Ledger) -> Any:
    with ledger, TestClient(create_app(ledger, sign_in=False)) as client:
        yield client


def set_size(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for module in (responses, service, subjects, audits_service):
        monkeypatch.setattr(module, "PAGE_BYTES", size)


def walk(client: TestClient, path: str, member: str) -> tuple[list[Any], list[int]]:
    """(all items, page by page; the number of items on each page)."""
    items: list[Any] = []
    counts: list[int] = []
    after: Any = None
    while True:
        cursor = "" if after is None else f"{'&' if '?' in path else '?'}after={after}".replace("+", "%2B")
        page = get(client, path + cursor)
        part = list(page[member].items()) if isinstance(page[member], dict) else page[member]
        assert part or not items
        items += part
        counts.append(len(part))
        after = page.get("next_after")
        if after is None or after == page.get("head"):
            return items, counts


AT = "at=2027-06-01T00:00:00Z"
PATHS = [
    ("/v1/events?limit=1000", "events"),
    ("/v1/events?limit=1000&subject=org:acme", "events"),
    ("/v1/subjects/org:acme/history?limit=1000", "events"),
    ("/v1/subjects/org:acme/history?limit=1000&setting=residency.regions", "events"),
    (f"/v1/subjects/org:acme/state?{AT}", "settings"),
    (f"/v1/subjects/org:acme/state?{AT}&setting=beta.n3&setting=beta.n2&setting=residency.regions", "settings"),
    ("/v1/subjects/org:acme/timeline", "intervals"),
    ("/v1/subjects/org:acme/timeline?setting=residency.regions", "intervals"),
    ("/v1/subjects/org:acme/timeline?known_at=at", "intervals"),
    ("/v1/subjects/org:acme/diff?from=2026-01-01T00:00:00Z&to=2027-06-01T00:00:00Z", "differences"),
    (f"/v1/catalog?{AT}", "settings"),
]


@pytest.mark.parametrize(("path", "member"), PATHS)
@pytest.mark.parametrize("size", [1, 700, 3000])
def test_pages_hold_what_one_answer_held(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, member: str, size: int
) -> None:
    whole, counts = walk(client, path, member)
    assert (len(counts), len(whole) > 2) == (1, True)
    set_size(monkeypatch, size)
    items, counts = walk(client, path, member)
    assert sorted(map(str, items)) == sorted(map(str, whole))
    if not isinstance(get(client, path)[member], dict):
        assert items == whole
    assert len(counts) > 1 or size == 3000
    if size == 1:
        assert set(counts[:-1]) == {1}


def test_a_page_ends_with_the_item_that_reaches_the_size(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = get(client, f"/v1/subjects/org:acme/state?{AT}")["settings"]
    sizes = [len(responses.encode(state)) for state in settings.values()]
    for surplus, count in ((-1, 3), (0, 3), (1, 4)):
        set_size(monkeypatch, sum(sizes[:3]) + surplus)
        page = get(client, f"/v1/subjects/org:acme/state?{AT}")
        assert list(page["settings"]) == list(settings)[:count]
        assert page["next_after"] == list(settings)[count - 1]


def test_a_change_between_two_pages_of_a_timeline_leaves_no_gap(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_size(monkeypatch, 1)
    path = "/v1/subjects/org:acme/timeline?setting=residency.regions"
    second = get(client, f"{path}&after={get(client, path)['next_after']}")
    late = {"effective_from": "2027-01-02T12:00:00Z", "effective_until": "2027-01-02T13:00:00Z"}
    submit(client, changed("org:acme", "residency.regions", ["late"], **late))
    third = get(client, f"{path}&after={second['next_after']}")
    assert third["intervals"][0]["from"] == second["intervals"][0]["until"]


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("/v1/subjects/org:acme/timeline", "residency.regions"),
        ("/v1/subjects/org:acme/timeline", "a b@"),
        ("/v1/subjects/org:acme/timeline", "residency.regions@soon"),
        ("/v1/subjects/org:acme/state", "a b"),
        ("/v1/catalog", ""),
        ("/v1/audits", "none"),
    ],
)
def test_a_cursor_that_no_page_gave_is_refused(client: TestClient, path: str, after: str) -> None:
    answer = client.get(path, params={"after": after})
    code = "bad_time" if after.endswith("soon") else "bad_parameter"
    assert problem(answer, code)["errors"][0]["pointer"] == "/after"


def test_reading_stops_where_the_page_ends(ledger: Ledger, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    kind: Any = type(ledger.recorder)
    original = kind._read

    def counting(recorder: Any, *more: Any) -> Any:
        rows = original(recorder, *more)
        read.extend(len(row[4]) for row in rows if len(row) == 7)
        return rows

    monkeypatch.setattr(kind, "_read", counting)
    set_size(monkeypatch, 1)
    asks: list[Callable[[], Any]] = [
        lambda: get(client, "/v1/events?limit=1000"),
        lambda: get(client, "/v1/events?limit=1000&subject=org:acme"),
    ]
    for ask in asks:
        read.clear()
        ask()
        # The page's one entry, and a look at the head.
        assert len(read) <= 2
