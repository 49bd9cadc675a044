"""A session on a cluster, with everything that its workers need: this package's code and, later, an index.

Nothing that the driver's JVM writes to its standard streams is shown. Proved by tests/audit/spark.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.errors import BadInput
from projections.audit.index import storage
from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel import kernel
from projections.audit.numba_support import are_ready, finish_compiling
from projections.audit.reading import scan_lines
from projections.audit.spark import jvm
from projections.audit.spark.errors import SparkUnavailable, java_message, spark_error
from projections.audit.spark.hadoop import Hadoop, has_scheme
from projections.audit.stored_code import IN_PACKAGE, stored_files

SHIPPED: Final = ("ledger", "projections")
COMPILED: Final = (*kernel.COMPILED, scan_lines.scan, scan_lines.gather, scan_lines.times)
"""The compiled functions that executors call: their code is shipped, so that no worker compiles."""
_CONNECT_TIMEOUT_S: Final = 5.0
_WAITING_AFTER_S: Final = 15.0
FIXED: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    # An unreadable file must not lose its rows without a word.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
    # `frames` reads times of every unit.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Years before 1900 are years of the same calendar.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
}
"""Settings that the rows depend on: neither `configuration` nor the cluster's defaults can change them."""
SETTINGS: Final = {
    "spark.app.name": "inforce audit",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}
"""Settings that `configuration` can change."""


class Cluster:
    """A session with a cluster. `spark`: its `SparkSession`. `folder`: the driver's own, for the session."""

    def __init__(self, spark: Any, folder: Path) -> None:
        self.spark = spark
        self.hadoop = Hadoop(spark)
        self._folder = folder
        self._unfinished: list[str] = []
        self._indexes_sent = 0
        conf = spark._jsparkSession.sessionState().conf()
        self._split_bytes_max, self._open_bytes = conf.filesMaxPartitionBytes(), conf.filesOpenCostInBytes()
        self._splits_min = spark.conf.get("spark.sql.files.minPartitionNum", None)

    def fix_splits(self, sizes: Sequence[int]) -> None:
        """Makes Spark cut files of these sizes (bytes) at the same places each time it reads all or some of them. By
        default the places depend on the current number of cores and on the other files."""
        splits = int(self._splits_min or self.spark.sparkContext.defaultParallelism)
        share = sum(size + self._open_bytes for size in sizes) // splits
        split_bytes = min(self._split_bytes_max, max(self._open_bytes, share))
        self.spark.conf.set("spark.sql.files.maxPartitionBytes", str(split_bytes))
        self.spark.conf.set("spark.sql.files.minPartitionNum", "1")

    def begin(self, name: str) -> None:
        """Reserves a new folder for the cluster to write. It is removed if the session fails before `keep`.

        Raises `BadInput` if it exists, since a cluster cannot replace a result atomically, and if it is not writable,
        before hours of work are lost.
        """
        from py4j.protocol import Py4JJavaError

        check_is_new(name, exists=self.hadoop.exists(name))
        trial = f"{name.rstrip('/')}.{secrets.token_hex(4)}"
        try:
            self.hadoop.write(trial, b"")
            self.hadoop.remove(trial)
        except Py4JJavaError as error:
            raise BadInput(f"{name} cannot be written: {java_message(error)}") from None
        self._unfinished.append(name)

    def keep(self, name: str) -> None:
        self._unfinished.remove(name)

    def remove_unfinished(self) -> None:
        """Removes unfinished folders, once nothing writes any more. Raises `SparkUnavailable` if the session's JVM is
        gone, and with it the access to their file system."""
        from py4j.protocol import Py4JError

        left = []
        while self._unfinished:
            name = self._unfinished.pop()
            try:
                self.hadoop.remove(name)
            except (Py4JError, OSError):
                if has_scheme(name):
                    left.append(name)
                else:
                    shutil.rmtree(name, ignore_errors=True)
        if left:
            raise SparkUnavailable(f"Spark is gone, and {' and '.join(left)} is incomplete; remove it")

    def send_index(self, index: PolicyIndex) -> str:
        """Sends an index once to each executor, which maps it from its files. Returns its name there."""
        # Each has its own name: Spark sends a file of one name only once.
        self._indexes_sent += 1
        name = f"inforce-index-{self._indexes_sent}"
        folder = self._folder / name
        storage.write(folder / "index", index)
        archive = shutil.make_archive(str(folder), "tar", folder, "index")
        shutil.rmtree(folder)
        # The driver serves the archive from this file until the session ends.
        self.spark.sparkContext.addArchive(f"{archive}#{name}")
        return name


def check_is_new(name: str, *, exists: bool) -> None:
    """Raises `BadInput` if the result exists."""
    if exists:
        raise BadInput(f"{name} exists already, and a cluster cannot replace a result; name another")


