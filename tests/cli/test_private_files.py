"""Every file and folder that a verb or the server writes can be read by its owner only, also under umask 000."""

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.service import Service
from ledger.opening import open_ledger
from ledger.private_files import make_private_file, make_private_folder, open_private
from tests.support.command import Inforce, run
from tests.support.ledgers import change, submit
from tests.support.waiting import GIVE_UP_S

REPOSITORY = Path(__file__).resolve().parents[2]
LOG = '{"request_id":"r1","at":"2026-03-01T00:00:00Z","org_id":"acme","handling":{"trained":true}}\nno JSON\n'


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def private_homes(folder: Path, no_umask: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the user's folders below it; neither is there yet."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(folder / "home" / name))
    return folder


def open_to_others(folder: Path, *but: str) -> list[str]:
    """The files and folders below `folder` that group or others may use, without the inputs `but`."""
    return sorted(
        f"{path.relative_to(folder)} {stat.S_IMODE(path.lstat().st_mode):o}"
        for path in folder.rglob("*")
        if path.name not in but and path.lstat().st_mode & 0o077
    )


def check(folder: Path, *expected: str) -> None:
    """Whether the files are there, and all are private."""
    names = {path.name for path in folder.rglob("*")}
    assert names.issuperset(expected), names
    assert open_to_others(folder, "requests.jsonl", "submissions.jsonl") == []


def test_the_ledger_and_everything_beside_it_is_private(database_url: str, private_homes: Path, tmp_path: Path) -> None:
    with open_ledger(database_url, create=True) as ledger:
        submit(ledger, change(reason="ticket 4711"))
        if database_url.startswith("sqlite"):
            for suffix in ("", "-wal", "-shm", "-head"):
                mode = (tmp_path / f"ledger.db{suffix}").stat().st_mode
                assert stat.S_IMODE(mode) == 0o600, suffix
    assert open_to_others(private_homes) == []


def test_what_each_verb_writes_is_private(
    inforce_on_both: Inforce, private_homes: Path, database_url: str, tmp_path: Path
) -> None:
    inforce, folder = inforce_on_both, private_homes
    (folder / "requests.jsonl").write_text(LOG)
    assert inforce("submit", "org:acme", "training.opt_in", "false", "--reason", "ticket 4711").code == 0
    assert inforce("state", "org:acme").code == 0
    assert inforce("history", "org:acme").code == 0
    assert inforce("rebuild").code == 0
    report = ("--report", "deep/report")
    for name in ("verdicts.parquet", "verdicts.csv", "verdicts.ndjson"):
        outputs = ("--out", name, "--rejects", "rejects.jsonl", *report)
        audit = inforce("audit", "requests.jsonl", *outputs, "--max-rejects", "9")
        assert audit.code in (0, 1, 4), audit
        check(folder, name, "rejects.jsonl", "report")
    index = tmp_path if database_url.startswith("sqlite") else folder / "home" / "XDG_CACHE_HOME"
    assert any(path.name.startswith("generation-") for path in index.rglob("*"))
    assert inforce("export", "--out", "events.jsonl", "--personal", "reasons.jsonl").code == 0
    again = ("--personal", "reasons.jsonl", "--db", f"sqlite:///{folder}/imported.db")
    assert inforce("import", "events.jsonl", *again).code == 0
    assert inforce("backup", "backup.db", "--db", f"sqlite:///{folder}/imported.db").code == 0
    check(folder, "events.jsonl", "reasons.jsonl", "imported.db", "backup.db")
    if database_url.startswith("sqlite"):
        assert open_to_others(tmp_path, "work", "requests.jsonl") == []


def test_the_demos_folder_is_private(private_homes: Path) -> None:
    result = run("demo", "--requests", "2000", "--keep", "kept/demo")
    assert result.code in (0, 1), result.err
    check(private_homes, "kept", "demo", "ledger.db")


def test_what_the_server_keeps_of_an_audit_is_private(database_url: str, private_homes: Path, tmp_path: Path) -> None:
    service = Service.open(database_url)
    try:
        with TestClient(create_app(service, sign_in=False)) as client:
            client.post("/v1/events", json=change(reason="ticket 4711"))
            answer = client.post("/v1/audits", content=LOG, headers={"Content-Type": "application/x-ndjson"})
            assert answer.status_code == 202, answer.text
            until = time.monotonic() + GIVE_UP_S
            while (state := client.get(answer.headers["location"]).json()["state"]) not in ("done", "failed"):
                assert time.monotonic() < until
                time.sleep(0.1)
            assert state == "done"
            kept = tmp_path if database_url.startswith("sqlite") else private_homes / "home"
            names = {path.name for path in kept.rglob("*")}
            assert len(names) > 5
            assert open_to_others(kept, "work") == []
    finally:
        service.close()


WRITERS = re.compile(
    r"\.mkdir\(|makedirs|write_text\(|write_bytes\(|NamedTemporary|mkstemp|savez?\("
    r"|\bopen\([^)]*[\"'](?:[wxa]b?\+?|r\+b)[\"']"
)
EXCEPTIONS = {
    # A pipe or a device, which exists.
    ("scripts/cli/files.py", 'with Path(name).open("wb") as file:'),
    ("api/audits/worker_process.py", 'Path("/proc/self/oom_score_adj").write_text("1000")'),
    # A file of the index, which exists.
    ("projections/audit/index/storage.py", 'with (stored.generation / name).open("r+b") as file:'),
    # Compiled code and rows that compile it: of nobody's data, and for all users of an installation.
    ("projections/audit/stored_code.py", 'with open(temporary, "xb", opener=_opener(folder.file_mode)) as file:'),
    (
        "projections/audit/stored_code.py",
        'return open(folder.path / f"{name}lock", "ab", opener=_opener(folder.file_mode))',
    ),
    ("projections/audit/stored_code.py", "above.mkdir()"),
    ("projections/audit/compile_ahead.py", "lines.write_bytes(_ROWS)"),
    # Into memory.
    ("projections/audit/spark/slices.py", "np.savez(file, **_arrays(index))"),
}


def test_no_module_writes_files_around_the_helper() -> None:
    """Benchmarks write invented data only."""
    others = set()
    for layer in ("ledger", "projections", "api", "scripts"):
        for path in (REPOSITORY / layer).rglob("*.py"):
            name = str(path.relative_to(REPOSITORY))
            if name.startswith("scripts/bench/") or name == "ledger/private_files.py":
                continue
            for line in path.read_text().splitlines():
                if WRITERS.search(line) and "open_private(" not in line:
                    others.add((name, line.strip()))
    assert others == EXCEPTIONS


def test_an_open_file_of_the_operators_keeps_its_mode(inforce: Inforce, private_homes: Path) -> None:
    assert inforce("submit", "org:acme", "training.opt_in", "false").code == 0
    (private_homes / "inforce.db").chmod(0o640)
    assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
    assert stat.S_IMODE((private_homes / "inforce.db").stat().st_mode) == 0o640


def test_a_private_file_is_made_once_and_through_links(tmp_path: Path, no_umask: None) -> None:
    make_private_folder(tmp_path / "a" / "b")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "a", exist_ok=False)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "file")
    make_private_file(tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "a" / "file").stat().st_mode) == 0o600
    (tmp_path / "a" / "file").write_text("kept")
    make_private_file(tmp_path / "link")
    assert (tmp_path / "a" / "file").read_text() == "kept"
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b", "file"}
    with pytest.raises(FileExistsError):
        open_private(tmp_path / "a" / "file", "xb")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "a" / "file")
