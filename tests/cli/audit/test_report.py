"""audit --report, --explain, --what-if: each answers its own question, from the same log, at the same pin."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Inforce

BEGUN = "2026-01-01T00:00:00Z"
AT = "2026-01-02T00:00:00Z"


def row(org: str, request_id: str | None, **done: Any) -> str:
    return json.dumps({"at": AT, "org_id": org, "request_id": request_id, "handling": done})


@pytest.fixture
def filled(inforce: Inforce, folder: Path) -> Inforce:
    """org:acme opted in to training, and its log: a violation of storage, two rows of one id, an unreadable line."""
    change = {"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": True}
    assert inforce("import", "-", stdin=json.dumps(change | {"recorded_at": BEGUN})).code == 0
    rows = [row("acme", "r1", trained=True), row("acme", "r2", stored=True), "nonsense"]
    rows += [row("beta", "r3", trained=True), row("acme", "r3", trained=True)]
    (folder / "log.jsonl").write_text("\n".join(rows))
    return inforce


def report(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_bytes())


def test_a_report_is_a_page_and_a_document_of_the_same_audit(filled: Inforce, folder: Path) -> None:
    ran = filled("audit", "log.jsonl", "--report", "out/of/audit", "--format", "json")
    assert ran.code == 1
    place = folder / "out" / "of" / "audit"
    assert {path.name for path in place.iterdir()} == {"report.html", "report.json"}
    said, written = ran.json(), report(place)
    assert written["verdicts"] == said["verdicts"] == {"violation": 2, "compliant": 2}
    assert written["pin"] == said["pin"]
    assert written["log"] == said["log"]
    assert written["rejected"]["lines"] == 1
    assert written["rejected"]["file"] == "log.jsonl.rejects.jsonl"
    assert said["pin"]["leaf_hash"] in (place / "report.html").read_text()


def test_each_command_that_a_report_names_shows_the_same_again(filled: Inforce, folder: Path) -> None:
    for known in ("at", "now"):
        filled("audit", "log.jsonl", "--report", "out", "--known-at", known)
        written = report(folder / "out")
        assert f"--known-at={known}" in written["command"]
        again = filled(*shlex.split(written["command"])[1:], "--format", "json")
        assert again.json()["verdicts"] == written["verdicts"]
        assert written["findings"]
        for finding in written["findings"]:
            checked = filled(*shlex.split(finding["commands"]["check"])[1:], "--format", "json").json()
            assert (checked["verdict"], checked["reasons"]) == (
                finding["decision"]["verdict"],
                finding["decision"]["reasons"],
            )
            explained = filled(*shlex.split(finding["commands"]["explain"])[1:], "--format", "json").json()
            lines = {one["line"]: one for one in explained["rows"]}
            assert lines[finding["line"]]["events"] == finding["events"]


def test_the_same_log_and_ledger_give_the_same_report(filled: Inforce, folder: Path) -> None:
    found = set()
    for _ in range(2):
        filled("audit", "log.jsonl", "--report", "out")
        found.add((folder / "out" / "report.json").read_bytes() + (folder / "out" / "report.html").read_bytes())
    assert len(found) == 1


def test_where_no_report_can_be_written_nothing_is(filled: Inforce, folder: Path) -> None:
    (folder / "out").write_text("a file")
    ran = filled("audit", "log.jsonl", "--report", "out", "--out", "v.csv")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "out cannot be a folder for the report" in ran.err
    assert (folder / "out").read_text() == "a file"
    assert not (folder / "v.csv").exists()


def test_an_audit_that_is_given_up_leaves_the_report_of_before(filled: Inforce, folder: Path) -> None:
    filled("audit", "log.jsonl", "--report", "out")
    before = (folder / "out" / "report.json").read_bytes()
    ran = filled("audit", "log.jsonl", "--report", "out", "--max-rejects", "0", "--known-at", "now")
    assert ran.code == 2
    assert (folder / "out" / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        ("--out", "log.jsonl"),
        ("--rejects", "log.jsonl"),
        ("--out", "a", "--rejects", "a"),
        ("--report", "out", "--out", "out/report.html"),
        ("--report", ".", "--rejects", "report.json"),
        ("--what-if", "what.jsonl", "--out", "what.jsonl"),
        ("--out", "v.csv", "--rejects", "v.csv.pin.json"),
    ],
    ids=" ".join,
)
def test_nothing_is_written_over_what_is_read_or_written(
    filled: Inforce, folder: Path, options: tuple[str, ...]
) -> None:
    (folder / "what.jsonl").write_text("")
    log = (folder / "log.jsonl").read_bytes()
    ran = filled("audit", "log.jsonl", *options)
    assert ran.code == 2
    assert "must be different files" in ran.err
    assert (folder / "log.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--explain", "r1", "--report", "out"), "--explain takes no --report"),
        (("--explain", "r1", "--out", "v.csv"), "takes no --out"),
        (("--explain", "r1", "--findings", "3"), "takes no --findings"),
        (("--explain", "r1", "--max-rejects", "3"), "takes no --max-rejects"),
        (("--explain", "r1", "--what-if", "w"), "takes no --what-if"),
        (("--what-if", "w", "--report", "out"), "--what-if takes no --report"),
    ],
)
def test_each_question_is_asked_by_itself(filled: Inforce, folder: Path, options: tuple[str, ...], said: str) -> None:
    ran = filled("audit", "log.jsonl", *options)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert said in ran.err
    assert not (folder / "out").exists()


def test_an_explanation_names_every_row_of_the_id_and_what_decided_it(filled: Inforce) -> None:
    said = filled("audit", "log.jsonl", "--explain", "r3", "--format", "json")
    assert said.code == 0
    rows = said.json()["rows"]
    assert [(one["line"], one["decision"]["verdict"]) for one in rows] == [(4, "violation"), (5, "compliant")]
    assert [[event["position"] for event in one["events"] if event["needed"]] for one in rows] == [[], [19]]


def test_an_id_that_is_nowhere_is_said(filled: Inforce) -> None:
    ran = filled("audit", "log.jsonl", "--explain", "r9")
    assert (ran.code, ran.out) == (2, "")
    assert "none of the 5 rows has that request_id, and 1 of them could not be read" in ran.err


def test_what_if_says_what_would_be_otherwise(filled: Inforce, folder: Path) -> None:
    change = {"type": "setting.changed", "subject": "org:acme", "setting": "storage.inputs_outputs", "value": True}
    (folder / "w.jsonl").write_text(json.dumps(change))
    ran = filled("audit", "log.jsonl", "--what-if", "w.jsonl", "--out", "o.ndjson", "--format", "json")
    assert ran.code == 0
    said = ran.json()
    assert (said["requests"], said["rejects"]) == (4, 1)
    rows = [json.loads(line) for line in (folder / "o.ndjson").read_text().splitlines()]
    assert {(one["line"], one["before_verdict"], one["after_verdict"]) for one in rows} == {
        (1, "compliant", "compliant"),
        (2, "violation", "compliant"),
        (5, "compliant", "compliant"),
    }
