"""Logs of every shape, written from rows that are known, and the rows that a reader must find in them.

Run as `python -m tests.audit.io.fuzz FILES SEED`: reads so many random files in the quick and in the strict way, and
compares both with the rows that were written. `test_fuzz.py` runs a few hundred.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import random
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pyarrow as pa

from projections.audit.reading.any_log import read_bytes
from projections.audit.reading.blocks import LineBlocks
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.shape import LogShape
from projections.audit.reading.strict import RowParser
from tests.audit.io.reading import NOON, rows_of

ROW_BYTES_MAX: Final = 20_000
SKIPPABLE: Final = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
FORGED: Final = f'{NOON},forged,r9\n{{"at":"{NOON}","org_id":"forged"}}\n'
PROMPTS: Final = [
    *("plain", "", "a;b|c\td", 'a "quoted" word', "two\nlines", "\r\n", "a\rb", FORGED, FORGED * 120, "\n" * 1200),
    *("x" * 5000, "é😀", '","', "\\", '\\"', "]}", "[{", "\x1f", "\ufeff", '"', '""', "\n", "{", "NaN"),
]
"""Cells and members that nobody reads: each once made rows, lost them, or spoiled its row."""
ODD_JSON: Final = [
    *("NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', "[" * 60 + "]" * 60, "[" * 3000 + "]" * 3000),
    *('{"x":1,"x":2}', '{"at":1,"at":2}', '"\\u0041"', "-0", "1.5E+3", "{}", "[]", "null", '{"a":{"a":[{}]}}'),
]
PACKINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "two of gzip": lambda data: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: SKIPPABLE + bytes(pa.compress(data, "zstd", asbytes=True)) + SKIPPABLE,
}
PLAIN: Final = ColumnMapping()
BY_PATH: Final = ColumnMapping({"org_id": "user.org", "request_id": "meta:ids.request"})
ELSEWHERE: Final = ColumnMapping({"handling.stored": "kept"})

Row = tuple[str, str | None, bool | None]
"""org_id, request_id and whether it was stored."""


class Log(NamedTuple):
    """`rows`: None for each row that no reader may take for a record."""

    body: bytes
    mapping: ColumnMapping
    shape: LogShape
    rows: list[Row | None]


def random_row(chance: random.Random, number: int) -> Row:
    return (
        chance.choice(["acme", "beta", f"o{number}"]),
        chance.choice([None, f"r{number}", "with space", "ü"]),
        chance.choice([None, None, True, False]),
    )


def _json_members(chance: random.Random, row: Row, mapping: ColumnMapping) -> list[str]:
    org, request, stored = row
    texts = {"at": json.dumps(NOON)}
    if mapping is BY_PATH:
        ids = json.dumps(
            {"ids": {"request": request, "more": 1}} if chance.random() < 0.8 else {"ids": {"request": request}}
        )
        texts["meta"] = json.dumps(ids) if chance.random() < 0.5 else ids
        nested = chance.random() < 0.5
        texts["user" if nested else "user.org"] = json.dumps({"org": org, "x": [1]} if nested else org)
    else:
        texts["org_id"] = json.dumps(org)
        if request is not None or chance.random() < 0.3:
            texts["request_id"] = json.dumps("" if request is None and chance.random() < 0.5 else request)
    if mapping is ELSEWHERE:
        texts["kept"] = json.dumps(stored)
        if chance.random() < 0.3:
            texts["handling"] = chance.choice(['"fragile"', "7", '{"weight":3}', "[1]"])
    elif stored is not None:
        flat = chance.random() < 0.3
        texts["handling.stored" if flat else "handling"] = json.dumps(stored if flat else {"stored": stored})
    members = [f"{json.dumps(name)}:{text}" for name, text in texts.items()]
    for name in chance.sample(["prompt", "usage", "choices"], chance.randrange(4)):
        odd = chance.random() < 0.4
        members.append(f'"{name}":{chance.choice(ODD_JSON) if odd else json.dumps(chance.choice(PROMPTS))}')
        if chance.random() < 0.1:
            members.append(f'"{name}":1')
    chance.shuffle(members)
    return members


def _bad_json(chance: random.Random) -> str:
    good = f'"at":"{NOON}","org_id":"acme"'
    return chance.choice(
        [
            *(
                '{"at":',
                "nonsense",
                "{}",
                "[]",
                f'{{{good},"org_id":"b"}}',
                f"{{{good}}} x",
                f'{{{good},"handling":7}}',
            ),
            *(
                f'{{{good},"handling":{{"stored":true}},"handling.stored":true}}',
                f'{{{good},"handling":{{"stord":true}}}}',
            ),
            *(f'{{{good},"prompt":"open}}', f'{{{good},"request_id":NaN}}', f'{{{good},"x":"{"y" * ROW_BYTES_MAX}"}}'),
            *(
                f"{{{good}}}\r{{{good}}}",
                f"{{{good}}}{chr(13) * ROW_BYTES_MAX}{{",
                f'{{{good},"request_id":"\\ud800"}}',
            ),
        ]
    )


def json_log(chance: random.Random) -> Log:
    mapping = chance.choice([PLAIN, PLAIN, BY_PATH, ELSEWHERE])
    rows: list[Row | None] = []
    texts = []
    as_lines = chance.random() < 0.6
    for number in range(chance.choice([1, 2, 5, 40])):
        row = random_row(chance, number)
        bad = mapping is PLAIN and as_lines and number and chance.random() < 0.1
        space = chance.choice(["", "", " ", "\t", "" if as_lines else "\n", "\r"])
        members = f"{space},{space}".join(_json_members(chance, row, mapping))
        texts.append(_bad_json(chance) if bad else "{" + members + space + "}")
        rows.append(None if bad or len(texts[-1].encode()) > ROW_BYTES_MAX else row)
    if as_lines:
        blanks = ["\n", "\n", "\r\n", "\n\n", "\n \t\n", "\r\r\n", "\n" * 50]
        return Log("".join(text + chance.choice(blanks) for text in texts).encode(), mapping, LogShape(), rows)
    form = chance.choice(["list", "objects", "envelope"])
    comma = chance.choice([",", ",\n", "\n,\n "])
    body = {
        "list": f" [\n{comma.join(texts)}]",
        # An object in one line after the other would be JSON Lines.
        "objects": "{\n" + "\n".join(texts).removeprefix("{"),
        "envelope": f'{{"count": 1, "data": {{"rows": [{comma.join(texts)}]}}, "next": null}}',
    }[form]
    if form == "objects" and '"' not in body[2:].lstrip()[:1]:
        body = f"[{comma.join(texts)}]"
    return Log(body.encode(), mapping, LogShape(rows="data.rows" if form == "envelope" else None), rows)


def csv_log(chance: random.Random) -> Log:
    sign = chance.choice([",", ";", "\t", "|"])
    ending = chance.choice(["\n", "\r\n"])
    header = ["at", "org_id", "request_id", "handling.stored", "prompt", "prompt"]
    order = chance.sample(range(len(header)), len(header))
    out = io.StringIO(newline="")
    quoting: Any = chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    writer = csv.writer(out, delimiter=sign, lineterminator=ending, quoting=quoting)
    writer.writerow([header[place] for place in order])
    rows: list[Row | None] = []
    for number in range(chance.choice([1, 2, 5, 40])):
        row = random_row(chance, number)
        org, request, stored = row
        flag = "" if stored is None else chance.choice(["TRUE", "true", "1"] if stored else ["False", "0"])
        prompts = [chance.choice(PROMPTS).replace("\r", "" if ending == "\n" else "\r") for _ in range(2)]
        cells = [NOON, org, request or "", flag, *prompts]
        begin = out.tell()
        writer.writerow([cells[place] for place in order])
        too_large = len(out.getvalue()[begin:].removesuffix(ending[-1]).encode()) > ROW_BYTES_MAX
        rows.append(None if too_large else row)
        if chance.random() < 0.1:
            bad = [f"a{sign}b", 'x"y', f'"a"b{sign}{sign}']
            blank = ["", sign, f" {sign} {sign}", sign * 5, f'""{sign}""']
            text = chance.choice([*bad, *blank])
            out.write(text + ending)
            if text in bad:
                rows.append(None)
    if chance.random() < 0.1:
        out.write(f'"{NOON}{sign}acme{ending}{NOON}{sign}acme{ending}')
        rows.append(None)
    return Log(out.getvalue().encode(), PLAIN, LogShape(), rows)


def random_log(seed: int) -> Log:
    chance = random.Random(seed)
    log = chance.choice([json_log, csv_log])(chance)
    body, mark = log.body, chance.random()
    if mark < 0.2:
        body = codecs.BOM_UTF8 + body
    elif mark < 0.4:
        body = body.decode().encode("utf-16")
    return log._replace(
        body=PACKINGS[chance.choice(list(PACKINGS))](body), shape=log.shape._replace(row_bytes_max=ROW_BYTES_MAX)
    )


def read(log: Log, block_bytes: int, strict_bytes: int) -> list[tuple[int, Row | None, str | None]]:
    parser = RowParser("a.log", log.mapping, log.shape)
    blocks = LineBlocks(io.BytesIO(log.body), "a.log", block_bytes, log.shape.row_bytes_max)
    return [
        (number, record and (record.org_id, record.request_id, record.handling and record.handling.stored), fault)
        for number, record, fault in rows_of(list(read_bytes(blocks, parser, strict_bytes)))
    ]


def check(seed: int) -> int:
    """The number of rows of this file. Raises `AssertionError` for a row that was lost, invented or misread."""
    log = random_log(seed)
    block_bytes = random.Random(seed).choice([37, 500, 4096, 1 << 23])
    strictly = read(log, 1 << 23, 1 << 40)
    assert [row for _, row, _ in strictly] == log.rows, seed
    numbers = [number for number, _, _ in strictly]
    assert numbers == sorted(set(numbers)), seed
    assert read(log, block_bytes, 0) == strictly, seed
    return len(log.rows)


def main(arguments: list[str]) -> int:
    files, seed = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0
    rows: Any = 0
    for number in range(files):
        rows += check(seed + number)
        if number % 500 == 499:
            print(f"{number + 1} files, {rows} rows", flush=True)
    print(f"{files} files from seed {seed}: all {rows} rows are read once, quickly as strictly")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
