"""audit: every format of input and output; outputs appear whole or not at all, with the same bytes each time."""

import csv
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest

from tests.cli.audit.logs import AT, LOG, record
from tests.support.command import Inforce
from tests.support.ledgers import GENESIS
from tests.support.waiting import GIVE_UP_S

ROOT = Path(__file__).resolve().parents[3]


def lines(count: int) -> str:
    return "".join(record(("acme", "beta")[n % 3 == 0], request_id=f"r{n}") + "\n" for n in range(count))


def test_one_log_in_every_format_has_the_same_verdicts(ledger: Inforce, folder: Path) -> None:
    body = lines(50)
    (folder / "a.jsonl").write_text(body)
    (folder / "a.jsonl.zst").write_bytes(pa.compress(body.encode(), "zstd", asbytes=True))
    table = pj.read_json(folder / "a.jsonl")
    pq.write_table(table.set_column(0, "at", pa.array([1767312000000] * 50, pa.timestamp("ms", "UTC"))), "a.parquet")
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["request_id", "org_id", "at", "handling.trained"])
        writer.writerows([n["request_id"], n["org_id"], n["at"], "true"] for n in map(json.loads, body.splitlines()))
    results = []
    for name in ("a.jsonl", "a.jsonl.zst", "a.parquet", "a.csv"):
        assert ledger("audit", name, "--out", "v.parquet").code == 1
        results.append(pq.read_table("v.parquet").drop_columns(["source", "line"]))
    assert results[0].num_rows == 50
    assert all(table.equals(results[0]) for table in results)


def test_the_output_and_the_summary_have_pin_and_digest(ledger: Inforce, folder: Path) -> None:
    (folder / "a.jsonl").write_text(LOG)
    (folder / "b.jsonl").write_text(record("acme"))
    digest = hashlib.sha256((LOG + record("acme")).encode()).hexdigest()
    summary = ledger("audit", "a.jsonl", "b.jsonl", "--out", "v.parquet", "--format", "json").json()
    rests_on = json.loads(pq.read_metadata("v.parquet").metadata[b"inforce"])
    for message in (summary, rests_on):
        assert message["log"]["sha256"] == digest
        assert [one["source"] for one in message["log"]["sources"]] == ["a.jsonl", "b.jsonl"]
        assert (message["pin"]["position"], len(message["pin"]["leaf_hash"]), message["known_at"]) == (
            GENESIS + 1,
            64,
            "at",
        )
    for name in ("v.csv", "v.ndjson"):
        ledger("audit", "a.jsonl", "b.jsonl", "--out", name)
        assert json.loads((folder / f"{name}.pin.json").read_text()) == rests_on
    assert len(list(csv.DictReader((folder / "v.csv").read_text().splitlines()))) == 4


@pytest.mark.parametrize("name", ["v.parquet", "v.csv", "v.ndjson"])
def test_the_same_pin_and_log_give_the_same_bytes(name: str, ledger: Inforce, folder: Path) -> None:
    (folder / "a.jsonl").write_text(lines(2000))
    results = set()
    for _ in range(2):
        ledger("audit", "a.jsonl", "--out", name)
        results.add((folder / name).read_bytes())
    assert len(results) == 1


def test_verdicts_to_standard_output_are_ndjson(ledger: Inforce) -> None:
    result = ledger("audit", "-", "--out", "-", stdin=LOG)
    assert [(row["line"], row["verdict"]) for row in result.lines()] == [
        (1, "compliant"),
        (2, "violation"),
        (4, "violation"),
    ]


def _command(*args: str, **options: Any) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.main", "audit", *args], env=environment, stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_audit_leaves_the_old_file(ended_by: int, ledger: Inforce, folder: Path) -> None:
    (folder / "v.parquet").write_text("before")
    with _command("-", "--out", "v.parquet", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(lines(3000).encode())
        process.stdin.flush()
        deadline = time.monotonic() + GIVE_UP_S
        while not [path for path in folder.iterdir() if path.name.startswith(".v.parquet")]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(ended_by)
        # Standard input stays open, so the audit still waits for the rest of the log.
        code = process.wait(30)
        process.stdin.close()
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143}[ended_by]  # type: ignore[index]  # signals are numbers
    assert (folder / "v.parquet").read_text() == "before"
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_leaves_the_old_file(ledger: Inforce, folder: Path) -> None:
    (folder / "a.jsonl").write_text(lines(30_000))
    (folder / "v.ndjson").write_text("before")
    ledger("audit", "a.jsonl", "--out", "first.ndjson")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    with _command("a.jsonl", "--out", "v.ndjson", preexec_fn=limit) as process:
        _, message = process.communicate(timeout=GIVE_UP_S)
    assert (process.returncode, message.count(b"\n")) == (2, 1)
    assert b"file too large" in message
    assert (folder / "v.ndjson").read_text() == "before"
    assert not (folder / "v.ndjson.pin.json").exists()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_parquet_log_can_come_through_a_pipe(ledger: Inforce, folder: Path) -> None:
    pq.write_table(pa.table({"at": [AT], "org_id": ["beta"], "handling.trained": [True]}), "a.parquet")
    with _command("-", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, message = process.communicate((folder / "a.parquet").read_bytes(), timeout=GIVE_UP_S)
    assert (process.returncode, message) == (1, b"")
    assert b"1 rows; requests" in out
