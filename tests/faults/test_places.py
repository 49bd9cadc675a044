"""Ledgers in places where there is none, only its remains, or nothing can be written."""

import ctypes
import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ledger.errors import LedgerUnavailable
from ledger.opening import ledger_exists, open_ledger
from ledger.recorders.sqlite_place import COMPANIONS, cannot_change
from projections.query.query import Query
from tests.life.stored import RELEASES, Stored
from tests.support.command import CommandResult, run
from tests.support.ledgers import GENESIS, change, submit

REPOSITORY = Path(__file__).resolve().parents[2]
READING = (
    ("state", "org:acme"),
    ("history", "org:acme"),
    ("check", "--org", "acme", "--at", "now"),
    ("replay",),
    ("export",),
)
CHANGE = ("submit", "org:acme", "training.opt_in", "true")


def one_line(result: CommandResult, *parts: str, code: int = 3) -> None:
    assert (result.code, result.out, result.err.count("\n")) == (code, "", 1), result
    assert result.err.startswith("inforce: ")
    for part in parts:
        assert part in result.err


# Nothing is there.


def test_a_new_ledger_is_announced_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "mistyped.db"
    result = run(*CHANGE, "--db", f"sqlite:///{path}")
    assert (result.code, result.err) == (0, f"inforce: began a new ledger at {path}\n")
    assert run(*CHANGE, "--db", f"sqlite:///{path}").err == ""


@pytest.mark.postgres
def test_a_new_ledger_in_postgresql_is_announced_without_the_password(postgres_url: str) -> None:
    url = postgres_url.replace("postgres@", "postgres:hush@")
    result = run(*CHANGE, "--db", url)
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    assert (result.code, result.err) == (0, f"inforce: began a new ledger in database {name}\n")
    assert "hush" not in result.err


