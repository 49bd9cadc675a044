"""audit: what is written takes the place of nothing else, all of it or none, and names are what can be written."""

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

from projections.audit.what_if import run as what_if_run
from scripts.audit.request import rate_reporter
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
def test_rejects_that_nobody_named_take_no_other_file_s_place(
    filled: Inforce, folder: Path, args: tuple[str, ...]
) -> None:
    (folder / "a.jsonl").write_text(LOG)
    (folder / "a.jsonl.rejects.jsonl").write_text(record("acme"))
    ran = filled("audit", *args)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "unreadable lines go to a.jsonl.rejects.jsonl; --rejects names another" in ran.err
    assert (folder / "a.jsonl.rejects.jsonl").read_text() == record("acme")


def test_standard_output_has_rows_of_one_kind(filled: Inforce) -> None:
    assert "cannot both go to standard output" in filled("audit", "-", "--out", "-", "--rejects", "-", stdin=LOG).err
    ran = filled("audit", "-", "--rejects", "-", "--format", "json", stdin=LOG)
    assert [(row["source"], row["line"]) for row in ran.lines()] == [("-", 3)]


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_findings_are_refused_where_they_would_not_be_shown(filled: Inforce, form: str) -> None:
    ran = filled("audit", "-", "--findings", "1", "--format", form, stdin=LOG)
    assert (ran.code, ran.out) == (2, "")
    assert "has no --findings; table and json show them" in ran.err


@pytest.mark.parametrize("what_if", [False, True])
def test_verdicts_that_cannot_be_written_out_leave_pin_and_report_as_they_were(
    filled: Inforce, folder: Path, monkeypatch: pytest.MonkeyPatch, what_if: bool
) -> None:
    """The disk is full when the last of them are brought to it."""
    (folder / "a.jsonl").write_text(LOG)
    change = {"type": "setting.changed", "subject": "org:beta", "setting": "training.opt_in", "value": True}
    (folder / "w.jsonl").write_text(json.dumps(change))
    asked = ("a.jsonl", "--out", "v.csv", *(("--what-if", "w.jsonl") if what_if else ("--report", "out")))
    assert filled("audit", *asked).code == (0 if what_if else 1)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "inforce.db" not in str(path)}
    assert len(before) == (5 if what_if else 7)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if ".v.csv." in os.readlink(f"/proc/self/fd/{descriptor}") and "pin" not in os.readlink(
            f"/proc/self/fd/{descriptor}"
        ):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    (folder / "a.jsonl").write_text(LOG + "\nmore nonsense")
    ran = filled("audit", *asked)
    assert (ran.code, ran.err) == (2, "inforce: no space left on device\n")
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
def test_names_that_are_no_text_are_refused_in_one_line(filled: Inforce, folder: Path, args: tuple[str, ...]) -> None:
    (folder / "logs").mkdir()
    for name in ("a.jsonl", NO_TEXT, f"logs/{NO_TEXT}.jsonl"):
        (folder / name).write_text(record("acme"))
    ran = filled("audit", *args)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "not UTF-8" in ran.err


def test_a_log_without_a_row_is_said_aloud(filled: Inforce, folder: Path) -> None:
    """Whatever ought to have written it may have failed, and nothing against anybody would look like all is well."""
    pq.write_table(pa.table({"at": pa.array([], pa.string()), "org_id": pa.array([], pa.string())}), "none.parquet")
    (folder / "none.csv").write_text("at,org_id\n")
    for logs in (("-",), ("none.parquet", "none.csv")):
        ran = filled("audit", *logs)
        assert (ran.code, "nothing was audited" in ran.err) == (0, True)


def test_an_explanation_tells_of_a_slip_in_map_too(filled: Inforce) -> None:
    asked = ("audit", "-", "--explain", "r4", "--map", "handling.stored=kpet")
    assert "no line had the column that was named for handling.stored" in filled(*asked, stdin=LOG).err


def test_the_first_instant_that_there_is_is_shown_as_one(filled: Inforce) -> None:
    ran = filled("audit", "-", stdin=record("acme", at="0001-01-01T00:00:00Z"))
    assert "requests from 0001-01-01 00:00:00Z to 0001-01-01 00:00:00Z" in ran.out


