"""Every suite judges its marks, computes its ratios correctly, and leaves no file or database behind."""

import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest

from scripts.bench.marks import MARKS
from scripts.bench.scratch import PostgreSQLScratch
from scripts.bench.suite import SUITES
from scripts.main import cli
from tests.support.ledgers import GENESIS


class Expected(NamedTuple):
    """`tables`: title → cases. `marks`: those judged on SQLite; `sqlite_only`: those not judged on PostgreSQL.

    `turns`: one where each case starts a process, of which the others would start twenty more."""

    tables: dict[str, list[str]]
    marks: list[str]
    sqlite_only: tuple[str, ...] = ()
    turns: int = 2


EXPECTED = {
    "append": Expected(
        {
            "one event per commit, one thread": ["library: Application.save", "inforce: submit"],
            "batches of 1000": [
                "library: recorder, stored events ready",
                "inforce: recorder, events decided",
                "inforce: submit, from JSON values",
            ],
        },
        ["append.one", "append.recorder", "append.road"],
    ),
    "http": Expected(
        {"one event each, over HTTP": ["group commit", "one commit per event"]}, ["http.sqlite", "http.tail"]
    ),
    "check": Expected(
        {
            "ours, about the past": [
                "check: verdict and handling",
                "check: full evidence as JSON",
                "check_all: verdict and handling",
                "check: the same, any moment of a year",
                "dict of the present, ten look-ups",
            ],
            "peers, one toggle, no history": ["cedarpy", "casbin", "UnleashClient", "OpenFeature, in memory"],
        },
        ["check.verdict", "check.evidence", "check.peers"],
    ),
    "access": Expected({"signing in": ["300", "600"]}, ["access.token", "access.flat", "access.memory"]),
    "http-check": Expected(
        {
            "server, µs for each answer": [
                *("constant, FastAPI route", "constant, bare Starlette route", "POST /v1/checks, one record") * 2,
                "POST /v1/checks, 1000 records",
            ]
        },
        ["http-check.one", "http-check.many", "http-check.batch"],
    ),
    "sign-in": Expected(
        {
            "in process, one after the other": [
                "cryptography: RS256 signature alone",
                "JSON Web Token, for the first time",
                "JSON Web Token, verified before",
                "rate limit: one request of a principal",
            ],
        },
        ["sign-in.first", "sign-in.again", "sign-in.limit"],
    ),
    "replay": Expected(
        {
            f"reading the first {2000 + GENESIS + 20:,} events": [
                "raw cursor, same rows",
                "feed",
                "replay: rows and their changes",
            ],
            "rebuilding all of them": ["inforce rebuild"],
        },
        ["replay.read", "rebuild.wall", "rebuild.memory"],
    ),
    "growth": Expected(
        {"warm, µs a check": ["1,000", "2,000"], "cold, µs a check": ["1,000", "1,000", "2,000", "2,000"]},
        ["growth.warm", "growth.cold"],
        sqlite_only=("growth.cold",),
    ),
    "memory": Expected(
        {"server, resident memory": ["anybody, at random", "one long history"]}, ["memory.subjects", "memory.history"]
    ),
    "log": Expected(
        {
            f"{1000 + GENESIS + 20:,} events": [
                "hashlib: the same leaves and nodes",
                "inforce: integrate, prove, sign, publish",
            ],
            "a tree of 2,000 leaves, µs a proof": [
                "hashlib: the nodes of two tiles",
                "proof, tiles read and proved",
                "proof, tiles at hand",
            ],
        },
        ["log.integrate", "log.proof"],
    ),
    "audit": Expected(
        {
            "an audit of 4,000 requests, 2,000 events": [
                "reading and writing the rows",
                "inforce audit",
                "Polars, join_asof",
                "DuckDB, ASOF JOIN",
                "reading JSON Lines, PyArrow",
                "reading JSON Lines, DuckDB",
                "inforce audit, JSON Lines",
                "inforce audit, ten times the rows",
            ],
            "policy index": ["compiled", "brought up by 1,000 events"],
        },
        [
            *("audit.floor", "audit.polars", "audit.duckdb", "audit.memory", "audit.tenfold", "audit.tenfold-memory"),
            *("audit.lines", "audit.index", "audit.extension"),
        ],
        turns=1,
    ),
}


