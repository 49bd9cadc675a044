"""What-if gives for every request the verdict of an audit of a copy of the ledger that holds the changes.

The audits of the ledger and of its copy go row by row through `check`; the copy maps positions.
"""

import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ledger.errors import BadInput
from ledger.store import Ledger
from ledger.times import format_time, parse_time
from projections.audit.index.reference import compile_by_fold
from projections.audit.reference import decide_slowly
from projections.audit.schemas import REQUESTS, VERDICTS
from projections.audit.what_if.comparison import COMPARED
from projections.audit.what_if.placement import PlacedProposals, place_proposals
from projections.audit.what_if.proposals import read_proposals
from projections.audit.what_if.run import WhatIf
from projections.query.query import PinnedQuery, Query
from projections.temporal.changes import Change as Recorded
from projections.temporal.changes import read_assertion
from projections.temporal.coordinates import KnownAt
from tests.audit import strategies
from tests.audit.what_if.copying import Change, Copy, changed_copy
from tests.audit.what_if.worlds import World
from tests.support.ledgers import NOW, open_with_clock
from tests.support.questions import NOON, QueryLedger
from tests.support.reference import Json

ROW = [name for name in VERDICTS.names if name not in ("request_id", "at")]


def verdicts(ledger: Ledger, requests: pa.RecordBatch, known_at: KnownAt) -> list[Json]:
    return list(decide_slowly(PinnedQuery(Query(ledger)), requests, known_at).select(ROW).to_pylist())


def in_the_copy(copy: Copy, requests: pa.RecordBatch, known_at: KnownAt) -> list[Json]:
    enforced = [copy.enforced(position) for position in requests.column("enforced_position").to_pylist()]
    place = REQUESTS.get_field_index("enforced_position")
    moved = requests.set_column(place, REQUESTS.field(place), pa.array(enforced, pa.int64()))
    rows = verdicts(copy.ledger, moved, known_at)
    for row in rows:
        row["deciding_positions"] = [copy.own[position] for position in row["deciding_positions"]]
        row["lag_position"] = None if row["lag_position"] is None else copy.own[row["lag_position"]]
    return rows


