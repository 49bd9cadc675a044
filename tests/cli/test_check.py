"""check: one request by options, or request records from a file; exits 1 for a verdict against it."""

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.built_in_catalog import BUILT_IN
from tests.support.command import Inforce
from tests.support.ledgers import GENESIS


@pytest.mark.parametrize(
    ("options", "verdict", "code"),
    [
        (("--model", "m1"), "allowed", 0),
        (("--model", "m2"), "denied", 1),
        (("--model", "m3"), "indeterminate", 0),
        (("--model", "m1", "--handling", "trained=true"), "compliant", 0),
        (("--model", "m1", "--handling", "trained=true", "--handling", "stored=1"), "violation", 1),
        (("--handling", "forwarded_to=Else", "--enforced-position", "2"), "violation", 1),
        (("--model", "m1", "--handling", "precision=fp8", "--handling", "censored=false"), "compliant", 0),
    ],
)
def test_a_check_exits_1_for_a_violation_or_a_denial(
    options: tuple[str, ...], verdict: str, code: int, ledger: Inforce
) -> None:
    as_json = ledger("check", "--org", "acme", *options, "--format", "json")
    as_table = ledger("check", "--org", "acme", *options)
    assert (as_json.code, as_table.code) == (code, code)
    assert as_json.json()["verdict"] == verdict
    assert as_table.out.startswith(f"{verdict}\n")
    assert "governed by  org:acme" in as_table.out


@pytest.mark.parametrize(("model", "question", "done"), [("m1", "allowed", "compliant"), ("m2", "denied", "violation")])
def test_a_request_that_happened_is_no_question(model: str, question: str, done: str, ledger: Inforce) -> None:
    options = ("check", "--org", "acme", "--model", model, "--format", "json")
    assert ledger(*options).json()["verdict"] == question
    assert ledger(*options, "--happened").json()["verdict"] == done
    row = json.dumps({"org_id": "acme", "model_id": model})
    (decision,) = ledger("check", "-", "--happened", "--format", "json", stdin=row).json()["decisions"]
    assert decision["verdict"] == done


def test_the_observed_value_stands_beside_the_published_one(ledger: Inforce) -> None:
    ledger("submit", "model:m1", "model.precision", "bf16")
    options = ("check", "--org", "acme", "--model", "m1", "--handling", "precision=fp8")
    checked = ledger(*options)
    assert checked.code == 1
    assert "not_as_published: The model was not served as its settings of that moment say." in checked.out
    assert re.search(r'model\.precision +"bf16" +"fp8" ', checked.out)
    (state,) = [one for one in ledger(*options, "--format", "json").json()["evidence"] if "observed" in one]
    assert (state["setting"], state["value"], state["observed"]) == ("model.precision", "bf16", "fp8")


def test_hindsight_is_shown_with_the_events_that_changed_it(inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "false")
    at = inforce("history", "org:acme", "--format", "json").json()["events"][0]["event"]["time"]
    inforce("submit", "org:acme", "training.opt_in", "true", "--from", at, "--reason", "misread")
    question = ("check", "--org", "acme", "--handling", "trained=true", "--at", at)
    in_force = inforce(*question)
    assert in_force.code == 1
    assert "in hindsight: compliant" in in_force.out
    assert f"because      #{GENESIS + 2}" in in_force.out
    assert inforce(*question, "--known-at", "now").code == 0
    assert inforce(*question, "--format", "json").json()["hindsight"]["verdict"] == "compliant"


def test_a_file_holds_one_record_or_many(ledger: Inforce) -> None:
    records: list[dict[str, Any]] = [{"request_id": "r1", "org_id": "acme", "model_id": m} for m in ("m1", "m2")]
    lines = "\n".join(map(json.dumps, records))
    many = ledger("check", "-", "--format", "ndjson", stdin=lines)
    batch = ledger("check", "-", "--format", "json", stdin=json.dumps({"requests": records}, indent=1))
    one = ledger("check", "-", "--format", "csv", stdin=json.dumps(records[0], indent=1))
    table = ledger("check", "-", stdin=lines)
    assert [line["verdict"] for line in many.lines()] == ["allowed", "denied"]
    assert [decision["verdict"] for decision in batch.json()["decisions"]] == ["allowed", "denied"]
    assert one.out.splitlines()[1].startswith("r1,")
    assert (many.code, batch.code, one.code, table.code) == (1, 1, 0, 1)
    assert "denied" in table.out


def test_an_id_with_its_kind_as_prefix_is_refused(ledger: Inforce) -> None:
    refused = ledger("check", "--org", "org:acme")
    assert (refused.code, refused.out) == (2, "")
    assert "--org takes the bare id" in refused.err


