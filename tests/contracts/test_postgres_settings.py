"""A database and a role on which every setting is perverse: the ledger writes and answers the same."""

import io
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from psycopg import sql

from ledger.clock import ManualClock
from ledger.opening import open_recorder
from ledger.recorders.postgres import PostgresLedgerRecorder
from ledger.store import Ledger
from ledger.times import parse_time
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from projections.query.query import Query
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.life.stored import RELEASES, Stored
from tests.simulation.faults import database_of
from tests.support.ledgers import GENESIS, ORIGIN, change, key, submit

pytestmark = pytest.mark.postgres

SKIPPED_DAY = parse_time("2011-12-30T12:00:00Z")
"""Of Samoa's calendar, whose time zone the role has."""
PERVERSE = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "backslash_quote": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "bytea_output": "escape",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Pacific/Apia",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "search_path": "perverse",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "client_encoding": "LATIN1",
    "row_security": "on",
    "session_replication_role": "replica",
    "plpgsql.variable_conflict": "use_column",
    "plan_cache_mode": "force_generic_plan",
    "enable_indexscan": "off",
    "client_min_messages": "debug1",
    "work_mem": "64kB",
    "statement_timeout": "60s",
    "lock_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "1s",
}
FALSE_FRIENDS = (
    "CREATE SCHEMA perverse",
    "GRANT USAGE ON SCHEMA perverse TO PUBLIC",
    "CREATE TABLE perverse.events (position bigint)",
    "CREATE TABLE perverse.submissions (position bigint)",
    "CREATE FUNCTION perverse.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT '\\x00'::bytea $$",
    "CREATE FUNCTION perverse.length(bytea) RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$",
    "CREATE FUNCTION perverse.coalesced(bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT 1::bigint $$",
    "CREATE FUNCTION perverse.different(bigint, bigint) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$",
    "CREATE OPERATOR perverse.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = perverse.different)",
    "CREATE OPERATOR perverse.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = perverse.different)",
)
TEXT = "a \\ 'quoted' \\x41 \"NULL\" {NULL} – „gesprochen“ 🙂 \x01T"


@pytest.fixture(params=["a role without rights", "a superuser", "the database"])
def perverse_url(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    role = f"inforce_perverse_{token_hex(4)}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        for statement in FALSE_FRIENDS:
            admin.execute(statement.encode())
        admin.execute("LOAD 'plpgsql'")
        superuser = "SUPERUSER" if request.param == "a superuser" else "NOSUPERUSER"
        admin.execute(f"CREATE ROLE {role} LOGIN {superuser}".encode())
        database = sql.Identifier(database_of(postgres_url))
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(role)))
        whose = sql.SQL("DATABASE {}").format(database)
        if request.param != "the database":
            whose = sql.SQL("ROLE {}").format(sql.Identifier(role))
        for name, value in PERVERSE.items():
            setting = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
            # A list takes no quotes around the whole.
            text = sql.SQL(value) if "," in value else sql.Literal(value)
            admin.execute(sql.SQL("ALTER {} SET {} = {}").format(whose, setting, text))
    yield postgres_url.replace("postgres@", f"{role}@", 1)
    with psycopg.connect(f"{postgres_url}&options=-csession_replication_role%3Dorigin", autocommit=True) as admin:
        admin.execute("SET search_path TO pg_catalog")
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO postgres").format(database))
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
            (role,),
        )
        admin.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def story(url: str) -> dict[str, Any]:
    """Submits, retries, retracts, reads, follows and rebuilds; everything that a caller sees."""
    clock = ManualClock(SKIPPED_DAY)
    recorder = open_recorder(url)
    recorder.create({"origin": ORIGIN})
    with Ledger(recorder, clock, origin=ORIGIN, entropy=random.Random(1).randbytes) as ledger:
        ledger.ensure_genesis()
        seen: dict[str, Any] = {}
        clock.now_us += 1
        first = submit(
            ledger, change(reason=TEXT), change("account:anna"), idempotency=key(TEXT[:20], caller=TEXT[:20])
        )
        clock.now_us += 1
        again = submit(
            ledger, change(reason=TEXT), change("account:anna"), idempotency=key(TEXT[:20], caller=TEXT[:20])
        )
        assert first == again
        author = {"type": "setting.changed", "subject": "model:m", "setting": "model.author", "value": TEXT}
        seen["receipts"] = [first, submit(ledger, author)]
        retraction = {"type": "change.retracted", "event_id": first[0].event_id, "reason": TEXT}
        with ledger.recorder.exclusive():
            assert ledger.recorder.head() == ledger.head()
        clock.now_us += 1
        query = Query(ledger)
        query.context()
        seen["receipts"].append(submit(ledger, retraction))
        waited = threading.Thread(target=ledger.at_least, args=(GENESIS + 5, 30.0))
        waited.start()
        seen["receipts"].append(submit(ledger, change("org:b", False)))
        waited.join(30)
        assert not waited.is_alive()
        seen["pages"] = [ledger.page(0), ledger.subject_page("org:acme", 0), ledger.find(first[0].event_id)]
        seen["reasons"] = ledger.reasons(range(1, GENESIS + 6))
        seen["states"] = [
            {
                name: state.value
                for name, state in query.state(subject, at=SKIPPED_DAY + 2, known_at=at).settings.items()
            }
            for subject in ("org:acme", "org:b", "account:anna", "model:m")
            for at in (None, SKIPPED_DAY + 1)
        ]
        seen["leaves"] = [
            recorder.leaves(0, GENESIS + 5),
            recorder.leaves_of(["org:acme", "model:m"], GENESIS + 5),
            recorder.events_in_range(0, GENESIS + 5, "a", "org:b"),
            recorder.subjects_at([GENESIS + 1, GENESIS + 3]),
            recorder.version_at("org:acme", GENESIS + 4),
            recorder.versions(["org:acme", "org:none", TEXT]),
        ]
        projector = Projector(ledger, open_timelines(ledger))
        assert rebuild(projector, check_only=True).live_equal
        rebuild(projector)
        assert rebuild(projector, check_only=True).live_equal
        seen["export"] = b"".join(export_lines(ledger)), b"".join(export_personal(ledger))
        return seen