def test_a_report_s_commands_ask_for_what_was_audited(filled: Inforce, folder: Path) -> None:
    """A name that begins with a dash is no option, and hindsight is not in force."""
    (folder / "-x.jsonl").write_text(LOG)
    assert filled("audit", "--known-at", "now", "--report", "out", "--", "-x.jsonl").code == 1
    written = json.loads((folder / "out" / "report.json").read_text())
    assert filled(*shlex.split(written["command"])[1:], "--format", "json").json()["verdicts"] == written["verdicts"]
    explained = [one["commands"]["explain"] for one in written["findings"] if one["commands"]["explain"]]
    assert [filled(*shlex.split(command)[1:]).code for command in explained] == [0]
    all_of_them = "inforce audit ./-x.jsonl --known-at=now --out=verdicts.csv"
    assert f"<code>{all_of_them}</code>" in (folder / "out" / "report.html").read_text()


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
def test_a_proposal_that_comes_after_all_requests_does_not_pass_for_harmless(
    filled: Inforce, folder: Path, lines: list[dict[str, Any]], known_at: str, late: str
) -> None:
    told = filled("export").lines()[-1]["id"]
    lines = [line | ({"event_id": told, "reason": "x"} if "retracted" in line["type"] else {}) for line in lines]
    (folder / "w.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "a.jsonl").write_text(record("acme") + "\n" + record("beta"))
    ran = filled("audit", "a.jsonl", "--what-if", "w.jsonl", "--known-at", known_at)
    assert ran.code == 0
    assert ran.err.count("\n") == bool(late)
    assert late in ran.err


def test_a_log_that_grows_between_its_two_readings_is_refused(
    filled: Inforce, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment of a proposal would be that of another log."""
    (folder / "w.jsonl").write_text(json.dumps(OPTED))
    (folder / "a.jsonl").write_text(record("acme") + "\n")
    looked = what_if_run.first_request_of

    def grows(parts: Any) -> int | None:
        found = looked(parts)
        with (folder / "a.jsonl").open("a") as file:
            file.write(record("beta", at="2026-01-01T12:00:00Z") + "\n")
        return found

    monkeypatch.setattr(what_if_run, "first_request_of", grows)
    ran = filled("audit", "a.jsonl", "--what-if", "w.jsonl", "--out", "o.csv")
    assert (ran.code, "the log was changed" in ran.err) == (2, True)
    assert not (folder / "o.csv").exists()


def test_progress_tells_how_many_rows_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 100.5, 102.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    said: list[tuple[int, str]] = []
    told = rate_reporter(lambda done, words: said.append((done, words)), SimpleNamespace(bytes_read=7))
    for count in (1000, 2000, 9000):
        told(count)
    assert said == [(7, "1,000 rows"), (7, "2,000 rows"), (7, "9,000 rows, 4,000 a second")]


def test_a_pipe_s_name_is_a_place_to_write_to(filled: Inforce, folder: Path) -> None:
    (folder / "log.jsonl").write_text(LOG)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as piped:
        ran = filled("audit", "log.jsonl", "--out", f"/dev/fd/{write}")
        os.close(write)
        rows = piped.read().splitlines()
    assert ran.code == 1
    assert [json.loads(row)["line"] for row in rows] == [1, 2, 4]


def test_a_zone_that_is_this_machine_s_is_none(filled: Inforce) -> None:
    ran = filled("audit", "-", "--timezone", "localtime", stdin=LOG)
    assert (ran.code, ran.err) == (
        2,
        "inforce: localtime is another zone on every machine; name one like UTC or Europe/Berlin\n",
    )


def test_a_proposal_that_cannot_be_read_is_named_with_its_file(filled: Inforce, folder: Path) -> None:
    (folder / "log.jsonl").write_text(LOG)
    (folder / "changes.jsonl").write_text("{}\n")
    ran = filled("audit", "log.jsonl", "--what-if", "changes.jsonl")
    assert ran.code == 2
    assert ran.err.startswith("inforce: changes.jsonl: line 1: ")