@contextmanager
def session(
    master: str, configuration: Mapping[str, str], waiting: Callable[[], None] = lambda: None
) -> Iterator[Cluster]:
    """A session for the block. Another thread calls `waiting` if the cluster provides no executor for a while.

    Raises `BadInput` and `SparkUnavailable`, and then removes unfinished folders.
    """
    _check_configuration(configuration)
    _check_requirements(master)
    # The compiler works while the JVM starts.
    are_ready(*COMPILED, wait=False)
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    # Executors on this machine use this Python; others use the one on their PATH, or a configured one.
    this_python = {"spark.pyspark.python": sys.executable} if master.startswith("local") else {}
    settings = {**SETTINGS, **this_python, **configuration, **FIXED, "spark.master": master}
    with (
        tempfile.TemporaryDirectory(prefix="inforce-spark-") as folder,
        tempfile.TemporaryFile() as output,
        _without_py4j_log(),
    ):
        conf = SparkConf(loadDefaults=False)
        conf.setAll(list(settings.items()))
        gateway, context, cluster = None, None, None
        try:
            gateway = jvm.start(conf, output)
            context = SparkContext(conf=conf, gateway=gateway)
            # The accumulators' server would print a stack trace if the JVM is gone.
            vars(context._accumulatorServer)["handle_error"] = lambda *_: None
            # Without spark-submit, Spark reads this setting from its environment only.
            context.pythonExec = context.getConf().get("spark.pyspark.python", context.pythonExec)
            context.addPyFile(str(_code_archive(Path(folder))))
            _check_executors(context, waiting)
            cluster = Cluster(SparkSession(context), Path(folder))
            yield cluster
        except (PySparkException, Py4JError, ConnectionError) as error:
            raise spark_error(error) from None
        finally:
            # All three run, even if the user interrupts one of them.
            with ExitStack() as ending:
                if gateway is not None:
                    ending.callback(jvm.stop, gateway)
                if cluster is not None:
                    ending.callback(cluster.remove_unfinished)
                if context is not None:
                    # If the JVM is gone, an earlier call has reported that, and nothing is left to stop.
                    ending.enter_context(suppress(Py4JError, OSError))
                    ending.callback(context.stop)


def _check_configuration(configuration: Mapping[str, str]) -> None:
    for name in configuration:
        if not name.startswith("spark."):
            raise BadInput(f"--spark-conf {name}: Spark's settings begin with spark., and Hadoop's with spark.hadoop.")
        if name in FIXED:
            raise BadInput(f"--spark-conf {name}: inforce sets it to {FIXED[name]}, because rows depend on it")
        if name == "spark.master":
            raise BadInput(f"--spark-conf {name}: --master names it")


@contextmanager
def _without_py4j_log() -> Iterator[None]:
    """Hides py4j's log of interrupted calls, whose errors reach the caller anyway."""

    def is_from_elsewhere(record: logging.LogRecord) -> bool:
        return "py4j" not in Path(record.pathname).parts

    root = logging.getLogger()
    root.addFilter(is_from_elsewhere)
    try:
        yield
    finally:
        root.removeFilter(is_from_elsewhere)


def _check_requirements(master: str) -> None:
    if find_spec("pyspark") is None:
        raise BadInput("an audit on Spark needs pyspark, which is not installed; install inforce[spark]")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and Path(home, "bin", "java").exists()):
        raise BadInput("an audit on Spark needs Java 17 or newer; install it, or set JAVA_HOME to its folder")
    for address in master.removeprefix("spark://").split(",") if master.startswith("spark://") else ():
        url = urlsplit(f"spark://{address}")
        try:
            with socket.create_connection((url.hostname or "", url.port or 7077), _CONNECT_TIMEOUT_S):
                return
        except (OSError, ValueError):
            continue
    if master.startswith("spark://"):
        raise SparkUnavailable(f"nothing answers at {master}; start the Spark master, or name another with --master")


def _code_archive(folder: Path) -> Path:
    """A zip of this package and of its compiled code, so that executors need no installation of inforce."""
    finish_compiling(*COMPILED)
    archive = folder / "inforce.zip"
    root = Path(__file__).parents[3]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as code:
        for package in SHIPPED:
            for file in sorted((root / package).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    code.write(file, file.relative_to(root))
        for name, content in sorted(stored_files()):
            code.writestr("/".join(("projections/audit", *IN_PACKAGE, name)), content)
    return archive


def _check_executors(context: Any, waiting: Callable[[], None]) -> None:
    """Raises `BadInput` if the executors' Python lacks a package."""

    def missing_packages(_rows: Iterable[int]) -> Iterator[str]:
        # A local function is sent by value: executors import no module for it, and so none of these packages.
        return (name for name in ("numpy", "pyarrow", "msgspec", "pydantic") if find_spec(name) is None)

    tasks = max(2, context.defaultParallelism)
    timer = threading.Timer(_WAITING_AFTER_S, waiting)
    timer.daemon = True
    timer.start()
    try:
        missing = sorted(set(context.parallelize(range(tasks), tasks).mapPartitions(missing_packages).collect()))
    finally:
        timer.cancel()
    if missing:
        raise BadInput(
            f"the executors' Python has no {' and no '.join(missing)}; install it there, or name another Python with "
            "--spark-conf spark.pyspark.python=PATH"
        )
