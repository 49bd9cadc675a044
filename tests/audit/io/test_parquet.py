"""A row of Parquet means what the same row of JSON means; a wrong column is an error before the first row."""

import io
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from ledger.times import BEGINNING, END, parse_time
from projections.audit.numba_support import AVAILABLE
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.parquet import read_batches
from projections.audit.reading.strict import RowParser
from projections.decisions.model import Observed, RequestRecord
from tests.audit.io.reading import NOON, ReadRows, rows_of
from tests.audit.io.test_text_logs import TIMES

AT = parse_time(NOON)
US = pa.timestamp("us", tz="UTC")


def read(
    columns: dict[str, Any], mapping: ColumnMapping | None = None, batch_rows: int = 65_536, **options: Any
) -> ReadRows:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    file.seek(0)
    return rows_of(list(read_batches(file, RowParser("a.parquet", mapping or ColumnMapping()), batch_rows)))


def only(columns: dict[str, Any], mapping: ColumnMapping | None = None) -> RequestRecord:
    ((line, record, fault),) = read(columns, mapping)
    assert (line, fault) == (1, None)
    assert isinstance(record, RequestRecord)
    return record


def test_a_row_is_a_request_record_with_handling_as_a_group_or_in_columns_with_a_dot() -> None:
    handling = pa.array(
        [{"stored": True, "region": "eu"}], pa.struct([("stored", pa.bool_()), ("region", pa.string())])
    )
    at = pa.array([AT], US)
    expected = RequestRecord(AT, key_id="k1", enforced_position=7, handling=Observed(stored=True, region="eu"))
    assert only({"at": at, "key_id": ["k1"], "enforced_position": [7], "handling": handling}) == expected
    flat = {"at": at, "key_id": ["k1"], "enforced_position": [7], "handling.stored": [True], "handling.region": ["eu"]}
    assert only(flat) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_timestamp_with_a_zone_is_an_instant(unit: str) -> None:
    assert only({"at": pa.array([AT], US).cast(pa.timestamp(unit, "Asia/Kolkata")), "org_id": ["a"]}).at == AT


@pytest.mark.parametrize(("nanos", "micros"), [(1_999, 1), (-1, -1), (-1_000, -1), (-1_001, -2)])
def test_times_are_cut_off_after_microseconds_as_in_texts(nanos: int, micros: int) -> None:
    assert only({"at": pa.array([nanos], pa.timestamp("ns", "UTC")), "org_id": ["a"]}).at == micros


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_a_timestamp_without_a_zone_needs_a_zone_for_the_log(unit: str) -> None:
    columns = {"at": pa.array([AT], pa.timestamp("us")).cast(pa.timestamp(unit)), "org_id": ["a"]}
    ((_, _, fault),) = read(columns)
    assert "no time zone was given" in (fault or "")
    assert only(columns, ColumnMapping(timezone=UTC)).at == AT
    assert only(columns, ColumnMapping(timezone=ZoneInfo("Europe/Berlin"))).at == AT - 3_600_000_000


def test_a_local_timestamp_that_came_twice_is_rejected() -> None:
    local = [parse_time(f"2025-10-26T0{hour}:30:00Z") for hour in (1, 2, 3)]
    rows = read(
        {"at": pa.array(local, pa.timestamp("us")), "org_id": ["a"] * 3},
        ColumnMapping(timezone=ZoneInfo("Europe/Berlin")),
    )
    assert [(line, fault is None) for line, _, fault in rows] == [(1, True), (2, False), (3, True)]


def test_instants_outside_the_years_are_rejected_to_the_microsecond() -> None:
    at = pa.array([BEGINNING - 1, BEGINNING, END - 1, END], US)
    assert [fault is None for _, _, fault in read({"at": at, "org_id": ["a"] * 4})] == [False, True, True, False]
    far = pa.array([2**62, -(2**62)], pa.timestamp("ms", "UTC"))
    assert [fault is None for _, _, fault in read({"at": far, "org_id": ["a"] * 2})] == [False, False]


