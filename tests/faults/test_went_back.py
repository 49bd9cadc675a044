"""A ledger is replaced by an older copy under real servers, and its tail is deleted: no position is used twice."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ledger.backup import back_up
from ledger.opening import open_ledger
from tests.faults.server import ServerProcess, run_server, training
from tests.support.command import run
from tests.support.going_back import copy_of, delete_tail
from tests.support.ledgers import GENESIS
from tests.support.reference import Json

NOT_RECORDED = ("ledger_went_back", "ledger_corrupt", "ledger_unavailable")


class Acknowledged:
    """Every event that a server acknowledged, by its position."""

    def __init__(self) -> None:
        self.events: dict[int, str] = {}

    def submit(self, server: ServerProcess, subject: str = "org:acme") -> Json:
        """The problem, or the receipt after a check that its position is new."""
        answer = server.submit(training(subject, True))
        if answer.status != 201:
            return answer.unavailable()
        receipt: Json = answer.body["receipts"][0]
        assert self.events.setdefault(receipt["position"], receipt["event_id"]) == receipt["event_id"]
        return receipt


def checkpoint(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def by_inforce(path: Path) -> bytes:
    copy = path.with_name("backup.db")
    back_up(f"sqlite:///{path}", copy)
    return copy.read_bytes()


def by_cp(path: Path) -> bytes:
    checkpoint(path)
    return path.read_bytes()


@pytest.mark.parametrize("backup", [by_inforce, by_cp])
@pytest.mark.parametrize("checkpointed", ["all", "some", "none"])
@pytest.mark.parametrize("idle", [True, False])
def test_an_older_copy_over_the_file_of_a_running_server(
    tmp_path: Path, backup: Callable[[Path], bytes], checkpointed: str, idle: bool
) -> None:
    """`cp backup.db ledger.db`: the same inode, so open connections notice nothing by themselves."""
    path, acknowledged = tmp_path / "ledger.db", Acknowledged()
    url = f"sqlite:///{path}"
    with run_server(url) as server:
        acknowledged.submit(server)
        older = backup(path)
        for number in range(40):
            acknowledged.submit(server, f"org:o{number}")
            if (number, checkpointed) in ((20, "some"), (39, "all")):
                checkpoint(path)
        newest = max(acknowledged.events)
        with path.open("r+b") as file:
            file.truncate(len(older))
            file.write(older)
        if not idle:
            # The next page of the log, and the next checkpoint, mix the two.
            for number in range(60):
                acknowledged.submit(server, f"org:p{number}")
            checkpoint(path)
        refused = acknowledged.submit(server)
        if "code" in refused:
            assert refused["code"] in NOT_RECORDED
            assert server.ask("GET", "/readyz").unavailable()["code"] in NOT_RECORDED
        else:
            # The log held every page that differs, and the copy beneath it was never read.
            assert checkpointed == "none"
            assert refused["position"] > newest
            events = server.ask("GET", "/v1/events?limit=1000").body["events"]
            assert acknowledged.events.items() <= {e["data"]["position"]: e["id"] for e in events}.items()
    for part in ("-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)
    path.write_bytes(older)
    with run_server(url) as server:
        assert acknowledged.submit(server)["code"] == "ledger_went_back"
        assert server.ask("GET", "/readyz").unavailable()["code"] == "ledger_went_back"
        assert any("ledger_went_back" in line for line in server.log)


@pytest.fixture
def server_url(request: pytest.FixtureRequest, database_url: str) -> str | None:
    if database_url.startswith("sqlite:"):
        return None
    url: str = request.getfixturevalue("postgres_server_url")
    return url


def test_an_older_copy_in_the_place_of_the_ledger_across_a_restart(
    database_url: str, tmp_path: Path, server_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged = Acknowledged()
    with run_server(database_url) as server:
        acknowledged.submit(server)
    put_older = copy_of(database_url, tmp_path, server_url)
    with run_server(database_url) as server:
        for number in range(3):
            acknowledged.submit(server, f"org:o{number}")
    put_older()
    with run_server(database_url) as server:
        for _ in range(2):
            assert acknowledged.submit(server)["code"] == "ledger_went_back"
        assert server.state("org:acme").body["position"] == GENESIS + 1
        assert server.ask("GET", f"/v1/events?after={GENESIS + 4}").body["code"] == "ahead_of_ledger"
        assert len([line for line in server.log if "ledger_went_back" in line]) == 1
        monkeypatch.setenv("INFORCE_DATABASE", database_url)
        # The operator goes on; the running server learns of it by itself.
        assert run("doctor", "head", "--acknowledge", "--reason", "restored the backup of Monday").code == 0
        acknowledged.events.clear()
        assert acknowledged.submit(server)["position"] == GENESIS + 4
        assert server.ask("GET", "/readyz").status == 200


def test_an_older_database_in_the_place_of_a_running_servers_one(
    postgres_url: str, tmp_path: Path, postgres_server_url: str
) -> None:
    acknowledged = Acknowledged()
    with run_server(postgres_url) as server:
        acknowledged.submit(server)
        put_older = copy_of(postgres_url, tmp_path, postgres_server_url)
        server.wait_until_ready()
        for number in range(3):
            acknowledged.submit(server, f"org:o{number}")
        put_older()
        codes = [acknowledged.submit(server)["code"] for _ in range(10)]
        assert set(codes) <= {"ledger_went_back", "ledger_unavailable"}
        assert codes[-1] == "ledger_went_back"
        assert server.ask("GET", "/readyz").unavailable()["code"] == "ledger_went_back"


@pytest.mark.parametrize("restart", [True, False])
def test_a_deleted_tail(database_url: str, restart: bool) -> None:
    acknowledged = Acknowledged()
    with run_server(database_url) as server:
        for _ in range(3):
            acknowledged.submit(server)
        delete_tail(database_url, GENESIS + 2)
        if not restart:
            assert acknowledged.submit(server)["code"] == "ledger_went_back"
            assert server.ask("GET", "/readyz").unavailable()["code"] == "ledger_went_back"
    # The server was killed: the note was written before the answer.
    with run_server(database_url) as server:
        assert acknowledged.submit(server)["code"] == "ledger_went_back"
    with open_ledger(database_url) as ledger:
        assert ledger.head().position == GENESIS + 2
