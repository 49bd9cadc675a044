"""`inforce audit --engine spark` on a cluster, and without one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scripts.audit.spark import PIN_FILE
from tests.audit.spark.conftest import CONFIGURATION, Standalone, children
from tests.support.command import Inforce, folder, inforce
from tests.support.waiting import GIVE_UP_S, until

__all__ = ["folder", "inforce"]

_LOCAL = ["--engine", "spark", "--master", "local[2]"]
LOG = [
    {"at": "2030-01-01T00:00:00Z", "org_id": "acme", "handling": {"trained": True}, "request_id": "r1"},
    {"at": "2030-01-01T00:00:00.000001Z", "org_id": "beta", "request_id": "r2"},
    {"at": "yesterday", "org_id": "acme"},
]


@pytest.fixture
def log(folder: Path, inforce: Inforce) -> Path:
    change = {"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": False}
    (folder / "changes.jsonl").write_text(json.dumps(change) + "\n")
    assert inforce("submit", "changes.jsonl").code == 0
    log = folder / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in LOG))
    return log


def _options(master: str, executors: int = 2) -> list[str]:
    options = ["--engine", "spark", "--master", master]
    for name, value in {**CONFIGURATION, "spark.cores.max": str(executors)}.items():
        options += ["--spark-conf", f"{name}={value}"]
    return options


def _errors(output: str) -> list[str]:
    """The lines on standard error, without the note that a busy machine may give."""
    return [line for line in output.splitlines() if "the cluster has given no executor yet" not in line]


def _started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "scripts.main", "audit", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_cluster_gives_the_result_of_one_machine_and_writes_folders_with_metadata(
    standalone: Standalone, log: Path, folder: Path, inforce: Inforce
) -> None:
    alone = inforce("audit", str(log), "--out", "alone.parquet", "--format", "json")
    arguments = (str(log), "--out", "there.parquet", "--format", "json", *_options(standalone.master))
    ran = inforce("audit", *arguments)
    where = {"rejects_file": "there.parquet.rejects.jsonl"}
    assert (ran.code, ran.json()) == (alone.code, alone.json() | where)
    assert "1 of 3 rows could not be read, the first: " in ran.err
    there = pq.read_table(folder / "there.parquet").sort_by("line")
    local = pq.read_table(folder / "alone.parquet")
    assert there.to_pylist() == local.to_pylist()
    rests_on = json.loads(pq.read_metadata(folder / "alone.parquet").metadata[b"inforce"])
    assert json.loads((folder / "there.parquet" / PIN_FILE).read_text()) == rests_on
    rejects = folder / "there.parquet.rejects.jsonl"
    lines = [line for file in rejects.glob("part-*") for line in file.read_text().splitlines()]
    assert lines == (folder / "log.jsonl.rejects.jsonl").read_text().splitlines()
    again = inforce("audit", *arguments)
    assert again.code == 2
    assert again.err == ("inforce: there.parquet exists already, and a cluster cannot replace a result; name another\n")


def test_an_error_leaves_nothing_behind(standalone: Standalone, log: Path, folder: Path, inforce: Inforce) -> None:
    before = {"inforce.db.index", *os.listdir(folder)}
    ran = inforce("audit", str(log), "--out", "out.csv", "--max-rejects", "0", *_options(standalone.master, 1))
    assert ran.code == 2
    (error,) = _errors(ran.err)
    assert error.startswith("inforce: more than 0 rows cannot be read, the first: ")
    ran = inforce("audit", str(folder / "nowhere.jsonl"), "--out", "out.csv", *_options(standalone.master, 1))
    assert (ran.code, ran.err) == (2, f"inforce: {folder / 'nowhere.jsonl'}: there is no such file\n")
    assert set(os.listdir(folder)) == before


def test_an_interrupted_audit_leaves_no_incomplete_result(
    standalone: Standalone, log: Path, folder: Path, inforce: Inforce
) -> None:
    log.write_text("".join(json.dumps(line) + "\n" for line in LOG * 20_000))
    before = {"inforce.db.index", *os.listdir(folder)}
    one_by_one = ["--spark-conf", "spark.sql.execution.arrow.maxRecordsPerBatch=1"]
    earlier = set(standalone.work.iterdir())

    def has_begun_its_work() -> bool:
        """An executor has the index, which it fetches for its first row."""
        applications = (folder for folder in standalone.work.iterdir() if folder not in earlier)
        return any(list(folder.glob("*/inforce-index-1")) for folder in applications)

    with _started(folder, str(log), "--out", "out.parquet", *one_by_one, *_options(standalone.master)) as process:
        until(lambda: process.poll() is not None or has_begun_its_work())
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert set(os.listdir(folder)) == before


def test_an_interrupt_while_spark_starts_leaves_no_process_behind(log: Path, folder: Path) -> None:
    pytest.importorskip("pyspark", reason="needs pyspark, which is not installed")
    if shutil.which("java") is None:
        pytest.skip("needs Java 17: there is no java on the PATH")
    with _started(folder, str(log), *_LOCAL) as process:
        started = until(lambda: children(process.pid), 0.02)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=GIVE_UP_S)
    assert (process.returncode, output) == (130, "inforce: interrupted\n")
    assert started
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def test_a_lost_jvm_is_reported_in_one_line(standalone: Standalone, log: Path, folder: Path) -> None:
    with _started(folder, str(log), "--out", "out.parquet", *_options(standalone.master, 1)) as process:
        until(lambda: process.poll() is not None or (folder / "inforce.db.index").exists())
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)
        _, output = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 3, output
    (error,) = _errors(output)
    assert error.startswith("inforce: Spark failed: ")
    assert not (folder / "out.parquet").exists()


def test_a_master_that_does_not_answer_is_named(log: Path, inforce: Inforce) -> None:
    pytest.importorskip("pyspark", reason="needs pyspark, which is not installed")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        master = f"spark://127.0.0.1:{bound.getsockname()[1]}"
        ran = inforce("audit", str(log), "--engine", "spark", "--master", master)
    assert ran.code == 3
    assert ran.err == (f"inforce: nothing answers at {master}; start the Spark master, or name another with --master\n")


def test_a_jvm_that_does_not_start_gives_the_reason(log: Path, folder: Path) -> None:
    pytest.importorskip("pyspark", reason="needs pyspark, which is not installed")
    if shutil.which("java") is None:
        pytest.skip("needs Java 17: there is no java on the PATH")
    # In another process: PySpark abandons a JVM that did not start without waiting for its end.
    with _started(folder, str(log), *_LOCAL, "--spark-conf", "spark.driver.memory=nonsense") as process:
        _, output = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 3
    assert output.startswith("inforce: Spark's own process did not start: ")
    assert "nonsense" in output
    assert len(output.splitlines()) == 1


def test_without_java_the_error_names_what_to_install(
    log: Path, inforce: Inforce, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyspark", reason="needs pyspark, which is not installed")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    ran = inforce("audit", str(log), "--engine", "spark", "--master", "local[2]")
    assert ran.code == 2
    assert ran.err == "inforce: an audit on Spark needs Java 17 or newer; install it, or set JAVA_HOME to its folder\n"


def test_without_pyspark_the_error_names_the_extra(
    log: Path, inforce: Inforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.audit.spark.session.find_spec", lambda _name: None)
    ran = inforce("audit", str(log), "--engine", "spark", "--master", "local[2]")
    assert ran.code == 2
    assert ran.err.endswith("install inforce[spark]\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "spark"], "--engine spark needs --master"),
        (["--master", "local[2]"], "--master needs --engine spark"),
        (["--spark-index-max", "0"], "--spark-index-max needs --engine spark"),
        (["--engine", "spark", "--master", "local", "--report", "r"], "--report works on one machine only"),
        (["--engine", "spark", "--master", "local", "--out", "-"], "a cluster writes folders of files"),
        (["--engine", "spark", "--master", "local", "--out", "a/", "--rejects", "a"], "must be different folders"),
        (["--engine", "spark", "--master", "local", "--out", "a", "--rejects", "a/b"], "must be different folders"),
        ([*_LOCAL, "--spark-conf", "fs.s3a.endpoint=host"], "Hadoop's with spark.hadoop."),
        ([*_LOCAL, "--spark-conf", "spark.master=local[3]"], "--master names it"),
        ([*_LOCAL, "--spark-conf", "spark.sql.files.ignoreCorruptFiles=true"], "inforce sets it to false"),
    ],
)
def test_conflicting_options_are_errors(log: Path, inforce: Inforce, options: list[str], message: str) -> None:
    ran = inforce("audit", str(log), *options)
    assert ran.code == 2
    assert message in ran.err
