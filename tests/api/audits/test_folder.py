"""Audits in a folder are complete, expire at their microsecond, and leave no remains after a sweep."""

import os
from pathlib import Path

import pytest

from api.audits.folder import LOG, AlreadyClaimed, AuditFolder, claim, forget_progress, read, write
from api.audits.jobs import AuditOutcome, Job, Progress

KEEP = 1_000_000


def job(id_: str = "0" * 32, created_at: int = 5) -> Job:
    return Job(
        id=id_,
        created_at=created_at,
        map={"at": "t"},
        set={},
        timezone="UTC",
        log_format="csv",
        known_at="at",
        max_rejects=None,
        origin="x",
        position=3,
        recorded_at=4,
        leaf_hash="00",
        bytes=2,
        sha256="ff",
    )


@pytest.fixture
def folder(tmp_path: Path) -> AuditFolder:
    return AuditFolder(tmp_path / "audits", "x", KEEP)


def put(folder: AuditFolder, new_job: Job) -> Path:
    with folder.incoming() as incoming:
        (incoming / LOG).write_bytes(b"{}")
        folder.put(incoming, new_job)
    return folder.path_of(new_job.id)


def test_an_audit_that_was_put_is_read_back(folder: AuditFolder) -> None:
    path = put(folder, job())
    assert read(path, Job) == job()
    status = folder.status(job().id, 6)
    assert status is not None
    assert (status.job, status.state) == (job(), "queued")
    assert (path / LOG).read_bytes() == b"{}"
    assert os.listdir(folder.path) == [job().id]


def test_only_the_owner_may_read_the_folder(folder: AuditFolder) -> None:
    path = put(folder, job())
    assert [oct(where.stat().st_mode & 0o777) for where in (folder.path, path)] == ["0o700", "0o700"]


def test_an_outcome_expires_in_its_microsecond(folder: AuditFolder) -> None:
    path = put(folder, job())
    assert folder.status(job().id, 10**15) is not None, "an audit that has not ended never expires"
    write(path, AuditOutcome(finished_at=100))
    for now, there in ((100, True), (100 + KEEP - 1, True), (100 + KEEP, False), (100 + KEEP + 1, False)):
        assert (folder.status(job().id, now) is not None) == there, now
        assert (len(folder.statuses(now)) == 1) == there
    folder.sweep(100 + KEEP - 1)
    assert path.exists()
    folder.sweep(100 + KEEP)
    assert os.listdir(folder.path) == []


def test_the_oldest_audit_runs_first_and_the_newest_is_listed_first(folder: AuditFolder) -> None:
    for number, created_at in enumerate((7, 5, 6)):
        put(folder, job(f"{number}" * 32, created_at))
    write(folder.path_of("2" * 32), AuditOutcome(finished_at=9))
    assert [one.created_at for one in folder.waiting(10)] == [5, 7]
    assert [status.job.created_at for status in folder.statuses(10)] == [7, 6, 5]


def test_states(folder: AuditFolder) -> None:
    path = put(folder, job())
    states = []
    for record in (Progress(rows=1), AuditOutcome(finished_at=9)):
        write(path, record)
        status = folder.status(job().id, 10)
        assert status is not None
        states.append(status.state)
    assert states == ["running", "done"]


def test_an_upload_that_is_not_put_leaves_nothing(folder: AuditFolder) -> None:
    with folder.incoming() as incoming:
        (incoming / LOG).write_bytes(b"{}")
    assert os.listdir(folder.path) == []


def test_sweeping_removes_an_abandoned_upload_but_not_a_running_one(folder: AuditFolder) -> None:
    with folder.incoming() as incoming:
        folder.sweep(0)
        assert incoming.exists()
    abandoned = folder.path / f"incoming-{'a' * 32}"
    abandoned.mkdir()
    (abandoned / LOG).write_bytes(b"{}")
    folder.sweep(0)
    assert os.listdir(folder.path) == []


def test_sweeping_removes_an_audited_log_whose_process_was_killed_before_it_deleted_the_log(
    folder: AuditFolder,
) -> None:
    path = put(folder, job())
    folder.sweep(0)
    assert (path / LOG).exists()
    write(path, AuditOutcome(finished_at=5))
    folder.sweep(5)
    assert not (path / LOG).exists()
    assert folder.status(job().id, 5) is not None


@pytest.mark.parametrize("name", ["progress.json", "outcome.json", "job.json"])
@pytest.mark.parametrize("content", [b"", b"\0\0\0", b'{"rows": "many"}'])
def test_a_file_damaged_by_a_power_failure_counts_as_absent(folder: AuditFolder, name: str, content: bytes) -> None:
    damaged, whole = put(folder, job()), put(folder, job("1" * 32, 6))
    (damaged / name).write_bytes(content)
    folder.sweep(7)
    there = name != "job.json"
    status = folder.status(job().id, 7)
    assert (status is not None) == there
    assert status is None or status.state == "queued"
    assert [one.id for one in folder.waiting(7)] == [job().id] * there + [whole.name]


def test_a_claimed_audit_does_not_wait_and_keeps_its_progress(folder: AuditFolder) -> None:
    path = put(folder, job())
    with claim(path):
        write(path, Progress(rows=1))
        assert folder.waiting(6) == []
        forget_progress(path)
        assert read(path, Progress) == Progress(rows=1)
    assert folder.waiting(6) == [job()]
    forget_progress(path)
    assert read(path, Progress) is None
    write(path, Progress(rows=2))
    write(path, AuditOutcome(finished_at=9))
    forget_progress(path)
    assert read(path, Progress) == Progress(rows=2), "an ended audit keeps its progress"


def test_a_removed_audit_is_gone_at_once_and_its_files_at_the_next_sweep(folder: AuditFolder) -> None:
    put(folder, job())
    assert folder.remove(job().id)
    assert not folder.remove(job().id)
    assert folder.status(job().id, 6) is None
    assert folder.ids() == []
    folder.sweep(6)
    assert os.listdir(folder.path) == []


@pytest.mark.parametrize(
    "id_", ["..", "../x", "0" * 31, "0" * 33, "A" * 32, "", "0" * 31 + "\n", "incoming-" + "0" * 32]
)
def test_an_id_is_never_a_path(folder: AuditFolder, id_: str) -> None:
    put(folder, job())
    assert folder.status(id_, 6) is None


def test_only_one_process_at_a_time_claims_an_audit(folder: AuditFolder) -> None:
    path = put(folder, job())
    with claim(path), pytest.raises(AlreadyClaimed), claim(path):
        pass
    with claim(path):
        pass


def test_audits_of_another_ledger_are_left_alone(folder: AuditFolder) -> None:
    other = AuditFolder(folder.path, "y", KEEP)
    path = put(folder, job())
    write(path, AuditOutcome(finished_at=5))
    assert (other.status(job().id, 6), other.statuses(6), other.waiting(6)) == (None, [], [])
    other.sweep(5 + KEEP)
    assert path.exists()
    folder.sweep(5 + KEEP)
    assert not path.exists()


def test_an_absent_folder_counts_as_empty(folder: AuditFolder) -> None:
    folder.sweep(0)
    assert (folder.ids(), folder.statuses(0)) == ([], [])