def test_an_import_announces_its_ledger(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(Stored(RELEASES[0]).events)
    path = tmp_path / "new.db"
    result = run("import", str(tmp_path / "events.jsonl"), "--db", f"sqlite:///{path}")
    assert (result.code, result.err) == (0, f"inforce: began a new ledger at {path}\n")


def test_a_server_says_in_its_log_that_it_began_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "mistyped.db"
    command = [sys.executable, "-m", "scripts.main", "serve", "--no-auth", "--port", "0", "--db", f"sqlite:///{path}"]
    for begins in (True, False):
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("inforce listens on")
            server.terminate()
            _, log = server.communicate(timeout=60)
        assert (f"began a new ledger at {path}" in log) == begins


@pytest.mark.parametrize("verb", [CHANGE, ("serve", "--no-auth", "--port", "0")])
def test_a_ledger_that_must_exist_is_not_created(tmp_path: Path, verb: tuple[str, ...]) -> None:
    path = tmp_path / "mistyped.db"
    one_line(run(*verb, "--must-exist", "--db", f"sqlite:///{path}"), f"there is no ledger at {path}")
    assert list(tmp_path.iterdir()) == []
    path.touch()
    one_line(run(*verb, "--must-exist", "--db", f"sqlite:///{path}"), "there is no ledger")
    assert path.read_bytes() == b""


@pytest.mark.postgres
@pytest.mark.parametrize("verb", [CHANGE, ("serve", "--no-auth", "--port", "0")])
def test_a_ledger_in_postgresql_that_must_exist_is_not_created(postgres_url: str, verb: tuple[str, ...]) -> None:
    one_line(run(*verb, "--must-exist", "--db", postgres_url), "there is no ledger in this database")
    assert not ledger_exists(postgres_url)


def test_a_ledger_that_exists_may_be_said_to(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    run(*CHANGE, "--db", url)
    assert run(*CHANGE, "--must-exist", "--db", url).code == 0


# Only the files beside it are there.


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    path = tmp_path / "place" / "ledger.db"
    path.parent.mkdir()
    with open_ledger(f"sqlite:///{path}", create=True) as ledger:
        submit(ledger, change("org:acme", True, reason="ticket 4711"))
        Query(ledger).context()
    return path


@pytest.mark.parametrize("suffixes", [("-wal",), ("-shm",), ("-journal",), ("-wal", "-shm")])
@pytest.mark.parametrize("empty", [False, True])
def test_beside_orphans_no_ledger_begins(ledger_path: Path, suffixes: tuple[str, ...], empty: bool) -> None:
    ledger_path.unlink()
    orphans = [ledger_path.with_name(ledger_path.name + suffix) for suffix in suffixes]
    for orphan in orphans:
        orphan.write_bytes(b"of the ledger that was here")
    if empty:
        ledger_path.touch()
        if "-wal" not in suffixes:
            pytest.skip("SQLite deletes only a -wal beside an empty file")
        orphans = [orphan for orphan in orphans if orphan.name.endswith("-wal")]
    url = f"sqlite:///{ledger_path}"
    events = ledger_path.with_name("events.jsonl")
    events.write_bytes(Stored(RELEASES[0]).events)
    for verb in (
        CHANGE,
        (*CHANGE, "--must-exist"),
        ("serve", "--no-auth", "--port", "0"),
        ("import", str(events)),
        *READING,
    ):
        one_line(run(*verb, "--db", url), str(ledger_path), *map(str, orphans), "put the ledger's file back")
        one_line(run(*verb, "--db", f"{url}?mode=ro"), *map(str, orphans))
    assert all(orphan.read_bytes() == b"of the ledger that was here" for orphan in orphans)
    assert not empty or ledger_path.read_bytes() == b""


def test_a_link_is_followed_to_the_orphans(ledger_path: Path) -> None:
    link = ledger_path.parent.parent / "link.db"
    link.symlink_to(ledger_path)
    ledger_path.rename(ledger_path.with_name("elsewhere.db"))
    ledger_path.with_name("ledger.db-wal").write_bytes(b"of the ledger that was here")
    with pytest.raises(LedgerUnavailable, match=r"ledger\.db-wal"):
        open_ledger(f"sqlite:///{link}", create=True)


def test_a_crashed_ledger_with_its_wal_is_opened(ledger_path: Path) -> None:
    """The usual state after kill -9: all three files are there."""
    url = f"sqlite:///{ledger_path}"
    copy = ledger_path.parent.parent / "crashed"
    with open_ledger(url) as ledger:
        submit(ledger, change("org:acme", False))
        shutil.copytree(ledger_path.parent, copy)
    assert (copy / "ledger.db-wal").stat().st_size
    with open_ledger(f"sqlite:///{copy}/ledger.db", create=True) as ledger:
        assert ledger.head().position == GENESIS + 2


# Nothing can be written.


def stored_ledger(folder: Path) -> Path:
    """A ledger of the first release, of which timelines were never made."""
    path = folder / "ledger.db"
    path.write_bytes(gzip.decompress((Stored(RELEASES[0]).folder / "ledger.db.gz").read_bytes()))
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        for (table,) in file.execute(
            "SELECT name FROM sqlite_schema WHERE name LIKE 'timelines%' AND type = 'table'"
        ).fetchall():
            file.execute(f"DROP TABLE {table}")
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """Nobody may write the file or its folder."""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        yield path
    finally:
        path.parent.chmod(0o755)
        path.chmod(0o644)


CAPBSET_DROP, DAC_OVERRIDE, DAC_READ_SEARCH = 24, 1, 2
"""Of prctl(2) and capabilities(7)."""


def drop_rights() -> None:
    """Makes file modes hold for root, too."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)


@pytest.fixture
def without_rights(tmp_path: Path) -> Callable[..., CommandResult]:
    """Runs the command in a process that file modes bind, with a home that cannot be written."""
    home = tmp_path / "home"
    home.mkdir(mode=0o555)

    def execute(*command: str) -> CommandResult:
        result = subprocess.run(
            command,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=drop_rights if os.geteuid() == 0 else None,
        )
        return CommandResult(result.returncode, result.stdout, result.stderr)

    if execute("touch", str(home / "file")).code == 0:
        pytest.skip("the modes of files do not hold for this account")
    return lambda *args: execute(sys.executable, "-m", "scripts.main", *args)


@pytest.mark.parametrize("timelines", ["projected", "never made"])
def test_a_sealed_ledger_answers_as_before(
    ledger_path: Path, timelines: str, tmp_path: Path, without_rights: Callable[..., CommandResult]
) -> None:
    path = ledger_path if timelines == "projected" else stored_ledger(ledger_path.parent)
    log = tmp_path / "requests.jsonl"
    log.write_text('{"request_id":"r1","at":"2026-11-30T00:00:00Z","org_id":"acme","handling":{"trained":true}}\n')
    url = f"sqlite:///{path}"
    # The answers of a ledger that may be written, from a copy.
    shutil.copytree(path.parent, tmp_path / "copy")
    questions = [
        ("state", "org:acme", "--at", "2026-11-30T00:00:00Z", "--known-at", "2026-11-30T00:00:00Z", "--format", "json"),
        ("history", "org:acme", "--format", "json"),
        ("export",),
        ("audit", str(log), "--format", "json"),
    ]
    expected = [run(*question, "--db", f"sqlite:///{tmp_path}/copy/ledger.db") for question in questions]
    assert [result.code for result in expected[:3]] == [0, 0, 0]
    with sealed(path):
        before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        assert cannot_change(path)
        for question, answer in zip(questions, expected, strict=True):
            result = without_rights(*question, "--db", f"{url}?mode=ro")
            assert (result.code, result.out) == (answer.code, answer.out), (question, result.err)
        assert without_rights("check", "--org", "acme", "--db", f"{url}?mode=ro").code in (0, 1)
        assert without_rights("backup", "--check", str(path)).code == 0
        refused = without_rights(*CHANGE, "--db", f"{url}?mode=ro")
        assert (refused.code, refused.out) == (3, "")
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_ledger_without_timelines_that_is_only_read_is_folded_from_its_events(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sealed_path, open_path = stored_ledger(tmp_path / "a"), stored_ledger(tmp_path / "b")
    with open_ledger(f"sqlite:///{sealed_path}?mode=ro") as reading, open_ledger(f"sqlite:///{open_path}") as writing:
        one, two = Query(reading), Query(writing)
        for subject in ("org:acme", "org:beta", "account:anna", "key:k-1"):
            assert one.state(subject, at=1).settings.keys() == two.state(subject, at=1).settings.keys()
            at = 1_790_000_000_000_000
            for known_at in (None, "at"):
                answers = [query.state(subject, at=at, known_at=known_at).settings for query in (one, two)]
                assert answers[0] == answers[1]
        assert one.subjects() == two.subjects()
    with closing(sqlite3.connect(sealed_path)) as file:
        assert file.execute("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'timelines%'").fetchone() == (0,)


def test_a_rebuild_of_a_ledger_that_is_only_read_is_refused_in_one_line(tmp_path: Path) -> None:
    path = stored_ledger(tmp_path)
    one_line(run("rebuild", "--db", f"sqlite:///{path}?mode=ro"), "no stored timelines")


def test_a_sealed_ledger_with_events_in_its_wal_is_refused_with_advice(
    ledger_path: Path, without_rights: Callable[..., CommandResult]
) -> None:
    url = f"sqlite:///{ledger_path}"
    wal = ledger_path.with_name("ledger.db-wal")
    with open_ledger(url) as ledger:
        submit(ledger, change("org:acme", False))
        content = wal.read_bytes()
    wal.write_bytes(content)
    wal.chmod(0o444)
    with sealed(ledger_path):
        result = without_rights("state", "org:acme", "--db", f"{url}?mode=ro")
        one_line(result, str(wal), "copy both files")
    assert run("state", "org:acme", "--db", url).code == 0


def test_a_sealed_ledger_opened_for_writing_names_the_way_to_read_it(
    ledger_path: Path, without_rights: Callable[..., CommandResult]
) -> None:
    with sealed(ledger_path):
        one_line(without_rights("state", "org:acme", "--db", f"sqlite:///{ledger_path}"), "?mode=ro")


def test_a_ledger_that_others_can_write_is_not_read_as_immutable(ledger_path: Path) -> None:
    """Their events must be seen."""
    assert not cannot_change(ledger_path)
    ledger_path.chmod(0o444)
    assert not cannot_change(ledger_path)
    url = f"sqlite:///{ledger_path}"
    with open_ledger(f"{url}?mode=ro") as reading, open_ledger(url) as writing:
        submit(writing, change("org:acme", False))
        assert reading.head() == writing.head()


# Something else is there.


def test_other_things_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "text.db").write_text("no database")
    with closing(sqlite3.connect(tmp_path / "other.db")) as file:
        file.execute("CREATE TABLE other (x)")
    for name in ("folder.db", "text.db", "other.db"):
        for verb in (CHANGE, ("serve", "--no-auth", "--port", "0"), *READING):
            for mode in ("", "?mode=ro"):
                one_line(run(*verb, "--db", f"sqlite:///{tmp_path}/{name}{mode}"), name)
    one_line(run(*CHANGE, "--db", f"sqlite:///{tmp_path}/none/ledger.db"), "check that")
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(COMPANIONS)]
