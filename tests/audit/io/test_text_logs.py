"""The compiled reader reads every line of JSON and CSV as the strict reader does."""

import gzip
import json
import random
from collections.abc import Callable
from datetime import UTC
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.errors import BadRecord
from projections.audit.numba_support import AVAILABLE
from projections.audit.reading import scan_lines
from projections.audit.reading.fields import FIELDS, ColumnMapping
from projections.audit.reading.shape import LogShape
from tests.audit.io.reading import NOON, read_fast, read_strictly

BERLIN = ZoneInfo("Europe/Berlin")
SHAPES = [
    ColumnMapping(),
    ColumnMapping(timezone=UTC),
    ColumnMapping({}, {"org_id": "acme", "handling.trained": "1", "handling.region": "eu"}, BERLIN),
    ColumnMapping(
        {"at": "ts", "account_id": "user.id", "request_id": "id", "handling.stored": "kept"}, {"at": NOON}, UTC
    ),
    ColumnMapping({"model_id": "", "handling.cached": ""}),
    ColumnMapping({"key_id": "handling.region", "org_id": "org_id"}),
    ColumnMapping({"account_id": "user", "org_id": "user.id"}),
]
TIMES = [
    NOON,
    "2026-03-01 12:00:00.1234567Z",
    "2026-03-01t12:00:00.123456789+05:30",
    "2026-03-01T12:00:00-0330",
    "2026-03-01T12:00:00+01",
    "2026-03-01T12:00:00",
    "2025-10-26 02:30:00",
    "2025-10-26T03:00:00",
    "2025-03-30T02:30:00.5",
    "1883-11-18 12:00:00",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-00:01",
    "0000-01-01T00:00:00Z",
    "1969-12-31T23:59:59.9999999Z",
    "2024-02-29T00:00:00Z",
    "2023-02-29T00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2026-03-01T24:00:00Z",
    "2026-03-01T12:00:60Z",
    "2026-03-01T12:00:00.Z",
    "2026-03-01T12:00:00.1234567890Z",
    "2026-03-01T12:00:00+24:00",
    "2026-03-01T12:00Z",
    "2026-03-01",
    "\u0662026-03-01T12:00:00Z",
    "",
]
IDS = ["acme", "a", "a@b.c/d+e:f~g_h-1", "x" * 256, "x" * 257, "no id", "naïve", "", "k\u00e9y"]
IDS += ["org:acme", "key:k1", "account:u1", "project:p1", "model:m", "org:", "model:" + "x" * 200, "org:key:k1"]
IDS += ["llama3:8b", "ft:gpt-4", "key", "org", "ore:1", "models:1", "a:b:c", "accounts:1", "provider:x", "region:x"]
TEXTS = ["eu", "x" * 256, "é" * 256, "é" * 257, "😀", "a,b", 'a"b', "a\\b", "tab\there", "new\nline", "nul\x00", ""]
FLAGS = ["true", "TRUE", "False", "1", "0", "yes", "tRuE", "", "truth"]
POSITIONS = ["0", "7", "007", "9" * 18, "9" * 19, "-1", "1.0", "", "x"]
POOLS: dict[str, list[str]] = {"text": TEXTS, "time": TIMES, "position": POSITIONS, "flag": FLAGS}


def pool(field: str) -> list[str]:
    if field == "handling.network":
        return ["public", "private", "Public", "privatf", ""]
    return IDS if field.endswith("_id") and field != "request_id" else POOLS[FIELDS[field]]


RAW = [
    *("true", "false", "null", "0", "-0", "7", "-7", "1.5", "1e3", "01", "1.", "NaN", "Infinity", "9" * 18, "9" * 19),
    *("9" * 40, "[]", "{}", "[1,[2,{}],{}]", '{"a":{"a":1},"b":[]}', '{"a":1,"a":2}', '"\\u0041"', '"\\ud800"', "tru"),
    *('"\\n"', '"a\\\\"', "[1,]", '{"a":}', "nul", '"open', "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"),
]


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    chance = random.Random(draw(st.integers(0, 2**32)))
    names = [*FIELDS, "id", "ts", "user", "kept", "other", "more"]

    def value(name: str) -> str:
        if name in FIELDS and chance.random() < 0.8:
            kind = FIELDS[name]
            if chance.random() < 0.1:
                return "null"
            if kind == "flag":
                return chance.choice(["true", "false"])
            if kind == "position":
                return str(chance.choice([0, 5, 10**17, 10**18, 2**70]))
            texts = pool(name)
            good = texts[0]
            return json.dumps(
                good if chance.random() < 0.7 else chance.choice(texts), ensure_ascii=chance.random() < 0.3
            )
        if name == "ts":
            return json.dumps(chance.choice(TIMES))
        if name == "user" and chance.random() < 0.7:
            inner = [f'"{n}":{value("org_id")}' for n in chance.choice([["id"], ["id", "x"], ["id", "id"], []])]
            return "{" + ",".join(inner) + "}"
        return chance.choice(RAW)

    def line() -> str:
        if chance.random() < 0.03:
            return chance.choice(["", "   ", "\t", "[]", "{}", "null", "nonsense", '{"at":', "\x0b", "{}{}"])
        top = [n for n in names if "." not in n and (n in ("at", "org_id") or chance.random() < 0.15)]
        if chance.random() < 0.05:
            top.append(chance.choice(top))
        chance.shuffle(top)
        members = [f'"{name}":{value(name)}' for name in top]
        if chance.random() < 0.6:
            inner = [n for n in names if n.startswith("handling.") and chance.random() < 0.4]
            members.append('"handling":{' + ",".join(f'"{n[9:]}":{value(n)}' for n in inner) + "}")
        if chance.random() < 0.05:
            members.append(chance.choice(['"handling":null', '"handling":1', '"handling.stored":true', '"\\u0061t":1']))
        space = chance.choice(["", "", " ", "\t", "\r"])
        return space + "{" + f"{space},{space}".join(members) + space + "}" + space

    lines = ['{"at":"' + NOON + '","org_id":"a"}', *(line() for _ in range(chance.randint(1, 40)))]
    body = chance.choice(["\n", "\r\n"]).join(lines).encode("utf-8", "surrogatepass")
    if chance.random() < 0.2:
        at = chance.randrange(len(lines[0]) + 1, len(body) + 1)
        body = body[:at] + bytes([chance.choice([0xFF, 0xC0, 0x00, 0x22, 0x5C, 0xED, 0x0D])]) + body[at:]
    return body + chance.choice([b"", b"\n"])


