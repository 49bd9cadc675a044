"""Each bench measures beside a named baseline, says what it measured on, and leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from scripts.bench.measuring import Case, measure
from scripts.main import cli

BASELINES = {
    "check": {"dict of the present"},
    "append": {"library, Application.save", "library, recorder, 1000 made"},
    "replay": {"raw cursor, same rows"},
}


def run_bench(name: str, folder: Path, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", name, "--quick", "--folder", str(folder), *args])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert list(folder.iterdir()) == [], "nothing is left behind"
    return said.out


def assert_honest(name: str, found: dict[str, Any]) -> None:
    assert found["bench"] == name
    assert found["quick"] is True
    assert found["repetitions"] == 2
    assert found["machine"]["cores"] >= 1
    assert found["versions"]["eventsourcing"].startswith("9.")
    measured = {one["case"]: one for one in found["measured"]}
    assert {one["case"] for one in found["measured"] if one["baseline"] is None} == BASELINES[name]
    compared = [one for one in found["measured"] if one["baseline"] is not None]
    assert compared
    for one in compared:
        baseline = measured[one["baseline"]]
        assert baseline["ratio"] is None
        assert one["ratio"] == pytest.approx(one["wall_us"]["median"] / baseline["wall_us"]["median"], rel=0.05)
    for one in measured.values():
        assert 0 < one["wall_us"]["min"] <= one["wall_us"]["median"] <= one["wall_us"]["max"]
        assert one["units"] > 0
        assert one["per_second"] > 0


@pytest.mark.parametrize("name", BASELINES)
def test_a_bench_on_sqlite(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run_bench(name, tmp_path, capsys, "--format", "json"))
    assert_honest(name, found)
    assert "synchronous=FULL" in found["database"]


@pytest.mark.parametrize("name", BASELINES)
def test_a_bench_on_postgresql_uses_databases_of_its_own(
    name: str, tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(run_bench(name, tmp_path, capsys, "--format", "json", "--db", postgres_url))
    assert_honest(name, found)
    assert "synchronous_commit=on" in found["database"]
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'inforce'").fetchall()
    assert tables == [], "the database that was named is left alone"


def test_people_see_a_table_for_each_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run_bench("append", tmp_path, capsys)
    assert said.count("baseline") == 2 + 1
    assert "submit, one per commit" in said
    assert "these figures mean little" in said


def test_a_database_that_is_no_server_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url, code in (("sqlite:///x.db", 2), ("oracle://x", 2), ("postgresql://nobody@127.0.0.1:1/x", 3)):
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", "append", "--quick", "--folder", str(tmp_path), "--db", url])
        assert ended.value.code == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_warming_up_is_not_counted_and_cases_take_turns() -> None:
    order: list[str] = []

    def work(name: str) -> Case:
        def run(prepared: Any) -> int:
            assert prepared == f"for {name}"
            order.append(name)
            return 10

        return Case(name, None if name == "a" else "a", run, lambda: f"for {name}")

    measured = measure([work("a"), work("b")], 2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [one.units for one in measured] == [10, 10]
    assert [one.ratio is None for one in measured] == [True, False]
