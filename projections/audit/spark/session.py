"""A session on a cluster, which has been given what its workers need: this package's code and, later, an index.

The driver's JVM speaks to nobody: what it writes to its standard streams goes with the session.
Proved by tests/audit/spark.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.errors import BadInput
from projections.audit.index import storage as files
from projections.audit.index.schema import PolicyIndex
from projections.audit.spark import jvm, probe
from projections.audit.spark.errors import SparkUnavailable, java_message, spark_error
from projections.audit.spark.hadoop import Hadoop, has_scheme

SHIPPED: Final = ("ledger", "projections")
_CONNECT_S: Final = 5.0
_WAIT_S: Final = 15.0
FIXED: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    # A file that cannot be read is no reason to leave its rows out.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    # Of whatever unit a time is, it is read for what it is: see `frames`.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Years before 1900 are years of our calendar, too.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
}
"""What the rows hang on: neither `configuration` nor the cluster's own defaults say otherwise."""
SETTINGS: Final = {
    "spark.app.name": "inforce audit",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}
"""What `configuration` may say otherwise."""


class Cluster:
    """A session with a cluster. `spark`: its `SparkSession`; `folder`: of the driver's own, which goes with it."""

    def __init__(self, spark: Any, folder: Path) -> None:
        self.spark = spark
        self.hadoop = Hadoop(spark)
        self._folder = folder
        self._begun: list[str] = []
        self._sent = 0
        conf = spark._jsparkSession.sessionState().conf()
        self._stretch_max, self._open_bytes = conf.filesMaxPartitionBytes(), conf.filesOpenCostInBytes()
        self._parts_min = spark.conf.get("spark.sql.files.minPartitionNum", None)

    def cut_alike(self, sizes: Sequence[int]) -> None:
        """However often files of these sizes (bytes) are read from here on, all or some of them, they are cut at the
        same places. Spark itself goes by how many cores it has at that moment, and by what else is read."""
        parts = int(self._parts_min or self.spark.sparkContext.defaultParallelism)
        share = sum(size + self._open_bytes for size in sizes) // parts
        stretch = min(self._stretch_max, max(self._open_bytes, share))
        self.spark.conf.set("spark.sql.files.maxPartitionBytes", str(stretch))
        self.spark.conf.set("spark.sql.files.minPartitionNum", "1")

    def begin(self, name: str) -> None:
        """A folder that is not there, to be written by the cluster: it goes, should the session fail before it is
        `done`. Raises `BadInput` where it is, since a cluster cannot replace a result at once, and where nothing can
        be written, before hours of work are lost."""
        from py4j.protocol import Py4JJavaError

        must_be_new(name, self.hadoop.exists(name))
        trial = f"{name.rstrip('/')}.{secrets.token_hex(4)}"
        try:
            self.hadoop.write(trial, b"")
            self.hadoop.remove(trial)
        except Py4JJavaError as error:
            raise BadInput(f"{name} cannot be written: {java_message(error)}") from None
        self._begun.append(name)

    def done(self, name: str) -> None:
        self._begun.remove(name)

    def clear(self) -> None:
        """Once nothing writes any more. Raises `SparkUnavailable` where the session has no JVM any more that could."""
        from py4j.protocol import Py4JError

        left = []
        while self._begun:
            name = self._begun.pop()
            try:
                self.hadoop.remove(name)
            except (Py4JError, OSError):
                if has_scheme(name):
                    left.append(name)
                else:
                    shutil.rmtree(name, ignore_errors=True)
        if left:
            raise SparkUnavailable(f"Spark is gone, and what there is of {' and '.join(left)} is not whole; remove it")

    def send_index(self, index: PolicyIndex) -> str:
        """Sends an index to each executor, once, to be mapped there from its files, under the name that is returned."""
        # Each sending has its own name: a file of one name is sent once and never again.
        self._sent += 1
        name = f"inforce-index-{self._sent}"
        folder = self._folder / name
        files.write(folder, index)
        archive = self._folder / f"{name}.tar"
        with tarfile.open(archive, "w") as archive_file:
            archive_file.add(folder, "index")
        shutil.rmtree(folder)
        # The driver serves the archive from where it lies until the session ends.
        self.spark.sparkContext.addArchive(f"{archive}#{name}")
        return name


def must_be_new(name: str, there: bool) -> None:
    """Raises `BadInput` where it is there."""
    if there:
        raise BadInput(f"{name} is there already, and a result on a cluster is not written over; name another")


@contextmanager
def session(
    master: str, configuration: Mapping[str, str], waiting: Callable[[], None] = lambda: None
) -> Iterator[Cluster]:
    """A session for the block. `waiting` is called, from another thread, should the cluster give no executor for a
    while. Raises `BadInput` and `SparkUnavailable`, and removes then what was begun and not done."""
    _must_suit(configuration)
    _need(master)
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    settings = {**SETTINGS, **_of_this_python(master), **configuration, **FIXED, "spark.master": master}
    with tempfile.TemporaryDirectory(prefix="inforce-spark-") as folder, tempfile.TemporaryFile() as told, _quiet():
        conf = SparkConf(loadDefaults=False)
        conf.setAll(list(settings.items()))
        gateway, context, cluster = None, None, None
        try:
            gateway = jvm.start(conf, told)
            context = SparkContext(conf=conf, gateway=gateway)
            # It would print what it makes of a JVM that is gone.
            vars(context._accumulatorServer)["handle_error"] = lambda *_: None
            # Spark looks for it in its environment alone, where a program is not run by spark-submit.
            context.pythonExec = context.getConf().get("spark.pyspark.python", context.pythonExec)
            context.addPyFile(str(_code(Path(folder))))
            _probe(context, waiting)
            cluster = Cluster(SparkSession(context), Path(folder))
            yield cluster
        except (PySparkException, Py4JError, ConnectionError) as error:
            raise spark_error(error) from None
        finally:
            # Each of them, though whoever waits loses patience with the one before.
            with ExitStack() as ending:
                if gateway is not None:
                    ending.callback(jvm.end, gateway)
                if cluster is not None:
                    ending.callback(cluster.clear)
                if context is not None:
                    # Of a JVM that is gone whoever used it hears, and nobody has to stop it.
                    ending.enter_context(suppress(Py4JError, OSError))
                    ending.callback(context.stop)


def _must_suit(configuration: Mapping[str, str]) -> None:
    for name in configuration:
        if not name.startswith("spark."):
            raise BadInput(f"--spark-conf {name}: Spark's settings begin with spark., and Hadoop's with spark.hadoop.")
        if name in FIXED:
            raise BadInput(f"--spark-conf {name}: this is {FIXED[name]} here, or rows might come out otherwise")
        if name == "spark.master":
            raise BadInput(f"--spark-conf {name}: --master names it")


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
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for package in SHIPPED:
            for file in sorted((root / package).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    archive_file.write(file, file.relative_to(root))
    return archive


def _probe(context: Any, waiting: Callable[[], None]) -> None:
    parts = max(2, context.defaultParallelism)
    patience = threading.Timer(_WAIT_S, waiting)
    patience.daemon = True
    patience.start()
    try:
        missing = sorted(set(context.parallelize(range(parts), parts).mapPartitions(probe.missing).collect()))
    finally:
        patience.cancel()
    if missing:
        raise BadInput(
            f"the executors' Python has no {' and no '.join(missing)}; install it there, or name a Python that has "
            "with --spark-conf spark.pyspark.python=PATH"
        )
