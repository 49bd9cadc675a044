"""audit: a log in, a verdict or a reject for every line out."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from tests.cli.audit.logs import AT, LOG, record
from tests.support.command import Inforce
from tests.support.ledgers import GENESIS


def test_every_line_gets_a_verdict_or_is_rejected_by_number(ledger_on_both: Inforce, folder: Path) -> None:
    ledger = ledger_on_both
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(LOG.encode()))
    result = ledger("audit", "a.jsonl.gz", "--out", "verdicts.ndjson", "--format", "json", "--findings", "1")
    assert result.code == 1
    summary = result.json()
    assert (summary["rows"], summary["rejects"]) == (4, 1)
    assert summary["verdicts"] == {"violation": 2, "compliant": 1}
    assert summary["reasons"] == {"trained_without_opt_in": 2}
    assert next(iter(summary)) == "unknown_subjects"
    unknown = summary["unknown_subjects"]
    assert unknown == {"rows": 2, "count": 1, "subjects": [{"subject": "org:beta", "rows": 2}]}
    assert summary["pin"]["position"] == GENESIS + 1
    assert len(summary["pin"]["leaf_hash"]) == 64
    (finding,) = summary["findings"]
    assert (finding["source"], finding["line"], finding["verdict"]) == ("a.jsonl.gz", 2, "violation")
    verdicts = [json.loads(line) for line in (folder / "verdicts.ndjson").read_text().splitlines()]
    assert [(v["line"], v["verdict"]) for v in verdicts] == [(1, "compliant"), (2, "violation"), (4, "violation")]
    rejects = [json.loads(line) for line in (folder / "a.jsonl.gz.rejects.jsonl").read_text().splitlines()]
    assert [(r["source"], r["line"]) for r in rejects] == [("a.jsonl.gz", 3)]
    assert result.err.count("\n") == 1
    assert "1 of 4 rows could not be read" in result.err
    assert "a.jsonl.gz.rejects.jsonl" in result.err


def test_a_table_shows_verdicts_reasons_subjects_and_one_finding_with_its_evidence(ledger: Inforce) -> None:
    out = ledger("audit", "-", "--findings", "1", stdin=LOG).out
    assert "1 of 4 rows could not be read" in out
    assert "the ledger had no event of the governing subject of 2 requests, 1 subject in all:\n  org:beta (2)\n" in out
    assert f"at position {GENESIS + 1}" in out
    assert [word for word in ("violation", "compliant", "trained_without_opt_in", "org:beta") if word not in out] == []
    cause = "  because `training.opt_in` was false (default, #1) and the log says trained\n"
    assert f"- line 2\nobserved     trained\nviolation\n{cause}" in out


def test_verdicts_are_csv_if_the_name_ends_in_csv(ledger: Inforce, folder: Path) -> None:
    assert ledger("audit", "-", "--out", "v.csv", "--rejects", "r.jsonl", stdin=LOG).code == 1
    with (folder / "v.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["line"], row["verdict"], row["request_id"]) for row in rows] == [
        ("1", "compliant", ""),
        ("2", "violation", ""),
        ("4", "violation", "r4"),
    ]
    assert rows[1]["reasons"] == '["trained_without_opt_in"]'
    assert rows[1]["governed_by"] == "org:beta"


def test_a_log_without_violations_exits_0_and_leaves_no_file(ledger: Inforce, folder: Path) -> None:
    # The index stays with the ledger for the next audit.
    before = {*folder.iterdir(), folder / "inforce.db.index"}
    result = ledger("audit", "-", stdin=record("acme"))
    assert (result.code, result.err, set(folder.iterdir()) | {folder / "inforce.db.index"}) == (0, "", before)


def test_the_rejects_of_an_earlier_run_are_replaced(ledger: Inforce, folder: Path) -> None:
    ledger("audit", "-", stdin=LOG)
    assert (folder / "stdin.rejects.jsonl").read_text() != ""
    ledger("audit", "-", stdin=record("acme"))
    assert (folder / "stdin.rejects.jsonl").read_text() == ""


def test_columns_constants_and_a_time_zone(ledger: Inforce) -> None:
    text = "when,who,kept\n2026-01-02 01:00:00,acme,0\n2026-01-01 00:30:00,acme,1\n"
    options = (
        "--map",
        "at=when",
        "--map",
        "org_id=who",
        "--map",
        "handling.stored=kept",
        "--set",
        "handling.trained=1",
    )
    result = ledger("audit", "-", *options, "--timezone", "Europe/Berlin", "--format", "json", stdin=text)
    # Half past midnight in Berlin was still 2025 in UTC, before the ledger began.
    assert result.json()["verdicts"] == {"indeterminate": 1, "compliant": 1}
    assert result.json()["hindsight"] == 1


def test_a_map_that_matches_no_row_is_an_error(ledger: Inforce) -> None:
    result = ledger("audit", "-", "--map", "handling.stored=kpet", stdin=record("acme", kept=True))
    assert result.code == 2
    assert result.err.startswith("inforce: -: no row has kpet, which was named for handling.stored; the columns are ")


def test_several_logs_are_one_audit(ledger: Inforce, folder: Path) -> None:
    (folder / "a.jsonl").write_text(record("acme"))
    (folder / "b.csv").write_text(f"at,org_id,handling.trained\n{AT},beta,true\n")
    summary = ledger("audit", "a.jsonl", "b.csv", "--format", "json").json()
    assert summary["verdicts"] == {"violation": 1, "compliant": 1}


def test_an_audit_at_another_known_at(ledger: Inforce) -> None:
    options = ("audit", "-", "--format", "json", "--known-at")
    assert ledger(*options, "now", stdin=record("acme")).json()["known_at"] == "now"
    early = ledger(*options, "2025-01-01T00:00:00Z", stdin=record("acme")).json()
    assert early["reasons"] == {"before_first_record": 1}


QUESTION = '{"at":"2100-01-01T00:00:00Z","org_id":"acme","model_id":"m2","request_id":"q1"}\n'


def test_a_log_without_observations_says_so_and_is_judged_as_done_where_it_is_asked(
    ledger: Inforce, folder: Path
) -> None:
    ledger("submit", "model:m2", "model.hosting", "passthrough")
    (folder / "a.jsonl").write_text(QUESTION)
    options = ("audit", "a.jsonl", "--report", "out", "--out", "v.csv")
    questions = ledger(*options)
    words = "nothing was observed: each row was taken as a question; --happened judges them as done"
    assert questions.code == 1
    assert words in questions.out
    assert words[1:] in (folder / "out" / "report.html").read_text()
    pin = json.loads((folder / "v.csv.pin.json").read_text())
    assert (pin["observed"], pin["reading"]["happened"]) == (False, False)
    assert ",denied," in (folder / "v.csv").read_text()
    done = ledger(*options, "--happened")
    assert "nothing was observed: each row was judged as a request that happened" in done.out
    assert ",violation," in (folder / "v.csv").read_text()
    pin = json.loads((folder / "v.csv.pin.json").read_text())
    assert (pin["observed"], pin["reading"]["happened"]) == (False, True)
    report = json.loads((folder / "out" / "report.json").read_text())
    assert (report["observed"], report["happened"], report["verdicts"]) == (False, True, {"violation": 1})
    (finding,) = report["findings"]
    assert finding["decision"]["verdict"] == "violation"
    for command in (report["command"], *finding["commands"].values()):
        assert "--happened" in command
    explained = ledger("audit", "a.jsonl", "--happened", "--explain", "q1", "--format", "json").json()
    assert explained["rows"][0]["decision"]["verdict"] == "violation"
    observing = QUESTION.replace('"request_id"', '"handling":{"stored":false},"request_id"')
    assert "nothing was observed" not in ledger("audit", "-", stdin=QUESTION + observing).out


@pytest.mark.parametrize(
    ("args", "stdin", "message"),
    [
        (("-",), "nonsense\nmore\n", "no column names a subject"),
        (("-", "--log-format", "jsonl"), "nonsense\nmore\n", "--map names the columns"),
        (("-", "--max-rejects", "0"), LOG, "more than 0 rows cannot be read"),
        (("-", "--map", "nosuch=x"), LOG, "no such field"),
        (("-", "--set", "handling.stored=yes"), LOG, "true, false, 1 or 0"),
        (("-", "--map", "at=x", "--map", "at=y"), LOG, "twice"),
        (("-", "--timezone", "Mars/Base"), LOG, "no such time zone"),
        (("-", "--timezone", "europe/berlin"), LOG, "did you mean Europe/Berlin"),
        (("-", "-"), LOG, "read once"),
        (("-", "--out", "x", "--rejects", "x"), LOG, "different files"),
        (("nosuch.jsonl",), "", "no such file"),
        (("-",), gzip.compress(LOG.encode())[:-9], "cut off"),
    ],
)
def test_an_audit_that_cannot_run_is_one_line_and_exit_2(
    args: tuple[str, ...], stdin: str | bytes, message: str, ledger: Inforce, folder: Path
) -> None:
    (folder / "verdicts.csv").write_text("before")
    out = () if "--out" in args else ("--out", "verdicts.csv")
    result = ledger("audit", *args, *out, stdin=stdin)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1
    if "--map" not in message:
        assert (folder / "verdicts.csv").read_text() == "before"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_log_is_never_overwritten(ledger: Inforce, folder: Path) -> None:
    (folder / "a.jsonl").write_text(LOG)
    assert ledger("audit", "a.jsonl", "--out", "./a.jsonl").code == 2
    assert (folder / "a.jsonl").read_text() == LOG


def test_requests_from_before_the_first_event_are_explained_once(ledger: Inforce, folder: Path) -> None:
    lines = "".join(json.dumps({"at": f"2020-01-0{day}T00:00:00Z", "org_id": "acme"}) + "\n" for day in (1, 2, 3))
    (folder / "old.jsonl").write_text(lines)
    for words in (("audit", "old.jsonl"), ("check", "old.jsonl")):
        for format_ in ("table", "json"):
            result = ledger(*words, "--format", format_)
            assert (result.code, result.err.count("\n")) == (0, 1)
            assert "3 of 3 requests were made before the ledger's first event, of 2" in result.err
            assert "--known-at now" in result.err
            assert "inforce import" in result.err
        assert ledger(*words, "--quiet").err == ""
        assert ledger(*words, "--known-at", "now").err == ""
    assert "1 of 1 requests" in ledger("check", "--org", "acme", "--at", "2020-01-01T00:00:00Z").err
    assert ledger("check", "--org", "acme").err == ""


def test_known_at_takes_a_date_in_the_zone_of_the_log(ledger: Inforce) -> None:
    line = json.dumps({"at": "2026-01-15T12:00:00", "org_id": "acme"})
    question = ("audit", "-", "--format", "json", "--known-at")
    by_date = ledger(*question, "2199-01-01", "--timezone", "Europe/Berlin", stdin=line)
    by_time = ledger(*question, "2198-12-31T23:00:00Z", "--timezone", "Europe/Berlin", stdin=line)
    assert (by_date.code, by_date.json()) == (0, by_time.json())
    assert by_date.json()["rows"] == 1
    refused = ledger(*question, "2199-01-01", stdin=line)
    assert (refused.code, "--timezone" in refused.err) == (2, True)
