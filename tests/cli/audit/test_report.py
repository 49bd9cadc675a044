"""audit --report, --explain, --what-if."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.audit.logs import record
from tests.support.command import Inforce
from tests.support.ledgers import GENESIS

BEGUN = "2026-01-01T00:00:00Z"
AT = "2026-01-02T00:00:00Z"


def row(org: str, request_id: str | None, **done: Any) -> str:
    return json.dumps({"at": AT, "org_id": org, "request_id": request_id, "handling": done})


@pytest.fixture
def ledger(inforce: Inforce, folder: Path) -> Inforce:
    """org:acme opted in to training. Its log has a violation of storage, two rows with one id, an unreadable line."""
    change = {"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": True}
    assert inforce("import", "-", stdin=json.dumps(change | {"recorded_at": BEGUN})).code == 0
    rows = [row("acme", "r1", trained=True), row("acme", "r2", stored=True), "nonsense"]
    rows += [row("beta", "r3", trained=True), row("acme", "r3", trained=True)]
    (folder / "log.jsonl").write_text("\n".join(rows))
    return inforce


def report(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_bytes())


def test_a_report_is_a_page_and_a_document_of_the_same_audit(ledger: Inforce, folder: Path) -> None:
    result = ledger("audit", "log.jsonl", "--report", "out/of/audit", "--format", "json")
    assert result.code == 1
    place = folder / "out" / "of" / "audit"
    assert {path.name for path in place.iterdir()} == {"report.html", "summary.html", "report.json"}
    message, written = result.json(), report(place)
    assert written["verdicts"] == message["verdicts"] == {"violation": 2, "compliant": 2}
    assert written["pin"] == message["pin"]
    assert written["log"] == message["log"]
    assert written["rejected"]["lines"] == 1
    assert written["rejected"]["file"] == "log.jsonl.rejects.jsonl"
    assert message["pin"]["leaf_hash"] in (place / "report.html").read_text()


def test_each_command_in_a_report_gives_the_same_answer(ledger: Inforce, folder: Path) -> None:
    for known in ("at", "now"):
        ledger("audit", "log.jsonl", "--report", "out", "--known-at", known)
        written = report(folder / "out")
        assert f"--known-at={known}" in written["command"]
        again = ledger(*shlex.split(written["command"])[1:], "--format", "json")
        assert again.json()["verdicts"] == written["verdicts"]
        assert written["findings"]
        for finding in written["findings"]:
            checked = ledger(*shlex.split(finding["commands"]["check"])[1:], "--format", "json").json()
            assert (checked["verdict"], checked["reasons"]) == (
                finding["decision"]["verdict"],
                finding["decision"]["reasons"],
            )
            explained = ledger(*shlex.split(finding["commands"]["explain"])[1:], "--format", "json").json()
            lines = {one["line"]: one for one in explained["rows"]}
            assert lines[finding["line"]]["events"] == finding["events"]


def test_the_same_log_and_ledger_give_the_same_report(ledger: Inforce, folder: Path) -> None:
    reports = set()
    for _ in range(2):
        ledger("audit", "log.jsonl", "--report", "out")
        reports.add((folder / "out" / "report.json").read_bytes() + (folder / "out" / "report.html").read_bytes())
    assert len(reports) == 1


def test_if_no_report_can_be_written_nothing_is_written(ledger: Inforce, folder: Path) -> None:
    (folder / "out").write_text("a file")
    result = ledger("audit", "log.jsonl", "--report", "out", "--out", "v.csv")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "out cannot be a folder for the report" in result.err
    assert (folder / "out").read_text() == "a file"
    assert not (folder / "v.csv").exists()


def test_an_audit_that_stops_leaves_the_old_report(ledger: Inforce, folder: Path) -> None:
    ledger("audit", "log.jsonl", "--report", "out")
    before = (folder / "out" / "report.json").read_bytes()
    result = ledger("audit", "log.jsonl", "--report", "out", "--max-rejects", "0", "--known-at", "now")
    assert result.code == 2
    assert (folder / "out" / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        ("--out", "log.jsonl"),
        ("--rejects", "log.jsonl"),
        ("--out", "a", "--rejects", "a"),
        ("--report", "out", "--rejects", "out/report.html"),
        ("--report", ".", "--rejects", "report.json"),
        ("--what-if", "what.jsonl", "--out", "what.jsonl"),
        ("--out", "v.csv", "--rejects", "v.csv.pin.json"),
    ],
    ids=" ".join,
)
def test_no_output_overwrites_an_input_or_another_output(
    ledger: Inforce, folder: Path, options: tuple[str, ...]
) -> None:
    (folder / "what.jsonl").write_text("")
    log = (folder / "log.jsonl").read_bytes()
    result = ledger("audit", "log.jsonl", *options)
    assert result.code == 2
    assert "must be different files" in result.err
    assert (folder / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--explain", "r1", "--report", "out"), "--explain takes no --report"),
        (("--explain", "r1", "--out", "v.csv"), "takes no --out"),
        (("--explain", "r1", "--findings", "3"), "takes no --findings"),
        (("--explain", "r1", "--max-rejects", "3"), "takes no --max-rejects"),
        (("--explain", "r1", "--what-if", "w"), "takes no --what-if"),
        (("--what-if", "w", "--report", "out"), "--what-if takes no --report"),
    ],
)
def test_explain_and_what_if_run_alone(ledger: Inforce, folder: Path, options: tuple[str, ...], message: str) -> None:
    result = ledger("audit", "log.jsonl", *options)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert message in result.err
    assert not (folder / "out").exists()


def test_an_explanation_names_every_row_of_the_id_and_the_deciding_events(ledger: Inforce) -> None:
    message = ledger("audit", "log.jsonl", "--explain", "r3", "--format", "json")
    assert message.code == 0
    rows = message.json()["rows"]
    assert [(one["line"], one["decision"]["verdict"]) for one in rows] == [(4, "violation"), (5, "compliant")]
    assert [[event["position"] for event in one["events"] if event["needed"]] for one in rows] == [[1], [GENESIS + 1]]


def test_an_id_that_no_row_has_is_an_error(ledger: Inforce) -> None:
    result = ledger("audit", "log.jsonl", "--explain", "r9")
    assert (result.code, result.out) == (2, "")
    assert "none of the 5 rows has that request_id, and 1 of them could not be read" in result.err


def test_what_if_lists_the_requests_that_would_be_decided_differently(ledger: Inforce, folder: Path) -> None:
    change = {"type": "setting.changed", "subject": "org:acme", "setting": "storage.inputs_outputs", "value": True}
    (folder / "w.jsonl").write_text(json.dumps(change))
    result = ledger("audit", "log.jsonl", "--what-if", "w.jsonl", "--out", "o.ndjson", "--format", "json")
    assert result.code == 4
    message = result.json()
    assert (message["requests"], message["rejects"]) == (4, 1)
    rows = [json.loads(line) for line in (folder / "o.ndjson").read_text().splitlines()]
    assert {(one["line"], one["before_verdict"], one["after_verdict"]) for one in rows} == {
        (1, "compliant", "compliant"),
        (2, "violation", "compliant"),
        (5, "compliant", "compliant"),
    }


def test_a_row_without_an_id_is_explained_by_its_log_and_line(ledger: Inforce, folder: Path) -> None:
    (folder / "sub").mkdir()
    rows = [record("acme"), '{"at":"2100-01-01T00:00:00Z"}', "", record("beta")]
    (folder / "sub" / "log.jsonl").write_text("\n".join(rows))
    for name in ("sub/log.jsonl:4", "log.jsonl:4"):
        (row,) = ledger("audit", "sub/log.jsonl", "--explain", name, "--format", "json").json()["rows"]
        assert (row["source"], row["line"], row["decision"]["verdict"]) == ("sub/log.jsonl", 4, "violation")
    for line, message in (
        (2, "line 2 cannot be read: one of key_id"),
        (3, "no row begins there"),
        (5, "no row begins"),
    ):
        result = ledger("audit", "sub/log.jsonl", "--explain", f"log.jsonl:{line}")
        assert result.code == 2
        assert message in result.err
    result = ledger("audit", "sub/log.jsonl", "--explain", "other.jsonl:4")
    assert "none of the 3 rows has that request_id" in result.err
    (folder / "log.jsonl").write_text(record("acme"))
    result = ledger("audit", "sub/log.jsonl", "log.jsonl", "--explain", "log.jsonl:1", "--format", "json")
    assert [row["source"] for row in result.json()["rows"]] == ["log.jsonl"]
