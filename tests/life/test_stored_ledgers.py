"""A ledger of a released version: today's code migrates it, and every answer stays the same."""

import gzip
import hashlib
import hmac
import io
import json
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.append.submissions import canonical_json, parse_submissions
from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.codec import leaf_hash
from ledger.drafts import Idempotency
from ledger.errors import IdempotencyKeyReused, LedgerUnavailable
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from ledger.times import parse_time
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from projections.query.query import Query
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.life.conftest import ask, format_of, format_today
from tests.life.stored import RELEASES, Stored
from tests.support.checking import all_faults
from tests.support.ledgers import change, key, submit
from tests.support.programs import start_programs


def test_there_is_a_stored_ledger_of_every_release() -> None:
    assert RELEASES
    for release in RELEASES:
        files = {file.name for file in Stored(release).folder.iterdir()}
        assert files == {"events.jsonl", "facts.json", "ledger.db.gz", "ledger.sql", "personal.jsonl"}


def test_opening_migrates_it_and_changes_no_event(stored: Stored, stored_url: str) -> None:
    before = ask(stored_url, "SELECT * FROM {}events ORDER BY position")
    with open_ledger(stored_url) as ledger:
        assert b"".join(export_lines(ledger)) == stored.events
        assert b"".join(export_personal(ledger)) == stored.personal
        assert all(leaf_hash(entry.leaf) == entry.leaf_hash for entry in ledger.page(0))
        assert len(ledger.reasons(range(1, ledger.head().position + 1))) == stored.personal.count(b"\n")
    assert format_of(stored_url) == format_today(stored_url)
    assert ask(stored_url, "SELECT * FROM {}events ORDER BY position") == before


SCHEMA_SQLITE = "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name NOT LIKE 'timelines%' ORDER BY 1, 2"
SCHEMA_POSTGRES = """
    SELECT 'column', table_name || '.' || column_name, data_type || is_nullable || coalesce(column_default, '')
        FROM information_schema.columns WHERE table_schema = 'inforce' AND table_name NOT LIKE 'timelines%'
    UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'inforce' AND tablename NOT LIKE 'timelines%'
    UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'inforce'::regnamespace AND conrelid::regclass::text NOT LIKE '%timelines%'
    UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = 'inforce'::regnamespace
    ORDER BY 1, 2, 3"""


def test_its_tables_then_equal_those_of_a_new_ledger(stored_url: str, tmp_path: Path) -> None:
    open_ledger(stored_url).close()
    if stored_url.startswith("sqlite"):
        new_url, statement = f"sqlite:///{tmp_path}/new.db", SCHEMA_SQLITE
        open_ledger(new_url, create=True).close()
        assert ask(stored_url, statement) == ask(new_url, statement)
        return
    migrated = ask(stored_url, SCHEMA_POSTGRES)
    with psycopg.connect(stored_url) as connection:
        connection.execute("DROP SCHEMA inforce CASCADE")
    open_ledger(stored_url, create=True).close()
    assert ask(stored_url, SCHEMA_POSTGRES) == migrated


def test_a_retry_with_an_old_key_gets_the_old_receipts(stored: Stored, stored_url: str) -> None:
    keyed = [submission for submission in stored.submitted if submission["key"]]
    assert len(keyed) > 5
    with open_ledger(stored_url) as ledger:
        head = ledger.head()
        for submission in keyed:
            digest = hashlib.sha256(canonical_json(submission["body"])).digest()
            idempotency = Idempotency("alice", submission["key"], digest)
            again = ledger.submit(
                parse_submissions(submission["body"]), actor="operator:other", idempotency=idempotency
            )
            assert again == tuple(Receipt(**receipt) for receipt in submission["receipts"])
        with pytest.raises(IdempotencyKeyReused):
            submit(ledger, change(), idempotency=key(keyed[0]["key"]))
        assert ledger.head() == head


def test_migrating_keys_the_digests_of_old_bodies(stored: Stored, stored_url: str) -> None:
    statement = "SELECT body_sha256 FROM {}submissions"
    plain = {hashlib.sha256(canonical_json(submission["body"])).digest() for submission in stored.submitted}
    assert {bytes(digest) for (digest,) in ask(stored_url, statement)} <= plain
    open_ledger(stored_url).close()
    keyed = {bytes(digest) for (digest,) in ask(stored_url, statement)}
    assert len(keyed) > 5
    assert keyed.isdisjoint(plain)
    ((secret,),) = ask(stored_url, "SELECT value FROM {}ledger_meta WHERE name = 'body_key'")
    assert {digest[:32] for digest in keyed} <= {
        hmac.new(bytes.fromhex(secret), digest, "sha256").digest() for digest in plain
    }
    open_ledger(stored_url).close()
    assert {bytes(digest) for (digest,) in ask(stored_url, statement)} == keyed
    # Each has a seal, which is right.
    assert {len(digest) for digest in keyed} == {48}
    assert [fault for fault in all_faults(stored_url) if "Idempotency" in fault] == []