def run_bench(name: str, folder: Path, capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    options = ("--quick", "--turns", str(EXPECTED[name].turns), "--folder", str(folder), "--format", "json")
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", name, *options, *args])
    output = capsys.readouterr()
    assert ended.value.code == 0, output.err
    assert list(folder.iterdir()) == [], "nothing is left behind"
    report: dict[str, Any] = json.loads(output.out)
    return report


def assert_consistent(name: str, report: dict[str, Any], marks: list[str]) -> None:
    assert report["suite"] == name
    assert report["quick"] is True
    assert report["turns"] == EXPECTED[name].turns
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["eventsourcing"].startswith("9.")
    tables = {
        table["title"]: [row.get("case") or f"{row['events']:,}" for row in table["rows"]] for table in report["tables"]
    }
    assert tables == EXPECTED[name].tables
    assert [judged["mark"] for judged in report["marks"]] == marks
    for judged in report["marks"]:
        mark = MARKS[judged["mark"]]
        assert judged["figure"] > 0
        # A mark about a larger size is not judged.
        assert judged["met"] is (mark.holds(judged["figure"]) if mark.size is None else None)
    for table in report["tables"]:
        assert_ratios(name, table["rows"])


def assert_ratios(name: str, rows: list[dict[str, Any]]) -> None:
    """Every ratio follows from the figures of its table."""
    by_case = {row.get("case"): row for row in rows}
    for row in rows:
        if "speed" in row and row["baseline"] in by_case:
            baseline = by_case[row["baseline"]]
            assert baseline["speed"] is None
            assert row["speed"] == approx(baseline["wall_us"]["median"] / row["wall_us"]["median"])
            assert 0 < row["wall_us"]["min"] <= row["wall_us"]["median"] <= row["wall_us"]["max"]
            assert row["units"] > 0
    if name == "http":
        grouped, alone = rows
        assert alone["times"] is None
        assert grouped["times"] == approx(grouped["per_second"] / alone["per_second"])
        assert grouped["tail"] >= 1
    if name == "http-check":
        constants = {row["connections"]: row for row in rows if row["case"] == "constant, FastAPI route"}
        checks = [row for row in rows if row["case"] == "POST /v1/checks, one record"]
        assert [row["connections"] for row in checks] == [1, 16]
        for row in checks:
            assert row["times"] == approx(row["cpu_us"] / constants[row["connections"]]["cpu_us"])
    if name == "audit" and "times" in rows[0]:
        floor, ours, *peers = rows[:4]
        assert floor["times"] is None
        for row in (ours, *peers):
            assert row["times"] == approx(row["wall_s"] / floor["wall_s"])
            assert row["rows"] == 4000
        assert rows[-1]["rows"] == 40_000
    if name == "growth" and "times" in rows[0]:
        assert rows[0]["times"] is None
        assert rows[1]["times"] == approx(rows[1]["p50_us"] / rows[0]["p50_us"])


def approx(value: float) -> Any:
    return pytest.approx(value, rel=0.01)


def test_every_suite_and_every_mark_is_expected_here() -> None:
    # A quick run of the suite spark would start some ten JVMs: see test_spark_suite.py.
    assert {*EXPECTED, "spark"} == set(SUITES)
    judged = {mark for expected in EXPECTED.values() for mark in expected.marks}
    assert judged | {"http.postgresql", "spark.fixed", "spark.row"} == set(MARKS)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_suite_on_sqlite(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_bench(name, tmp_path, capsys)
    assert_consistent(name, report, EXPECTED[name].marks)
    assert "synchronous=FULL" in report["database"]


@pytest.mark.parametrize("name", ["append", "http", "replay", "growth", "log"])
def test_a_suite_on_postgresql_uses_its_own_databases(
    name: str, tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    urls: list[str] = []
    create = PostgreSQLScratch.url

    def create_and_note(databases: PostgreSQLScratch) -> str:
        urls.append(create(databases))
        return urls[-1]

    monkeypatch.setattr(PostgreSQLScratch, "url", create_and_note)
    report = run_bench(name, tmp_path, capsys, "--db", postgres_url)
    marks = [mark for mark in EXPECTED[name].marks if mark not in EXPECTED[name].sqlite_only]
    assert_consistent(name, report, [mark.replace("http.sqlite", "http.postgresql") for mark in marks])
    assert "synchronous_commit=on" in report["database"]
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'inforce'").fetchall()
        names = [urlsplit(url).path[1:] for url in urls]
        remaining = connection.execute("SELECT datname FROM pg_database WHERE datname = ANY(%s)", (names,)).fetchall()
    assert tables == [], "the named database is unchanged"
    assert urls
    assert remaining == [], "the created databases are gone"


def test_without_a_suite_the_help_lists_all_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench"])
    assert ended.value.code == 2
    help_text = capsys.readouterr().err
    assert all(f"  {name} " in help_text for name in SUITES)
    assert "inforce bench replay --events 10000000" in help_text


def test_a_url_of_no_postgresql_server_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url, code in (("sqlite:///x.db", 2), ("oracle://x", 2), ("postgresql://nobody@127.0.0.1:1/x", 3)):
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", "append", "--quick", "--folder", str(tmp_path), "--db", url])
        assert ended.value.code == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