@settings(max_examples=300, deadline=None)
@given(json_lines(), st.sampled_from(SHAPES), st.sampled_from([1 << 23, 300]))
def test_json_lines_are_read_as_the_strict_reader_reads_them(
    body: bytes, mapping: ColumnMapping, block_bytes: int
) -> None:
    assert read_fast(body, mapping, block_bytes) == read_strictly(body, mapping)


@st.composite
def csv_lines(draw: st.DrawFn) -> bytes:
    chance = random.Random(draw(st.integers(0, 2**32)))
    names = ["at", "org_id", *(n for n in FIELDS if n not in ("at", "org_id") and chance.random() < 0.3)]
    chance.shuffle(names)

    def cell(name: str) -> str:
        texts = pool(name)
        text = texts[0] if chance.random() < 0.8 else chance.choice(texts)
        if any(sign in text for sign in ',"\n') or chance.random() < 0.1:
            return '"' + text.replace('"', '""') + '"'
        return text

    def line() -> str:
        if chance.random() < 0.08:
            return chance.choice(["", " ", ",", '"', 'a"b', '"open,', '"a"b', "\x0b", "a\rb"])
        return ",".join(cell(name) for name in (names if chance.random() < 0.97 else names[1:]))

    lines = [",".join(names), *(line() for _ in range(chance.randint(1, 40)))]
    body = chance.choice(["\n", "\r\n"]).join(lines).encode()
    if chance.random() < 0.2:
        at = chance.randrange(len(lines[0]) + 1, len(body) + 1)
        body = body[:at] + bytes([chance.choice([0xFF, 0x00, 0x22, 0x0D, 0x0A])]) + body[at:]
    return body + chance.choice([b"", b"\n"])


CSV_SHAPES = [ColumnMapping(timezone=UTC), ColumnMapping({}, {"handling.trained": "1", "model_id": "m"}, BERLIN)]


@settings(max_examples=300, deadline=None)
@given(csv_lines(), st.sampled_from(CSV_SHAPES), st.sampled_from([1 << 23, 300]))
@example(b"at,org_id\r\x00\n2026-03-01T12:00:00Z,acme\n", CSV_SHAPES[0], 300)
def test_rows_of_csv_are_read_as_the_strict_reader_reads_them(
    body: bytes, mapping: ColumnMapping, block_bytes: int
) -> None:
    assert _or_fault(lambda: read_fast(body, mapping, block_bytes)) == _or_fault(lambda: read_strictly(body, mapping))


def _or_fault(read: Callable[[], Any]) -> Any:
    """Both readers report an invalid header in the same words."""
    try:
        return read()
    except BadRecord as error:
        return str(error)


@pytest.mark.parametrize("text", TIMES)
@pytest.mark.parametrize(
    "mapping",
    [ColumnMapping(), ColumnMapping(timezone=UTC), ColumnMapping(timezone=BERLIN)],
    ids=["none", "utc", "berlin"],
)
def test_every_spelling_of_a_time_gives_the_same_instant_or_the_same_fault(text: str, mapping: ColumnMapping) -> None:
    body = json.dumps({"at": NOON, "org_id": "a"}) + "\n" + json.dumps({"at": text, "org_id": "a"}, ensure_ascii=False)
    assert read_fast(body.encode(), mapping) == read_strictly(body.encode(), mapping)


def test_a_quoted_cell_may_continue_in_the_next_block() -> None:
    rows = [f'"r{n}\nmore {"y" * n}",{NOON},a' for n in range(200)]
    body = ("request_id,at,org_id\n" + "\n".join(rows)).encode()
    for block_bytes in (700, 1000, 4096):
        assert read_fast(body, ColumnMapping(), block_bytes) == read_strictly(body, ColumnMapping())