def test_it_writes_and_answers_the_same(perverse_url: str, tmp_path: Path) -> None:
    expected = story(f"sqlite:///{tmp_path}/ledger.db")
    assert expected["reasons"][GENESIS + 1] == TEXT
    seen = story(perverse_url)
    for name, value in expected.items():
        assert seen[name] == value, name


def test_an_import_restores_the_same_bytes(perverse_url: str, tmp_path: Path) -> None:
    events, personal = story(f"sqlite:///{tmp_path}/ledger.db")["export"]
    import_ledger(perverse_url, io.BytesIO(events), personal=io.BytesIO(personal))
    with Ledger(open_recorder(perverse_url), ManualClock(SKIPPED_DAY), origin=ORIGIN) as ledger:
        assert b"".join(export_lines(ledger)) == events
        assert b"".join(export_personal(ledger)) == personal


def test_an_older_ledger_is_migrated(perverse_url: str, postgres_url: str) -> None:
    stored = Stored(RELEASES[0])
    with psycopg.connect(perverse_url, autocommit=True) as owner:
        owner.execute("SET search_path TO public; SET standard_conforming_strings TO on")
        owner.execute((stored.folder / "ledger.sql").read_bytes())
    recorder = open_recorder(perverse_url)
    recorder.migrate()
    with Ledger(recorder, ManualClock(parse_time("2026-04-01T00:00:00Z")), origin=recorder.meta()["origin"]) as ledger:
        assert b"".join(export_lines(ledger)) == stored.events
        assert submit(ledger, change("org:new"))[0].version == 1


def test_every_connection_has_the_settings_that_we_rest_on(perverse_url: str) -> None:
    recorder = open_recorder(perverse_url)
    assert isinstance(recorder, PostgresLedgerRecorder)
    recorder.create({"origin": ORIGIN})
    watch = recorder.watch()
    try:
        recorder.head()
        names = (
            "standard_conforming_strings",
            "array_nulls",
            "TimeZone",
            "search_path",
            "bytea_output",
            "row_security",
        )
        expected = ("on", "on", "UTC", "pg_catalog, pg_temp", "hex", "off")
        statement = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
        with recorder.transaction(commit=False) as cursor:
            assert cursor.execute(statement.encode()).fetchone() == expected
        assert recorder._reading.read(statement) == [expected]
        assert watch._connection.execute(statement.encode()).fetchone() == expected
        # Accepted means durable, and only for the append: the session keeps what the operator set.
        assert recorder._reading.read("SHOW synchronous_commit") == [("off",)]
    finally:
        watch.close()
        recorder.close()
