"""The suite spark computes its marks from the times of whole processes, and leaves nothing behind."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts.bench.processes import ProgramCost
from scripts.bench.suites import spark
from scripts.main import cli

SECONDS = {
    spark.START: 10.0,
    spark.ONE: 2.0,
    spark.ONE + spark.MORE: 20.0,
    spark.ON_SPARK: 30.0,
    spark.ON_SPARK + spark.MORE: 66.0,
}


def test_the_marks_follow_from_two_sizes_of_a_log() -> None:
    fixed, row = spark.judged(SECONDS, 200_000, 100_000)
    # A row takes 20 µs on Spark and 10 without; 200,000 rows take 4 s.
    assert (round(fixed.figure, 6), fixed.met) == (16.0, True)
    assert (round(row.figure, 6), row.met) == (2.0, True)
    assert "20.00 µs a row on Spark, 10.00 without" in row.note
    slower = {**SECONDS, spark.ON_SPARK + spark.MORE: 85.0, spark.ON_SPARK: 30.1 + 1.0}
    fixed, row = spark.judged(slower, 200_000, 100_000)
    assert (fixed.met, row.met) == (True, True)
    fixed, row = spark.judged({**SECONDS, spark.START: 5.9}, 200_000, 100_000)
    assert (fixed.met, row.met) == (False, True)
    fixed, row = spark.judged({**SECONDS, spark.ON_SPARK + spark.MORE: 84.1}, 200_000, 100_000)
    assert (fixed.met, row.met) == (True, False)
    assert [one.met for one in spark.judged(SECONDS, 2000, 1000)] == [None, None]


def test_every_case_audits_the_same_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    def stand_in(module: str, arguments: Sequence[str], **_more: Any) -> ProgramCost:
        """Starts no process: a JVM each would take minutes."""
        ran.append((module, *arguments))
        if module == "scripts.bench.spark_session":
            return ProgramCost(SECONDS[spark.START], 1.0, 0.1, b"")
        lines = 0
        if arguments:
            log = Path(arguments[1])
            files = sorted(log.iterdir()) if log.is_dir() else [log]
            lines = sum(file.read_bytes().count(b"\n") for file in files)
            Path(arguments[5]).mkdir()
        of_spark = "--engine" in arguments
        return ProgramCost(
            SECONDS[(spark.ON_SPARK if of_spark else spark.ONE) + (spark.MORE if lines > 4000 else "")], 1.0, 0.1, b""
        )

    monkeypatch.setattr(spark, "run_program", stand_in)
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "spark", "--quick", "--folder", str(tmp_path), "--format", "json"])
    output = capsys.readouterr()
    assert ended.value.code == 0, output.err
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    report = json.loads(output.out)
    assert {row["case"]: row["wall_s"] for row in report["tables"][0]["rows"]} == SECONDS
    assert {row["case"]: row["rows"] for row in report["tables"][0]["rows"]} == {
        spark.START: 0,
        **dict.fromkeys((spark.ONE, spark.ON_SPARK), 4000),
        **dict.fromkeys((spark.ONE + spark.MORE, spark.ON_SPARK + spark.MORE), 40_000),
    }
    with pytest.raises(SystemExit):
        cli.main(["bench", "spark", "--quick", "--folder", str(tmp_path), "--format", "table"])
    assert spark.START in capsys.readouterr().out
    assert [one["mark"] for one in report["marks"]] == ["spark.fixed", "spark.row"]
    assert ran[0] == ("projections.audit.compile_ahead",)
    assert ("scripts.bench.spark_session", "local[2]") in ran
