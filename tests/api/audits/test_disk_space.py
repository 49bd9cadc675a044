"""Audits leave free disk space for the ledger."""

import errno
import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.audits.folder import LOG, RESERVE_BYTES, require_disk_space
from api.audits.worker_process import outcome_of
from projections.query.query import PinnedQuery, Query
from tests.api.audits.logs import NDJSON, log
from tests.api.client import problem
from tests.api.routes.test_audits import job_of


def disk(monkeypatch: pytest.MonkeyPatch, total: int, *free: int) -> None:
    """Simulates a disk of `total` bytes. Each look finds the next of `free`; further looks find the last."""
    looks = list(free)

    def disk_usage(_path: Any) -> Any:
        left = looks.pop(0) if len(looks) > 1 else looks[0]
        return shutil._ntuple_diskusage(total, total - left, left)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)


@pytest.mark.parametrize("total", [RESERVE_BYTES * 100, RESERVE_BYTES])
def test_the_reserve_is_kept_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, total: int) -> None:
    spared = min(RESERVE_BYTES, total // 10)
    for free, bytes_, fits in (
        (spared, 0, True),
        (spared - 1, 0, False),
        (spared + 5, 5, True),
        (spared + 5, 6, False),
    ):
        disk(monkeypatch, total, free)
        if fits:
            require_disk_space(tmp_path, bytes_)
        else:
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                require_disk_space(tmp_path, bytes_)


@pytest.mark.parametrize("free", [(0,), (RESERVE_BYTES * 2, 0)])
def test_a_log_is_refused_if_it_would_use_the_reserve(
    sqlite_client: TestClient, monkeypatch: pytest.MonkeyPatch, free: tuple[int, ...]
) -> None:
    disk(monkeypatch, RESERVE_BYTES * 100, *free)
    problem(sqlite_client.post("/v1/audits", content=log(10), headers=NDJSON), "no_space")


def test_an_audit_ends_before_its_rejects_fill_the_disk(
    sqlite_client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ledger = sqlite_client.app.state.service.ledger  # type: ignore[attr-defined]  # ours, not any ASGI application
    body = gzip.compress(b"{}\n" * 25_000)
    (tmp_path / LOG).write_bytes(body)
    monkeypatch.chdir(tmp_path)
    job = job_of(PinnedQuery(Query(ledger)), "at", body, None)
    disk(monkeypatch, RESERVE_BYTES * 100, RESERVE_BYTES, RESERVE_BYTES, 0)
    outcome = outcome_of(ledger, tmp_path, job)
    assert outcome.error is not None
    assert outcome.error.code == "no_space"
    assert not list(tmp_path.glob("rejects*"))