@pytest.mark.skipif(not AVAILABLE, reason="needs Numba")
def test_the_loops_are_compiled_once_for_all_block_sizes() -> None:
    line = b'{"at":"' + NOON.encode() + b'","org_id":"a"}\n'
    for lines in (1, 2, 7, 8, 9, 300, 304):
        assert len(read_fast(lines * line, ColumnMapping())[0]) == lines
    rest = 5 * line + 300 * (b" " * 9 + line)
    for block_bytes in (len(line), 3 * len(line), 100 * len(line)):
        assert len(read_fast(rest, ColumnMapping(), block_bytes)[0]) == 305
    compiled: list[Any] = [scan_lines.scan, scan_lines.gather]
    assert [len(function.signatures) for function in compiled] == [1, 1]


def test_the_cost_of_rows_of_several_lines_grows_with_their_number_only() -> None:
    body = ("at,request_id,org_id\n" + "".join(f'{NOON},"r{n}\nmore",a\n' for n in range(30_000))).encode()
    took = []
    for read in (read_strictly, read_fast):
        began = process_time()
        rows, _ = read(body, ColumnMapping())
        took.append(process_time() - began)
        assert len(rows) == 30_000
    # A search for each line among all continued lines took sixty times as long.
    assert took[1] < 12 * took[0]


@pytest.mark.parametrize("row_bytes_max", [1000, 4000])
def test_an_overlong_line_costs_no_other_line_for_any_block_size(row_bytes_max: int) -> None:
    good = b'{"at":"' + NOON.encode() + b'","org_id":"a"}\n'
    long = good[:-1] + b"\r" * (3 * row_bytes_max) + b"nonsense\n"
    body = good + long + good + b'{"x":"' + b"y" * (row_bytes_max - 8) + b'"}\n' + good
    shape = LogShape(row_bytes_max=row_bytes_max)
    for block_bytes in (64, 500, 1 << 16):
        read, _ = read_fast(body, ColumnMapping(), block_bytes, shape=shape)
        assert [(line, fault is None) for line, _, fault in read] == [
            (1, True),
            (2, False),
            (3, True),
            (4, False),
            (5, True),
        ]
        assert (read, []) == read_strictly(body, ColumnMapping(), shape)


@pytest.mark.parametrize("block_bytes", [64, 700, 1 << 23])
@pytest.mark.parametrize("strict_bytes", [0, 1 << 40])
def test_a_row_of_csv_whose_quotes_close_is_one_row_of_any_size(block_bytes: int, strict_bytes: int) -> None:
    inner = f"{NOON},forged,deny\n" * 3000 + 'a ""quoted"" word,' + "y" * 200_000
    body = f'at,org_id,prompt\n{NOON},a,"{inner}"\n{NOON},b,"x"\n'.encode()
    mapping = ColumnMapping({"org_id": "org_id"})
    (first, second), _ = read_fast(body, mapping, block_bytes, strict_bytes)
    assert (first[0], first[1].org_id, second[0], second[1].org_id) == (2, "a", 3003, "b")
    assert read_fast(body, mapping, block_bytes, strict_bytes) == read_strictly(body, mapping)
    # Beyond the bound the row is one reject, and none of its lines is a row.
    small = LogShape(row_bytes_max=2000)
    rows, _ = read_fast(body, mapping, block_bytes, strict_bytes, small)
    assert [(line, fault is None) for line, _, fault in rows] == [(2, False), (3003, True)]
    assert (rows, []) == read_strictly(body, mapping, small)


def test_a_byte_order_mark_crlf_and_gzip_change_nothing() -> None:
    plain = (json.dumps({"at": NOON, "org_id": "a"}) + "\r\n").encode() * 3
    assert read_fast(gzip.compress(b"\xef\xbb\xbf" + plain), ColumnMapping()) == read_strictly(plain, ColumnMapping())


@pytest.mark.parametrize("cut", [20, 5000, -9, -1])
def test_truncated_packed_data_is_an_error(cut: int) -> None:
    import pyarrow as pa

    plain = "".join(json.dumps({"at": NOON, "org_id": f"a{n}"}) + "\n" for n in range(20_000)).encode()
    for packed in (gzip.compress(plain), pa.compress(plain, "zstd", asbytes=True)):
        assert len(read_fast(packed, ColumnMapping())[0]) == 20_000
        with pytest.raises(BadRecord, match="in line"):
            read_fast(packed[:cut], ColumnMapping())


def test_damaged_zstd_data_is_an_error() -> None:
    import pyarrow as pa

    packed: Any = bytearray(pa.compress(json.dumps({"at": NOON, "org_id": "a"}).encode() * 1000, "zstd", asbytes=True))
    packed[8:12] = b"\xff\xff\xff\xff"
    with pytest.raises(BadRecord, match="damaged"):
        read_fast(bytes(packed), ColumnMapping())
