"""An append finds again what it wrote, before it is acknowledged: foreign triggers and rules report nothing."""

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.append.group_commit import OPTIMISTIC_ATTEMPTS_MAX, QueuedSubmission
from ledger.append.submissions import parse_submissions
from ledger.errors import LedgerCorrupt
from ledger.opening import open_ledger, sqlite_path
from ledger.store import Ledger
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from tests.support.ledgers import GENESIS, OPERATOR, change, key, submit


class Foreign(NamedTuple):
    """Something on the ledger's tables that is not inforce's: how it is made and how it is removed. `{}` stands for
    the schema before a table's name."""

    make: tuple[str, ...]
    remove: tuple[str, ...]


def sqlite_trigger(when: str, body: str) -> Foreign:
    return Foreign((f"CREATE TRIGGER foreign_one {when} BEGIN {body}; END",), ("DROP TRIGGER foreign_one",))


def postgres_trigger(when: str, table: str, body: str, deferred: bool = False) -> Foreign:
    constraint, initially = ("CONSTRAINT ", "DEFERRABLE INITIALLY DEFERRED ") if deferred else ("", "")
    return Foreign(
        (
            f"CREATE FUNCTION public.foreign_one() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$",
            f"CREATE {constraint}TRIGGER foreign_one {when} ON inforce.{table} {initially}FOR EACH ROW"
            " EXECUTE FUNCTION public.foreign_one()",
        ),
        (f"DROP TRIGGER foreign_one ON inforce.{table}", "DROP FUNCTION public.foreign_one()"),
    )


def rule(table: str) -> Foreign:
    return Foreign(
        (f"CREATE RULE foreign_one AS ON INSERT TO inforce.{table} DO INSTEAD NOTHING",),
        (f"DROP RULE foreign_one ON inforce.{table}",),
    )


DROPS = "SELECT RAISE(IGNORE)"
SQLITE = {
    "drops events": sqlite_trigger("BEFORE INSERT ON events", DROPS),
    "drops one of two events": sqlite_trigger(
        f"BEFORE INSERT ON events WHEN NEW.position > {GENESIS + 1} AND NEW.originator_id = 'org:b'", DROPS
    ),
    "adds an event": sqlite_trigger(
        "AFTER INSERT ON events WHEN NEW.originator_id = 'org:b'",
        "INSERT INTO events SELECT max(position) + 1, 'org:x', 1, 'x', x'00', 1, zeroblob(32) FROM events",
    ),
    "drops reasons": sqlite_trigger("BEFORE INSERT ON personal_data", DROPS),
    "changes reasons": sqlite_trigger("AFTER INSERT ON personal_data", "UPDATE personal_data SET content = '{}'"),
    "drops keys": sqlite_trigger("BEFORE INSERT ON submissions", DROPS),
    "deletes keys": sqlite_trigger("AFTER INSERT ON submissions", "DELETE FROM submissions"),
    "changes keys": sqlite_trigger("AFTER INSERT ON submissions", "UPDATE submissions SET event_count = 9"),
}
POSTGRES = {
    "drops events": postgres_trigger("BEFORE INSERT", "events", "RETURN NULL;"),
    "drops one of two events": postgres_trigger(
        "BEFORE INSERT", "events", "IF NEW.originator_id = 'org:b' THEN RETURN NULL; END IF; RETURN NEW;"
    ),
    "changes leaves": postgres_trigger("BEFORE INSERT", "events", "NEW.state := NEW.state || '\\x20'; RETURN NEW;"),
    "changes leaf hashes": postgres_trigger("BEFORE INSERT", "events", "NEW.leaf_hash := sha256(''); RETURN NEW;"),
    "changes topics": postgres_trigger("BEFORE INSERT", "events", "NEW.topic := 'setting.cleared'; RETURN NEW;"),
    "changes times": postgres_trigger("BEFORE INSERT", "events", "NEW.recorded_at := 5; RETURN NEW;"),
    "changes subjects": postgres_trigger(
        "BEFORE INSERT", "events", "NEW.originator_id := 'org:x' || NEW.position; RETURN NEW;"
    ),
    "adds an event": postgres_trigger(
        "AFTER INSERT",
        "events",
        "IF NEW.originator_id = 'org:b' THEN INSERT INTO inforce.events SELECT max(position) + 1, 'org:x', 1, 'x', '',"
        " 1, sha256('') FROM inforce.events; END IF; RETURN NULL;",
    ),
    "a rule drops events": rule("events"),
    "drops reasons": postgres_trigger("BEFORE INSERT", "personal_data", "RETURN NULL;"),
    "changes reasons": postgres_trigger("BEFORE INSERT", "personal_data", "NEW.content := '{{}}'; RETURN NEW;"),
    "a rule drops reasons": rule("personal_data"),
    "drops keys": postgres_trigger("BEFORE INSERT", "submissions", "RETURN NULL;"),
    "changes keys": postgres_trigger("BEFORE INSERT", "submissions", "NEW.event_count := 9; RETURN NEW;"),
    "a rule drops keys": rule("submissions"),
    "deletes keys at the commit": postgres_trigger(
        "AFTER INSERT", "submissions", "DELETE FROM inforce.submissions; RETURN NULL;", deferred=True
    ),
}
CASES = [pytest.param("sqlite", name, id=f"sqlite-{name}") for name in SQLITE] + [
    pytest.param("postgresql", name, id=f"postgresql-{name}", marks=pytest.mark.postgres) for name in POSTGRES
]


