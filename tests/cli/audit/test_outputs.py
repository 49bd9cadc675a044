"""audit: outputs replace no other file and appear together; names must be UTF-8; warnings about useless input."""

import errno
import json
import os
import shlex
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from projections.audit.what_if.run import first_request_of
from scripts.audit.request import rate_reporter
from tests.audit.report.making import without_breaks
from tests.cli.audit.logs import AT, LOG, record
from tests.support.command import Inforce

NO_TEXT = b"\xff".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "args",
    [
        ("a.jsonl", "a.jsonl.rejects.jsonl"),
        ("a.jsonl", "--out", "a.jsonl.rejects.jsonl"),
        ("a.jsonl", "--what-if", "a.jsonl.rejects.jsonl"),
    ],
    ids=" ".join,
)
def test_the_default_rejects_file_replaces_no_log_and_no_output(
    ledger: Inforce, folder: Path, args: tuple[str, ...]
) -> None:
    (folder / "a.jsonl").write_text(LOG)
    (folder / "a.jsonl.rejects.jsonl").write_text(record("acme"))
    result = ledger("audit", *args)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "unreadable lines go to a.jsonl.rejects.jsonl; --rejects names another" in result.err
    assert (folder / "a.jsonl.rejects.jsonl").read_text() == record("acme")


def test_standard_output_gets_verdicts_or_rejects_but_not_both(ledger: Inforce) -> None:
    assert "cannot both go to standard output" in ledger("audit", "-", "--out", "-", "--rejects", "-", stdin=LOG).err
    result = ledger("audit", "-", "--rejects", "-", "--format", "json", stdin=LOG)
    assert [(row["source"], row["line"]) for row in result.lines()] == [("-", 3)]


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_findings_are_refused_in_formats_that_do_not_show_them(ledger: Inforce, form: str) -> None:
    result = ledger("audit", "-", "--findings", "1", "--format", form, stdin=LOG)
    assert (result.code, result.out) == (2, "")
    assert "has no --findings; table and json show them" in result.err


@pytest.mark.parametrize("what_if", [False, True])
def test_a_full_disk_leaves_verdicts_pin_and_report_unchanged(
    ledger: Inforce, folder: Path, monkeypatch: pytest.MonkeyPatch, what_if: bool
) -> None:
    """The disk is full when the verdicts are flushed."""
    (folder / "a.jsonl").write_text(LOG)
    change = {"type": "setting.changed", "subject": "org:beta", "setting": "training.opt_in", "value": True}
    (folder / "w.jsonl").write_text(json.dumps(change))
    options = ("a.jsonl", "--out", "v.csv", *(("--what-if", "w.jsonl") if what_if else ("--report", "out")))
    assert ledger("audit", *options).code == (4 if what_if else 1)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "inforce.db" not in str(path)}
    assert len(before) == (5 if what_if else 8)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if ".v.csv." in os.readlink(f"/proc/self/fd/{descriptor}") and "pin" not in os.readlink(
            f"/proc/self/fd/{descriptor}"
        ):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    (folder / "a.jsonl").write_text(LOG + "\nmore nonsense")
    result = ledger("audit", *options)
    assert (result.code, result.err) == (2, "inforce: no space left on device\n")
    before[folder / "a.jsonl"] = (folder / "a.jsonl").read_bytes()
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "args",
    [
        (NO_TEXT,),
        ("logs",),
        ("a.jsonl", "--out", NO_TEXT),
        ("a.jsonl", "--rejects", NO_TEXT),
        ("a.jsonl", "--report", NO_TEXT),
        ("a.jsonl", "--explain", NO_TEXT),
        ("a.jsonl", "--map", f"org_id={NO_TEXT}"),
        ("a.jsonl", "--set", f"request_id={NO_TEXT}"),
    ],
    ids=lambda args: ascii(" ".join(args)),
)
def test_names_that_are_not_utf_8_are_refused_in_one_line(ledger: Inforce, folder: Path, args: tuple[str, ...]) -> None:
    (folder / "logs").mkdir()
    for name in ("a.jsonl", NO_TEXT, f"logs/{NO_TEXT}.jsonl"):
        (folder / name).write_text(record("acme"))
    result = ledger("audit", *args)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "not UTF-8" in result.err


