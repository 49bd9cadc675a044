"""An audit on Spark: executors decide the rows of a log, and count and write them.

By default each executor has the whole index, mapped from its files, and decides each batch where it is read
(`mapInArrow`). An index larger than `Plan.index_bytes_max` is cut into slices, and requests go to the slice that
decides them (`cogroup`). If one slice decides many, as for a busy subject, several tasks get that slice, each with a
share of the requests. Proved by tests/audit/spark.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import pyarrow as pa

from ledger.errors import BadInput, BadRecord
from ledger.private_files import write_private
from projections.audit.counting import POLICY_KEYS
from projections.audit.index.schema import PolicyIndex
from projections.audit.reading.column_notes import ColumnNotes
from projections.audit.reading.layout import Layout
from projections.audit.reading.parquet import column_names
from projections.audit.reading.parquet_file import require_rows
from projections.audit.reading.shape import LogForm
from projections.audit.reading.strict import LogRow, RowParser, too_many_rejects
from projections.audit.run import Ahead
from projections.audit.spark import frames, tasks
from projections.audit.spark.hadoop import hadoop_path
from projections.audit.spark.inputs import find_inputs
from projections.audit.spark.session import Cluster
from projections.audit.spark.slices import IndexSlicer, pack, shared_part, sliced_bytes
from projections.audit.spark.tasks import FAULT, FORM, LINE, MAPPED, OBSERVES, RESULTS, SLICE, SLICED_REQUESTS, SOURCE
from projections.audit.summary import (
    AGAINST,
    SUBJECTS_LISTED,
    UNKNOWN_LISTED,
    VERDICTS,
    LogDigest,
    ProviderKey,
    SubjectCount,
    Summary,
)


class Plan(NamedTuple):
    """index_bytes_max: a larger index is cut. slice_bytes: approximate size of a slice. task_rows: requests that one
    task decides with one slice. scratch: name of a new folder for the slices."""

    index_bytes_max: int = 4 << 30
    slice_bytes: int = 64 << 20
    task_rows: int = 1 << 20
    scratch: str | None = None


class SparkAudit:
    """The decided rows of a log. Use within a `with` block: its data on the cluster goes with the block.

    `rows`: data frame of `tasks.RESULTS`. Raises `BadRecord` if a log cannot be read.
    """

    def __init__(
        self,
        cluster: Cluster,
        index: PolicyIndex,
        names: Sequence[str],
        layout: Layout,
        plan: Plan = Plan(),  # noqa: B008 - immutable
    ) -> None:
        self._cluster = cluster
        self._spark = cluster.spark
        self._index = index
        self._layout = layout
        self._plan = plan
        self._persisted: list[Any] = []
        self._scratch: str | None = None
        self._noted = cluster.spark.sparkContext.accumulator(set(), tasks.NotedColumns())
        self.inputs = find_inputs(cluster.hadoop, names, layout.mapping, layout.shape)
        self._stamps = self._current_stamps()
        cluster.fix_splits([size for size, _ in self._stamps])

    def __enter__(self) -> SparkAudit:
        # The driver hashes the log while the executors work.
        paths = [(one.path, one.file.name) for one in self.inputs]
        self._digest = Ahead(map(self._cluster.hadoop.digest, [paths]), "the digest of the log")
        self.rows = self._persist(self._decided())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_raised: object) -> None:
        if kind is not None:
            # The session ends and takes everything with it.
            return
        for frame in self._persisted:
            frame.unpersist()
        if self._scratch is not None:
            self._cluster.hadoop.remove(self._scratch)
            self._cluster.keep(self._scratch)

    def _current_stamps(self) -> list[tuple[int, int]]:
        return [self._cluster.hadoop.stamp(one.path) for one in self.inputs]

    def _decided(self) -> Any:
        if sliced_bytes(self._index) > self._plan.index_bytes_max:
            return self._decided_by_slices()
        name = self._cluster.send_index(self._index)
        return self._read(lambda read: tasks.decide_log(read, name), RESULTS)

    def _read(self, make_task: Callable[[tasks.Read], tasks.Task], schema: pa.Schema) -> Any:
        """The results of tasks on all logs."""
        results: list[Any] = []
        result_schema, shape = spark_schema(schema), self._layout.shape

        def add(frame: Any, read: tasks.Read) -> None:
            results.append(frame.mapInArrow(make_task(read), result_schema))

        by_way = {way: [one for one in self.inputs if one.way == way] for way in ("parquet", "lines", "whole")}
        for rows, logs, columns, paths in frames.row_frames(self._spark, by_way["parquet"]):
            add(rows, tasks.read_rows(logs, columns, paths, self._noted))
        whole = by_way["whole"]
        if by_way["lines"]:
            lines = frames.line_frame(self._spark, by_way["lines"])
            logs, uncut = frames.split_logs(lines, by_way["lines"], shape)
            whole += [one for one in by_way["lines"] if one.path in uncut]
            cut = [one for one in by_way["lines"] if one.path not in uncut]
            if cut:
                lines = frames.line_frame(self._spark, cut)
                lines = lines.selectExpr("path", "start", "cast(value AS binary) AS value")
                add(lines, tasks.read_lines(logs, self._noted))
        if whole:
            frame = frames.file_frame(self._spark, [one.path for one in whole])
            add(frame, tasks.read_whole(frames.whole_logs(whole, shape), self._noted))
        return reduce(lambda one, other: one.unionAll(other), results)

    def _decided_by_slices(self) -> Any:
        from pyspark.sql import functions as f

        index, count = self._index, -(-sliced_bytes(self._index) // self._plan.slice_bytes)
        shared = self._cluster.send_index(shared_part(index))
        read = self._persist(self._read(lambda one: tasks.slice_log(one, count), SLICED_REQUESTS))
        rejects = read.where(read[FAULT].isNotNull()).select(_as_results(read))
        requests = read.where(read[FAULT].isNull())
        shares = {
            row[SLICE]: -(-row["count"] // self._plan.task_rows) for row in requests.groupBy(SLICE).count().collect()
        }
        if not shares:
            return rejects
        slices = self._slices(sorted(shares), count)
        shares_by_slice = f.create_map(*(f.lit(item) for pair in sorted(shares.items()) for item in pair))
        share_count = shares_by_slice[f.col(SLICE)]
        slices = slices.withColumn("share", f.explode(f.sequence(f.lit(0), share_count - 1)))
        requests = requests.withColumn("share", f.pmod(f.xxhash64(SOURCE, LINE), share_count).cast("int"))
        keys = (SLICE, "share")
        pairs = requests.groupBy(*keys).cogroup(slices.groupBy(*keys))
        return pairs.applyInArrow(
            tasks.decide_by_slice(shared, happened=self._layout.mapping.happened), spark_schema(RESULTS)
        ).unionAll(rejects)

    def _slices(self, numbers: Sequence[int], count: int) -> Any:
        """(slice, content) from files that executors read: the driver has one slice at a time in memory."""
        from pyspark.sql import functions as f

        if self._plan.scratch is None:
            raise BadInput(
                f"the policy index has {sliced_bytes(self._index)} bytes, more than {self._plan.index_bytes_max}; to "
                "cut it into slices Spark needs a folder that every executor sees: name one with --out"
            )
        self._cluster.begin(self._plan.scratch)
        self._scratch = self._plan.scratch
        slicer = IndexSlicer(self._index, count)
        with tempfile.TemporaryDirectory(prefix="inforce-slices-") as folder:
            for number in numbers:
                file = Path(folder, str(number))
                write_private(file, pack(slicer.slice(number)))
                self._cluster.hadoop.move_in(str(file), f"{self._scratch}/{number}.slice")
        frame = frames.file_frame(self._spark, [self._scratch])
        return frame.select(f.regexp_extract("path", r"(\d+)\.slice$", 1).cast("int").alias(SLICE), "content")

    def _persist(self, frame: Any) -> Any:
        """Keeps the frame on the executors' disks: it is counted and written, but must be computed once."""
        from pyspark import StorageLevel

        persisted = frame.persist(StorageLevel.DISK_ONLY)
        self._persisted.append(persisted)
        return persisted

    def count(self, summary: Summary, rejects_max: int | None) -> LogRow | None:
        """Counts into the summary; returns the first reject, by source and line. Raises `BadRecord` for more than
        `rejects_max` rejects."""
        from pyspark.sql import functions as f

        rows = self.rows
        at = f.unix_micros("at")
        totals = rows.agg(
            f.count("*").alias("rows"),
            f.count(FAULT).alias("rejects"),
            f.count("hindsight").alias("hindsight"),
            f.min(at).alias("first"),
            f.max(at).alias("last"),
            f.count_if(f.expr(_PASSED)).alias("passed"),
            f.count_if(f.expr(_UNKNOWN)).alias("unknown"),
            *(f.count_if(f.col("verdict") == name).alias(name) for name in VERDICTS),
            *(
                f.count_if((at >= notice.start) & (at < notice.until)).alias(f"clock{place}")
                for place, notice in enumerate(summary.clock_notices)
            ),
        ).first()
        summary.clock_rows.update(
            {notice: totals[f"clock{place}"] for place, notice in enumerate(summary.clock_notices)}
        )
        summary.rows, summary.rejects, summary.hindsight = totals.rows, totals.rejects, totals.hindsight
        summary.first_at, summary.last_at = totals.first, totals.last
        summary.observed = any(kind == OBSERVES for _, kind, _ in self._noted.value)
        summary.happened = self._layout.mapping.happened
        first = self._first_reject() if summary.rejects else None
        if first is not None and rejects_max is not None and summary.rejects > rejects_max:
            raise too_many_rejects(rejects_max, first)
        verdicts = self.verdicts()
        summary.verdicts.update({name: totals[name] for name in VERDICTS if totals[name]})
        reasons = verdicts.select(f.explode("reasons").alias("name")).groupBy("name").count()
        summary.reasons.update({row.name: row["count"] for row in reasons.collect()})
        if totals.passed:
            policies = verdicts.where(_PASSED).groupBy(*POLICY_KEYS).count().collect()
            summary.policies.update(
                {ProviderKey(*(row[name] for name in POLICY_KEYS)): row["count"] for row in policies}
            )
        summary.subject_count, summary.subjects = _subjects(verdicts, SUBJECTS_LISTED)
        summary.unknown_rows = totals.unknown
        if totals.unknown:
            summary.unknown_count, summary.unknown = _subjects(verdicts.where(_UNKNOWN), UNKNOWN_LISTED)
        return first

    def _first_reject(self) -> LogRow:
        from pyspark.sql import functions as f

        order = {one.file.name: place for place, one in enumerate(self.inputs)}
        firsts = self.rejects().groupBy(SOURCE).agg(f.min(LINE).alias(LINE), f.min_by(FAULT, LINE).alias(FAULT))
        first = min(firsts.collect(), key=lambda row: order[row[SOURCE]])
        return LogRow(first[SOURCE], first[LINE], None, first[FAULT])

    def verdicts(self) -> Any:
        return self.rows.where(self.rows[FAULT].isNull()).drop(FAULT)

    def rejects(self) -> Any:
        return self.rows.where(self.rows[FAULT].isNotNull()).select(SOURCE, LINE, FAULT)

    def finish(self) -> tuple[LogDigest, list[str]]:
        """(digest of the log, warnings), after all rows are counted and written. Raises `BadRecord` if the log has
        changed since, and if a Parquet file has other rows than its footer counts."""
        self._compare_footers()
        digest = next(iter(self._digest))
        for one, before, now in zip(self.inputs, self._stamps, self._current_stamps(), strict=True):
            if before != now:
                raise BadRecord(f"{one.file.name}: the log was changed while it was read; audit it once it is whole")
        return digest, self._warnings()

    def _warnings(self) -> list[str]:
        """As `LogReader.warnings`. Raises `BadRecord` as that does."""
        notes = ColumnNotes()
        for one in self.inputs:
            parser = RowParser(one.file.name, one.file.mapping, self._layout.shape)
            facts = {(kind, text) for source, kind, text in self._noted.value if source == one.file.name}
            parser.form = next((cast(LogForm, text) for kind, text in sorted(facts) if kind == FORM), None)
            if one.schema is not None:
                parser.form = "Parquet"
                parser.check_columns(column_names(one.schema, parser))
                parser.present_fields.update(parser.mapped_columns)
            else:
                parser.survey.add_facts(fact for fact in facts if fact[0] not in (FORM, MAPPED, OBSERVES))
                parser.present_fields.update(field for kind, field in facts if kind == MAPPED)
            notes.add(parser, self._has_record)
        return notes.warnings()

    def _compare_footers(self) -> None:
        expected = {one.file.name: one.rows for one in self.inputs if one.rows is not None}
        if not expected:
            return
        counts = {row[SOURCE]: row["count"] for row in self.rows.groupBy(SOURCE).count().collect()}
        for name, rows in expected.items():
            require_rows(name, rows, counts.get(name, 0))

    def _has_record(self, name: str) -> bool:
        return not self.verdicts().where(self.rows[SOURCE] == name).isEmpty()


