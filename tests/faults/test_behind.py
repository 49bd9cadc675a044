"""The stored timelines cannot be written while the ledger can be read: another program holds the lock, the file is
read-only, the disk is full. Every question is answered at once all the same, with the same answers; and when the
timelines can be written again, they are.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.clock import ManualClock
from ledger.codec import leaf_hash
from ledger.errors import LedgerCorrupt, LedgerUnavailable
from ledger.opening import open_ledger, open_recorder
from ledger.times import format_time
from projections.decisions.model import Decision, read_record
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery, Query
from projections.timelines import catch_up as projecting
from projections.timelines.contract import LIVE
from projections.timelines.postgres import _LOCKS
from projections.timelines.projector import Projector
from projections.timelines.store import open_timelines
from tests.api.client import get
from tests.faults.disks import files_no_larger_than
from tests.support.command import run
from tests.support.ledgers import GENESIS, change, submit
from tests.support.questions import CACHING, HOUR, NOON, START, STORAGE, QueryLedger, changed, retracted
from tests.support.random_history import RandomHistory, alter, assert_timelines
from tests.support.waiting import GIVE_UP_S

AT_ONCE_S = GIVE_UP_S
"""Half of what a question would take that waits for the lock: see `patient`."""
_HOLD: str = (
    "import sqlite3, sys\n"
    "other = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    "other.execute('BEGIN IMMEDIATE')\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


@contextmanager
def held_by_another_program(url: str) -> Iterator[None]:
    """Holds what a projector needs: SQLite's write lock, in another process; a projector's lock on PostgreSQL."""
    if not url.startswith("sqlite:"):
        with psycopg.connect(url) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCKS[LIVE],))
            yield
        return
    command = [sys.executable, "-c", _HOLD, url.removeprefix("sqlite:///")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other_program:
        assert other_program.stdout is not None
        assert other_program.stdout.readline() == b"held\n"
        yield
        other_program.communicate()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for SQLite's lock would take longer than a test waits."""
    monkeypatch.setattr(open_recorder, "__kwdefaults__", {"lock_timeout": int(2 * AT_ONCE_S)})


@pytest.fixture
def bench(database_url: str, patient: None) -> Iterator[QueryLedger]:
    clock = ManualClock(START)
    with open_ledger(database_url, create=True, clock=clock, origin="test.example") as ledger:
        yield QueryLedger(ledger, clock, Query(ledger))


def everything(query: Query, now: int) -> list[Any]:
    """Answers to questions of every kind, at instants all over the history."""
    records = [
        read_record({"org_id": org, "handling": {"stored": True, "trained": True}, "at": format_time(at)}, now)
        for org in ("acme", "beta", "nobody")
        for at in (START + 1, now - 10, now)
    ]
    answers: list[Any] = [query.check_all(records), query.catalog(at=now)]
    choices: list[KnownAt] = [None, IN_FORCE, now - 30]
    for known_at in choices:
        answers += [query.snapshot(at=now, known_at=known_at), query.snapshot(at=now, known_at=known_at, kind="org")]
        for subject in query.subjects()[1]:
            answers.append(query.state(subject.subject, at=now, known_at=known_at))
            answers.append(query.timeline(subject.subject, known_at=known_at))
            answers.append(query.diff(subject.subject, start=START, end=now, known_at=known_at))
    answers += [query.subjects(), query.subjects("account"), query.subjects(prefix="org:a"), query.subjects("nothing")]
    after = None
    while rows := query.subjects(after=after, limit=2)[1]:
        answers.append(rows)
        after = rows[-1].subject
    return answers


@pytest.mark.parametrize("seed", range(3))
def test_the_answers_are_the_same_as_with_a_projector_that_is_not_behind(
    bench: QueryLedger, database_url: str, seed: int
) -> None:
    """For a query with full caches, one with empty caches, and one whose caches hold nothing."""
    past = RandomHistory(bench.ledger, bench.clock, seed)
    past.extend(30)
    queries = [bench.query, Query(bench.ledger), Query(bench.ledger, memory_max=1)]
    everything(queries[0], bench.clock.now_us)
    tracked = bench.ledger.head().position
    behind: list[list[Any]] = []
    with ExitStack() as locked:
        for _ in range(3):
            locked.close()
            past.extend(10)
            locked.enter_context(held_by_another_program(database_url))
            behind = [everything(query, bench.clock.now_us) for query in queries]
        assert bench.query.store.tracked() == tracked
    kept_up = Query(bench.ledger)
    kept_up.context()
    assert kept_up.store.tracked() == bench.ledger.head().position
    expected = everything(kept_up, bench.clock.now_us)
    assert behind == [expected] * 3
    assert_timelines(bench.ledger, kept_up.store)