def test_a_log_without_rows_gives_a_warning(ledger: Inforce, folder: Path) -> None:
    """Its writer may have failed, and an empty log must not look like a log without violations."""
    pq.write_table(pa.table({"at": pa.array([], pa.string()), "org_id": pa.array([], pa.string())}), "none.parquet")
    (folder / "none.csv").write_text("at,org_id\n")
    for logs in (("-",), ("none.parquet", "none.csv")):
        result = ledger("audit", *logs)
        assert (result.code, "nothing was audited" in result.err) == (0, True)


def test_an_explanation_refuses_a_column_that_no_row_has_too(ledger: Inforce) -> None:
    options = ("audit", "-", "--explain", "r4", "--map", "handling.stored=kpet")
    assert "no row has kpet, which was named for handling.stored" in ledger(*options, stdin=LOG).err


def test_the_first_instant_of_all_is_shown(ledger: Inforce) -> None:
    result = ledger("audit", "-", stdin=record("acme", at="0001-01-01T00:00:00Z"))
    assert "requests from 0001-01-01 00:00:00Z to 0001-01-01 00:00:00Z" in result.out


def test_the_commands_in_a_report_repeat_its_audit(ledger: Inforce, folder: Path) -> None:
    """A name that begins with a dash is not an option, and --known-at is repeated."""
    (folder / "-x.jsonl").write_text(LOG)
    assert ledger("audit", "--known-at", "now", "--report", "out", "--", "-x.jsonl").code == 1
    written = json.loads((folder / "out" / "report.json").read_text())
    assert ledger(*shlex.split(written["command"])[1:], "--format", "json").json()["verdicts"] == written["verdicts"]
    explained = [one["commands"]["explain"] for one in written["findings"] if one["commands"]["explain"]]
    assert [ledger(*shlex.split(command)[1:]).code for command in explained] == [0, 0]
    all_of_them = "inforce audit ./-x.jsonl --known-at=now --out=verdicts.csv"
    assert f"<code>{all_of_them}</code>" in without_breaks((folder / "out" / "report.html").read_text())


OPTED = {"type": "setting.changed", "subject": "org:beta", "setting": "training.opt_in", "value": True}
LATER = "2026-01-02T00:00:00.000001Z"