def assert_proved(
    ledger: Ledger, copy: Copy, placed: PlacedProposals, requests: pa.RecordBatch, known_at: KnownAt
) -> list[int]:
    """Compares both verdicts of every row. Returns the rows that differ."""
    index = compile_by_fold(ledger, known_at)
    rows, differences = WhatIf(index, placed).decide(requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projections.audit.numba_support.FEW", 0)
        compiled_rows, compiled_changes = WhatIf(index, placed).decide(requests)
    assert compiled_rows.tolist() == rows.tolist()
    assert compiled_changes.equals(differences)
    before, after = verdicts(ledger, requests, known_at), in_the_copy(copy, requests, known_at)
    expected = [
        row
        for row, (one, other) in enumerate(zip(before, after, strict=True))
        if any(one[name] != other[name] for name in COMPARED)
    ]
    assert rows.tolist() == expected
    sides: dict[str, Sequence[Json]] = {"before_": before, "after_": after}
    for place, (row, difference) in enumerate(zip(expected, differences.drop_columns(["at"]).to_pylist(), strict=True)):
        assert differences.column("at")[place].value == requests.column("at")[row].value
        assert difference["request_id"] == requests.column("request_id")[row].as_py()
        assert difference["model_id"] == requests.column("model_id")[row].as_py()
        for side, rows_of_side in sides.items():
            assert {name: difference[side + name] for name in ROW} == rows_of_side[row], (row, side)
    return expected


def proposed(bench: QueryLedger, drawn: st.DataObject, first_request: int) -> list[tuple[Json, int]]:
    """(line, its moment) of proposals around the instants of the ledger."""
    near = strategies.instants(bench)
    retractable = [
        (assertion.event_id, assertion.recorded_at)
        for entry in bench.ledger.page(0, 1_000_000)
        if isinstance(assertion := read_assertion(entry.leaf), Recorded) and entry.subject != "catalog:settings"
    ]
    began = bench.ledger.page(0, 1)[0].recorded_at
    proposals: list[tuple[Json, int]] = []
    bodies = [body for submission in drawn.draw(strategies.histories(4)) for body in submission.events]
    for body in bodies[: drawn.draw(st.integers(1, 6))]:
        line, known = dict(body), began
        line.pop("reason", None)
        if retractable and drawn.draw(st.integers(0, 3)) == 0:
            event_id, recorded_at = drawn.draw(st.sampled_from(retractable))
            line, known = {"type": "change.retracted", "event_id": event_id}, recorded_at
        moment = parse_time(line["effective_from"]) if line.get("effective_from") else first_request
        moment = max(moment, known)
        if drawn.draw(st.booleans()):
            moment = max(drawn.draw(st.sampled_from(near)), known)
            line["recorded_at"] = format_time(moment)
        proposals.append((line, moment))
    return proposals


@settings(max_examples=30, deadline=None)
@given(strategies.histories(12), st.data(), st.sampled_from(("at", "at", "at", None, 0)))
def test_every_row_of_every_log(history: list[strategies.HistoryStep], drawn: st.DataObject, axis: KnownAt) -> None:
    with strategies.grown([strategies.LONG_CHAIN, *history]) as bench, tempfile.TemporaryDirectory() as place:
        first_request = NOON + drawn.draw(st.integers(-5, 40))
        lines = dict(enumerate(proposed(bench, drawn, first_request), 1))
        known_at = max(moment for _, moment in lines.values()) if axis == 0 else axis
        placed = None
        while placed is None and lines:
            text = "\n".join(json.dumps(lines[line][0]) if line in lines else "" for line in range(1, max(lines) + 1))
            pin = PinnedQuery(bench.query).pinned
            try:
                placed = place_proposals(
                    bench.ledger, pin, read_proposals(io.BytesIO(text.encode())), first_request, known_at
                )
            except BadInput as error:
                # The ledger would refuse it: wrong kind, already retracted, or its own owner. Leave it out.
                match = re.match(r"line (\d+): ", str(error))
                assert match is not None
                del lines[int(match[1])]
        if placed is None:
            event("no proposal is left")
            return
        changes = [Change(moment, body, line) for line, (body, moment) in lines.items()]
        copy = changed_copy(bench.ledger, f"sqlite:///{Path(place, 'copy.db')}", changes)
        with copy.ledger:
            event(f"imported: {copy.imported}")
            at = st.sampled_from(
                sorted({*strategies.instants(bench), *(m + by for _, m in lines.values() for by in (-1, 0, 1))})
            )
            rows = drawn.draw(st.lists(strategies.rows(bench.ledger.head().position), min_size=1, max_size=40))
            batch = strategies.batch_of([row | {"at": drawn.draw(at)} for row in rows])
            differing_rows = assert_proved(bench.ledger, copy, placed, batch, known_at)
            event(f"otherwise: {min(len(differing_rows), 3)}{'+' if len(differing_rows) > 3 else ''}")


@pytest.mark.parametrize("axis", ["at", None, 0])
def test_many_requests_around_few_changes(tmp_path: Path, axis: KnownAt) -> None:
    """Many requests from few ids and instants, so that they include every kind of difference."""
    counts: Counter[str] = Counter()
    for seed in range(8):
        random = Random(seed)
        ledger, clock = open_with_clock(f"sqlite:///{tmp_path / str(seed)}.db")
        with ledger:
            world = World(random, ledger, clock, 20)
            first_request = NOW + random.randrange(30)
            lines, changes = world.proposals(6, first_request)
            known_at = max(one.moment for one in changes) if axis == 0 else axis
            pin = PinnedQuery(Query(ledger)).pinned
            try:
                placed = place_proposals(ledger, pin, read_proposals(io.BytesIO(lines)), first_request, known_at)
            except BadInput:
                counts["refused"] += 1
                continue
            copy = changed_copy(ledger, f"sqlite:///{tmp_path / str(seed)}-copy.db", changes)
            with copy.ledger:
                batch = world.requests(400)
                rows = assert_proved(ledger, copy, placed, batch, known_at)
                counts["otherwise"] += len(rows)
                _, changed = WhatIf(compile_by_fold(ledger, known_at), placed).decide(batch)
                for row in changed.to_pylist():
                    counts[f"{row['before_verdict']} {row['after_verdict']}"] += 1
                    counts["by a proposal"] += any(position < 0 for position in row["after_deciding_positions"])
                    counts["lagging behind one"] += (row["after_lag_position"] or 0) < 0
                    counts["governed by another"] += row["before_governed_by"] != row["after_governed_by"]
    assert counts["refused"] < 4
    assert counts["otherwise"] > 150
    expected = (
        "by a proposal",
        "lagging behind one",
        "governed by another",
        "compliant violation",
        "violation compliant",
    )
    verdicts_turned = ("compliant violation", "violation compliant")
    assert all(counts[one] for one in (*expected, *verdicts_turned)), counts
