"""The triggers that refuse a change of events are whole whenever a ledger is open for writing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest

from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from tests.contracts.test_read_back import execute
from tests.faults.test_read_only import immutable
from tests.support.command import run
from tests.support.ledgers import GENESIS, change, submit

CHANGES = ("UPDATE {}events SET topic = 'x'", "DELETE FROM {}events", "TRUNCATE {}events")
SQLITE = {
    "no trigger against updates": ("DROP TRIGGER events_no_update",),
    "no trigger against deletes": ("DROP TRIGGER events_no_delete",),
    "no trigger against replacing": ("DROP TRIGGER events_in_order",),
    "a trigger that does nothing": (
        "DROP TRIGGER events_no_update",
        "CREATE TRIGGER events_no_update BEFORE UPDATE ON events WHEN 0 BEGIN SELECT RAISE(ABORT, 'x'); END",
    ),
    "a trigger for one column": (
        "DROP TRIGGER events_no_update",
        "CREATE TRIGGER events_no_update BEFORE UPDATE OF topic ON events BEGIN SELECT RAISE(ABORT, 'x'); END",
    ),
}
AGAIN = "CREATE TRIGGER events_immutable BEFORE {} ON inforce.events FOR EACH STATEMENT {} inforce.refuse_change()"
POSTGRES = {
    "no trigger": ("DROP TRIGGER events_immutable ON inforce.events",),
    "a disabled trigger": ("ALTER TABLE inforce.events DISABLE TRIGGER events_immutable",),
    "all disabled": ("ALTER TABLE inforce.events DISABLE TRIGGER ALL",),
    "a trigger for replicas only": ("ALTER TABLE inforce.events ENABLE REPLICA TRIGGER events_immutable",),
    "a trigger that replicas do not fire": ("ALTER TABLE inforce.events ENABLE TRIGGER events_immutable",),
    "a trigger against deletes only": (
        "DROP TRIGGER events_immutable ON inforce.events",
        AGAIN.format("DELETE", "EXECUTE FUNCTION"),
    ),
    "a trigger for one column": (
        "DROP TRIGGER events_immutable ON inforce.events",
        AGAIN.format("UPDATE OF topic OR DELETE OR TRUNCATE", "EXECUTE FUNCTION"),
    ),
    "a trigger that never fires": (
        "DROP TRIGGER events_immutable ON inforce.events",
        AGAIN.format("UPDATE OR DELETE OR TRUNCATE", "WHEN (false) EXECUTE FUNCTION"),
    ),
    "a function that does nothing": (
        "CREATE OR REPLACE FUNCTION inforce.refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RETURN NULL; END$$",
    ),
}
CASES = [pytest.param("sqlite", name, id=f"sqlite-{name}") for name in SQLITE] + [
    pytest.param("postgresql", name, id=f"postgresql-{name}", marks=pytest.mark.postgres) for name in POSTGRES
]


@pytest.fixture
def url(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger with one event more than a new one."""
    path = tmp_path / "ledger"
    path.mkdir()
    url = f"sqlite:///{path}/ledger.db" if database == "sqlite" else str(request.getfixturevalue("postgres_url"))
    with open_ledger(url, create=True) as ledger:
        submit(ledger, change())
    return url


def statements(url: str) -> Iterator[str]:
    for statement in CHANGES:
        if url.startswith("postgresql"):
            yield statement.format("inforce.")
            yield f"SET session_replication_role = replica; {statement.format('inforce.')}"
        elif not statement.startswith("TRUNCATE"):
            yield statement.format("")
    if url.startswith("sqlite"):
        yield f"REPLACE INTO events SELECT * FROM events WHERE position = {GENESIS}"


def refuses_changes(url: str) -> bool:
    for statement in statements(url):
        try:
            execute(url, statement)
        except Exception as error:
            if "immutable" not in str(error):
                raise
        else:
            return False
    return True


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return messages