def test_no_question_waits_for_the_lock_and_the_projector_goes_on_once_it_is_free(
    bench: QueryLedger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, False))
    bench.query.context()
    (receipt,) = bench.submit(NOON + 1, changed("org:acme", STORAGE, True))
    record = read_record({"org_id": "acme", "handling": {"stored": True}}, NOON + 1)

    def ask(query: Query) -> Decision:
        return query.check(record)

    with held_by_another_program(database_url):
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            queries = [bench.query] * 8 + [Query(bench.ledger)] * 8
            decisions = list(pool.map(ask, queries))
        assert time.monotonic() - began < AT_ONCE_S
        assert {(one.outcome.verdict, one.as_of.position) for one in decisions} == {("compliant", receipt.position)}
        # Not every question tries again, so they cost no more than others.
        attempts: list[object] = []
        with monkeypatch.context() as patch:
            patch.setattr(bench.query.store, "writing", lambda *a, **k: attempts.append(a))
            patch.setattr(projecting, "RETRY_S", 60)
            for _ in range(20):
                ask(bench.query)
        assert len(attempts) <= 1
    assert bench.query.store.tracked() == receipt.position - 1
    # No more events: the questions alone make the projector go on.
    deadline = time.monotonic() + GIVE_UP_S
    while bench.query.store.tracked() < receipt.position:
        assert time.monotonic() < deadline
        assert ask(bench.query).outcome.verdict == "compliant"
    assert_timelines(bench.ledger, bench.query.store)


def test_a_question_does_not_wait_for_another_thread_that_projects(
    bench: QueryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    projects, go_on = threading.Event(), threading.Event()
    writing = bench.query.store.writing

    def writing_slowly(*sides: Any, **more: Any) -> AbstractContextManager[Any]:
        projects.set()
        assert go_on.wait(GIVE_UP_S)
        return writing(*sides, **more)

    monkeypatch.setattr(bench.query.store, "writing", writing_slowly)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(bench.query.state, "org:acme", at=NOON)
        assert projects.wait(GIVE_UP_S)
        began = time.monotonic()
        others = [pool.submit(bench.query.state, "org:acme", at=NOON) for _ in range(8)]
        answers = [other.result(GIVE_UP_S) for other in others]
        assert time.monotonic() - began < AT_ONCE_S
        (later,) = bench.submit(NOON + 1, changed("org:acme", STORAGE, False))
        assert bench.query.state("org:acme", at=NOON + 1).settings[STORAGE].value is False
        assert not first.done()
        go_on.set()
        answers.append(first.result(GIVE_UP_S))
    assert all(answer.settings[STORAGE].value is True for answer in answers)
    # Events that came while it was projecting do not wait for the next submission.
    bench.query.context()
    assert bench.query.store.tracked() == later.position
    assert_timelines(bench.ledger, bench.query.store)


def test_a_pin_stays_at_its_position_while_the_timelines_are_behind(bench: QueryLedger, database_url: str) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True), changed("org:acme", CACHING, True))
    bench.query.context()
    (on,) = bench.submit(NOON + 1, changed("org:acme", STORAGE, False))
    with held_by_another_program(database_url):
        pinned = PinnedQuery(bench.query)
        assert pinned.pinned.position == on.position
        before = pinned.timeline("org:acme"), pinned.subjects()[0]
    bench.submit(NOON + 2, retracted(on.event_id), changed("org:new", STORAGE, True))
    with held_by_another_program(database_url):
        bench.query.context()
        assert (pinned.timeline("org:acme"), pinned.subjects()[0]) == before
        assert [row.subject for row in pinned.subjects("org")[1]] == ["org:acme"]
        assert bench.query.state("org:acme", at=NOON + 2).settings[STORAGE].value is True


