"""Uploads to the real server: one that is too large, interrupted or too slow leaves nothing."""

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.audits import upload
from api.audits.service import AuditSettings
from api.service import Service
from ledger.errors import BadInput
from tests.api.audits.logs import NDJSON, log
from tests.api.client import problem
from tests.api.server_process import running, talk
from tests.support.waiting import GIVE_UP_S, until

BYTES_MAX = 3 * upload.PIECE


@pytest.fixture
def small(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server that accepts small logs only."""
    service = Service.open(f"sqlite:///{tmp_path}/ledger.db", audits=AuditSettings(bytes_max=BYTES_MAX))
    try:
        with TestClient(create_app(service, sign_in=False)) as client:
            yield client
    finally:
        service.close()


def left(tmp_path: Path) -> list[str]:
    folder = tmp_path / "ledger.db.audits"
    return os.listdir(folder) if folder.exists() else []


def in_chunks(size: int) -> Iterator[bytes]:
    """A body that is sent without a Content-Length."""
    while size:
        chunk = b"\n" * min(size, 100_000)
        size -= len(chunk)
        yield chunk


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "accepted"), [(BYTES_MAX - 1, True), (BYTES_MAX, True), (BYTES_MAX + 1, False)])
def test_the_size_of_a_log_is_limited(
    small: TestClient, tmp_path: Path, chunked: bool, size: int, accepted: bool
) -> None:
    answer = small.post("/v1/audits", content=in_chunks(size) if chunked else b"\n" * size, headers=NDJSON)
    if accepted:
        assert answer.status_code == 202, answer.text
        assert answer.json()["log"]["bytes"] == size
    else:
        problem(answer, "body_too_large")
        assert left(tmp_path) == []


def test_a_log_that_does_not_fit_leaves_nothing(
    small: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(upload, "_store", full)
    problem(small.post("/v1/audits", content=log(10), headers=NDJSON), "no_space")
    assert left(tmp_path) == []


def test_the_number_of_audits_is_limited(tmp_path: Path) -> None:
    service = Service.open(f"sqlite:///{tmp_path}/ledger.db", audits=AuditSettings(count_max=2))
    with closing(service), TestClient(create_app(service, sign_in=False)) as two:
        first, _second = (two.post("/v1/audits", content=log(1), headers=NDJSON).json() for _ in range(2))
        problem(two.post("/v1/audits", content=log(1), headers=NDJSON), "audits_full")
        assert two.delete(f"/v1/audits/{first['id']}").status_code == 204
        assert two.post("/v1/audits", content=log(1), headers=NDJSON).status_code == 202


def test_a_client_that_hangs_up_leaves_nothing(tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path}/ledger.db") as (_process, port):
        for head in (b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as sender:
                sender.sendall(
                    b"POST /v1/audits HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n" + head + b"\r\n"
                )
                sender.sendall(b"2710\r\n" + b"\n" * 10_000 + b"\r\n")
                until(lambda: left(tmp_path))
                assert [name[:9] for name in left(tmp_path)] == ["incoming-"]
            until(lambda: not left(tmp_path))
        assert talk(port, "GET", "/v1/audits")[2] == b'{"audits":[]}'


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        ("upload.SECONDS_MAX = 0.3", "no bytes of the log arrived for"),
        (
            "upload.SECONDS_MAX = 2.0; upload.BYTES_PER_SECOND_MIN = 10**12",
            "less than 1,000,000,000,000 bytes a second",
        ),
    ],
)
def test_a_silent_or_slow_client_is_refused(tmp_path: Path, bounds: str, why: str) -> None:
    before = f"import api.audits.upload as upload; {bounds};"
    with (
        running(f"sqlite:///{tmp_path}/ledger.db", before=before) as (_process, port),
        socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S) as sender,
    ):
        sender.sendall(
            b"POST /v1/audits HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n\r\n"
        )
        for _byte in range(1000 if "BYTES_PER_SECOND_MIN" in bounds else 1):
            try:
                sender.sendall(b"\n")
                sender.settimeout(0.01)
                answer = sender.recv(4096)
            except TimeoutError:
                continue
            break
        else:
            sender.settimeout(GIVE_UP_S)
            answer = sender.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert why.encode() in answer
        assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "sent_as", "code"),
    [
        ("/v1/audits", "text/plain", "unsupported_media_type"),
        ("/v1/audits?what=else", "text/csv", "bad_parameter"),
    ],
)
def test_a_client_that_is_refused_while_it_sends_reads_the_problem(
    tmp_path: Path, path: str, sent_as: str, code: str
) -> None:
    with running(f"sqlite:///{tmp_path}/ledger.db") as (_process, port):
        for _try in range(3):
            answer = talk(port, "POST", path, b"\n" * (64 << 20), Content_Type=sent_as)
            assert json.loads(answer[2])["code"] == code
        assert left(tmp_path) == []


def test_a_client_that_expects_100_continue_is_refused_at_once(tmp_path: Path) -> None:
    with (
        running(f"sqlite:///{tmp_path}/ledger.db") as (_process, port),
        socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S) as sender,
    ):
        head = b"POST /v1/audits HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Type: text/csv\r\n"
        sender.sendall(head + b"Content-Length: 5000000000\r\n\r\n")
        assert sender.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_missing_folder_is_a_problem_for_the_operator(small: TestClient, tmp_path: Path) -> None:
    folder = tmp_path / "ledger.db.audits"
    folder.write_text("a file in its place")
    for answer in (small.post("/v1/audits", content=log(1), headers=NDJSON), small.get("/v1/audits")):
        assert str(folder) not in problem(answer, "audits_unavailable")["detail"]
    folder.unlink()

    def going(size: int) -> Iterator[bytes]:
        yield from in_chunks(size)
        shutil.rmtree(folder)

    for _once_more in range(2):
        problem(small.post("/v1/audits", content=going(100), headers=NDJSON), "audits_unavailable")
    assert small.post("/v1/audits", content=log(1), headers=NDJSON).status_code == 202


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_an_invalid_retention_time_is_refused(tmp_path: Path, hours: float) -> None:
    with pytest.raises(BadInput, match="at most 876,000 hours"):
        Service.open(f"sqlite:///{tmp_path}/ledger.db", audits=AuditSettings(keep_hours=hours))


@pytest.mark.skipif(not Path("/proc").exists(), reason="memory is looked up in /proc")
def test_a_log_is_never_wholly_in_memory(tmp_path: Path) -> None:
    size = 128 << 20
    with running(f"sqlite:///{tmp_path}/ledger.db") as (process, port):
        # The first upload loads code, which must not count.
        assert talk(port, "POST", "/v1/audits", b"{}", Content_Type="text/csv")[0] == 202
        before = peak(process.pid)
        status, _, sent = talk(port, "POST", "/v1/audits", b"\n" * size, Content_Type="text/csv")
        assert (status, json.loads(sent)["log"]["bytes"]) == (202, size)
        assert peak(process.pid) - before < size // 4


def peak(process: int) -> int:
    """The process's highest resident memory so far, in bytes."""
    (line,) = (line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
