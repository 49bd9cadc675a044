"""Audits in a folder: what is there is whole, what expires goes in its microsecond, and rubbish is swept away."""

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


def put(folder: AuditFolder, made: Job) -> Path:
    with folder.incoming() as incoming:
        (incoming / LOG).write_bytes(b"{}")
        folder.put(incoming, made)
    return folder.path_of(made.id)


def test_what_was_put_is_read_again(folder: AuditFolder) -> None:
    path = put(folder, job())
    assert read(path, Job) == job()
    view = folder.status(job().id, 6)
    assert view is not None
    assert (view.job, view.state) == (job(), "queued")
    assert (path / LOG).read_bytes() == b"{}"
    assert os.listdir(folder.path) == [job().id]


def test_only_its_owner_may_look(folder: AuditFolder) -> None:
    path = put(folder, job())
    assert [oct(where.stat().st_mode & 0o777) for where in (folder.path, path)] == ["0o700", "0o700"]


def test_an_outcome_expires_in_its_microsecond(folder: AuditFolder) -> None:
    path = put(folder, job())
    assert folder.status(job().id, 10**15) is not None, "what has not ended never expires"
    write(path, AuditOutcome(finished_at=100))
    for now, there in ((100, True), (100 + KEEP - 1, True), (100 + KEEP, False), (100 + KEEP + 1, False)):
        assert (folder.status(job().id, now) is not None) == there, now
        assert (len(folder.statuses(now)) == 1) == there
    folder.sweep(100 + KEEP - 1)
    assert path.exists()
    folder.sweep(100 + KEEP)
    assert os.listdir(folder.path) == []


def test_the_oldest_has_its_turn_first_and_the_newest_is_shown_first(folder: AuditFolder) -> None:
    for number, created_at in enumerate((7, 5, 6)):
        put(folder, job(f"{number}" * 32, created_at))
    write(folder.path_of("2" * 32), AuditOutcome(finished_at=9))
    assert [one.created_at for one in folder.waiting(10)] == [5, 7]
    assert [view.job.created_at for view in folder.statuses(10)] == [7, 6, 5]


def test_states(folder: AuditFolder) -> None:
    path = put(folder, job())
    states = []
    for record in (Progress(rows=1), AuditOutcome(finished_at=9)):
        write(path, record)
        view = folder.status(job().id, 10)
        assert view is not None
        states.append(view.state)
    assert states == ["running", "done"]


def test_what_is_not_put_leaves_nothing(folder: AuditFolder) -> None:
    with folder.incoming() as incoming:
        (incoming / LOG).write_bytes(b"{}")
    assert os.listdir(folder.path) == []


def test_what_is_being_received_is_not_swept_away_and_what_was_given_up_is(folder: AuditFolder) -> None:
    with folder.incoming() as incoming:
        folder.sweep(0)
        assert incoming.exists()
    abandoned = folder.path / f"incoming-{'a' * 32}"
    abandoned.mkdir()
    (abandoned / LOG).write_bytes(b"{}")
    folder.sweep(0)
    assert os.listdir(folder.path) == []


def test_a_log_that_was_audited_goes_though_its_process_was_cut_off_before_it_could_delete_it(
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
def test_a_file_that_a_power_cut_left_empty_is_as_if_it_were_not_there(
    folder: AuditFolder, name: str, content: bytes
) -> None:
    damaged, whole = put(folder, job()), put(folder, job("1" * 32, 6))
    (damaged / name).write_bytes(content)
    folder.sweep(7)
    there = name != "job.json"
    view = folder.status(job().id, 7)
    assert (view is not None) == there
    assert view is None or view.state == "queued"
    assert [one.id for one in folder.waiting(7)] == [job().id] * there + [whole.name]


def test_what_somebody_has_in_hand_does_not_wait_and_keeps_its_progress(folder: AuditFolder) -> None:
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
    assert read(path, Progress) == Progress(rows=2), "what has ended keeps how far it came"


def test_what_is_removed_is_gone_at_once_and_its_files_at_the_next_sweep(folder: AuditFolder) -> None:
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


def test_one_at_a_time_has_an_audit_in_hand(folder: AuditFolder) -> None:
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


def test_a_folder_that_is_not_there_is_empty(folder: AuditFolder) -> None:
    folder.sweep(0)
    assert (folder.ids(), folder.statuses(0)) == ([], [])