def test_an_answer_about_a_subject_that_nobody_has_spoken_of_says_so(ledger: Inforce) -> None:
    result = ledger("check", "--org", "typo")
    assert result.code == 0
    assert "the ledger has no event of org:typo; this answer rests on defaults" in result.out
    assert "no event of" not in ledger("check", "--org", "acme").out
    demand = BUILT_IN["subjects.must_be_known"].as_json() | {"default": ["org"]}
    body = {"type": "setting.defined", "setting": "subjects.must_be_known", "definition": demand}
    assert ledger("submit", "-", stdin=json.dumps(body)).code == 0
    demanded = ledger("check", "--org", "typo")
    assert "unknown_subject" in demanded.out
    assert "the ledger has no event of org:typo; nothing is decided" in demanded.out
    decision = ledger("check", "--org", "typo", "--format", "json").json()
    assert (decision["verdict"], decision["governed_by"]["known"]) == ("indeterminate", False)


def test_a_check_reads_the_files_that_an_audit_reads(ledger: Inforce, folder: Path) -> None:
    row = '{"at":"2100-01-01T00:00:00Z","org_id":"acme","model_id":"m2"}\n'
    table = "at,org_id,model_id\n2100-01-01T00:00:00Z,acme,m2\n2100-01-01T00:00:00Z,acme,m2\n"
    mark = "\ufeff"
    files = {
        "plain.jsonl": (row * 2).encode(),
        "marked.jsonl": (mark + row * 2).encode(),
        "packed.jsonl.gz": gzip.compress((mark + row * 2).encode()),
        "more.jsonl": (row.replace("}", ',"prompt":"x","usage":{"n":NaN}}') * 2).encode(),
        "list.json": f"[{row},{row}]".encode(),
        "wide.json": f"[\n{row},{row}]".encode().decode().encode("utf-16"),
        "documents.json": (json.dumps(json.loads(row), indent=1) * 2).encode(),
        "packed.json.gz": gzip.compress(f"[{row},{row}]".encode()),
        "a.csv": table.encode(),
        "marked.csv": (mark + table).encode(),
        "packed.csv.gz": gzip.compress(table.encode()),
    }
    file = io.BytesIO()
    pq.write_table(pa.table({"at": ["2100-01-01T00:00:00Z"] * 2, "org_id": ["acme"] * 2, "model_id": ["m2"] * 2}), file)
    files["a.parquet"] = file.getvalue()
    for name, body in files.items():
        (folder / name).write_bytes(body)
        checked = ledger("check", name, "--format", "ndjson")
        audited = ledger("audit", name, "--out", "-")
        assert (checked.code, audited.code) == (1, 1), (name, checked.err, audited.err)
        for text in (checked.out, audited.out):
            assert [json.loads(line)["verdict"] for line in text.splitlines()] == ["denied", "denied"], name


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"at,org_id\nyesterday,acme\n", "a.csv line 2: /at: not a time"),
        (b"a,b\n1,2\n", "a.csv: no column names a subject"),
        (b"at,org_id\n", "a.csv: the file has no request records"),
        (b"[]", "a.csv: the file has no request records"),
        (b'{"requests":[]}', "the file has 0 request records"),
        (b'[{"at":"2100-01-01T00:00:00Z","org_id":"a"},7]', "a.csv line 2: a request record must be an object"),
        (b'{"at":"2100-01-01T00:00:00Z","org_id":"a","x":1}', "/x: this member does not belong here"),
        (gzip.compress(b"{}", mtime=0)[:-4], "damaged or cut off"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(body: bytes, message: str, ledger: Inforce, folder: Path) -> None:
    (folder / "a.csv").write_bytes(body)
    result = ledger("check", "a.csv")
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_all_faults_of_a_record_are_named_with_the_words_before_them(inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    record = inforce("check", "-", stdin='{"org_id": "a b", "key_id": 7, "x": 1}')
    assert (record.code, record.out) == (2, "")
    assert [line.split(": ")[1] for line in record.err.splitlines()] == ["/x", "/key_id", "/org_id"]
    constants = inforce("audit", "-", "--set", "org_id=a b", "--set", "key_id=c d", stdin='{"model_id": "m"}')
    lines = constants.err.splitlines()
    assert (constants.code, len(lines)) == (2, 2)
    assert all(line.startswith("inforce: the constants: /") for line in lines)


def test_a_check_says_which_columns_of_a_log_it_ignored(ledger: Inforce, folder: Path) -> None:
    (folder / "a.csv").write_text("at,account_id,OrgId\n2100-01-01T00:00:00Z,u1,acme\n")
    (folder / "a.jsonl").write_text('{"at":"2100-01-01T00:00:00Z","account_id":"u1","OrgId":"acme"}\n' * 2)
    for name in ("a.csv", "a.jsonl"):
        result = ledger("check", name)
        assert result.code == 0, result.err
        note = "1 column was ignored: OrgId; perhaps with --map org_id=OrgId; inforce audit takes --map"
        assert result.err == f"inforce: {name}: {note}\n"