@pytest.mark.parametrize(("database", "name"), CASES)
def test_a_broken_trigger_is_made_again_with_a_warning(
    database: str, name: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings(caplog) == []
    execute(url, *(SQLITE if database == "sqlite" else POSTGRES)[name])
    open_ledger(url).close()
    (first, *others) = warnings(caplog)
    # The trigger of a function that was altered is checked once more.
    assert len(others) <= 1
    for part in ("events could be changed", "it was made again", "compare"):
        assert part in first
    assert "\n" not in first
    assert refuses_changes(url)
    with open_ledger(url) as ledger:
        assert warnings(caplog) == []
        assert submit(ledger, change())[0].position == GENESIS + 2


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_whole_ledger_refuses_every_change_and_warns_of_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    open_ledger(url).close()
    assert refuses_changes(url)
    assert warnings(caplog) == []


@pytest.mark.parametrize(("database", "name"), [CASES[0]])
def test_a_ledger_that_is_only_read_is_left_as_it_is(url: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    execute(url, *SQLITE[name])
    open_ledger(f"{url}?mode=ro").close()
    assert warnings(caplog) == []
    assert not refuses_changes(url)


@pytest.mark.parametrize(("database", "name"), [CASES[0]])
def test_the_command_prints_the_warning_and_works(url: str, name: str) -> None:
    execute(url, *SQLITE[name])
    result = run("state", "org:acme", "--db", url)
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert "events_no_update" in result.err
    assert run("state", "org:acme", "--db", url).err == ""


@pytest.mark.parametrize(("database", "name"), [CASES[0]])
def test_a_file_in_which_they_cannot_be_made_is_refused(url: str, name: str) -> None:
    execute(url, *SQLITE[name])
    with immutable(Path(url.removeprefix("sqlite:///"))):
        with pytest.raises(LedgerUnavailable, match="cannot be made again") as refused:
            open_ledger(url)
        assert "\n" not in refused.value.detail
        assert "?mode=ro" in refused.value.detail
        open_ledger(f"{url}?mode=ro").close()


@contextmanager
def role(url: str, rights: str) -> Iterator[str]:
    name = f"inforce_guard_{token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA inforce TO {name}".encode())
        owner.execute(f"GRANT {rights} ON ALL TABLES IN SCHEMA inforce TO {name}".encode())
        yield f"{url}{'&' if '?' in url else '?'}options=-crole%3D{name}"
        owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.mark.parametrize(("database", "name"), CASES[len(SQLITE) :])
def test_a_role_that_may_add_rows_and_not_make_them_is_refused(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with role(url, "SELECT, INSERT") as writer, role(url, "SELECT") as reader:
        with open_ledger(writer) as ledger:
            submit(ledger, change())
        execute(url, *POSTGRES[name])
        with pytest.raises(LedgerUnavailable, match="may not make them again") as refused:
            open_ledger(writer)
        assert "\n" not in refused.value.detail
        with open_ledger(reader) as ledger:
            assert ledger.head().position == GENESIS + 2
        assert warnings(caplog) == []


FOREIGN = {
    "sqlite": (
        ("CREATE TRIGGER looks AFTER INSERT ON events BEGIN SELECT 1; END", "looks on events"),
        ("CREATE TRIGGER counts AFTER INSERT ON submissions BEGIN SELECT 1; END", "counts on submissions"),
        ("CREATE TRIGGER other AFTER DELETE ON personal_data BEGIN SELECT 1; END", "other on personal_data"),
    ),
    "postgresql": (
        (
            "CREATE FUNCTION public.looks() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "CREATE TRIGGER looks AFTER INSERT ON inforce.events EXECUTE FUNCTION public.looks()",
            "trigger looks on events",
        ),
        ("CREATE RULE notes AS ON INSERT TO inforce.submissions DO ALSO NOTHING", "rule notes on submissions"),
        ("ALTER TABLE inforce.personal_data ENABLE ROW LEVEL SECURITY", "row security on personal_data"),
    ),
}


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_what_is_not_ours_is_named_and_left(database: str, url: str, caplog: pytest.LogCaptureFixture) -> None:
    for statement, _ in FOREIGN[database]:
        execute(url, statement)
    for _ in range(2):
        open_ledger(url).close()
        (message,) = warnings(caplog)
        for _, name in FOREIGN[database]:
            assert name in message
        assert "remove them" in message


@pytest.mark.postgres
@pytest.mark.parametrize("database", ["postgresql"])
def test_a_replaced_append_function_is_made_again(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(url) as server:
        row = server.execute("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'append_group'").fetchone()
        assert row is not None
        server.execute(row[0].replace("now_us := now_us +", "now_us := 5 +").encode())
    open_ledger(url).close()
    (message,) = warnings(caplog)
    assert message.startswith("append_group of the schema inforce was missing, altered or disabled")
    open_ledger(url).close()
    assert warnings(caplog) == []
