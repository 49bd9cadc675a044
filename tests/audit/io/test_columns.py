"""A log with columns of its own is read; what was ignored is said once, and names near to a missing field's are
proposed."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from projections.audit.reading.columns import ROWS_SEEN, ColumnSurvey
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.files import log_files
from projections.audit.reading.logs import LogReader
from projections.audit.reading.shape import LogShape
from tests.audit.io.reading import read_fast

AT = "2026-03-01T12:00:00Z"
ROW = {"at": AT, "org_id": "acme"}


def as_csv(row: dict[str, Any]) -> bytes:
    return f"{','.join(row)}\n{','.join(map(str, row.values()))}\n".encode()


def as_json(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def as_parquet(row: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), file)
    return file.getvalue()


FORMATS = {"csv": as_csv, "jsonl": as_json, "parquet": as_parquet}
of_each_format = pytest.mark.parametrize("form", FORMATS)


def read(
    folder: Path, form: str, row: dict[str, Any], columns: dict[str, str] | None = None, strict_bytes: int = 1 << 20
) -> LogReader:
    """The reader at its end; the log's row is a request."""
    (folder / f"a.{form}").write_bytes(FORMATS[form](row))
    reader = LogReader(log_files([str(folder / f"a.{form}")], ColumnMapping(columns or {})), strict_bytes=strict_bytes)
    assert [(len(batch.lines), batch.faults) for batch in reader] == [(1, [])]
    return reader


@of_each_format
@pytest.mark.parametrize("strict_bytes", [0, 1 << 20])
def test_columns_that_are_no_fields_are_ignored_and_named_once(form: str, strict_bytes: int, tmp_path: Path) -> None:
    reader = read(tmp_path, form, ROW | {"tokens": 7, "latency": 0.5}, strict_bytes=strict_bytes)
    assert reader.warnings == [f"{tmp_path}/a.{form}: 2 columns were ignored: tokens, latency"]


@of_each_format
def test_a_log_of_fields_alone_has_no_warning(form: str, tmp_path: Path) -> None:
    assert read(tmp_path, form, ROW | {"model_id": "m"}).warnings == []


@of_each_format
def test_logs_with_the_same_columns_share_a_warning(form: str, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.{form}").write_bytes(FORMATS[form](ROW | {"tokens": 7}))
    reader = LogReader(log_files([str(tmp_path)], ColumnMapping()))
    assert sum(len(batch.lines) for batch in reader) == 3
    assert reader.warnings == [f"{tmp_path}/a.{form} and 2 more: 1 column was ignored: tokens"]


@of_each_format
@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("model", "model_id"),
        ("modelId", "model_id"),
        ("apiKey", "key_id"),
        ("User-ID", "account_id"),
        ("cache_hit", "handling.cached"),
        ("Provider", "handling.forwarded_to"),
        ("acount_id", "account_id"),
        ("projct_id", "project_id"),
    ],
)
def test_a_column_with_a_name_near_to_a_missing_field_is_proposed(
    form: str, column: str, field: str, tmp_path: Path
) -> None:
    (warning,) = read(tmp_path, form, ROW | {column: "x"}).warnings
    assert warning.endswith(f"1 column was ignored: {column}; perhaps with --map {field}={column}")


@of_each_format
def test_a_field_that_is_there_is_not_proposed_again(form: str, tmp_path: Path) -> None:
    (warning,) = read(tmp_path, form, ROW | {"OrgId": "x"}).warnings
    assert warning.endswith("1 column was ignored: OrgId")


@of_each_format
def test_named_columns_are_met_with_silence_unless_another_seems_to_hold_a_field(form: str, tmp_path: Path) -> None:
    row = {"at": AT, "who": "acme", "tokens": 7}
    assert read(tmp_path, form, row, {"org_id": "who"}).warnings == []
    (warning,) = read(tmp_path, form, row | {"model": "m"}, {"org_id": "who"}).warnings
    assert warning.endswith("2 columns were ignored: tokens, model; perhaps with --map model_id=model")
    assert read(tmp_path, form, row | {"model": "m"}, {"org_id": "who", "model_id": ""}).warnings == []


@of_each_format
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"at": AT, "org": "acme"},
            r"names a subject \(key_id, account_id, org_id or project_id\); .* --map org_id=org",
        ),
        (
            {"timestamp": AT, "OrgId": "acme"},
            "are timestamp, OrgId; perhaps with --map at=timestamp --map org_id=OrgId",
        ),
        ({"when": AT, "org_id": "acme"}, r"holds the time of a request \(at\); .* are when, org_id; .*--map at=when"),
        ({"a": "1", "b": "2"}, "the log's columns are a, b; name them with --map FIELD=COLUMN"),
    ],
)
def test_a_log_that_names_no_subject_or_no_time_is_an_error_with_its_columns(
    form: str, row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadRecord, match=message):
        read(tmp_path, form, row)


def test_members_of_members_are_proposed_by_their_paths(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=r"--map account_id=metadata.user_id --map org_id=metadata.org_id$"):
        read(tmp_path, "jsonl", {"at": AT, "metadata": {"org_id": "acme", "user_id": "u"}})