def test_old_96_bit_times_cover_all_years() -> None:
    """Spark writes them. Read as nanoseconds, a time of the year 9999 would become one of 1816."""
    texts = [NOON, "1500-06-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
    at = pa.array([parse_time(text) for text in texts], pa.timestamp("us"))
    rows = read({"at": at, "org_id": ["a"] * 3}, ColumnMapping(timezone=UTC), use_deprecated_int96_timestamps=True)
    assert [record.at for _, record, _ in rows] == [parse_time(text) for text in texts]


def test_times_may_be_texts_and_texts_dictionaries_bytes_or_large() -> None:
    for kind in (pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.binary(), pa.string_view()):
        org = (
            pa.array(["acme", None], pa.string()).cast(kind)
            if kind != pa.string_view()
            else pa.array(["acme", None], kind)
        )
        rows = read({"at": [NOON, NOON], "org_id": org, "account_id": [None, "u"]})
        assert [record for _, record, _ in rows] == [
            RequestRecord(AT, org_id="acme"),
            RequestRecord(AT, account_id="u"),
        ]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("org_id", pa.array(["no id"]), "/org_id: an id is"),
        ("org_id", pa.array([""]), "one of key_id"),
        ("org_id", pa.array(["x" * 257]), "/org_id: an id is"),
        ("org_id", pa.array([b"\xff"], pa.binary()), "/org_id: the text is not UTF-8"),
        ("org_id", pa.array([None], pa.string()), "one of key_id"),
        ("request_id", pa.array(["é" * 257]), "a text of 1 to 256"),
        ("handling.network", pa.array(["Public"]), "public or private"),
        ("enforced_position", pa.array([-1]), "0 or more"),
        ("at", pa.array([None], US), "at is required"),
        ("at", pa.array(["yesterday"]), "not a time"),
    ],
)
def test_an_unreadable_row_costs_no_other_row(column: str, values: pa.Array, message: str) -> None:
    columns: dict[str, Any] = {"at": pa.array([AT] * 3, US), "org_id": ["a"] * 3}
    good = columns.get(column, pa.nulls(3, values.type))
    good = pa.array(good) if isinstance(good, list) else good
    if column == "at" and pa.types.is_string(values.type):
        good = pa.array([NOON] * 3)
    columns[column] = pa.concat_arrays([good[:1].cast(values.type), values, good[2:].cast(values.type)])
    first, second, third = read(columns)
    assert (first[0], first[2], third[0], third[2]) == (1, None, 3, None)
    assert (second[0], second[1]) == (2, None)
    assert message in (second[2] or "")


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
@pytest.mark.parametrize("zone", [None, UTC, ZoneInfo("Europe/Berlin")])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_times_as_texts_are_the_same_read_together(
    monkeypatch: pytest.MonkeyPatch, zone: Any, kind: pa.DataType
) -> None:
    times = [None, *TIMES, "2026-03-01T12:00:00+", "2026-03-01T12:00:00+0"]
    # The loop reads furthest beyond the end of the last text.
    for texts in (times, times[::-1]):
        columns = {"at": pa.array(texts, pa.string()).cast(kind), "org_id": ["acme"] * len(texts)}
        read_strictly = read(columns, ColumnMapping(timezone=zone))
        with monkeypatch.context() as context:
            context.setattr("projections.audit.reading.parquet.worth_compiling", lambda _count, *_functions: True)
            assert read(columns, ColumnMapping(timezone=zone)) == read_strictly
        assert sum(record is not None for _, record, _ in read_strictly) > 5


def test_texts_are_measured_in_characters_and_positions_may_be_beyond_any_ledger() -> None:
    columns = {"at": pa.array([AT], US), "org_id": ["a"], "request_id": ["é" * 256]}
    assert only(columns).request_id == "é" * 256
    beyond = columns | {"enforced_position": pa.array([2**64 - 1], pa.uint64())}
    assert only(beyond).enforced_position == 2**63 - 1


def test_columns_are_mapped_as_in_json_and_constants_fill_nulls() -> None:
    user = pa.array([{"id": 17}, None], pa.struct([("id", pa.int64())]))
    mapping = ColumnMapping(
        {"account_id": "user.id", "handling.stored": "kept"}, {"org_id": "acme", "handling.stored": "true"}
    )
    rows = read({"at": pa.array([AT] * 2, US), "user": user, "kept": [False, None], "cost": [0.1, 0.2]}, mapping)
    assert [record for _, record, _ in rows] == [
        RequestRecord(AT, account_id="17", org_id="acme", handling=Observed(stored=False)),
        RequestRecord(AT, org_id="acme", handling=Observed(stored=True)),
    ]