def test_every_question_has_the_same_answer(stored: Stored, stored_url: str) -> None:
    with open_ledger(stored_url) as ledger:
        query = Query(ledger)
        assert stored.answers
        for question in stored.answers:
            answer = query.state(question["subject"], at=parse_time(question["at"]), known_at=question["known_at"])
            assert {setting: state.value for setting, state in answer.settings.items()} == question["settings"]


def test_it_continues_and_its_timelines_equal_a_rebuild(stored: Stored, stored_url: str) -> None:
    lines = stored.events.count(b"\n")
    clock = ManualClock(parse_time("2026-04-01T00:00:00Z"))
    with open_ledger(stored_url, clock=clock) as ledger:
        first = submit(ledger, change("org:acme", False), change("org:new"), idempotency=key("new"))
        clock.now_us += 1
        assert submit(ledger, change("org:acme", False), change("org:new"), idempotency=key("new")) == first
        submit(ledger, {"type": "change.retracted", "event_id": first[1].event_id, "reason": "a slip"})
        assert [entry.position for entry in ledger.page(lines)] == [lines + 1, lines + 2, lines + 3]
        projector = Projector(ledger, open_timelines(ledger))
        assert projector.catch_up() == lines + 3
        checked = rebuild(projector, check_only=True)
        assert (checked.live_equal, checked.position) == (True, lines + 3)
        assert b"".join(export_lines(ledger, until=lines)) == stored.events


def test_the_upgraded_server_works(stored: Stored, stored_url: str) -> None:
    leaves = stored.events.splitlines()
    with TestClient(create_app(stored_url, sign_in=False)) as client:
        events = client.get("/v1/events", params={"limit": 1000}).json()["events"]
        assert events[: len(leaves)] == [json.loads(leaf) for leaf in leaves]
        # The built-in settings that its inforce did not have.
        before = {event["data"]["setting"] for event in events[: len(leaves)] if "definition" in event["data"]}
        added = [event["data"]["setting"] for event in events[len(leaves) :]]
        assert added == [setting for setting in BUILT_IN if setting not in before]
        event_id = stored.submitted[0]["receipts"][0]["event_id"]
        assert (
            client.get(f"/v1/events/{event_id}").content == leaves[stored.submitted[0]["receipts"][0]["position"] - 1]
        )
        assert client.get("/v1/subjects/org:acme/state").json()["settings"]["training.opt_in"]["value"] is True
        assert client.post("/v1/events", json=change("org:acme", False)).status_code == 201
        assert client.get("/v1/subjects/org:acme/state").json()["settings"]["training.opt_in"]["value"] is False


def test_its_export_is_imported_byte_for_byte(stored: Stored, database_url: str) -> None:
    import_ledger(database_url, io.BytesIO(stored.events), personal=io.BytesIO(stored.personal))
    with open_ledger(database_url) as ledger:
        assert b"".join(export_lines(ledger)) == stored.events
        assert b"".join(export_personal(ledger)) == stored.personal


def test_a_read_only_file_is_read_without_migration(stored: Stored, tmp_path: Path) -> None:
    url = stored.put(f"sqlite:///{tmp_path}/ledger.db")
    unpacked = (tmp_path / "ledger.db").read_bytes()
    with open_ledger(f"{url}?mode=ro") as ledger:
        assert b"".join(export_lines(ledger)) == stored.events
        with pytest.raises(LedgerUnavailable, match="read-only"):
            submit(ledger, change())
    assert (tmp_path / "ledger.db").read_bytes() == unpacked
    assert gzip.decompress((stored.folder / "ledger.db.gz").read_bytes()) == unpacked


@pytest.fixture
def reader_url(stored: Stored, postgres_url: str) -> Iterator[str]:
    """The stored ledger, opened by a role that may read and add rows but not create or alter anything."""
    stored.put(postgres_url)
    role = f"inforce_reader_{token_hex(4)}"
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role}".encode())
        owner.execute(f"GRANT USAGE ON SCHEMA inforce TO {role}".encode())
        owner.execute(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA inforce TO {role}".encode())
        yield f"{postgres_url}{'&' if '?' in postgres_url else '?'}options=-crole%3D{role}"
        owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_role_without_rights_reads_it_without_migration(stored: Stored, postgres_url: str, reader_url: str) -> None:
    with open_ledger(reader_url) as ledger:
        assert b"".join(export_lines(ledger)) == stored.events
        with pytest.raises(LedgerUnavailable, match=r"older format.*open it once as the role"):
            submit(ledger, change())
    assert format_of(postgres_url) == 1


def test_several_processes_migrate_it_once(stored: Stored, stored_url: str) -> None:
    with start_programs(*(("write", stored_url, f"writer{number}", 3) for number in range(4))) as writers:
        for writer in writers:
            assert writer.wait(60) == 0
    assert format_of(stored_url) == format_today(stored_url)
    with open_ledger(stored_url) as ledger:
        lines = stored.events.count(b"\n")
        assert [entry.position for entry in ledger.page(0)] == list(range(1, lines + 4 * 3 * 2 + 1))
        assert b"".join(export_lines(ledger, until=lines)) == stored.events
