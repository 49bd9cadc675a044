"""A real cluster decides every row as the row-by-row path does, with and without slices, in batches of any size."""

import csv
import gzip
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadInput, BadRecord
from projections.audit.index.compile import compile_index
from projections.audit.reading.aliases import aliases_of_rows
from projections.audit.reading.fields import NO_MAPPING
from projections.audit.reading.files import log_files
from projections.audit.reading.layout import Forms, make_layout
from projections.audit.reading.logs import LogReader
from projections.audit.reading.shape import ANY_SHAPE, LogShape
from projections.audit.reference import decide_slowly
from projections.audit.run import index_decider, run
from projections.audit.spark.errors import spark_error
from projections.audit.spark.run import Plan, SparkAudit, write
from projections.audit.spark.slices import sliced_bytes
from projections.audit.summary import LogDigest, Summary, summary_json
from projections.audit.verdict_files import OUTPUT_SCHEMA, VerdictWriter
from projections.query.query import PinnedQuery
from projections.temporal.coordinates import ClockNotice
from tests.audit.kernel.test_against_reference import _drawn
from tests.audit.spark.conftest import Standalone, children
from tests.audit.spark.logs import NO_LAYOUT, log_line, write_mixed_logs
from tests.audit.strategies import grown, slow_decider
from tests.query.test_against_reference import grown as grown_at_random
from tests.support.questions import NOON, QueryLedger
from tests.support.waiting import GIVE_UP_S

COUNT = 400


@pytest.fixture(scope="module")
def bench() -> Iterator[QueryLedger]:
    with grown([]) as ledger_bench:
        grown_at_random(ledger_bench, Random(7), range(60))
        yield ledger_bench