def test_a_column_with_a_dot_in_its_name_is_not_a_member_of_another() -> None:
    """Also on rows that the strict reader reads: here those without a valid id."""
    mapping = ColumnMapping({"account_id": "user", "org_id": "user.id", "key_id": "handling"})
    columns = {"user": ["u", "u", "no id"], "user.id": ["a", "no id", "a"], "handling": ["k", "k", "k"]}
    rows = read({"at": pa.array([AT] * 3, US), "handling.stored": [True] * 3} | columns, mapping)
    expected = RequestRecord(AT, "k", "u", "a", handling=Observed(stored=True))
    assert rows[0] == (1, expected, None)
    assert [(fault or "")[:12] for _, _, fault in rows[1:]] == ["/org_id: an ", "/account_id:"]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("at", pa.array([AT])),
        ("at", pa.array([1.5])),
        ("at", pa.array([1], pa.date32())),
        ("at", pa.array(["1"]).cast(pa.decimal128(10, 2))),
        ("org_id", pa.array([17])),
        ("handling.stored", pa.array([1])),
        ("handling.stored", pa.array(["true"])),
        ("enforced_position", pa.array(["1"])),
        ("handling", pa.array([1])),
        ("key_id", pa.array([["k"]])),
        ("handling.storred", pa.array([True])),
    ],
)
def test_a_column_of_a_wrong_type_is_an_error(column: str, values: pa.Array) -> None:
    with pytest.raises(BadRecord, match=r"a\.parquet: .*(column|handling has)"):
        read({"at": pa.array([AT], US), "org_id": ["a"]} | {column: values})


def test_a_mapped_column_must_exist() -> None:
    with pytest.raises(BadRecord, match="no column of the name given for model_id"):
        read({"at": pa.array([AT], US), "org_id": ["a"]}, ColumnMapping({"model_id": "model"}))


@pytest.mark.parametrize("cut", [slice(0, 4), slice(0, 200), slice(4, None)])
def test_a_damaged_file_is_an_error(cut: slice) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"at": pa.array([AT], US), "org_id": ["a"]}), file)
    with pytest.raises(BadRecord, match="damaged or cut off"):
        list(read_batches(io.BytesIO(b"PAR1" + file.getvalue()[cut][4:]), RowParser("a.parquet", ColumnMapping())))


def test_batches_of_any_size_have_the_same_rows() -> None:
    columns = {
        "at": pa.array([AT + n for n in range(100)], US),
        "org_id": [f"a{n}" if n % 7 else "" for n in range(100)],
    }
    expected = read(columns)
    assert [line for line, _, fault in expected if fault] == list(range(1, 101, 7))
    for size in (1, 2, 33):
        assert read(columns, batch_rows=size, row_group_size=40) == expected


@pytest.mark.parametrize("compiled", [False, AVAILABLE], ids="compiled {}".format)
def test_an_id_that_holds_its_kind_is_rejected_and_every_other_is_read(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.audit.reading.parquet.worth_compiling", lambda _rows, *_functions: compiled)
    kinds = ("key", "account", "org", "project", "model")
    for kind in kinds:
        others = [f"{other}:x" for other in kinds if other != kind]
        ids = [f"{kind}:x", "x", f"{kind}x", *others, "llama3:8b", "ft:gpt-4", None]
        columns = {f"{kind}_id": ids, "at": pa.array([AT] * len(ids), US)}
        columns |= {"account_id": ["u"] * len(ids)} if kind != "account" else {"key_id": ["k"] * len(ids)}
        read_rows = read(columns)
        (rejected,) = [row for row in read_rows if row[2] is not None]
        assert rejected == (1, None, f"/{kind}_id: {kind}_id holds its kind, {kind}; send x")
        assert [getattr(row[1], f"{kind}_id") for row in read_rows[1:]] == ids[1:]


FLAT_FLAG = pa.array([None, False], pa.bool_())
FLAG_GROUP = pa.array([{"stored": True}, {"stored": True}], pa.struct([("stored", pa.bool_())]))


@pytest.mark.parametrize(
    ("columns", "mapping"),
    [
        ({"handling.stored": FLAT_FLAG, "handling": FLAG_GROUP}, ColumnMapping()),
        ({"x.y": FLAT_FLAG, "x": pa.array([{"y": True}] * 2)}, ColumnMapping({"handling.stored": "x.y"})),
        (
            {"x.y": pa.array([{"z": True}] * 2), "x": pa.array([{"y": {"z": True}}] * 2)},
            ColumnMapping({"handling.stored": "x.y.z"}),
        ),
    ],
)
def test_a_column_that_is_there_in_two_ways_is_refused(columns: dict[str, Any], mapping: ColumnMapping) -> None:
    """One of the two may say what the other does not: a violation would be a mere question."""
    with pytest.raises(BadRecord, match="in two ways, as a column with dots in its name and as a member of a group"):
        read({"at": [NOON] * 2, "org_id": ["a"] * 2} | columns, mapping)


def test_names_hold_dots_at_any_depth_as_in_json() -> None:
    who = ColumnMapping({"org_id": "a.b.c.d"})
    for column in ({"a.b.c.d": ["x"]}, {"a.b": [{"c.d": "x"}]}, {"a": [{"b.c": {"d": "x"}}]}, {"a.b.c": [{"d": "x"}]}):
        values: dict[str, Any] = {name: pa.array(cells) for name, cells in column.items()}
        assert only({"at": [NOON]} | values, who).org_id == "x"
