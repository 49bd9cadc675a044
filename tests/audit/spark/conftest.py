"""A standalone cluster on loopback, one master and two workers as processes, and one session with it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.waiting import GIVE_UP_S

_PATIENCE_S = GIVE_UP_S
_SHORT_LIVED = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""A JVM that lives for seconds spends most of its time on compiling code that it never uses."""
CONFIGURATION = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.pyspark.python": sys.executable,
    "spark.driver.extraJavaOptions": _SHORT_LIVED,
    "spark.executor.extraJavaOptions": _SHORT_LIVED,
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.executor.cores": "1",
    "spark.cores.max": "2",
    # Wait for both workers before the first task.
    "spark.scheduler.minRegisteredResourcesRatio": "1",
    "spark.sql.shuffle.partitions": "2",
    # Cut files into splits, as large files are.
    "spark.sql.files.maxPartitionBytes": "40000",
    "spark.sql.files.openCostInBytes": "4000",
}


class Standalone(NamedTuple):
    """`work`: the folder with one for each application, with the files of its executors."""

    master: str
    workers: list[subprocess.Popen[bytes]]
    work: Path


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    java = shutil.which("java")
    if java is None:
        pytest.skip("needs Java 17: there is no java on the PATH")
    if find_spec("pyspark") is None:
        pytest.skip("needs pyspark, which is not installed")
    import pyspark

    home, folder = Path(pyspark.__file__).parent, tmp_path_factory.mktemp("spark")
    work = folder / "work"
    work.mkdir()
    port, ui = _free_port(), _free_port()
    master = f"spark://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(work),
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": _SHORT_LIVED,
        "PYTHONWARNINGS": "default",
        # The worker's own Python lacks the packages for an audit.
        "PATH": os.pathsep.join(dict.fromkeys([str(Path(java).parent), "/usr/bin", "/bin"])),
    }
    for name in ("PYTHONPATH", "PYSPARK_PYTHON"):
        environment.pop(name, None)
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> None:
        log = (folder / f"{len(processes)}.log").open("wb")
        with log:
            command = [str(home / "bin" / "spark-class"), *arguments]
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder))

    try:
        deploy = "org.apache.spark.deploy"
        start(f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(ui))
        _until_open(port)
        for _ in range(2):
            sizes = ("--cores", "1", "--memory", "1g", "--host", "127.0.0.1", "--webui-port", str(_free_port()))
            start(f"{deploy}.worker.Worker", *sizes, master)
        yield Standalone(master, processes[1:], work)
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait(_PATIENCE_S)


@pytest.fixture(scope="session")
def cluster(standalone: Standalone) -> Iterator[Any]:
    from projections.audit.spark.session import session

    with session(standalone.master, CONFIGURATION) as cluster_session:
        yield cluster_session


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def _until_open(port: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def children(parent: int) -> list[int]:
    """The child processes of a process that the test started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, of in pairs if int(of) == parent]