@pytest.fixture(scope="module")
def logs(bench: QueryLedger, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, chance = tmp_path_factory.mktemp("a log") / "as ü [1]", Random(8)
    folder.mkdir()
    drawn = [_drawn(chance, bench.ledger.head().position) for _ in range(COUNT)]
    # One subject has most of the rows.
    drawn += [{"at": row["at"], "org_id": "acme", "stored": True, "request_id": "ünïcode 東"} for row in drawn]
    write_mixed_logs(folder, drawn)
    return [str(folder)]


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _expected(bench: QueryLedger, names: list[str]) -> tuple[list[Any], list[Any]]:
    query, verdicts, rejects = PinnedQuery(bench.query), [], []
    for batch in LogReader(log_files(names, NO_MAPPING)):
        rows = decide_slowly(query, batch.requests).cast(pa.schema(list(OUTPUT_SCHEMA)[2:])).to_pylist()
        pairs = zip(batch.lines.tolist(), rows, strict=True)
        verdicts += [{"source": batch.source, "line": line} | row for line, row in pairs]
        rejects += [{"source": f.source, "line": f.line, "reason": f.fault} for f in batch.faults]
    return verdicts, rejects


def _sorted(frame: Any) -> list[Any]:
    return _in_order(frame.toArrow().to_pylist())


def _in_order(rows: list[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: (row["source"], row["line"]))


@pytest.mark.parametrize("way", ["map", "cogroup"])
@pytest.mark.parametrize("batch_rows", [1, 2, 65_536])
def test_verdicts_and_rejects_are_those_of_one_machine(
    cluster: Any, bench: QueryLedger, logs: list[str], tmp_path: Path, way: str, batch_rows: int
) -> None:
    cluster.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(batch_rows))
    verdicts, rejects = _expected(bench, logs)
    assert len(verdicts) > COUNT
    assert rejects
    index = compile_index(bench.ledger)
    plan = Plan() if way == "map" else Plan(0, sliced_bytes(index) // 3, 300, str(tmp_path / "slices"))
    instants = sorted((row["at"] - EPOCH) // timedelta(microseconds=1) for row in verdicts)
    notices = (ClockNotice(instants[1], instants[-1], 7), ClockNotice(instants[-1] + 1, instants[-1] + 2, 8))
    summary = Summary(index.pin, "at", clock_notices=notices)
    with SparkAudit(cluster, index, logs, NO_LAYOUT, plan) as decided:
        first = decided.count(summary, None)
        assert _sorted(decided.verdicts()) == _in_order(verdicts)
        assert _sorted(decided.rejects()) == _in_order(rejects)
        assert first is not None
        assert (first.source, first.line) == (rejects[0]["source"], rejects[0]["line"])
        with pytest.raises(BadRecord, match=f"more than {len(rejects) - 1} rows cannot be read"):
            decided.count(Summary(index.pin, "at"), len(rejects) - 1)
        summary.log, warnings = decided.finish()
        assert not warnings
    assert not list(tmp_path.iterdir())
    assert 0 < summary.clock_rows[notices[0]] < len(verdicts)
    expected = Summary(index.pin, "at", clock_notices=notices)
    local = LogReader(log_files(logs, NO_MAPPING))
    run(local, slow_decider(PinnedQuery(bench.query), "at"), expected)
    expected.log = LogDigest(local.digest, [(source.name, source.bytes) for source in local.sources])
    assert summary_json(summary) == summary_json(expected)


@pytest.mark.parametrize("way", ["map", "cogroup"])
def test_forms_of_values_are_those_of_one_machine(cluster: Any, bench: QueryLedger, tmp_path: Path, way: str) -> None:
    (tmp_path / "logs").mkdir()
    header = "when,tenant,cache,handling.network\n"
    lines = ["01.03.2026 13:00,Acme Inc,HIT,", "01.03.2026 13:00,acme,None,", "29.03.2026 02:30,acme,MISS,", "x,acme,,"]
    (tmp_path / "logs" / "a.csv").write_text(header + "\n".join(lines) + "\n")
    (tmp_path / "logs" / "b.jsonl").write_text('{"when":"01.03.2026 13:00","tenant":"Acme Inc","cache":"miss"}\n')
    group = {
        "when": pa.array(["01.03.2026 13:00"] * 3, pa.string_view()),
        "tenant": pa.array([b"acme", b"beta", None], pa.binary(4)),
        "user": pa.array([bytes(range(16))] * 3, pa.uuid()),
        "cache": ["HIT", "miss", None],
    }
    pq.write_table(pa.table(group), tmp_path / "logs" / "c.parquet")
    forms = Forms(
        "Europe/Berlin",
        time_format="%d.%m.%Y %H:%M",
        true=("HIT",),
        false=("MISS",),
        neither=("None",),
        aliases=aliases_of_rows(["org,Acme Inc,acme"]),
        happened=True,
    )
    columns = {"at": "when", "org_id": "tenant", "handling.cached": "cache"}
    for names, more in ((["a.csv", "b.jsonl"], {}), (["c.parquet"], {"account_id": "user"})):
        logs = [str(tmp_path / "logs" / name) for name in names]
        layout = make_layout(columns | more, {}, forms, ANY_SHAPE)
        index = compile_index(bench.ledger)
        plan = Plan() if way == "map" else Plan(0, sliced_bytes(index) // 2, 5_000, str(tmp_path / "slices"))
        local = LogReader(log_files(logs, layout.mapping))
        expected, summary = Summary(index.pin, "at", happened=True), Summary(index.pin, "at")
        run(local, slow_decider(PinnedQuery(bench.query), "at"), expected)
        expected.log = LogDigest(local.digest, [(source.name, source.bytes) for source in local.sources])
        with SparkAudit(cluster, index, logs, layout, plan) as decided:
            decided.count(summary, None)
            summary.log, warnings = decided.finish()
        assert summary_json(summary) == summary_json(expected)
        assert summary.rows - summary.rejects == 3
        assert summary.verdicts.keys().isdisjoint(("allowed", "denied"))
        assert warnings == local.warnings


def test_a_damaged_parquet_file_loses_no_row_in_silence(cluster: Any, bench: QueryLedger, tmp_path: Path) -> None:
    """The footer counts a row less in its one row group than the file has."""
    file = tmp_path / "a.parquet"
    table = pa.table({"at": ["2026-03-01T12:00:01Z"] * 300, "org_id": ["acme"] * 300})
    pq.write_table(table, file, compression="none")
    body = file.read_bytes()
    footer = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    count, less = bytes([0x16, 0xD8, 0x04]), bytes([0x16, 0xD6, 0x04])
    place = body.index(count, footer)
    for end in (place, body.rindex(count)):
        file.write_bytes(body[:end] + less + body[end + 3 :])
        with pytest.raises((BadRecord, BadInput), match="damaged"):
            _audit(cluster, bench, str(file))


def _audit(cluster: Any, bench: QueryLedger, log: str) -> None:
    index = compile_index(bench.ledger)
    with SparkAudit(cluster, index, [log], NO_LAYOUT) as decided:
        decided.count(Summary(index.pin, "at"), None)
        decided.finish()


def test_a_mapped_column_that_no_row_has_is_an_error_and_one_that_some_lack_a_warning(
    cluster: Any, bench: QueryLedger, tmp_path: Path
) -> None:
    (tmp_path / "log.jsonl").write_text('{"at":"2026-03-01T12:00:01Z","org":"acme"}\n' * 3)
    layout = make_layout({"org_id": "org", "account_id": "nowhere"}, {}, Forms(), ANY_SHAPE)
    with SparkAudit(cluster, compile_index(bench.ledger), [str(tmp_path)], layout) as decided:
        decided.count(Summary(compile_index(bench.ledger).pin, "at"), None)
        with pytest.raises(BadRecord, match="no row has nowhere, which was named for account_id"):
            decided.finish()
    (tmp_path / "more.jsonl").write_text('{"at":"2026-03-01T12:00:01Z","org":"acme","nowhere":null}\n')
    with SparkAudit(cluster, compile_index(bench.ledger), [str(tmp_path)], layout) as decided:
        decided.count(Summary(compile_index(bench.ledger).pin, "at"), None)
        name = tmp_path / "log.jsonl"
        assert decided.finish()[1] == [f"{name}: no row has 1 column that was named: nowhere for account_id"]


def test_an_option_that_means_nothing_for_any_log_and_an_observation_that_is_no_field_are_errors(
    cluster: Any, bench: QueryLedger, tmp_path: Path
) -> None:
    row = '{"at":"2026-03-01T12:00:01Z","org_id":"acme"}\n'
    logs = {"a.jsonl": row, "b.csv": "at,org_id\n2026-03-01T12:00:01Z,acme\n"}
    for name, text in logs.items():
        (tmp_path / name).write_text(text)
    pq.write_table(pa.table({"at": ["2026-03-01T12:00:01Z"], "org_id": ["acme"]}), tmp_path / "c.parquet")
    layout = make_layout({}, {}, Forms(), LogShape(sheet="a"))
    index = compile_index(bench.ledger)
    for name, form in (("a.jsonl", "JSON Lines"), ("b.csv", "CSV"), ("c.parquet", "Parquet")):
        with SparkAudit(cluster, index, [str(tmp_path / name)], layout) as decided:
            decided.count(Summary(index.pin, "at"), None)
            with pytest.raises(BadRecord, match=f"this is {form}, for which --sheet means nothing; leave --sheet out"):
                decided.finish()
    late = tmp_path / "late.jsonl"
    late.write_text(row * 1500 + row.replace('"org_id"', '"handling.storred":true,"org_id"'))
    refusal = ""
    try:
        _audit(cluster, bench, str(late))
    except Exception as error:  # of whatever class Spark gives the errors of tasks
        refusal = str(spark_error(error))
    assert "handling.storred is no field of a request record" in refusal


def test_a_log_that_changes_meanwhile_is_an_error(cluster: Any, bench: QueryLedger, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"at":"2026-03-01T12:00:01Z","org_id":"acme"}\n' * 3)
    with SparkAudit(cluster, compile_index(bench.ledger), [str(log)], NO_LAYOUT) as decided:
        decided.count(Summary(compile_index(bench.ledger).pin, "at"), None)
        with log.open("a") as more:
            more.write("\n")
        with pytest.raises(BadRecord, match="was changed while it was read"):
            decided.finish()


def test_files_are_cut_at_the_same_places_every_time(
    cluster: Any, bench: QueryLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of these files can only be read as a whole; the others are awkward, each in its own way."""
    monkeypatch.setattr("projections.audit.spark.inputs.WHOLE_BYTES_MAX", 50)
    cluster.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "65536")
    row = b"2026-03-01T12:00:01Z,acme,\n"
    blank = b'\xef\xbb\xbf \r\n\x0c\n,,\n"","",""\n'
    (tmp_path / "a.csv").write_bytes(blank + b"at,org_id,request_id\n,,\n" + row * 1900 + b",,\n")
    # Bytes that are not UTF-8 must not hide a quote.
    (tmp_path / "b.csv").write_bytes(b"at,org_id,request_id\n" + row.replace(b",\n", b',\xc3"\n') * 1600)
    (tmp_path / "c.jsonl").write_bytes(b'\xef\xbb\xbf\n{"at": "2026-03-01T12:00:01Z", "org_id": "acme"}\n')
    (tmp_path / "d.csv.gz").write_bytes(
        gzip.compress(b"at,org_id,request_id\n" + row.replace(b",\n", b',"2\n"\n') * 50)
    )
    at = pa.array([2**62, NOON // 1000], pa.int64()).cast(pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"at": at, "org_id": ["acme", "acme"]}), tmp_path / "e.parquet")
    index, logs = compile_index(bench.ledger), [str(tmp_path)]
    verdicts, rejects = _expected(bench, logs)
    assert len(verdicts) == 1900 + 1 + 50 + 1
    assert rejects
    with SparkAudit(cluster, index, logs, NO_LAYOUT) as decided:
        assert _sorted(decided.verdicts()) == _in_order(verdicts)
        assert _sorted(decided.rejects()) == _in_order(rejects)


@pytest.mark.parametrize("name", ["_log.jsonl", ".log.csv", "log.jsonl._COPYING_", "12:00.jsonl"])
def test_a_name_that_spark_skips_is_an_error(cluster: Any, bench: QueryLedger, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("at,org_id\n")
    with pytest.raises(BadRecord, match="rename the file"):
        SparkAudit(cluster, compile_index(bench.ledger), [str(tmp_path / name)], NO_LAYOUT)


def test_an_unwritable_result_is_an_error_before_the_work_begins(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        cluster.begin(str(tmp_path / "file" / "out.parquet"))


@pytest.mark.parametrize("form", ["csv", "json"])
def test_results_in_csv_and_json_equal_those_of_one_machine(
    cluster: Any, bench: QueryLedger, tmp_path: Path, form: str
) -> None:
    texts = ["  at both ends ", 'a "quote", a comma', "ünïcode 東", "\\", "'", "#", "null", None, "two\r\nlines"]
    rows = [{"at": NOON + number, "org_id": "acme", "request_id": text} for number, text in enumerate(texts)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(log_line(row)) + "\n" for row in rows))
    index, logs = compile_index(bench.ledger), [str(tmp_path / "log.jsonl")]
    with SparkAudit(cluster, index, logs, NO_LAYOUT) as decided:
        write(decided.verdicts(), str(tmp_path / "there"), form)
    here = io.BytesIO()
    writer = VerdictWriter(here, "csv" if form == "csv" else "ndjson")
    (batch,) = LogReader(log_files(logs, NO_MAPPING))
    writer.take(batch.source, batch.lines, decide_slowly(PinnedQuery(bench.query), batch.requests))
    writer.finish({})
    (file,) = (tmp_path / "there").glob("part-*")
    there = _read_back(file.read_bytes(), form)
    # The two writers may quote a text of two lines differently.
    assert there[:-1] == _read_back(here.getvalue(), form)[: len(there) - 1]
    assert "two\r\nlines" in (there[-1].values() if form == "json" else there[-1])


def _read_back(content: bytes, form: str) -> list[Any]:
    if form == "csv":
        return list(csv.reader(io.StringIO(content.decode(), newline="")))
    return [json.loads(line) for line in content.decode().split("\n") if line]


@pytest.mark.parametrize("way", ["map", "cogroup"])
def test_the_real_conversations_give_the_result_of_one_machine(
    cluster: Any, bench: QueryLedger, real_data: Callable[[str], Path], tmp_path: Path, way: str
) -> None:
    cluster.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "65536")
    log = str(real_data("requests/azure-llm-conv-2023.csv.gz"))
    layout = make_layout({"at": "TIMESTAMP"}, {"org_id": "acme"}, Forms("UTC"), ANY_SHAPE)
    index = compile_index(bench.ledger)
    plan = Plan() if way == "map" else Plan(0, sliced_bytes(index) // 2, 5_000, str(tmp_path / "slices"))
    expected, summary, local = (
        Summary(index.pin, "at"),
        Summary(index.pin, "at"),
        LogReader(log_files([log], layout.mapping)),
    )
    run(local, index_decider(bench.ledger, index.pin, "at"), expected)
    with SparkAudit(cluster, index, [log], layout, plan) as decided:
        decided.count(summary, None)
    assert summary.rows > 10_000
    assert summary_json(summary) == summary_json(expected)


def test_a_killed_worker_costs_tasks_but_no_row(
    standalone: Standalone, cluster: Any, bench: QueryLedger, logs: list[str]
) -> None:
    """The last test of this file, because the cluster has one worker less afterwards."""
    cluster.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1")
    worker, tracker = standalone.workers[0], cluster.spark.sparkContext.statusTracker()
    executors = children(worker.pid)
    stages: list[int] = []
    assert executors

    def kill() -> None:
        """Kills the worker when some tasks are done and others are not."""
        until = time.monotonic() + GIVE_UP_S
        while not stages and time.monotonic() < until:
            for number in tracker.getActiveStageIds():
                stage = tracker.getStageInfo(number)
                if stage is not None and 0 < stage.numCompletedTasks < stage.numTasks:
                    stages.append(number)
        worker.kill()
        for pid in executors:
            os.kill(pid, signal.SIGKILL)

    verdicts, rejects = _expected(bench, logs)
    index = compile_index(bench.ledger)
    killing = threading.Thread(target=kill)
    killing.start()
    with SparkAudit(cluster, index, logs, NO_LAYOUT) as decided:
        summary = Summary(index.pin, "at")
        decided.count(summary, None)
        killing.join()
        assert stages
        assert _lost_executors(cluster.spark) == 1
        assert (summary.rows, summary.rejects) == (len(verdicts) + len(rejects), len(rejects))
        assert _sorted(decided.verdicts()) == _in_order(verdicts)
        assert _sorted(decided.rejects()) == _in_order(rejects)


def _lost_executors(spark: Any) -> int:
    """Waits until the cluster has noticed a loss."""
    until = time.monotonic() + GIVE_UP_S
    while True:
        known = spark.sparkContext._jsc.sc().statusStore().executorList(False)
        lost = sum(not known.apply(number).isActive() for number in range(known.size()))
        if lost or time.monotonic() > until:
            return lost
        time.sleep(0.1)
