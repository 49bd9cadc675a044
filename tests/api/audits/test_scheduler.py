"""An audit has the same result whichever process is killed, at any time."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient

from api.app import create_app
from api.audits.folder import LOG, AuditFolder, read, write
from api.audits.jobs import EXIT_LEDGER_UNAVAILABLE, AuditOutcome, Job
from api.audits.scheduler import AuditScheduler
from tests.api.audits.logs import ended, log, send
from tests.api.audits.test_folder import job, put
from tests.api.client import GENESIS, changed, get, submit
from tests.api.server_process import running, talk
from tests.support.waiting import GIVE_UP_S, until

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes in /proc")

ROWS = 400_000
"""Enough for an audit of several seconds."""


def audit_processes(folder: Path) -> list[int]:
    """The processes that run audits of this folder."""
    result = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"api.audits.worker_process" in words and any(word.startswith(bytes(folder)) for word in words):
                result.append(int(process.name))
    return result


def gone(process_id: int, folder: Path) -> bool:
    return process_id not in audit_processes(folder)


@pytest.fixture(scope="module")
def body() -> bytes:
    return log(ROWS)


@pytest.fixture
def audits(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db.audits"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a ledger with a setting for the organization of the log."""
    with TestClient(create_app(f"sqlite:///{tmp_path}/ledger.db", sign_in=False)) as client:
        submit(client, changed("org:acme", "storage.inputs_outputs", False))
        yield client


