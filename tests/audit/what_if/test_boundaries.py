"""A proposal holds from its exact microsecond until the next event about its setting."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.diagnosis import acknowledge_clock
from ledger.store import Ledger
from ledger.times import DAY, format_time
from projections.audit.index.reference import compile_by_fold
from projections.audit.reading.batches import LogBatch
from projections.audit.schemas import REQUESTS
from projections.audit.what_if.proposals import read_proposals
from projections.audit.what_if.radius import radius_json
from projections.audit.what_if.run import blast_radius, first_request_of
from projections.query.clock_notices import notices_of_ledger
from projections.temporal.coordinates import IN_FORCE, ClockNotice, KnownAt
from tests.support.ledgers import GENESIS, NOW, OPERATOR, change, open_with_clock, submit
from tests.support.transfers import jsonl

T = NOW + 1_000_000
END = T + 500
YEAR = 365 * DAY


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """`org:acme` opts in at END."""
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path / 'ledger.db'}")
    with ledger:
        assert isinstance(clock, ManualClock)
        clock.now_us = END
        submit(ledger, change())
        yield ledger


def batch(*instants: int, **more: Any) -> LogBatch:
    rows = [{"at": at, "org_id": "acme", "trained": True, **more} for at in instants]
    requests = pa.RecordBatch.from_pylist(rows, schema=REQUESTS)
    return LogBatch("log", pa.array(range(1, len(rows) + 1)).to_numpy(), requests, ())


AROUND = tuple(at + by for at in (T, END) for by in (-1, 0, 1))


class RecordingSink:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def take(self, batch: LogBatch, changes: pa.RecordBatch) -> None:
        assert batch.source == "log"
        instants = changes.column("at").cast(pa.int64()).to_pylist()
        rows = changes.drop_columns(["at"]).to_pylist()
        self.rows += [
            {"at": at, "line": int(line)} | row for at, line, row in zip(instants, batch.lines, rows, strict=True)
        ]

    def reject(self, row: object) -> None:
        raise AssertionError


def rows(ledger: Ledger, *lines: dict[str, Any], known_at: KnownAt = IN_FORCE, **more: Any) -> list[dict[str, Any]]:
    sink, batches = RecordingSink(), [batch(*AROUND[3:], **more), batch(*AROUND[:3], **more)]
    proposals = read_proposals(io.BytesIO(jsonl(*lines)))
    first = first_request_of(batches)
    assert first == T - 1
    index = compile_by_fold(ledger, known_at)
    radius = blast_radius(ledger, index, proposals, batches, first_request=first, sinks=(sink,))
    assert (radius.requests, radius.differing) == (6, len(sink.rows))
    return sink.rows


@pytest.mark.parametrize("line", [{"effective_from": format_time(T)}, {"recorded_at": format_time(T)}])
def test_a_proposal_holds_from_its_microsecond_to_the_next_event(ledger: Ledger, line: dict[str, Any]) -> None:
    # At END the ledger itself opts in: no later request differs.
    assert [row["at"] for row in rows(ledger, change(**line))] == [END - 1, T, T + 1]


def test_without_a_moment_it_governs_all_requests_of_the_log(ledger: Ledger) -> None:
    differing = rows(ledger, change())
    assert [row["at"] for row in differing] == [END - 1, T - 1, T, T + 1]
    assert [row["line"] for row in differing] == [1, 1, 2, 3]
    assert {row["after_verdict"] for row in differing} == {"compliant"}
    assert {tuple(row["after_deciding_positions"]) for row in differing} == {(-1,)}


def test_a_proposed_end_is_exclusive(ledger: Ledger) -> None:
    line = change(effective_from=format_time(T - 1), effective_until=format_time(T + 1))
    assert [row["at"] for row in rows(ledger, line)] == [T - 1, T]


def test_a_late_proposal_is_in_force_from_its_recording_and_in_hindsight_from_its_start(ledger: Ledger) -> None:
    line = change(effective_from=format_time(T - 1), recorded_at=format_time(T + 1))
    assert [row["at"] for row in rows(ledger, line)] == [END - 1, T + 1]
    assert [row["at"] for row in rows(ledger, line, known_at=None)] == [END - 1, T - 1, T, T + 1]


def test_a_retraction_counts_from_its_recording(ledger: Ledger) -> None:
    event_id = ledger.page(GENESIS, 1)[0].leaf.decode().partition('"id":"')[2][:36]
    line = {"type": "change.retracted", "event_id": event_id}
    assert [row["at"] for row in rows(ledger, line)] == [END, END + 1]
    line["recorded_at"] = format_time(END + 1)
    (row,) = rows(ledger, line)
    assert (row["at"], row["before_verdict"], row["after_verdict"]) == (END + 1, "compliant", "violation")


def test_a_proposed_default_holds_where_no_event_does(ledger: Ledger) -> None:
    definition = BUILT_IN["training.opt_in"].as_json() | {"default": True}
    line = {"type": "setting.defined", "setting": "training.opt_in", "definition": definition}
    differing = rows(ledger, line | {"recorded_at": format_time(T)})
    assert [row["at"] for row in differing] == [END - 1, T, T + 1]
    assert {row["after_reasons"] == [] for row in differing} == {True}


def test_a_gateway_had_enforced_the_proposals_before_its_position_and_none_after(ledger: Ledger) -> None:
    out = change(value=False, recorded_at=format_time(END + 1))
    (behind,) = rows(ledger, out, enforced_position=GENESIS + 1)
    assert (behind["at"], behind["after_reasons"]) == (END + 1, ["enforcement_lag"])
    assert (behind["after_lag_position"], behind["after_enforcement_lag_us"]) == (-1, 0)
    earlier = change(value=False, effective_from=format_time(END + 1), recorded_at=format_time(T))
    (row,) = rows(ledger, earlier, enforced_position=GENESIS + 1)
    assert (row["at"], row["after_reasons"]) == (END + 1, ["trained_without_opt_in"])


@pytest.mark.parametrize(
    ("setting", "value", "observed"),
    [
        ("model.precision", "bf16", {"precision": "fp8"}),
        ("model.revision", "2026-01", {"revision": "2026-01 b"}),
        ("model.distilled", False, {"distilled": True}),
        ("model.system_prompt_forced", True, {"system_prompt_forced": False}),
        ("model.censorship_layer", False, {"censored": True}),
    ],
)
def test_a_proposal_says_how_a_model_is_served(
    ledger: Ledger, setting: str, value: Any, observed: dict[str, Any]
) -> None:
    line = change(subject="model:m", setting=setting, value=value, effective_from=format_time(T))
    differing = rows(ledger, line, model_id="m", trained=None, **observed)
    assert [row["at"] for row in differing] == [END - 1, END, END + 1, T, T + 1]
    assert {tuple(row["after_reasons"]) for row in differing} == {("unknown_model", "not_as_published")}
    assert {row["after_deciding_positions"][-1] for row in differing} == {-1}
    as_published: dict[str, Any] = {name: f" {value} " if isinstance(value, str) else value for name in observed}
    assert rows(ledger, line, model_id="m", trained=None, **as_published) == []


def test_requests_are_counted_from_the_microsecond_at_which_the_clock_was_ahead(ledger: Ledger) -> None:
    clock = ledger.clock
    assert isinstance(clock, ManualClock)
    clock.now_us = END + YEAR
    submit(ledger, change("org:other"))
    clock.now_us = END + DAY
    acknowledge_clock(ledger, "node 3 was a year ahead", OPERATOR)
    (notice,) = notices_of_ledger(ledger, ledger.head())
    # The stretch begins right after the last event before such a clock.
    assert notice.start == END + 1
    instants = [at + by for at in (notice.start, notice.until) for by in (-1, 0, 1)]
    unchanged = read_proposals(io.BytesIO(jsonl(change("org:nobody"))))

    def rows(known_at: KnownAt) -> list[tuple[ClockNotice, int]]:
        index, batches = compile_by_fold(ledger, known_at), [batch(*instants[3:]), batch(*instants[:3])]
        radius = blast_radius(ledger, index, unchanged, batches, first_request=END)
        assert (radius.requests, radius.differing) == (6, 0)
        assert [one["rows"] for one in radius_json(radius).get("clock_notices", [])] == [n for _, n in radius.notices]
        return [(stretch, count) for stretch, count in radius.notices]

    assert rows(IN_FORCE) == [(notice, 3)]
    # One coordinate within the stretch is enough, here for all requests.
    assert rows(notice.start - 1) == [(notice, 3)]
    assert rows(notice.start) == [(notice, 6)]