def test_news_that_bring_to_light_what_a_pause_hid_are_answered_while_the_timelines_are_behind(
    bench: QueryLedger, database_url: str
) -> None:
    """The stored steps do not hold the change that the pause covers, so the subject's events are folded."""
    bench.submit(NOON, changed("org:acme", STORAGE, False, NOON + 20))
    bench.submit(NOON + 1, changed("org:acme", STORAGE, False, NOON + 1, NOON + 40))
    bench.query.context()
    bench.submit(NOON + 10, changed("org:acme", STORAGE, True))
    with held_by_another_program(database_url):
        for query in (bench.query, Query(bench.ledger)):
            values = [query.state("org:acme", at=NOON + at).settings[STORAGE].value for at in (9, 10, 19, 20, 40)]
            assert values == [False, True, True, False, False]
    Projector(bench.ledger, bench.query.store).catch_up()
    assert_timelines(bench.ledger, bench.query.store)


def test_over_http(database_url: str, patient: None) -> None:
    with TestClient(create_app(database_url, sign_in=False)) as client, open_ledger(database_url) as ledger:
        submit(ledger, change("org:acme", True))
        get(client, "/v1/subjects/org:acme/state")
        submit(ledger, change("org:beta", True))
        with held_by_another_program(database_url):
            began = time.monotonic()
            state = get(client, "/v1/subjects/org:beta/state")
            assert (state["position"], state["settings"]["training.opt_in"]["value"]) == (GENESIS + 2, True)
            listed = get(client, "/v1/subjects?kind=org")
            assert [row["subject"] for row in listed["subjects"]] == ["org:acme", "org:beta"]
            assert listed["position"] == GENESIS + 2
            decided = client.post("/v1/checks", json={"org_id": "beta", "handling": {"trained": True}}).json()
            assert (decided["verdict"], decided["as_of"]["position"]) == ("compliant", GENESIS + 2)
            assert len(get(client, "/v1/subjects/org:beta/history")["events"]) == 1
            assert time.monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize("how", ["read-only", "locked", "full"])
def test_the_commands_answer(tmp_path: Any, how: str) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url, create=True) as ledger:
        submit(ledger, change("org:acme", True))
        Query(ledger).context()
        submit(ledger, change("org:acme", False), change("org:beta", True))
        db = f"{url}?mode=ro" if how == "read-only" else url
        in_the_way: dict[str, AbstractContextManager[None]] = {
            "locked": held_by_another_program(url),
            "full": files_no_larger_than(0),
        }
        with in_the_way.get(how, nullcontext()):
            state = run("state", "org:acme", "--db", db, "--format", "json")
            ran = [
                run("check", "--db", db, "--org", "beta", "--format", "json"),
                run("history", "org:beta", "--db", db),
                run("replay", "--db", db),
            ]
        assert (state.code, state.err) == (0, "")
        assert state.json()["settings"]["training.opt_in"]["value"] is False
        assert [(one.code, one.err) for one in ran] == [(0, "")] * 3
        assert open_timelines(ledger).tracked() == GENESIS + 1


def test_an_unreadable_event_is_named_and_no_question_that_rests_on_it_is_answered(
    bench: QueryLedger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "RETRY_S", 0)
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.query.state("org:acme", at=NOON)
    (last,) = bench.submit(NOON + 1, changed("org:beta", STORAGE, True))
    poison = last.position + 1
    alter(
        bench.ledger,
        "INSERT INTO {events} (position, originator_id, originator_version, topic, state, recorded_at, leaf_hash)"
        " VALUES (?,?,?,?,?,?,?)",
        *(poison, "org:acme", 2, "setting.changed", b"no JSON", NOON + 2, leaf_hash(b"no JSON")),
    )
    for query in (bench.query, Query(bench.ledger)):
        with held_by_another_program(database_url):
            for _ in range(2):
                with pytest.raises(LedgerCorrupt, match=f"the event at position {poison} is not as it was recorded"):
                    query.state("org:acme", at=NOON)
        for _ in range(2):
            for subject in ("org:acme", "org:beta"):
                with pytest.raises(LedgerCorrupt, match=f"the event at position {poison} is not as it was recorded"):
                    query.state(subject, at=NOON + 1)


def test_a_ledger_that_cannot_be_read_either_is_unavailable(
    bench: QueryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))

    def gone(*_: Any, **__: Any) -> Any:
        raise LedgerUnavailable("the database is gone")

    with monkeypatch.context() as patch:
        patch.setattr(bench.query.store, "writing", gone)
        patch.setattr(bench.ledger.recorder, "stream", gone)
        with pytest.raises(LedgerUnavailable, match="gone"):
            bench.query.state("org:acme", at=NOON + HOUR)
    assert bench.query.state("org:acme", at=NOON + HOUR).settings[STORAGE].value is True
