"""Audits and the processes that run them: whatever is killed, whenever, the audit comes to the same."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient

from api.app import create_app
from api.audits.folder import LOG, AuditFolder, read, write
from api.audits.jobs import AuditOutcome, Job
from api.audits.scheduler import AuditScheduler
from tests.api.audits.logs import PATIENCE_S, ended, log, send
from tests.api.audits.test_folder import job, put
from tests.api.client import changed, get, submit
from tests.api.server_process import running, talk

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked for in /proc")

ROWS = 400_000
"""A log that takes a while."""


def children_of(folder: Path) -> list[int]:
    """The processes that audit something in this folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"api.audits.worker_process" in words and any(word.startswith(bytes(folder)) for word in words):
                found.append(int(process.name))
    return found


def gone(child: int, folder: Path) -> bool:
    return child not in children_of(folder)


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.001)
    return found


@pytest.fixture(scope="module")
def body() -> bytes:
    return log(ROWS)


@pytest.fixture
def audits(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db.audits"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[TestClient]:
    """A ledger that somebody told what to do with the data of the log."""
    with TestClient(create_app(f"sqlite:///{tmp_path}/ledger.db")) as client:
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


def test_an_audit_whose_process_is_killed_is_begun_again(told: TestClient, audits: Path, body: bytes) -> None:
    id_ = send(told, body)["id"]
    until(lambda: get(told, f"/v1/audits/{id_}")["progress"]["rows"])
    (child,) = children_of(audits)
    # A few kilobytes of Parquet unfold to gigabytes: where memory ends, it must not be the server that goes.
    assert Path(f"/proc/{child}/oom_score_adj").read_text() == "1000\n"
    os.kill(child, signal.SIGKILL)
    assert_whole(told, ended(told, id_))
    assert child not in children_of(audits)


def test_an_audit_whose_process_always_fails_has_failed(told: TestClient, audits: Path, body: bytes) -> None:
    id_ = send(told, body)["id"]
    # At the first sight of each, so that some have not even been told their ledger.
    for _try in range(3):
        (child,) = until(lambda: children_of(audits))
        os.kill(child, signal.SIGKILL)
        until(partial(gone, child, audits))
    audit = ended(told, id_)
    assert (audit["state"], audit["error"]["code"]) == ("failed", "audit_failed")
    assert "crashed 3 times, the last time with exit code -9" in audit["error"]["detail"]


class Grief(AuditScheduler):
    """Of its processes the first two end at once, and the third when it has audited."""

    def _run_process(self, job: Job) -> int:
        self.begun = [*getattr(self, "begun", ()), job.id]
        if len(self.begun) == 3:
            write(self._folder.path_of(job.id), AuditOutcome(finished_at=9, findings=7))
        return -signal.SIGSEGV


def test_a_process_that_dies_when_its_audit_is_done_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.audits.scheduler._RETRY_S", 0.0)
    folder = AuditFolder(tmp_path / "audits", "x", 1_000_000)
    path = put(folder, job())
    projector = Grief(folder, "", lambda: 10)
    projector.start()
    until(lambda: read(path, AuditOutcome))
    projector.close()
    assert read(path, AuditOutcome) == AuditOutcome(finished_at=9, findings=7)
    assert len(projector.begun) == 3


def test_an_audit_that_is_deleted_is_cancelled(told: TestClient, audits: Path, body: bytes) -> None:
    id_ = send(told, body)["id"]
    (child,) = until(lambda: children_of(audits))
    assert told.delete(f"/v1/audits/{id_}").status_code == 204
    until(partial(gone, child, audits))
    until(lambda: not os.listdir(audits))
    # And the next has its turn.
    assert ended(told, send(told, log(10))["id"])["state"] == "done"


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_is_killed_loses_no_audit(tmp_path: Path, audits: Path, body: bytes, stop: int) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with running(url) as (process, port):
        change = changed("org:acme", "storage.inputs_outputs", False)
        assert talk(port, "POST", "/v1/events", json.dumps(change))[0] == 201
        status, _, sent = talk(port, "POST", "/v1/audits", body, Content_Type="application/x-ndjson")
        assert status == 202
        id_ = json.loads(sent)["id"]
        (child,) = until(lambda: children_of(audits))
        process.send_signal(stop)
        process.wait(30)
        until(partial(gone, child, audits))
    with TestClient(create_app(url)) as client:
        # Said after the audit was taken, so it is not judged by it.
        submit(client, changed("org:acme", "storage.inputs_outputs", True))
        audit = ended(client, id_)
        assert audit["pin"] == json.loads(sent)["pin"]
        assert_whole(client, audit)


def test_two_servers_of_one_ledger_audit_once(told: TestClient, tmp_path: Path, audits: Path, body: bytes) -> None:
    id_ = send(told, body)["id"]
    with TestClient(create_app(f"sqlite:///{tmp_path}/ledger.db")) as other:
        most = 0
        states = ["queued"]
        while states[-1] != "done":
            states.append(get(other, f"/v1/audits/{id_}")["state"])
            most = max(most, sum(reads(child, audits / id_ / LOG) for child in children_of(audits)))
            time.sleep(0.01)
        assert most == 1
        # The one that has not got it does not say that it waits.
        assert [state for state, _ in groupby(states)] == ["queued", "running", "done"]
        assert_whole(other, get(other, f"/v1/audits/{id_}"))


def test_what_a_server_leaves_undone_another_that_was_never_sent_a_log_takes_up(
    tmp_path: Path, audits: Path, body: bytes
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    # Both are there before there is a folder.
    with running(url) as (process, port), TestClient(create_app(url)) as other:
        submit(other, changed("org:acme", "storage.inputs_outputs", False))
        status, _, sent = talk(port, "POST", "/v1/audits", body, Content_Type="application/x-ndjson")
        assert status == 202
        until(lambda: children_of(audits))
        process.kill()
        assert_whole(other, ended(other, json.loads(sent)["id"]))


def test_what_is_deleted_frees_its_place_though_another_audit_runs(told: TestClient, audits: Path, body: bytes) -> None:
    first = ended(told, send(told, log(10))["id"])
    second = send(told, body * 3)["id"]
    until(lambda: get(told, f"/v1/audits/{second}")["state"] == "running")
    assert told.delete(f"/v1/audits/{first['id']}").status_code == 204
    until(lambda: os.listdir(audits) == [second])
    assert get(told, f"/v1/audits/{second}")["state"] == "running"


def reads(process: int, file: Path) -> bool:
    """Whether it has the file open."""
    try:
        return any(os.readlink(opened) == str(file) for opened in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False


@pytest.mark.parametrize("behind", [False, True])
def test_a_ledger_that_is_no_longer_the_one_of_the_pin_is_not_judged_by(
    told: TestClient, audits: Path, behind: bool
) -> None:
    id_ = send(told, log(10))["id"]
    ended(told, id_)
    job = read(audits / id_, Job)
    assert job is not None
    (audits / id_ / LOG).write_bytes(log(10))
    write(audits / id_, replace(job, position=10_000) if behind else replace(job, leaf_hash="00" * 32))
    (audits / id_ / "outcome.json").unlink()
    audit = ended(told, id_)
    assert (audit["state"], audit["error"]["code"]) == ("failed", "ledger_changed")
    assert "at position 19 now" in audit["error"]["detail"]


def test_a_ledger_that_cannot_be_asked_is_waited_for(told: TestClient, tmp_path: Path, audits: Path) -> None:
    ledger = tmp_path / "ledger.db"
    away = tmp_path / "away"
    away.mkdir()
    id_ = send(told, log(10))["id"]
    # Before the process has opened it.
    for file in tmp_path.glob("ledger.db*"):
        if file.is_file():
            file.rename(away / file.name)
    time.sleep(3)
    assert get(told, f"/v1/audits/{id_}")["state"] in ("queued", "running")
    for file in away.iterdir():
        file.rename(ledger.with_name(file.name))
    assert ended(told, id_)["state"] == "done"
