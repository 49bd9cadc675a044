"""The command's result for the demo's log equals an audit of a copy that really holds the changes."""

import csv
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.built_in_catalog import BUILT_IN
from ledger.errors import BadInput
from ledger.opening import open_ledger
from ledger.times import parse_time
from projections.audit.reading.fields import NO_MAPPING
from projections.audit.reading.files import PIN_SUFFIX, log_files
from projections.audit.reading.layout import Forms, make_layout
from projections.audit.reading.logs import LogReader
from projections.audit.reading.shape import ANY_SHAPE
from projections.audit.reference import decide_slowly
from projections.audit.schemas import VERDICTS
from projections.audit.what_if.comparison import COMPARED
from projections.query.query import PinnedQuery, Query
from scripts.audit.request import AuditRequest
from scripts.audit.what_if import what_if
from scripts.cli import exits
from scripts.cli.options import Format
from scripts.demo.generator import LEDGER, LOG, generate, prepare
from tests.audit.what_if.copying import Change, changed_copy

REQUESTS = 1500
CACHING = BUILT_IN["caching.temporary"].as_json() | {"default": False}


class WhatIfArguments(NamedTuple):
    request: AuditRequest
    changes: str
    shown: int


class Demo(NamedTuple):
    db: str
    log: str
    withdrawn: str
    """The event with which bluefin withdrew its opt-in."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    place = tmp_path_factory.mktemp("demo") / "kept"
    prepare(place)
    data = generate(place, REQUESTS, 1)
    (withdrawn,) = (line.receipt.event_id for line in data.story if "bluefin withdraws" in line.text)
    return Demo(f"sqlite:///{place / LEDGER}", str(place / LOG), withdrawn)


def proposals(demo: Demo) -> list[dict[str, Any]]:
    of = {"type": "setting.changed"}
    storage = of | {"subject": "org:harbor-health", "setting": "storage.inputs_outputs", "value": False}
    return [
        storage | {"effective_from": "2024-09-01T00:00:00Z"},
        {"type": "change.retracted", "event_id": demo.withdrawn},
        of | {"subject": "org:cinder-studio", "setting": "residency.regions", "value": ["mars"]},
        {
            "type": "setting.defined",
            "setting": "caching.temporary",
            "definition": CACHING,
            "recorded_at": "2024-12-01T00:00:00Z",
        },
    ]


def as_changes(demo: Demo, lines: list[dict[str, Any]], first_request: int) -> list[Change]:
    with open_ledger(demo.db) as ledger:
        began = ledger.page(0, 1)[0].recorded_at
        known = {demo.withdrawn: ledger.event(demo.withdrawn).recorded_at}
    changes = []
    for number, line in enumerate(lines, 1):
        time = line.get("recorded_at") or line.get("effective_from")
        moment = max(parse_time(time) if time else first_request, began, known.get(line.get("event_id", ""), began))
        changes.append(Change(moment, line, number))
    return changes


def request(tmp_path: Path, demo: Demo, lines: list[dict[str, Any]], **more: Any) -> WhatIfArguments:
    changes = tmp_path / "changes.jsonl.gz"
    changes.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode(), mtime=0))
    shown = more.pop("shown", 0)
    plain = AuditRequest(
        names=(demo.log,),
        files=log_files([demo.log], NO_MAPPING),
        layout=make_layout({}, {}, Forms(), ANY_SHAPE),
        known_at="at",
        out=None,
        rejects=str(tmp_path / "rejects.jsonl"),
        max_rejects=None,
    )
    return WhatIfArguments(replace(plain, **more), str(changes), shown)


def run(demo: Demo, arguments: WhatIfArguments, format_: Format = "json") -> None:
    request, changes, shown = arguments
    assert what_if(demo.db, request, changes, format_, shown_max=shown) == exits.NOT_ALL_READ


def test_the_differences_are_those_of_a_copy_with_the_changes(
    demo: Demo, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines, out = proposals(demo), tmp_path / "otherwise.ndjson"
    run(demo, request(tmp_path, demo, lines, out=str(out), shown=2))
    document = json.loads(capfdbinary.readouterr().out)
    claimed = {row["line"]: row for row in map(json.loads, out.read_text().splitlines())}

    parts = list(LogReader(log_files([demo.log], NO_MAPPING)))
    first_request = min(at.value for part in parts for at in part.requests.column("at"))
    names = [name for name in VERDICTS.names if name not in ("request_id", "at")]
    with open_ledger(demo.db) as ledger:
        copy = changed_copy(ledger, f"sqlite:///{tmp_path / 'copy.db'}", as_changes(demo, lines, first_request))
        assert copy.imported, "the ledger takes the changes at their moments"
        expected = {}
        with copy.ledger:
            one, other = (PinnedQuery(Query(of)) for of in (ledger, copy.ledger))
            for part in parts:
                enforced = part.requests.column("enforced_position").to_pylist()
                place = part.requests.schema.get_field_index("enforced_position")
                positions = pa.array([copy.enforced(position) for position in enforced], pa.int64())
                moved = part.requests.set_column(place, part.requests.schema.field(place), positions)
                before = decide_slowly(one, part.requests).select(names).to_pylist()
                after = decide_slowly(other, moved).select(names).to_pylist()
                for line, was, would_be in zip(part.lines.tolist(), before, after, strict=True):
                    if any(was[name] != would_be[name] for name in COMPARED):
                        decided = [copy.own[position] for position in would_be["deciding_positions"]]
                        lag = would_be["lag_position"]
                        would_be |= {"deciding_positions": decided, "lag_position": lag and copy.own[lag]}
                        sides = {"before_": was, "after_": would_be}
                        expected[line] = {side + name: of[name] for side, of in sides.items() for name in names}
    assert set(claimed) == set(expected)
    for line, row in expected.items():
        assert {name: claimed[line][name] for name in row} == row
    assert document["otherwise"] == len(expected) > 100
    assert document["requests"] + document["rejects"] == REQUESTS + 5
    assert [row["line"] for row in document["changes"]] == sorted(expected)[:2]
    pairs = {(pair["before"], pair["after"]): pair["requests"] for pair in document["verdicts"]}
    for (before_verdict, after_verdict), count in pairs.items():
        of_pair = [(row["before_verdict"], row["after_verdict"]) for row in expected.values()]
        assert of_pair.count((before_verdict, after_verdict)) == count
    pin = json.loads(Path(str(out) + PIN_SUFFIX).read_text())
    assert pin["what_if"]["proposals"] == 4
    assert pin["pin"] == document["pin"]


def test_every_output_format_has_the_same_rows_and_the_same_bytes_each_time(demo: Demo, tmp_path: Path) -> None:
    files = {name: tmp_path / f"otherwise.{name}" for name in ("parquet", "csv", "ndjson")}
    for file in files.values():
        run(demo, request(tmp_path, demo, proposals(demo), out=str(file)), "csv")
        written = file.read_bytes()
        run(demo, request(tmp_path, demo, proposals(demo), out=str(file)), "ndjson")
        assert file.read_bytes() == written
    table = pq.read_table(files["parquet"])
    lines = table.column("line").to_pylist()
    assert table.schema.names[:5] == ["source", "line", "request_id", "at", "model_id"]
    assert [json.loads(row)["line"] for row in files["ndjson"].read_text().splitlines()] == lines
    assert [int(row["line"]) for row in csv.DictReader(io.StringIO(files["csv"].read_text()))] == lines


def test_the_table_shows_the_result_to_people(demo: Demo, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(demo, request(tmp_path, demo, proposals(demo), shown=1), "table")
    table = capfd.readouterr().out
    assert "requests would be decided differently (" in table
    assert "with 4 proposals, at position " in table
    assert "cached_against_setting" in table
    assert "decided by the proposal of line " in table
    run(demo, request(tmp_path, demo, [proposals(demo)[0] | {"recorded_at": "2026-06-01T00:00:00Z"}]), "table")
    assert capfd.readouterr().out.startswith(f"0 of {REQUESTS:,} requests would be decided differently\n")


def test_a_fixed_known_at_and_hindsight(demo: Demo, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    counts = {}
    for known_at in ("at", None, parse_time("2025-12-31T23:00:00Z")):
        run(demo, request(tmp_path, demo, [proposals(demo)[1]], known_at=known_at))
        counts[known_at] = json.loads(capfdbinary.readouterr().out)["otherwise"]
    # Retracted at once, the backdated withdrawal is never in force, and has no effect in hindsight.
    assert 0 < counts["at"] < counts[None]
    too_late = r"^line 1: the proposal is recorded at 2025-06-01.*, after the known_at of this audit, 2025-05-01"
    with pytest.raises(BadInput, match=too_late):
        run(
            demo,
            request(
                tmp_path,
                demo,
                [proposals(demo)[0] | {"recorded_at": "2025-06-01T00:00:00Z"}],
                known_at=parse_time("2025-05-01T00:00:00Z"),
            ),
        )


def test_a_log_on_standard_input_needs_a_recorded_at(demo: Demo, tmp_path: Path) -> None:
    lines = proposals(demo)
    with pytest.raises(BadInput, match=r"^line 2: without recorded_at and effective_from .* add a recorded_at$"):
        run(demo, request(tmp_path, demo, lines, names=("-",)))
    run(demo, request(tmp_path, demo, [lines[0], lines[3]], names=("-",)))
    with pytest.raises(BadInput, match=r"^standard input can be read once"):
        run(demo, request(tmp_path, demo, lines, names=("-",))._replace(changes="-"))


def test_an_invalid_proposal_leaves_no_file(demo: Demo, tmp_path: Path) -> None:
    out = tmp_path / "otherwise.csv"
    unknown = proposals(demo)[0] | {"setting": "no.such"}
    for name in (out, out.with_suffix(".parquet")):
        with pytest.raises(BadInput, match=r"^line 1: /setting: unknown setting"):
            run(demo, request(tmp_path, demo, [unknown], out=str(name)))
    assert not list(tmp_path.glob("*otherwise*"))
    assert not list(tmp_path.glob("rejects*"))