@pytest.mark.parametrize("column", ["metadata:org_id", "metadata.org_id"])
def test_a_field_that_was_mapped_is_not_proposed_again(column: str, tmp_path: Path) -> None:
    row = {"at": AT, "metadata": {"org_id": "acme"}, "tokens": 7}
    assert read(tmp_path, "jsonl", row, {"org_id": column}).warnings == []


def test_one_unreadable_log_among_others_is_not_taken_for_one_without_a_subject(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"at":"yesterday","org_id":"acme"}\n')
    reader = LogReader(log_files([str(tmp_path)], ColumnMapping()))
    assert [len(batch.faults) for batch in reader] == [1]


def test_a_constant_or_a_folder_that_names_the_subject_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "org_id=acme"
    folder.mkdir()
    assert read(folder, "csv", {"at": AT, "n": 1}).warnings == [f"{folder}/a.csv: 1 column was ignored: n"]


def test_only_the_first_names_are_shown_and_long_ones_are_cut() -> None:
    survey = ColumnSurvey(ColumnMapping(), ())
    survey.note([f"column{n}" for n in range(40)])
    text = survey.ignored_text() or ""
    assert text.startswith("40 columns were ignored: column0, column1, ")
    assert text.endswith("column11 and 28 more")
    long = ColumnSurvey(ColumnMapping(), ())
    long.note(["x" * 1000, "a\nb\x1b[31m"])
    assert long.ignored_text() == f"2 columns were ignored: {'x' * 60}…, a\ufffdb\ufffd[31m"


def test_what_was_noted_in_parts_is_the_same_together() -> None:
    rows = [{"at": AT, "metadata": {"org_id": "a"}}, {"model": "m", "tokens": 1}, {"key_id": "k"}]
    whole, parts = ColumnSurvey(ColumnMapping(), ()), ColumnSurvey(ColumnMapping(), ())
    for row in rows:
        whole.note_row(row)
        part = ColumnSurvey(ColumnMapping(), ())
        part.note_row(row)
        parts.add_facts(part.facts())
    assert parts.proposals() == whole.proposals()
    assert sorted(parts.ignored) == sorted(whole.ignored)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "list"])
def test_an_observation_that_is_no_field_is_refused_in_every_format(form: str, tmp_path: Path) -> None:
    """Ignored, it would hide what was done: the row would be a mere question."""
    row = ROW | {"handling.storred": True}
    log = tmp_path / "log"
    log.write_bytes(json.dumps([row]).encode() if form == "list" else FORMATS[form](row))
    with pytest.raises(BadRecord, match=r"handling\.storred is no field of a request record"):
        list(LogReader(log_files([str(log)], ColumnMapping())))


@pytest.mark.parametrize(
    "first", [f"{AT},alice,m", "x,alice@example.org", "17,alice", '[{"at":"alice"}]', "alice;2026-03-01 12:00:00"]
)
def test_a_log_without_a_header_is_refused_without_quoting_its_first_row(first: str, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(f"{first}\n{first}\n")
    with pytest.raises(BadRecord, match=r"cells that seem to be data .* put a header before it") as refused:
        list(LogReader(log_files([str(log)], ColumnMapping()), LogShape(log_format="csv")))
    assert "alice" not in refused.value.detail
    assert "2026" not in refused.value.detail


LATE = {
    "plain": '"handling.storred":true',
    "escaped": '"handling.stor\\u0072ed":true',
    "escaped at the dot": '"handling\\u002estorred":true',
    "null": '"handling.x":null',
    "of many values": f'"handling.storred":true,"x":[{",".join("0" * 200_000)}]',
}


@pytest.mark.parametrize("member", LATE)
@pytest.mark.parametrize("rows_before", [0, 1, ROWS_SEEN - 1, ROWS_SEEN, ROWS_SEEN + 500])
@pytest.mark.parametrize("form", ["lines", "list"])
@pytest.mark.parametrize("strict_bytes", [0, 1 << 30])
def test_an_observation_that_is_no_field_is_refused_wherever_it_first_appears(
    strict_bytes: int, form: str, rows_before: int, member: str
) -> None:
    row = json.dumps(ROW)
    last = f"{row[:-1]},{LATE[member]}}}"
    rows = [*[row] * rows_before, last]
    body = "\n".join(rows) if form == "lines" else f"[{','.join(rows)}]"
    with pytest.raises(
        BadRecord, match=r"^a\.log: handling\.(storred|x) is no field of a request record; handling has"
    ):
        read_fast(body.encode(), ColumnMapping(), strict_bytes=strict_bytes)
    # A group of another kind is nobody's observation.
    elsewhere = ColumnMapping({"handling.stored": "kept"})
    read_rows, _ = read_fast(body.encode(), elsewhere, strict_bytes=strict_bytes)
    assert [fault for _, _, fault in read_rows] == [None] * len(rows)


@pytest.mark.parametrize("name", ["handlings.x", "handling", "handling_x", "Handling.x", "a.handling.x"])
def test_a_name_that_only_resembles_an_observation_is_ignored_in_every_row(name: str) -> None:
    row = json.dumps(ROW)
    rows = [row] * (ROWS_SEEN + 1) + [json.dumps(ROW | {name: {}})]
    for strict_bytes in (0, 1 << 30):
        read_rows, _ = read_fast("\n".join(rows).encode(), ColumnMapping(), strict_bytes=strict_bytes)
        assert [fault for _, _, fault in read_rows] == [None] * len(rows)
