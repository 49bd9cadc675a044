"""The files that names stand for, their order, and the values in folder names."""

import errno
import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ledger.errors import BadRecord
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.files import log_files, with_path_values
from projections.audit.reading.logs import LogReader
from projections.audit.schemas import VERDICTS
from projections.audit.verdict_files import VerdictWriter
from tests.audit.io.reading import NOON, rows_of
from tests.audit.io.test_verdict_files import rows as verdicts


def names(*arguments: str) -> list[str]:
    return [file.name for file in log_files(arguments, ColumnMapping())]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("logs/b.jsonl", "logs/a/z.csv.gz", "logs/a/_SUCCESS", "logs/.hidden", "logs/_temporary/x.parquet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "logs"


def test_a_folder_stands_for_all_logs_below_it_by_name(logs: Path) -> None:
    assert names("logs") == ["logs/a/z.csv.gz", "logs/b.jsonl"]


def test_logs_keep_the_order_of_their_names(logs: Path) -> None:
    assert names("logs/b.jsonl", "logs/a") == ["logs/b.jsonl", "logs/a/z.csv.gz"]


def test_a_pattern_stands_for_the_files_that_match_it(logs: Path) -> None:
    assert names("logs/*.jsonl") == ["logs/b.jsonl"]
    assert names("logs/**/*.csv.gz") == ["logs/a/z.csv.gz"]


def test_an_existing_file_is_no_pattern(logs: Path) -> None:
    (logs / "[b].jsonl").write_bytes(b"")
    assert names("logs/[b].jsonl") == ["logs/[b].jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logs/*.parquet"], "no file matches"),
        (["logs", "logs/b.jsonl"], "twice"),
        (["logs/_temporary/empty"], "no log is in this folder"),
        (["logs/other"], "by its name this is no log"),
        (["logs/other"], "lines that an earlier audit could not read"),
        (["logs/other/*"], "lines that an earlier audit could not read"),
    ],
)
def test_a_name_that_matches_no_log_is_an_error(arguments: list[str], message: str, logs: Path) -> None:
    (logs / "_temporary/empty").mkdir()
    if "other" in arguments[0]:
        (logs / "other").mkdir()
        (logs / ("other/notes.txt" if "name" in message else "other/a.jsonl.rejects.jsonl")).write_bytes(b"")
    with pytest.raises(BadRecord, match=message):
        names(*arguments)


def test_folder_names_of_the_form_column_is_value_hold_for_their_rows() -> None:
    mapping = ColumnMapping({"account_id": "user"})
    assert with_path_values("x/user=u%201/day=1/org_id=acme/a.csv", mapping).path_values == {
        "account_id": "u 1",
        "org_id": "acme",
    }
    assert with_path_values("org_id=__HIVE_DEFAULT_PARTITION__/a.csv", mapping) == mapping
    assert with_path_values("org_id=x", mapping) == mapping


def test_a_row_takes_precedence_over_its_folder_and_a_folder_over_a_constant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tenant=acme"
    folder.mkdir()
    lines = [{"at": NOON}, {"at": NOON, "tenant": "own"}]
    (folder / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    (folder / "b.csv").write_text(f"at\n{NOON}\n")
    mapping = ColumnMapping({"org_id": "tenant"}, {"org_id": "constant"})
    logs = LogReader(log_files(["."], mapping), strict_bytes=0)
    assert [record.org_id for _, record, _ in rows_of(list(logs))] == ["acme", "own", "acme"]
    assert logs.warnings == []


def test_a_file_of_rejects_is_a_log_if_named_itself(logs: Path) -> None:
    (logs / "a.rejects.jsonl").write_bytes(b"")
    assert names("logs/a.rejects.jsonl") == ["logs/a.rejects.jsonl"]


def test_links_in_a_folder_are_followed_once(logs: Path) -> None:
    """A log that is left out would seem to hold nothing against anybody."""
    (logs / "linked").symlink_to(logs / "a")
    with pytest.raises(BadRecord, match=r"logs/linked/z\.csv\.gz: this log is named twice"):
        names("logs")
    (logs.parent / "june").mkdir()
    (logs.parent / "june/j.jsonl").write_bytes(b"")
    (logs / "linked").unlink()
    (logs / "linked").symlink_to(logs.parent / "june")
    assert names("logs") == ["logs/a/z.csv.gz", "logs/b.jsonl", "logs/linked/j.jsonl"]
    (logs / "linked").unlink()
    (logs / "linked").symlink_to(logs)
    with pytest.raises(BadRecord, match="logs/linked: this link leads back to a folder above it"):
        names("logs")


def test_an_unreadable_folder_is_an_error(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def scan(path: str) -> Any:
        if path == "logs/a":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(PermissionError, match="logs/a"):
        names("logs")


@pytest.mark.parametrize("folder", ["org_id=a b", "handling.stored=yes"])
def test_an_invalid_value_in_a_folder_name_is_an_error_that_names_the_file(logs: Path, folder: str) -> None:
    (logs / folder).mkdir()
    (logs / folder / "a.csv").write_bytes(b"")
    with pytest.raises(BadRecord, match=rf"^logs/{folder}/a\.csv: a value in the names of its folders is invalid: "):
        names("logs")


@pytest.mark.parametrize("folder", ["tenant=50%", "tenant=%zz", "tenant=%f", "tenant=%ff"])
def test_a_bad_escape_in_a_folder_name_is_a_fault_where_the_value_is_read(logs: Path, folder: str) -> None:
    (logs / folder).mkdir()
    (logs / folder / "a.csv").write_bytes(b"")
    with pytest.raises(BadRecord, match="has a % without two hexadecimal digits, or bytes that are not UTF-8"):
        log_files(["logs"], ColumnMapping({"org_id": "tenant"}))
    assert len(names("logs")) == 3


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
@pytest.mark.parametrize("strict_bytes", [0, 1 << 20])
def test_the_verdicts_of_an_audit_are_no_log_whatever_their_name_is(logs: Path, form: Any, strict_bytes: int) -> None:
    file = logs / f"old.{form.replace('ndjson', 'jsonl')}"
    with file.open("wb") as out:
        writer = VerdictWriter(out, form)
        writer.take("a.jsonl", np.array([1]), pa.RecordBatch.from_pylist(verdicts(1), schema=VERDICTS))
        writer.finish({})
    with pytest.raises(BadRecord, match=r"old\..* this holds the verdicts of an earlier audit, and is no log"):
        list(LogReader(log_files(["logs"], ColumnMapping()), strict_bytes=strict_bytes))


def test_what_verdicts_rest_on_is_no_log(logs: Path) -> None:
    (logs / "verdicts.csv.pin.json").write_bytes(b"{}")
    with pytest.raises(BadRecord, match="this says what an earlier audit rests on"):
        names("logs")