@pytest.mark.parametrize(
    ("lines", "known_at", "late"),
    [
        ([OPTED, OPTED | {"recorded_at": LATER}, OPTED | {"effective_from": LATER}], "at", "lines 2, 3 change nothing"),
        ([OPTED | {"recorded_at": LATER, "effective_from": AT}], "at", "line 1 changes nothing"),
        ([OPTED | {"recorded_at": LATER, "effective_from": AT}], "now", ""),
        ([OPTED | {"recorded_at": LATER}], "now", "line 1 changes nothing"),
        ([OPTED | {"recorded_at": AT, "effective_from": AT}], "at", ""),
        ([{"type": "change.retracted", "recorded_at": LATER}], "at", "line 1 changes nothing"),
        ([{"type": "change.retracted", "recorded_at": LATER}], "now", ""),
    ],
)
def test_a_proposal_that_begins_after_all_requests_gives_a_warning(
    ledger: Inforce, folder: Path, lines: list[dict[str, Any]], known_at: str, late: str
) -> None:
    event_id = ledger("export").lines()[-1]["id"]
    lines = [line | ({"event_id": event_id, "reason": "x"} if "retracted" in line["type"] else {}) for line in lines]
    (folder / "w.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "a.jsonl").write_text(record("acme") + "\n" + record("beta"))
    result = ledger("audit", "a.jsonl", "--what-if", "w.jsonl", "--known-at", known_at)
    assert result.code == 0
    assert result.err.count("\n") == bool(late)
    assert late in result.err


def test_a_log_that_grows_between_its_two_readings_is_refused(
    ledger: Inforce, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a proposal would be made at the first request of another log."""
    (folder / "w.jsonl").write_text(json.dumps(OPTED))
    (folder / "a.jsonl").write_text(record("acme") + "\n")

    def grows(parts: Any) -> int | None:
        instant = first_request_of(parts)
        with (folder / "a.jsonl").open("a") as file:
            file.write(record("beta", at="2026-01-01T12:00:00Z") + "\n")
        return instant

    monkeypatch.setattr("scripts.audit.what_if.first_request_of", grows)
    result = ledger("audit", "a.jsonl", "--what-if", "w.jsonl", "--out", "o.csv")
    assert (result.code, "the log was changed" in result.err) == (2, True)
    assert not (folder / "o.csv").exists()


def test_progress_shows_rows_and_rows_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 100.5, 102.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    reports: list[tuple[int, str]] = []
    report_rows = rate_reporter(lambda done, words: reports.append((done, words)), SimpleNamespace(bytes_read=7))
    for count in (1000, 2000, 9000):
        report_rows(count)
    assert reports == [(7, "1,000 rows"), (7, "2,000 rows"), (7, "9,000 rows, 4,000 a second")]


def test_the_output_can_be_a_pipe(ledger: Inforce, folder: Path) -> None:
    (folder / "log.jsonl").write_text(LOG)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as piped:
        result = ledger("audit", "log.jsonl", "--out", f"/dev/fd/{write}")
        os.close(write)
        rows = piped.read().splitlines()
    assert result.code == 1
    assert [json.loads(row)["line"] for row in rows] == [1, 2, 4]


def test_the_local_zone_of_a_machine_is_refused(ledger: Inforce) -> None:
    result = ledger("audit", "-", "--timezone", "localtime", stdin=LOG)
    assert (result.code, result.err) == (
        2,
        "inforce: localtime is another zone on every machine; name one like UTC or Europe/Berlin\n",
    )


def test_a_bad_proposal_is_named_with_its_file(ledger: Inforce, folder: Path) -> None:
    (folder / "log.jsonl").write_text(LOG)
    (folder / "changes.jsonl").write_text("{}\n")
    result = ledger("audit", "log.jsonl", "--what-if", "changes.jsonl")
    assert result.code == 2
    assert result.err.startswith("inforce: changes.jsonl: line 1: ")


@pytest.mark.parametrize("name", ["v.xlsx", "v.json", "v.csv.gz", "out/v.txt", "v.Parquet2"])
def test_a_result_whose_ending_is_no_format_is_refused_before_anything_is_read(
    name: str, ledger: Inforce, folder: Path
) -> None:
    (folder / "a.jsonl").write_text(record("acme"))
    for engine in ((), ("--engine", "spark", "--master", "local[1]")):
        result = ledger("audit", "a.jsonl", "--out", name, *engine)
        assert result.code == 2
        assert ".parquet, .csv, .ndjson or .jsonl" in result.err
    assert not (folder / name).exists()


@pytest.mark.parametrize(
    ("log", "rejects"),
    [
        ("logs/a.jsonl", "logs/a.jsonl.rejects.jsonl"),
        ("logs", "logs.rejects.jsonl"),
        ("logs/", "logs.rejects.jsonl"),
        ("logs/*.jsonl", "logs.rejects.jsonl"),
    ],
)
def test_unreadable_lines_lie_beside_the_log_or_the_folder_of_logs(
    log: str, rejects: str, ledger: Inforce, folder: Path
) -> None:
    (folder / "logs").mkdir()
    (folder / "logs" / "a.jsonl").write_text(record("acme") + "\nnonsense\n")
    assert rejects in ledger("audit", log).err
    assert (folder / rejects).read_text().count("\n") == 1
