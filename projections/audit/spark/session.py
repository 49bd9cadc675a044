"""A session on a cluster, which has been given what its workers need: this package's code and, later, an index.

The driver's JVM speaks to nobody: what it writes to its standard streams goes with the session.
Proved by tests/audit/spark.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.errors import BadInput, LedgerUnavailable
from projections.audit.index import files
from projections.audit.index.layout import PolicyIndex
from projections.audit.spark import probing
from projections.audit.spark.hadoop import Hadoop

SHIPPED: Final = ("ledger", "projections")
_CONNECT_S: Final = 5.0
SETTINGS: Final = {
    "spark.app.name": "inforce audit",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    # Of whatever unit a time is, it is read for what it is: see `frames`.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Years before 1900 are years of our calendar, too.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
}
"""What `configuration` may say otherwise."""


class SparkUnavailable(LedgerUnavailable):
    """The cluster cannot be had, or gave up."""


class Cluster:
    """A session with a cluster. `spark`: its `SparkSession`; `folder`: of the driver's own, which goes with it."""

    def __init__(self, spark: Any, folder: Path) -> None:
        self.spark = spark
        self.hadoop = Hadoop(spark)
        self._folder = folder
        self._begun: list[str] = []
        self._sent = 0

    def begin(self, name: str) -> None:
        """A folder that is not there, to be written by the cluster: it goes, should the session fail before it is
        `done`. Raises `BadInput` where it is: a cluster cannot replace a result at once."""
        if self.hadoop.exists(name):
            raise BadInput(f"{name} is there already, and a result on a cluster is not written over; name another")
        self._begun.append(name)

    def done(self, name: str) -> None:
        self._begun.remove(name)

    def clear(self) -> None:
        """Once nothing writes any more."""
        for name in self._begun:
            self.hadoop.remove(name)
        self._begun.clear()

    def send_index(self, index: PolicyIndex) -> str:
        """Sends an index to each executor, once, to be mapped there from its files, under the name that is returned."""
        # Each sending has its own name: a file of one name is sent once and never again.
        self._sent += 1
        name = f"inforce-index-{self._sent}"
        folder = self._folder / name
        files.write(folder, index)
        archive = self._folder / f"{name}.tar"
        with tarfile.open(archive, "w") as packed:
            packed.add(folder, "index")
        shutil.rmtree(folder)
        # The driver serves the archive from where it lies until the session ends.
        self.spark.sparkContext.addArchive(f"{archive}#{name}")
        return name


@contextmanager
def session(master: str, configuration: Mapping[str, str]) -> Iterator[Cluster]:
    """A session for the block. Raises `BadInput` and `SparkUnavailable`, and removes then what was begun and not
    done."""
    _need(master)
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    settings = {**SETTINGS, "spark.master": master, **_of_this_python(master), **configuration}
    with tempfile.TemporaryDirectory(prefix="inforce-spark-") as folder, tempfile.TemporaryFile() as told, _quiet():
        conf = SparkConf(loadDefaults=False)
        conf.setAll(list(settings.items()))
        gateway, context, cluster = None, None, None
        try:
            gateway = launch_gateway(conf, {"stdout": told, "stderr": told})  # type: ignore[no-untyped-call] # untyped there
            context = SparkContext(conf=conf, gateway=gateway)
            context.addPyFile(str(_code(Path(folder))))
            _probe(context)
            cluster = Cluster(SparkSession(context), Path(folder))
            yield cluster
        except (PySparkException, Py4JError, ConnectionError) as error:
            raise failure(error) from None
        finally:
            if context is not None:
                context.stop()
            if cluster is not None:
                cluster.clear()
            if gateway is not None:
                _end(gateway, SparkContext)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what py4j logs of a call that was interrupted: whoever called hears of it."""

    def is_others(record: logging.LogRecord) -> bool:
        return "py4j" not in Path(record.pathname).parts

    root = logging.getLogger()
    root.addFilter(is_others)
    try:
        yield
    finally:
        root.removeFilter(is_others)


def _of_this_python(master: str) -> dict[str, str]:
    """On this machine the executors' Python is this one; on others it is what is on their PATH, or was configured."""
    return {"spark.pyspark.python": sys.executable} if master.startswith("local") else {}


def _end(gateway: Any, context_class: Any) -> None:
    """The JVM goes with its session: a process that asks again asks another one."""
    gateway.shutdown()
    proc = getattr(gateway, "proc", None)
    if proc is not None:
        proc.stdin.close()
        proc.wait(30)
    context_class._gateway = context_class._jvm = None


def _need(master: str) -> None:
    if find_spec("pyspark") is None:
        raise BadInput("an audit on Spark needs pyspark, which this installation has not; install inforce[spark]")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and Path(home, "bin", "java").exists()):
        raise BadInput("an audit on Spark needs Java 17 or newer; install it, or set JAVA_HOME to where it is")
    for place in master.removeprefix("spark://").split(",") if master.startswith("spark://") else ():
        url = urlsplit(f"spark://{place}")
        try:
            with socket.create_connection((url.hostname or "", url.port or 7077), _CONNECT_S):
                return
        except (OSError, ValueError):
            continue
    if master.startswith("spark://"):
        raise SparkUnavailable(f"nothing answers at {master}; start the Spark master, or name another with --master")


def _code(folder: Path) -> Path:
    """The packages in a zip, so that executors need nothing of inforce's own."""
    archive = folder / "inforce.zip"
    root = Path(__file__).parents[3]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for package in SHIPPED:
            for file in sorted((root / package).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    packed.write(file, file.relative_to(root))
    return archive


def _probe(context: Any) -> None:
    parts = max(2, context.defaultParallelism)
    missing = sorted(set(context.parallelize(range(parts), parts).mapPartitions(probing.missing).collect()))
    if missing:
        raise BadInput(
            f"the executors' Python has no {' and no '.join(missing)}; install it there, or name a Python that has "
            "with --spark-conf spark.pyspark.python=PATH"
        )


def failure(error: Exception) -> Exception:
    """In one line. What inforce's own tasks refused is said in their words."""
    from py4j.protocol import Py4JJavaError

    from projections.audit.spark.tasks import MARK

    said = error.java_exception.toString() if isinstance(error, Py4JJavaError) else str(error)
    refused = next((line.partition(MARK)[2] for line in str(error).splitlines() if MARK in line), None)
    if refused is not None:
        return BadInput(refused.strip())
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return SparkUnavailable(f"Spark gave up: {(lines or [type(error).__name__])[0][:500]}")