_PASSED: Final = "data_policy = 'provider'"
_UNKNOWN: Final = "NOT subject_known AND governed_by IS NOT NULL"


def _subjects(verdicts: Any, listed: int) -> tuple[int, list[SubjectCount]]:
    """The number of governing subjects of these verdicts, and those that are listed: the worst first."""
    from pyspark.sql import functions as f

    by_verdict = [f.count_if(f.col("verdict") == name).alias(name) for name in VERDICTS]
    subjects = verdicts.groupBy("governed_by").agg(f.count("*").alias("total"), *by_verdict)
    against = reduce(lambda one, other: one + other, (f.col(name) for name in sorted(AGAINST)))
    order = [against.desc(), f.col("total").desc(), f.coalesce("governed_by", f.lit("")).asc()]
    # Two passes over one column and two: Spark does not put partitions together in a frame that it keeps.
    return verdicts.select("governed_by").distinct().count(), [
        SubjectCount(row.governed_by, {name: row[name] for name in VERDICTS if row[name]})
        for row in subjects.orderBy(*order).limit(listed).collect()
    ]


def _as_results(requests: Any) -> list[Any]:
    """The columns that make a reject of SLICED_REQUESTS one of RESULTS."""
    from pyspark.sql import functions as f

    place = [requests[name] for name in (SOURCE, LINE, FAULT)]
    rest = list(spark_schema(RESULTS))[len(place) :]
    return [*place, *(f.lit(None).cast(field.dataType).alias(field.name) for field in rest)]


def spark_schema(schema: pa.Schema) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


_INSTANT: Final = "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'"


def write(rows: Any, folder: str, form: str) -> None:
    """Writes a folder of files in that form: parquet, csv or json."""
    from pyspark.sql import functions as f

    # Independent of the session's time zone and formats.
    options = {"timestampFormat": _INSTANT, "timeZone": "UTC"}
    if form == "csv":
        lists = [field.name for field in rows.schema if field.dataType.typeName() == "array"]
        for name in lists:
            rows = rows.withColumn(name, f.to_json(name))
        # By default Spark trims texts.
        options |= {"ignoreLeadingWhiteSpace": "false", "ignoreTrailingWhiteSpace": "false"}
        rows.write.options(header="true", escape='"', **options).csv(hadoop_path(folder))
    elif form == "json":
        rows.write.options(ignoreNullFields="false", **options).json(hadoop_path(folder))
    else:
        rows.write.option("compression", "zstd").parquet(hadoop_path(folder))
