"""audit: a log in, a verdict or a reject for every line out."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from tests.cli.audit.logs import AT, LOG, record
from tests.support.command import Inforce


def test_every_line_gets_a_verdict_or_is_rejected_by_number(filled_on_both: Inforce, folder: Path) -> None:
    filled = filled_on_both
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(LOG.encode()))
    ran = filled("audit", "a.jsonl.gz", "--out", "verdicts.ndjson", "--format", "json", "--findings", "1")
    assert ran.code == 1
    summary = ran.json()
    assert (summary["rows"], summary["rejects"]) == (4, 1)
    assert summary["verdicts"] == {"violation": 2, "compliant": 1}
    assert summary["reasons"] == {"trained_without_opt_in": 2}
    assert summary["pin"]["position"] == 19
    assert len(summary["pin"]["leaf_hash"]) == 64
    (finding,) = summary["findings"]
    assert (finding["source"], finding["line"], finding["verdict"]) == ("a.jsonl.gz", 2, "violation")
    verdicts = [json.loads(line) for line in (folder / "verdicts.ndjson").read_text().splitlines()]
    assert [(v["line"], v["verdict"]) for v in verdicts] == [(1, "compliant"), (2, "violation"), (4, "violation")]
    rejects = [json.loads(line) for line in (folder / "a.jsonl.gz.rejects.jsonl").read_text().splitlines()]
    assert [(r["source"], r["line"]) for r in rejects] == [("a.jsonl.gz", 3)]
    assert ran.err.count("\n") == 1
    assert "1 of 4 lines rejected" in ran.err
    assert "a.jsonl.gz.rejects.jsonl" in ran.err


def test_a_table_tells_verdicts_reasons_subjects_and_one_finding_with_its_evidence(filled: Inforce) -> None:
    out = filled("audit", "-", "--findings", "1", stdin=LOG).out
    assert "4 lines, 1 rejected" in out
    assert "at position 19" in out
    assert [word for word in ("violation", "compliant", "trained_without_opt_in", "org:beta") if word not in out] == []
    assert "- line 2\nviolation\n" in out


def test_decisions_go_to_csv_where_the_name_says_so(filled: Inforce, folder: Path) -> None:
    assert filled("audit", "-", "--out", "v.csv", "--rejects", "r.jsonl", stdin=LOG).code == 1
    with (folder / "v.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["line"], row["verdict"], row["request_id"]) for row in rows] == [
        ("1", "compliant", ""),
        ("2", "violation", ""),
        ("4", "violation", "r4"),
    ]
    assert rows[1]["reasons"] == '["trained_without_opt_in"]'
    assert rows[1]["governed_by"] == "org:beta"


def test_a_log_that_holds_exits_0_and_leaves_no_file(filled: Inforce, folder: Path) -> None:
    # Beside its index, which stays with the ledger for the next audit.
    before = {*folder.iterdir(), folder / "inforce.db.index"}
    ran = filled("audit", "-", stdin=record("acme"))
    assert (ran.code, ran.err, set(folder.iterdir()) | {folder / "inforce.db.index"}) == (0, "", before)


def test_the_last_runs_rejects_are_not_taken_for_this_ones(filled: Inforce, folder: Path) -> None:
    filled("audit", "-", stdin=LOG)
    assert (folder / "stdin.rejects.jsonl").read_text() != ""
    filled("audit", "-", stdin=record("acme"))
    assert (folder / "stdin.rejects.jsonl").read_text() == ""


def test_columns_constants_and_a_time_zone(filled: Inforce) -> None:
    text = "when,who,kept\n2026-01-02 01:00:00,acme,0\n2026-01-01 00:30:00,acme,1\n"
    asked = ("--map", "at=when", "--map", "org_id=who", "--map", "handling.stored=kept", "--set", "handling.trained=1")
    ran = filled("audit", "-", *asked, "--timezone", "Europe/Berlin", "--format", "json", stdin=text)
    # Half past midnight in Berlin was still 2025 in UTC, before the ledger began.
    assert ran.json()["verdicts"] == {"indeterminate": 1, "compliant": 1}
    assert ran.json()["hindsight"] == 1


def test_a_slip_in_map_is_told_of(filled: Inforce) -> None:
    ran = filled("audit", "-", "--map", "handling.stored=kpet", stdin=record("acme", kept=True))
    assert ran.err == "inforce: -: no line had the column that was named for handling.stored\n"


def test_several_logs_are_one_audit(filled: Inforce, folder: Path) -> None:
    (folder / "a.jsonl").write_text(record("acme"))
    (folder / "b.csv").write_text(f"at,org_id,handling.trained\n{AT},beta,true\n")
    summary = filled("audit", "a.jsonl", "b.csv", "--format", "json").json()
    assert summary["verdicts"] == {"violation": 1, "compliant": 1}


def test_an_audit_at_another_known_at(filled: Inforce) -> None:
    asked = ("audit", "-", "--format", "json", "--known-at")
    assert filled(*asked, "now", stdin=record("acme")).json()["known_at"] == "now"
    early = filled(*asked, "2025-01-01T00:00:00Z", stdin=record("acme")).json()
    assert early["reasons"] == {"before_first_record": 1}


@pytest.mark.parametrize(
    ("args", "stdin", "said"),
    [
        (("-",), "nonsense\nmore\n", "no field of a request record"),
        (("-", "--log-format", "jsonl"), "nonsense\nmore\n", "--map names the columns"),
        (("-", "--max-rejects", "0"), LOG, "more than 0 lines cannot be read"),
        (("-", "--map", "nosuch=x"), LOG, "no such field"),
        (("-", "--set", "handling.stored=yes"), LOG, "true, false, 1 or 0"),
        (("-", "--map", "at=x", "--map", "at=y"), LOG, "twice"),
        (("-", "--timezone", "Mars/Base"), LOG, "no such time zone"),
        (("-", "-"), LOG, "read once"),
        (("-", "--out", "x", "--rejects", "x"), LOG, "different files"),
        (("nosuch.jsonl",), "", "no such file"),
        (("-",), gzip.compress(LOG.encode())[:-9], "cut off"),
    ],
)
def test_what_cannot_be_audited_is_one_line_and_exit_2(
    args: tuple[str, ...], stdin: str | bytes, said: str, filled: Inforce, folder: Path
) -> None:
    (folder / "verdicts.csv").write_text("before")
    out = () if "--out" in args else ("--out", "verdicts.csv")
    ran = filled("audit", *args, *out, stdin=stdin)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert ran.err.count("\n") == 1
    if "--map" not in said:
        assert (folder / "verdicts.csv").read_text() == "before"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_log_itself_is_never_written_over(filled: Inforce, folder: Path) -> None:
    (folder / "a.jsonl").write_text(LOG)
    assert filled("audit", "a.jsonl", "--out", "./a.jsonl").code == 2
    assert (folder / "a.jsonl").read_text() == LOG
