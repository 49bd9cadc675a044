"""An audit on Spark: a log's files to verdicts on the executors, counted there, written by them.

By default every executor has the whole index, mapped from its files, and each batch is decided where it is read
(`mapInArrow`). Of an index that is larger than `Plan.index_bytes_max` it has a slice: requests are brought to the
slice that decides them (`cogroup`), and where many belong to one, as those of a busy subject do, it is sent to several
tasks, each with a share of its requests. Proved by tests/audit/spark.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import reduce
from pathlib import Path
from threading import Thread
from typing import Any, Final, NamedTuple, TypeVar

import pyarrow as pa

from ledger.errors import BadInput, BadRecord
from projections.audit.index.schema import PolicyIndex
from projections.audit.reading.layout import Layout
from projections.audit.reading.strict import LogRow, RowParser, too_many_rejects
from projections.audit.spark import frames, tasks
from projections.audit.spark.hadoop import hadoop_path
from projections.audit.spark.inputs import inputs, normal_path
from projections.audit.spark.session import Cluster
from projections.audit.spark.slices import IndexSlicer, pack, shared_part, sliced_bytes
from projections.audit.spark.tasks import DECIDED, FAULT, LINE, READ, SLICE, SOURCE
from projections.audit.summary import AGAINST, SUBJECTS_LISTED, VERDICTS, LogDigest, SubjectCount, Summary

_Result = TypeVar("_Result")


class Plan(NamedTuple):
    """index_bytes_max: an index of more is cut. slice_bytes: of one slice of it, about. task_rows: of requests that
    one task decides with one slice. scratch: the name of a folder, not there yet, for the slices."""

    index_bytes_max: int = 4 << 30
    slice_bytes: int = 64 << 20
    task_rows: int = 1 << 20
    scratch: str | None = None


class SparkAudit:
    """Every row of a log, decided. Use within a block: what it keeps on the cluster goes with it.

    Raises `BadRecord` where the log is none."""

    def __init__(
        self,
        cluster: Cluster,
        index: PolicyIndex,
        names: Sequence[str],
        layout: Layout,
        plan: Plan = Plan(),  # noqa: B008 - it is not changed
    ) -> None:
        self._cluster = cluster
        self._spark = cluster.spark
        self._index = index
        self._layout = layout
        self._plan = plan
        self._kept: list[Any] = []
        self._scratch: str | None = None
        self._named = cluster.spark.sparkContext.accumulator(set(), tasks.SeenColumns())
        self.inputs = inputs(cluster.hadoop, names, layout.mapping)
        self._stamps = self._stamped()
        cluster.cut_alike([size for size, _ in self._stamps])

    def __enter__(self) -> SparkAudit:
        # While the executors work.
        self._digest = _begun(lambda: self._cluster.hadoop.digest((one.path, one.file.name) for one in self.inputs))
        self.rows = self._decided()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_raised: object) -> None:
        if kind is not None:
            # The session ends, and everything with it.
            return
        for frame in self._kept:
            frame.unpersist()
        if self._scratch is not None:
            self._cluster.hadoop.remove(self._scratch)
            self._cluster.done(self._scratch)

    def _stamped(self) -> list[tuple[int, int]]:
        return [self._cluster.hadoop.stamp(one.path) for one in self.inputs]

    def _decided(self) -> Any:
        if sliced_bytes(self._index) > self._plan.index_bytes_max:
            return self._keep(self._by_slices())
        name = self._cluster.send_index(self._index)
        return self._keep(self._read(lambda read: tasks.decided(read, name, self._named), DECIDED))

    def _read(self, task: Callable[[tasks.Read], tasks.Task], schema: pa.Schema) -> Any:
        """What `task` makes of every log, by how it is read."""
        found: list[Any] = []

        def add(frame: Any, read: tasks.Read) -> None:
            found.append(frame.mapInArrow(task(read), kind))

        kind, log_format = spark_schema(schema), self._layout.log_format
        of_way = {way: [one for one in self.inputs if one.way == way] for way in ("parquet", "lines", "whole")}
        for rows, logs, columns, paths in frames.row_frames(self._spark, of_way["parquet"]):
            add(rows, tasks.read_rows(logs, columns, paths))
        whole = of_way["whole"]
        if of_way["lines"]:
            lines = frames.line_frame(self._spark, of_way["lines"])
            logs, uncut = frames.split_logs(lines, of_way["lines"], log_format)
            ran_on = [one for one in of_way["lines"] if normal_path(one.path) in uncut]
            cut = [one for one in of_way["lines"] if normal_path(one.path) not in uncut]
            if cut:
                of_cut = frames.line_frame(self._spark, cut).selectExpr(
                    "path", "start", "cast(value AS binary) AS value"
                )
                add(of_cut, tasks.read_lines(logs))
            whole += ran_on
        if whole:
            add(frames.whole_of(self._spark, whole), tasks.read_whole(frames.task_logs(whole, log_format)))
        return reduce(lambda one, other: one.unionAll(other), found)

    def _by_slices(self) -> Any:
        from pyspark.sql import functions as f

        index, count = self._index, -(-sliced_bytes(self._index) // self._plan.slice_bytes)
        shared = self._cluster.send_index(shared_part(index))
        read = self._keep(self._read(lambda found: tasks.requests(found, count, self._named), READ))
        asked = read.where(read[FAULT].isNull())
        shares = {
            row[SLICE]: -(-row["count"] // self._plan.task_rows) for row in asked.groupBy(SLICE).count().collect()
        }
        if not shares:
            return read.select(_columns(read))
        slices = self._slices(sorted(shares), count)
        several = f.create_map(*(f.lit(item) for pair in sorted(shares.items()) for item in pair))
        many = several[f.col(SLICE)]
        slices = slices.withColumn("share", f.explode(f.sequence(f.lit(0), many - 1)))
        asked = asked.withColumn("share", f.pmod(f.xxhash64(SOURCE, LINE), many).cast("int"))
        keys = (SLICE, "share")
        decided = asked.groupBy(*keys).cogroup(slices.groupBy(*keys))
        done = decided.applyInArrow(tasks.decided_by_slice(shared), spark_schema(DECIDED))
        return done.unionAll(read.where(read[FAULT].isNotNull()).select(_columns(read)))

    def _slices(self, numbers: Sequence[int], count: int) -> Any:
        """(slice, content) from files that executors read: one slice at a time is in the driver's memory."""
        from pyspark.sql import functions as f

        if self._plan.scratch is None:
            raise BadInput(
                f"the policy index has {sliced_bytes(self._index)} bytes, more than {self._plan.index_bytes_max}; to "
                "cut it into slices Spark needs a folder that every executor sees: name one with --out"
            )
        self._cluster.begin(self._plan.scratch)
        self._scratch = self._plan.scratch
        cutting = IndexSlicer(self._index, count)
        with tempfile.TemporaryDirectory(prefix="inforce-slices-") as folder:
            for number in numbers:
                file = Path(folder, str(number))
                file.write_bytes(pack(cutting.slice(number)))
                self._cluster.hadoop.move_in(str(file), f"{self._scratch}/{number}.slice")
        found = frames.file_frame(self._spark, self._scratch)
        return found.select(f.regexp_extract("path", r"(\d+)\.slice$", 1).cast("int").alias(SLICE), "content")

    def _keep(self, frame: Any) -> Any:
        """On the executors' disks: it is counted, and written, and must not be decided for each."""
        from pyspark import StorageLevel

        kept = frame.persist(StorageLevel.DISK_ONLY)
        self._kept.append(kept)
        return kept

    def count(self, summary: Summary, rejects_max: int | None) -> LogRow | None:
        """Counts into the summary; the first reject, by source and line. Raises `BadRecord` where there are more than
        `rejects_max`."""
        from pyspark.sql import functions as f

        rows = self.rows
        at = f.unix_micros("at")
        counted = rows.agg(
            f.count("*").alias("rows"),
            f.count(FAULT).alias("rejects"),
            f.count("hindsight").alias("hindsight"),
            f.min(at).alias("first"),
            f.max(at).alias("last"),
        ).first()
        summary.rows, summary.rejects, summary.hindsight = counted.rows, counted.rejects, counted.hindsight
        summary.first_at, summary.last_at = counted.first, counted.last
        first = self._first_reject() if summary.rejects else None
        if first is not None and rejects_max is not None and summary.rejects > rejects_max:
            raise too_many_rejects(rejects_max, first)
        verdicts = rows.where(rows[FAULT].isNull())
        reasons = verdicts.select(f.explode("reasons").alias("name")).groupBy("name").count()
        summary.reasons.update({row.name: row["count"] for row in reasons.collect()})
        of = [f.count_if(f.col("verdict") == name).alias(name) for name in VERDICTS]
        subjects = self._keep(verdicts.groupBy("governed_by").agg(f.count("*").alias("total"), *of))
        sums = subjects.agg(f.count("*").alias("count"), *(f.sum(name).alias(name) for name in VERDICTS)).first()
        summary.subject_count = sums["count"]
        summary.verdicts.update({name: sums[name] for name in VERDICTS if sums[name]})
        against = reduce(lambda one, other: one + other, (f.col(name) for name in sorted(AGAINST)))
        order = [against.desc(), f.col("total").desc(), f.coalesce("governed_by", f.lit("")).asc()]
        summary.subjects = [
            SubjectCount(row.governed_by, {name: row[name] for name in VERDICTS if row[name]})
            for row in subjects.orderBy(*order).limit(SUBJECTS_LISTED).collect()
        ]
        return first

    def _first_reject(self) -> LogRow:
        rows = self.rows.where(self.rows[FAULT].isNotNull())
        order = {one.file.name: place for place, one in enumerate(self.inputs)}
        by_source = rows.groupBy(SOURCE).agg({LINE: "min"}).withColumnRenamed(f"min({LINE})", LINE).collect()
        where = min(by_source, key=lambda row: order[row[SOURCE]])
        row = rows.where((rows[SOURCE] == where[SOURCE]) & (rows[LINE] == where[LINE])).first()
        return LogRow(row[SOURCE], row[LINE], None, row[FAULT])

    def verdicts(self) -> Any:
        return self.rows.where(self.rows[FAULT].isNull()).drop(FAULT)

    def rejects(self) -> Any:
        return self.rows.where(self.rows[FAULT].isNotNull()).select(SOURCE, LINE, FAULT)

    def finish(self) -> tuple[LogDigest, list[str]]:
        """(the digest of the log, warnings), once all is counted and written. Raises `BadRecord` where the log was
        changed meanwhile."""
        digest = self._digest.result()
        for one, before, now in zip(self.inputs, self._stamps, self._stamped(), strict=True):
            if before != now:
                raise BadRecord(f"{one.file.name}: the log was changed while it was read; audit it once it is whole")
        return digest, self._warnings()

    def _warnings(self) -> list[str]:
        """Of a named column that was on no line: of Parquet, and of CSV, it is refused."""
        return [
            f"{one.file.name}: no line had the column that was named for {field}"
            for one in self.inputs
            if one.way != "parquet"
            for field in RowParser(one.file.name, one.file.mapping).named
            if (one.file.name, field) not in self._named.value
        ]


