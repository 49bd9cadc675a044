"""A proposal counts from its very microsecond on, and up to the very next word about it."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ledger.catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.store import Ledger
from ledger.times import format_time
from projections.audit.index.reference import compile_by_fold
from projections.audit.reading.batches import LogBatch
from projections.audit.schemas import REQUESTS
from projections.audit.what_if.proposals import read_proposals
from projections.audit.what_if.run import blast_radius, first_request_of
from projections.temporal.coordinates import IN_FORCE, KnownAt
from tests.support.ledgers import GENESIS, NOW, change, open_with_clock, submit
from tests.support.transfers import jsonl

T = NOW + 1_000_000
END = T + 500


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """`org:acme` opts in at END."""
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path / 'ledger.db'}")
    with ledger:
        assert isinstance(clock, ManualClock)
        clock.now_us = END
        submit(ledger, change())
        yield ledger


def part(*instants: int, **more: Any) -> LogBatch:
    rows = [{"at": at, "org_id": "acme", "trained": True, **more} for at in instants]
    requests = pa.RecordBatch.from_pylist(rows, schema=REQUESTS)
    return LogBatch("log", pa.array(range(1, len(rows) + 1)).to_numpy(), requests, ())


AROUND = tuple(at + by for at in (T, END) for by in (-1, 0, 1))


class Taken:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def take(self, source: str, lines: Any, changes: pa.RecordBatch) -> None:
        assert source == "log"
        instants = changes.column("at").cast(pa.int64()).to_pylist()
        rows = changes.drop_columns(["at"]).to_pylist()
        self.rows += [{"at": at, "line": int(line)} | row for at, line, row in zip(instants, lines, rows, strict=True)]

    def reject(self, row: object) -> None:
        raise AssertionError


def rows(ledger: Ledger, *lines: dict[str, Any], known_at: KnownAt = IN_FORCE, **more: Any) -> list[dict[str, Any]]:
    taken, parts = Taken(), [part(*AROUND[3:], **more), part(*AROUND[:3], **more)]
    proposals = read_proposals(io.BytesIO(jsonl(*lines)))
    first = first_request_of(parts)
    assert first == T - 1
    index = compile_by_fold(ledger, known_at)
    radius = blast_radius(ledger, index, proposals, parts, first_request=first, sinks=(taken,))
    assert (radius.requests, radius.differing) == (6, len(taken.rows))
    return taken.rows


@pytest.mark.parametrize("line", [{"effective_from": format_time(T)}, {"recorded_at": format_time(T)}])
def test_from_its_microsecond_to_the_next_word(ledger: Ledger, line: dict[str, Any]) -> None:
    # At END the ledger itself opts in: from there on nothing is otherwise.
    assert [row["at"] for row in rows(ledger, change(**line))] == [END - 1, T, T + 1]


def test_without_a_moment_it_governs_the_first_request_of_the_log_already(ledger: Ledger) -> None:
    found = rows(ledger, change())
    assert [row["at"] for row in found] == [END - 1, T - 1, T, T + 1]
    assert [row["line"] for row in found] == [1, 1, 2, 3]
    assert {row["after_verdict"] for row in found} == {"compliant"}
    assert {tuple(row["after_deciding_positions"]) for row in found} == {(-1,)}


def test_an_end_that_is_proposed_is_the_last_microsecond_before_it(ledger: Ledger) -> None:
    line = change(effective_from=format_time(T - 1), effective_until=format_time(T + 1))
    assert [row["at"] for row in rows(ledger, line)] == [T - 1, T]


def test_what_is_recorded_late_is_in_force_from_then_on_and_in_hindsight_from_when_it_says(ledger: Ledger) -> None:
    line = change(effective_from=format_time(T - 1), recorded_at=format_time(T + 1))
    assert [row["at"] for row in rows(ledger, line)] == [END - 1, T + 1]
    assert [row["at"] for row in rows(ledger, line, known_at=None)] == [END - 1, T - 1, T, T + 1]


def test_a_retraction_counts_from_when_it_is_made(ledger: Ledger) -> None:
    event_id = ledger.page(GENESIS, 1)[0].leaf.decode().partition('"id":"')[2][:36]
    line = {"type": "change.retracted", "event_id": event_id}
    assert [row["at"] for row in rows(ledger, line)] == [END, END + 1]
    line["recorded_at"] = format_time(END + 1)
    (row,) = rows(ledger, line)
    assert (row["at"], row["before_verdict"], row["after_verdict"]) == (END + 1, "compliant", "violation")


def test_a_default_that_is_proposed_shows_through_where_nothing_was_said(ledger: Ledger) -> None:
    definition = BUILT_IN["training.opt_in"].as_json() | {"default": True}
    line = {"type": "setting.defined", "setting": "training.opt_in", "definition": definition}
    found = rows(ledger, line | {"recorded_at": format_time(T)})
    assert [row["at"] for row in found] == [END - 1, T, T + 1]
    assert {row["after_reasons"] == [] for row in found} == {True}


def test_no_gateway_had_enforced_what_was_made_after_the_position_that_it_names(ledger: Ledger) -> None:
    """It had enforced what was made before."""
    out = change(value=False, recorded_at=format_time(END + 1))
    (behind,) = rows(ledger, out, enforced_position=GENESIS + 1)
    assert (behind["at"], behind["after_reasons"]) == (END + 1, ["enforcement_lag"])
    assert (behind["after_lag_position"], behind["after_enforcement_lag_us"]) == (-1, 0)
    earlier = change(value=False, effective_from=format_time(END + 1), recorded_at=format_time(T))
    (row,) = rows(ledger, earlier, enforced_position=GENESIS + 1)
    assert (row["at"], row["after_reasons"]) == (END + 1, ["trained_without_opt_in"])
