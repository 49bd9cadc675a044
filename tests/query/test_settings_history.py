"""A real settings history against its oracle: 7,308 changes imported, 200 moments answered exactly.

The oracle was computed from the checked-out files of each moment, not from the events, so it shares nothing with
inforce. In two passes, in force and in hindsight, each row is asked at `at` and one microsecond
before `valid_until`: the whole state by its hash, the complete scopes setting by setting, and what must be absent.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.opening import open_ledger
from ledger.times import format_time, parse_time
from ledger.transfer.import_ledger import import_ledger
from projections.query.query import IN_FORCE, KnownAt, Query
from tests.support.ledgers import GENESIS
from tests.support.postgres import fresh_database

EVENTS = "settings-history/ddg-events.jsonl.gz"
ORACLE = "settings-history/ddg-oracle.jsonl.gz"
SAFE_IN_IDS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@/+:-")
SAFE_IN_KEYS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-")


def escape(text: str, safe: frozenset[str], mark: str) -> str:
    """Reversible: `mark` is not among `safe`, so it only ever begins an escape of two hexadecimal digits."""
    return "".join(char if char in safe else "".join(f"{mark}{byte:02x}" for byte in char.encode()) for char in text)


def subject_of(scope: str) -> str:
    return "org:" + escape(scope, SAFE_IN_IDS, "~")


def key_of(setting: str) -> str:
    return escape(setting, SAFE_IN_KEYS, "_")


def canon(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def submissions(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The history as an import file. Values are stored as JSON texts, because a setting never changes its type."""
    first = events[0]["at"]
    for setting in sorted({event["setting"] for event in events}):
        yield {
            "type": "setting.defined",
            "setting": key_of(setting),
            "recorded_at": first,
            "definition": {
                "kinds": ["org"],
                "value_type": "text",
                "default": None,
                "protective": None,
                "writable_by": "operator",
                "title": setting,
                "description": "A setting of a published history.",
                "source": "A published history",
            },
        }
    for event in events:
        common = {
            "subject": subject_of(event["scope"]),
            "setting": key_of(event["setting"]),
            "recorded_at": event["at"],
        }
        if event["op"] == "set":
            yield {"type": "setting.changed", "value": canon(event["value"]), **common}
        else:
            yield {"type": "setting.cleared", **common}


class Truth:
    """The oracle's rows, and the way back from the ledger's names to the oracle's."""

    def __init__(self, events: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.scopes = {subject_of(event["scope"]): event["scope"] for event in events}
        self.settings = {key_of(event["setting"]): event["setting"] for event in events}
        # Most lines are the same at most moments.
        self.line = cache(self._line)

    def lines(self, query: Query, at: int, known_at: KnownAt) -> list[bytes]:
        snapshot = query.snapshot(at=at, known_at=known_at, kind="org")
        return sorted(self.line(subject, setting, str(change.value)) for subject, setting, change in snapshot.changes)

    def _line(self, subject: str, setting: str, value: str) -> bytes:
        return canon([self.scopes[subject], self.settings[setting], json.loads(value)]).encode()


@pytest.fixture(scope="module")
def truth(real_data: Callable[[str], Path]) -> Truth:
    return Truth(read(real_data(EVENTS)), read(real_data(ORACLE)))


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def imported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_data: Callable[[str], Path]
) -> Iterator[str]:
    """Imported once on each database: the tests only ask."""
    events = read(real_data(EVENTS))
    lines = b"".join(canon(line).encode() + b"\n" for line in submissions(events))
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('settings-history')}/ledger.db"
        else:
            url = stack.enter_context(fresh_database(request.getfixturevalue("postgres_server_url")))
        summary = import_ledger(url, io.BytesIO(lines))
        definitions = len({event["setting"] for event in events})
        assert len(events) == 7308
        assert summary.events == 7308 + definitions + GENESIS
        yield url


@pytest.mark.parametrize("known_at", [IN_FORCE, None], ids=["in force", "in hindsight"])
def test_every_row_of_the_oracle_is_answered_exactly(
    imported: str, truth: Truth, known_at: KnownAt, record_property: Callable[[str, object], None]
) -> None:
    exact = 0
    with open_ledger(imported) as ledger:
        query = Query(ledger)
        for row in truth.rows:
            moments = [parse_time(row["at"])]
            if row["valid_until"] is not None:
                moments.append(parse_time(row["valid_until"]) - 1)
            for at in moments:
                lines = truth.lines(query, at, known_at)
                digest = hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
                assert (len(lines), digest) == (row["n_settings"], row["state_sha256"]), row["at"]
                check_scopes(query, row, at, known_at)
            exact += 1
    words = "in hindsight" if known_at is None else "in force"
    database = imported.partition(":")[0]
    record_property("figure", f"settings history, {database}, {words}: {exact} of {len(truth.rows)} rows exact")
    assert exact == 200


def check_scopes(query: Query, row: dict[str, Any], at: int, known_at: KnownAt) -> None:
    """Asks for the whole state of a row's first scope, and only for the row's settings of the others: a whole state has
    1,677 settings here, and the hash of the snapshot has proved it complete already."""
    for number, (scope, settings) in enumerate(row["scopes"].items()):
        expected = {key_of(setting): value for setting, value in settings.items()}
        only = None if number == 0 else list(expected)
        answer = query.state(subject_of(scope), at=at, known_at=known_at, settings=only)
        assert {k: json.loads(str(s.value)) for k, s in answer.settings.items() if s.source == "explicit"} == expected
    for scope, setting in row["absent"]:
        answer = query.state(subject_of(scope), at=at, known_at=known_at, settings=[key_of(setting)])
        assert all(state.source == "default" for state in answer.settings.values())


def test_a_sample_of_the_oracle_is_answered_over_http(imported: str, truth: Truth) -> None:
    count = 0
    with TestClient(create_app(imported, sign_in=False)) as client:
        for row in truth.rows[::20]:
            at = format_time(parse_time(row["at"]))
            for known_at in ("at", None):
                for scope, settings in list(row["scopes"].items())[:5]:
                    parameters = {"at": at} | ({"known_at": known_at} if known_at else {})
                    answer = client.get(f"/v1/subjects/{subject_of(scope)}/state", params=parameters)
                    assert answer.status_code == 200
                    states = answer.json()["settings"]
                    explicit = {key: json.loads(s["value"]) for key, s in states.items() if s["source"] == "explicit"}
                    assert explicit == {key_of(setting): value for setting, value in settings.items()}
                    count += 1
    assert count >= 50