def assert_whole(client: TestClient, audit: dict[str, Any]) -> None:
    assert (audit["state"], audit["error"]) == ("done", None)
    assert audit["summary"]["verdicts"] == {"violation": ROWS // 2, "compliant": ROWS // 2}
    for after in (0, ROWS // 2 - 1000):
        page = get(client, f"/v1/audits/{audit['id']}/findings?after={after}&limit=1000")
        assert [finding["line"] for finding in page["findings"]] == list(range(2 * after + 1, 2 * after + 2000, 2))
        assert page["next_after"] == (after + 1000 if after == 0 else None)
    assert audit["findings"] == ROWS // 2


def test_an_audit_whose_process_is_killed_is_started_again(client: TestClient, audits: Path, body: bytes) -> None:
    id_ = send(client, body)["id"]
    until(lambda: get(client, f"/v1/audits/{id_}")["progress"]["rows"])
    (process_id,) = audit_processes(audits)
    # A few kilobytes of Parquet may expand to gigabytes. If memory runs out, the server must survive.
    assert Path(f"/proc/{process_id}/oom_score_adj").read_text() == "1000\n"
    os.kill(process_id, signal.SIGKILL)
    assert_whole(client, ended(client, id_))
    assert process_id not in audit_processes(audits)


def test_an_audit_whose_process_always_crashes_fails(client: TestClient, audits: Path, body: bytes) -> None:
    id_ = send(client, body)["id"]
    # As soon as each one appears, so that some have not even read the URL of the ledger.
    for _try in range(3):
        (process_id,) = until(lambda: audit_processes(audits))
        os.kill(process_id, signal.SIGKILL)
        until(partial(gone, process_id, audits))
    audit = ended(client, id_)
    assert (audit["state"], audit["error"]["code"]) == ("failed", "audit_failed")
    assert "crashed 3 times, the last time with exit code -9" in audit["error"]["detail"]


class CrashingScheduler(AuditScheduler):
    """The first two processes crash at once, the third after it wrote the outcome."""

    def _run_process(self, job: Job) -> int:
        self.started = [*getattr(self, "started", ()), job.id]
        if len(self.started) == 3:
            write(self._folder.path_of(job.id), AuditOutcome(finished_at=9, findings=7))
        return -signal.SIGSEGV


def test_a_crash_after_the_outcome_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.audits.scheduler._RETRY_S", 0.0)
    folder = AuditFolder(tmp_path / "audits", "x", 1_000_000)
    path = put(folder, job())
    scheduler = CrashingScheduler(folder, "", lambda: 10)
    scheduler.start()
    until(lambda: read(path, AuditOutcome))
    scheduler.close()
    assert read(path, AuditOutcome) == AuditOutcome(finished_at=9, findings=7)
    assert len(scheduler.started) == 3


def test_an_audit_that_is_deleted_is_cancelled(client: TestClient, audits: Path, body: bytes) -> None:
    id_ = send(client, body)["id"]
    (process_id,) = until(lambda: audit_processes(audits))
    assert client.delete(f"/v1/audits/{id_}").status_code == 204
    until(partial(gone, process_id, audits))
    until(lambda: not os.listdir(audits))
    # The next audit runs.
    assert ended(client, send(client, log(10))["id"])["state"] == "done"


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_is_killed_loses_no_audit(tmp_path: Path, audits: Path, body: bytes, stop: int) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with running(url) as (process, port):
        change = changed("org:acme", "storage.inputs_outputs", False)
        assert talk(port, "POST", "/v1/events", json.dumps(change))[0] == 201
        status, _, sent = talk(port, "POST", "/v1/audits", body, Content_Type="application/x-ndjson")
        assert status == 202
        id_ = json.loads(sent)["id"]
        (process_id,) = until(lambda: audit_processes(audits))
        process.send_signal(stop)
        process.wait(GIVE_UP_S)
        until(partial(gone, process_id, audits))
    with TestClient(create_app(url, sign_in=False)) as client:
        # Recorded after the audit was pinned, so it must not count.
        submit(client, changed("org:acme", "storage.inputs_outputs", True))
        audit = ended(client, id_)
        assert audit["pin"] == json.loads(sent)["pin"]
        assert_whole(client, audit)


def test_two_servers_of_one_ledger_audit_once(client: TestClient, tmp_path: Path, audits: Path, body: bytes) -> None:
    id_ = send(client, body)["id"]
    with TestClient(create_app(f"sqlite:///{tmp_path}/ledger.db", sign_in=False)) as other:
        most = 0
        states = ["queued"]
        while states[-1] != "done":
            states.append(get(other, f"/v1/audits/{id_}")["state"])
            most = max(most, sum(reads(process_id, audits / id_ / LOG) for process_id in audit_processes(audits)))
            time.sleep(0.01)
        assert most == 1
        # The server that does not run the audit never shows it as queued again.
        assert [state for state, _ in groupby(states)] == ["queued", "running", "done"]
        assert_whole(other, get(other, f"/v1/audits/{id_}"))


def test_a_server_continues_the_audit_of_another_that_was_killed(tmp_path: Path, audits: Path, body: bytes) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    # Both servers run before the folder exists.
    with running(url) as (process, port), TestClient(create_app(url, sign_in=False)) as other:
        submit(other, changed("org:acme", "storage.inputs_outputs", False))
        status, _, sent = talk(port, "POST", "/v1/audits", body, Content_Type="application/x-ndjson")
        assert status == 202
        until(lambda: audit_processes(audits))
        process.kill()
        assert_whole(other, ended(other, json.loads(sent)["id"]))


def test_deleting_an_audit_frees_its_disk_space_while_another_runs(
    client: TestClient, audits: Path, body: bytes
) -> None:
    first = ended(client, send(client, log(10))["id"])
    second = send(client, body * 3)["id"]
    until(lambda: get(client, f"/v1/audits/{second}")["state"] == "running")
    assert client.delete(f"/v1/audits/{first['id']}").status_code == 204
    until(lambda: os.listdir(audits) == [second])
    assert get(client, f"/v1/audits/{second}")["state"] == "running"


def reads(process: int, file: Path) -> bool:
    """Whether the process has the file open."""
    try:
        return any(os.readlink(opened) == str(file) for opened in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False


@pytest.mark.parametrize("behind", [False, True])
def test_an_audit_fails_if_the_ledger_no_longer_holds_its_pin(client: TestClient, audits: Path, behind: bool) -> None:
    id_ = send(client, log(10))["id"]
    ended(client, id_)
    job = read(audits / id_, Job)
    assert job is not None
    (audits / id_ / LOG).write_bytes(log(10))
    write(audits / id_, replace(job, position=10_000) if behind else replace(job, leaf_hash="00" * 32))
    (audits / id_ / "outcome.json").unlink()
    audit = ended(client, id_)
    assert (audit["state"], audit["error"]["code"]) == ("failed", "ledger_changed")
    assert f"at position {GENESIS + 1} now" in audit["error"]["detail"]


def test_an_audit_waits_for_an_unavailable_ledger(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_start = threading.Event()
    codes: list[int | None] = []
    run_process = AuditScheduler._run_process

    def run_later(scheduler: AuditScheduler, job: Job) -> int | None:
        assert may_start.wait(GIVE_UP_S)
        codes.append(run_process(scheduler, job))
        return codes[-1]

    monkeypatch.setattr(AuditScheduler, "_run_process", run_later)
    ledger = tmp_path / "ledger.db"
    away = tmp_path / "away"
    away.mkdir()
    id_ = send(client, log(10))["id"]
    for file in tmp_path.glob("ledger.db*"):
        if file.is_file():
            file.rename(away / file.name)
    may_start.set()
    until(lambda: codes)
    assert codes[0] == EXIT_LEDGER_UNAVAILABLE
    assert get(client, f"/v1/audits/{id_}")["state"] in ("queued", "running")
    for file in away.iterdir():
        file.rename(ledger.with_name(file.name))
    assert ended(client, id_)["state"] == "done"