def _begun(work: Callable[[], _Result]) -> Future[_Result]:
    """In a thread that nobody waits for who does not ask what came out."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)

    Thread(target=run, name="the digest of the log", daemon=True).start()
    return future


def _columns(read: Any) -> list[Any]:
    """A reject of READ as one of DECIDED."""
    from pyspark.sql import functions

    kinds = spark_schema(DECIDED)
    return [
        (read[field.name] if field.name in (SOURCE, LINE, FAULT) else functions.lit(None).cast(field.dataType)).alias(
            field.name
        )
        for field in kinds
    ]


def spark_schema(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


_INSTANT: Final = "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'"


def write(rows: Any, folder: str, form: str) -> None:
    """A folder of files of that form: parquet, csv or json, without what marks it as whole."""
    # Whatever zone and habits the session has.
    writing = {"timestampFormat": _INSTANT, "timeZone": "UTC"}
    if form == "csv":
        lists = [field.name for field in rows.schema if field.dataType.typeName() == "array"]
        for name in lists:
            rows = rows.withColumn(name, _as_json(name))
        # Spark would trim a text at both ends.
        writing |= {"ignoreLeadingWhiteSpace": "false", "ignoreTrailingWhiteSpace": "false"}
        rows.write.options(header="true", escape='"', **writing).csv(hadoop_path(folder))
    elif form == "json":
        rows.write.options(ignoreNullFields="false", **writing).json(hadoop_path(folder))
    else:
        rows.write.option("compression", "zstd").parquet(hadoop_path(folder))


def _as_json(name: str) -> Any:
    from pyspark.sql import functions

    return functions.to_json(name)
