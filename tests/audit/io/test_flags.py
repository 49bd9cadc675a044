"""Texts of flags mean what a caller says, besides true, false, 1 and 0, in every format."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from projections.audit.reading.layout import Forms, make_layout
from projections.audit.reading.parquet import read_batches
from projections.audit.reading.shape import ANY_SHAPE
from projections.audit.reading.strict import RowParser
from tests.audit.io.reading import NOON, ReadRows, read_fast, read_strictly, rows_of

FORMS = Forms(true=("Y", "HIT"), false=("n", "Miss"), neither=("None", "-"))
MAPPING = make_layout({"handling.cached": "cache"}, {}, FORMS, ANY_SHAPE).mapping
TEXTS = ["Y", "hit", "N", "MISS", "none", "-", "maybe"]
MEANT = [True, True, False, False, None, None, "reject"]


def cached(rows: ReadRows) -> list[Any]:
    return ["reject" if record is None else record.handling and record.handling.cached for _, record, _ in rows]


def in_parquet(column: pa.Array) -> ReadRows:
    file = io.BytesIO()
    pq.write_table(pa.table({"at": [NOON] * len(column), "org_id": ["a"] * len(column), "cache": column}), file)
    file.seek(0)
    return rows_of(list(read_batches(file, RowParser("a", MAPPING))))


def test_texts_of_flags_are_read_in_every_format() -> None:
    as_json = b"".join(json.dumps({"at": NOON, "org_id": "a", "cache": text}).encode() + b"\n" for text in TEXTS)
    as_csv = "at,org_id,cache\n" + "".join(f"{NOON},a,{text}\n" for text in TEXTS)
    for body in (as_json, as_csv.encode()):
        assert cached(read_fast(body, MAPPING)[0]) == cached(read_strictly(body, MAPPING)[0]) == MEANT
    for kind in (pa.string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        assert cached(in_parquet(pa.array(TEXTS).cast(kind))) == MEANT


def test_flags_keep_their_meaning_beside_texts() -> None:
    as_json = b"".join(json.dumps({"at": NOON, "org_id": "a", "cache": one}).encode() + b"\n" for one in (True, False))
    assert cached(read_fast(as_json, MAPPING)[0]) == [True, False]
    as_csv = f"at,org_id,cache\n{NOON},a,TRUE\n{NOON},a,0\n{NOON},a,\n".encode()
    assert cached(read_fast(as_csv, MAPPING)[0]) == [True, False, None]
    assert cached(in_parquet(pa.array([True, False, None]))) == [True, False, None]


def test_numbers_are_flags_where_the_texts_name_them() -> None:
    mapping = make_layout({}, {}, Forms(true=("1",), false=("0",)), ANY_SHAPE).mapping
    log = b"".join(f'{{"at":"{NOON}","org_id":"a","handling":{{"cached":{n}}}}}\n'.encode() for n in (1, 0, 2))
    mapped = mapping._replace(columns={"handling.cached": "handling.cached"})
    assert cached(read_fast(log, mapped)[0]) == cached(read_fast(log, mapping)[0]) == [True, False, "reject"]


def test_a_text_that_says_nothing_leaves_the_constant() -> None:
    mapping = make_layout({}, {"handling.cached": "hit"}, FORMS, ANY_SHAPE).mapping
    log = f'{{"at":"{NOON}","org_id":"a","handling":{{"cached":"None"}}}}\n'.encode()
    assert cached(read_fast(log, mapping)[0]) == [True]


@pytest.mark.parametrize(
    "forms",
    [
        Forms(true=("Y",), false=("y",)),
        Forms(true=("0",)),
        Forms(false=("TRUE",)),
        Forms(neither=("1",)),
        Forms(true=("",)),
    ],
)
def test_a_text_with_two_meanings_or_none_is_refused(forms: Forms) -> None:
    with pytest.raises(BadRecord, match=r"would mean two things|is empty"):
        make_layout({}, {}, forms, ANY_SHAPE)