# COPY takes no notice of rules.
IMPORT_CASES = [case for case in CASES if "keys" not in str(case.values[1]) and case.values[1] != "a rule drops events"]


@pytest.fixture
def database_url(database: str, request: pytest.FixtureRequest, tmp_path: object) -> str:
    return f"sqlite:///{tmp_path}/ledger.db" if database == "sqlite" else str(request.getfixturevalue("postgres_url"))


def execute(url: str, *statements: str) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url)[0], isolation_level=None)) as file:
            for statement in statements:
                file.execute(statement)
        return
    with psycopg.connect(url) as server:
        for statement in statements:
            server.execute(statement.encode())


def rows(url: str) -> list[int]:
    """The numbers of events, reasons and keys."""
    with open_ledger(url) as ledger, ledger.recorder.transaction(commit=False) as cursor:
        schema = "" if url.startswith("sqlite") else "inforce."
        return [
            int(cursor.execute(f"SELECT count(*) FROM {schema}{table}").fetchone()[0])
            for table in ("events", "personal_data", "submissions")
        ]


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(LedgerCorrupt) as refusal:
        call()
    assert "\n" not in refusal.value.detail
    for part in ("did not store", "nothing was recorded", "remove the triggers and rules"):
        assert part in refusal.value.detail


def both(ledger: Ledger, name: str) -> object:
    return submit(ledger, change("org:a", reason="a"), change("org:b", reason="b"), idempotency=key(name))


def both_under_the_lock(ledger: Ledger, name: str) -> object:
    """Written in a transaction that was open before, as after three stale attempts."""
    bodies = {"events": [change("org:a", reason="a"), change("org:b", reason="b")]}
    queued = QueuedSubmission(parse_submissions(bodies), OPERATOR, key(name))
    queued.stale_count = OPTIMISTIC_ATTEMPTS_MAX
    return ledger.writer.submit(queued)


@pytest.mark.parametrize(("database", "name"), CASES)
def test_a_foreign_trigger_or_rule_makes_the_append_fail_and_nothing_is_recorded(
    database: str, name: str, database_url: str
) -> None:
    foreign = (SQLITE if database == "sqlite" else POSTGRES)[name]
    with open_ledger(database_url, create=True) as ledger:
        before = rows(database_url)
        execute(database_url, *foreign.make)
        refused(lambda: both(ledger, "one"))
        refused(lambda: both_under_the_lock(ledger, "two"))
        assert rows(database_url) == before
        execute(database_url, *foreign.remove)
        for name_ in ("one", "two"):
            assert both(ledger, name_) == both_under_the_lock(ledger, name_)
        assert rows(database_url) == [GENESIS + 4, 4, 2]


@pytest.mark.parametrize(("database", "name"), IMPORT_CASES)
def test_an_import_fails_too_and_leaves_nothing(
    database: str, name: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with open_ledger(f"sqlite:///{tmp_path_factory.mktemp('from')}/ledger.db", create=True) as original:
        both(original, "one")
        events, personal = b"".join(export_lines(original)), b"".join(export_personal(original))
    foreign = (SQLITE if database == "sqlite" else POSTGRES)[name]
    with open_ledger(database_url, create=True) as ledger:
        recorder = ledger.recorder
        recorder_type = type(recorder)
    create = recorder_type.create

    def create_with_foreign(self: object, meta: dict[str, str]) -> None:
        create(self, meta)  # type: ignore[arg-type]  # the recorder of the parameter
        execute(url, *foreign.make)

    url = database_url if database == "postgresql" else database_url.replace("ledger.db", "other.db")
    if database == "postgresql":
        execute(url, "DROP SCHEMA inforce CASCADE")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder_type, "create", create_with_foreign)
        refused(lambda: import_ledger(url, io.BytesIO(events), personal=io.BytesIO(personal)))
    if database == "postgresql":
        execute(url, "DROP FUNCTION IF EXISTS public.foreign_one() CASCADE")
    import_ledger(url, io.BytesIO(events), personal=io.BytesIO(personal))
    assert rows(url) == [GENESIS + 2, 2, 0]


@pytest.mark.parametrize(("database", "name"), [case for case in CASES if case.values[1] == "drops events"])
def test_no_caller_gets_a_receipt(database: str, name: str, database_url: str) -> None:
    """Six of them got one for the same position."""
    with TestClient(create_app(database_url, sign_in=False)) as client:
        execute(database_url, *(SQLITE if database == "sqlite" else POSTGRES)[name].make)
        for _ in range(6):
            answer = client.post("/v1/events", json=change())
            assert (answer.status_code, answer.json()["code"]) == (503, "ledger_corrupt")
        assert client.get("/v1/events", params={"after": GENESIS}).json()["events"] == []
