"""Names in a log that are no ids get the id that a table gives them, in every format; the table is part of the pin."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.errors import BadRecord
from projections.audit.reading.aliases import FIELD_OF_KIND, Aliases, aliases_of_rows, read_aliases
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.layout import Forms, make_layout
from projections.audit.reading.parquet import read_batches
from projections.audit.reading.shape import ANY_SHAPE
from projections.audit.reading.strict import RowParser
from tests.audit.io.reading import NOON, ReadRows, read_fast, read_strictly, rows_of

TABLE = "kind,name,id\norg,Acme Inc,acme\norg,Globex,globex-2\naccount,auth0|5f1,u1\naccount,ann@example.org,u2\n"
ROWS = [
    ("Acme Inc", "auth0|5f1"),
    ("Globex", "ann@example.org"),
    ("acme", "u1"),
    ("org:acme", "u1"),
    ("Initech", ""),
    ("Umbrella Corp", "u1"),
    ("Zürich", "u1"),
]


def table(folder: Path, text: str = TABLE) -> Aliases:
    file = folder / "aliases.csv"
    file.write_text(text)
    return read_aliases(str(file))


def names(rows: ReadRows) -> list[tuple[str | None, str | None] | None]:
    return [None if record is None else (record.org_id, record.account_id) for _, record, _ in rows]


def test_names_become_ids_in_every_format_and_other_texts_keep_their_meaning(tmp_path: Path) -> None:
    aliases = table(tmp_path, TABLE + "org,org:acme,acme\norg,Zürich,zh\n")
    mapping = ColumnMapping(aliases=aliases.by_field())
    expected = [
        ("acme", "u1"),
        ("globex-2", "u2"),
        ("acme", "u1"),
        ("acme", "u1"),
        ("Initech", None),
        None,
        ("zh", "u1"),
    ]
    as_json = b"".join(
        json.dumps({"at": NOON, "org_id": org} | ({"account_id": account} if account else {})).encode() + b"\n"
        for org, account in ROWS
    )
    as_csv = "at,org_id,account_id\n" + "".join(f"{NOON},{org},{account}\n" for org, account in ROWS)
    for body in (as_json, as_csv.encode()):
        assert names(read_fast(body, mapping)[0]) == names(read_strictly(body, mapping)[0]) == expected
    for kind in (pa.string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        file = io.BytesIO()
        orgs = pa.array([org for org, _ in ROWS]).cast(kind)
        accounts = pa.array([account or None for _, account in ROWS])
        pq.write_table(pa.table({"at": [NOON] * len(ROWS), "org_id": orgs, "account_id": accounts}), file)
        file.seek(0)
        assert names(rows_of(list(read_batches(file, RowParser("a", mapping))))) == expected


def test_a_name_is_an_alias_of_its_own_kind_only() -> None:
    aliases = aliases_of_rows(["account,Acme,u1"])
    log = f'{{"at":"{NOON}","org_id":"Acme","account_id":"Acme"}}\n'.encode()
    assert names(read_fast(log, ColumnMapping(aliases=aliases.by_field()))[0]) == [("Acme", "u1")]


def test_a_mapped_number_has_an_alias_as_its_text() -> None:
    mapping = ColumnMapping({"org_id": "tenant"}, aliases=aliases_of_rows(["org,17,acme"]).by_field())
    for log in (f'{{"at":"{NOON}","tenant":17}}\n', f"at,tenant\n{NOON},17\n"):
        assert names(read_fast(log.encode(), mapping)[0]) == [("acme", None)]


def test_constants_have_aliases_too() -> None:
    layout = make_layout({}, {"org_id": "Acme Inc"}, Forms(aliases=aliases_of_rows(["org,Acme Inc,acme"])), ANY_SHAPE)
    assert layout.mapping.checked_constants() == {"org_id": "acme"}


def test_the_digest_tells_tables_apart_and_not_their_order_or_form(tmp_path: Path) -> None:
    first = table(tmp_path)
    same = table(
        tmp_path, "\ufeff" + "".join(reversed(TABLE.splitlines(keepends=True)[1:])).replace("org,G", '"org",G')
    )
    by_rows = aliases_of_rows(TABLE.splitlines()[1:])
    assert first.json() == same.json() == by_rows.json()
    assert (first.json() or {})["count"] == 4
    other = table(tmp_path, TABLE.replace(",acme\n", ",acme2\n"))
    assert (other.json() or {})["sha256"] != (first.json() or {})["sha256"]
    assert "Acme" not in json.dumps(first.json())


def test_quoted_names_may_hold_commas() -> None:
    assert aliases_of_rows(['org,"Acme, Inc",acme']).by_field() == {"org_id": {"Acme, Inc": "acme"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no aliases"),
        ("kind,name,id\n", "no aliases"),
        ("org,Acme\n", "line 1: the row has 2 cells"),
        ("kind,name,id\nteam,Acme,acme\n", "line 2: the kind is none of key, account, org, project, model"),
        ("org,,acme\n", "line 1: a name in the log has 1 to"),
        ("org,Acme,no id\n", "line 1: the third cell is no id"),
        ("org,Acme,org:acme\n", "line 1: the third cell is no id"),
        ("org,Acme,a\norg,Acme,b\n", "line 2: the name has another id above"),
        ('org,"Acme,acme\n', "line 1: this is not CSV"),
    ],
)
def test_a_table_that_is_wrong_is_one_line_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=message) as raised:
        table(tmp_path, text)
    assert "Acme" not in str(raised.value)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "aliases.csv").write_bytes(b"org,\xff,acme\n")
    with pytest.raises(BadRecord, match="not UTF-8"):
        read_aliases(str(tmp_path / "aliases.csv"))


def test_every_kind_has_a_field() -> None:
    assert set(FIELD_OF_KIND.values()) == {"key_id", "account_id", "org_id", "project_id", "model_id"}


@pytest.mark.parametrize("sign", ["\n", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_a_name_keeps_all_its_signs(tmp_path: Path, sign: str) -> None:
    """Without them it would be another name, perhaps another customer's."""
    file = tmp_path / "aliases.csv"
    file.write_bytes(f'org,"Acme{sign}Inc",acme\r\norg,Globex,b\r\n'.encode())
    expected = {"org_id": {f"Acme{sign}Inc": "acme", "Globex": "b"}}
    assert read_aliases(str(file)).by_field() == expected
    assert aliases_of_rows([f'org,"Acme{sign}Inc",acme', "org,Globex,b"]).by_field() == expected
