"""The kernel and the row-by-row path over an index decide as `check` does, whatever the ledger and the log."""

from collections.abc import Iterator
from random import Random
from threading import Thread

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.times import DAY, parse_time
from projections.audit.index.reference import compile_by_fold
from projections.audit.kernel.batch_decider import RowByRow
from projections.audit.kernel.kernel import Kernel
from projections.audit.kernel.request_columns import ROWS_MAX
from projections.audit.reference import decide_slowly
from projections.audit.schemas import REQUESTS, VERDICTS
from projections.query.query import IN_FORCE, KnownAt, PinnedQuery
from tests.audit.strategies import LONG_CHAIN, HistoryStep, batch_of, grown, histories, instants, known_ats, rows
from tests.query.test_against_reference import PARTIES, PLACES, drawn_as_served
from tests.query.test_against_reference import grown as grown_at_random
from tests.support.questions import NOON, QueryLedger, changed, defined, retracted
from tests.support.reference import Json

BOTH = (Kernel, RowByRow)


def assert_alike(bench: QueryLedger, batch: pa.RecordBatch, known_at: KnownAt) -> pa.RecordBatch:
    """Both ways over an index, and the reference: by column, to the byte of every text and the code of a name."""
    index = compile_by_fold(bench.ledger, known_at)
    expected = decide_slowly(PinnedQuery(bench.query), batch, known_at)
    for way in BOTH:
        verdicts = way(index).decide(batch).verdicts
        verdicts.validate(full=True)
        assert verdicts.schema.equals(VERDICTS)
        assert_same(verdicts, expected)
        assert verdicts.equals(expected), way
    return expected


PART_ROWS = 2_000
"""More than the drawn rows, and fewer than a batch: row by row, 65,536 take 15 s."""


def assert_same(verdicts: pa.RecordBatch, expected: pa.RecordBatch) -> None:
    """As values, in Python only if the batches differ: that takes most of the time of a large one."""
    if not verdicts.equals(expected):
        assert verdicts.to_pylist() == expected.to_pylist()


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(history=histories(), data=st.data())
def test_both_ways_equal_check_at_every_boundary_of_any_ledger(history: list[HistoryStep], data: st.DataObject) -> None:
    with grown([LONG_CHAIN, *history]) as bench:
        kinds = data.draw(st.lists(rows(bench.ledger.head().position), min_size=1, max_size=12))
        seen = instants(bench)
        batch = batch_of([row | {"at": at} for number, at in enumerate(seen) for row in kinds[number % 3 :: 3]])
        known = data.draw(st.lists(known_ats(seen), min_size=1, max_size=2))
        for known_at in known:
            assert_alike(bench, batch, known_at)


@pytest.fixture
def bench() -> Iterator[QueryLedger]:
    with grown([]) as made:
        yield made


def test_a_change_that_a_later_one_cut_short_does_not_decide(bench: QueryLedger) -> None:
    """An open change holds only until the next step, where an older change that begins later goes on deciding."""
    (first,) = bench.submit(NOON, changed("org:acme", "storage.inputs_outputs", True, NOON - 5))
    bench.submit(NOON + 1, changed("org:acme", "storage.inputs_outputs", False, NOON - 6))
    enforced = bench.ledger.head().position
    bench.submit(NOON + 50, retracted(first.event_id))
    row = {"org_id": "acme", "stored": True, "enforced_position": enforced}
    verdicts = assert_alike(bench, batch_of([row | {"at": NOON + at} for at in (-7, -6, -5, -4, 20)]), None)
    assert verdicts.column("reasons").to_pylist()[-1] == ["enforcement_lag"]


@pytest.mark.parametrize("moment", ["2026-02-15T00:00:00Z", "2026-03-10T00:00:00Z"], ids=["before", "during"])
def test_an_opt_out_without_an_end_is_not_undone_by_a_pause_that_was_recorded_before_it(
    bench: QueryLedger, moment: str
) -> None:
    """Opted in from January; a pause scheduled for March; "never again" before or during the pause."""
    opt_in, begin, end = (parse_time(f"2026-{month}-01T00:00:00Z") for month in ("01", "03", "04"))
    opt_out, may = parse_time(moment), parse_time("2026-05-10T09:00:00Z")
    bench.submit(opt_in, changed("org:acme", "training.opt_in", True))
    (pause,) = bench.submit(opt_in + DAY, changed("org:acme", "training.opt_in", False, begin, end))
    (never,) = bench.submit(opt_out, changed("org:acme", "training.opt_in", False))
    instants = [at + near for at in (opt_out, begin, end, may) for near in (-1, 0, 1)]
    row = {"org_id": "acme", "trained": True}
    verdicts = assert_alike(bench, batch_of([row | {"at": at} for at in instants]), IN_FORCE)
    expected = ["compliant" if at < min(opt_out, begin) else "violation" for at in instants]
    assert verdicts.column("verdict").to_pylist() == expected
    deciding = [max(positions) for positions in verdicts.column("deciding_positions").to_pylist()]
    # A pause that begins after the opt-out still happens, and is over with its end.
    paused = [opt_out < begin <= at < end for at in instants]
    by_never = [at >= opt_out and not pausing for at, pausing in zip(instants, paused, strict=True)]
    assert [position == never.position for position in deciding] == by_never
    # A gateway that had seen only the pause enforced what goes on after it, so its training is a lag.
    late = row | {"at": may, "enforced_position": pause.position}
    (reasons,) = assert_alike(bench, batch_of([late]), IN_FORCE).column("reasons").to_pylist()
    assert reasons == ["enforcement_lag"]


def _drawn(chance: Random, positions: int) -> Json:
    row: Json = {"at": NOON + chance.randint(-8, 90), "model_id": chance.choice(("m1", "m2", None))}
    names = {"key_id": ("k1", "k2"), "project_id": ("p1", "p2"), "org_id": ("acme", "zz"), "account_id": ("u1", "u9")}
    for name, ids in names.items():
        if chance.random() < 0.4:
            row[name] = chance.choice(ids)
    if not row.keys() & names.keys():
        row["account_id"] = "u1"
    for flag in ("stored", "cached", "trained"):
        row[flag] = chance.choice((True, True, False, None))
    row["forwarded_to"] = chance.choice(("x", *PARTIES, *[None] * 8))
    row["region"] = chance.choice((*PLACES, "mars", *[None] * 12))
    row["enforced_position"] = chance.choice((chance.randint(0, positions), None))
    row |= drawn_as_served(chance)
    return row


def test_both_ways_equal_check_for_twenty_thousand_rows(bench: QueryLedger) -> None:
    chance = Random(20)
    grown_at_random(bench, chance, range(60))
    drawn = [_drawn(chance, bench.ledger.head().position) for _ in range(20_000)]
    expected = assert_alike(bench, batch_of(drawn), IN_FORCE)
    assert set(expected.column("verdict").to_pylist()) == {
        "violation",
        "denied",
        "indeterminate",
        "compliant",
        "allowed",
    }
    assert expected.column("hindsight").null_count < len(drawn)
    assert expected.column("lag_position").null_count < len(drawn)
    assert "not_as_published" in {reason for reasons in expected.column("reasons").to_pylist() for reason in reasons}


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("size", [0, 1, 2, 65_536])
def test_a_batch_of_any_size_and_any_part_of_one(bench: QueryLedger, way: type[Kernel | RowByRow], size: int) -> None:
    chance = Random(size)
    grown_at_random(bench, chance, range(20))
    some = batch_of([_drawn(chance, 100) for _ in range(max(1, min(size, 512)))])
    batch = pa.Table.from_batches([some] * max(1, size // 512)).combine_chunks().to_batches()[0].slice(0, size)
    decide = way(compile_by_fold(bench.ledger)).decide
    verdicts = decide(batch).verdicts
    assert verdicts.num_rows == size
    expected = decide_slowly(PinnedQuery(bench.query), some.slice(0, size))
    assert_same(verdicts.slice(0, min(size, 512)), expected)
    # These parts do not begin at a whole byte of the bits.
    for first in (1, 3, 9):
        part = batch.slice(first, PART_ROWS)
        assert_same(decide(part).verdicts, verdicts.slice(first, PART_ROWS))


@pytest.mark.parametrize("way", BOTH)
def test_a_ledger_with_only_its_catalog(bench: QueryLedger, way: type[Kernel | RowByRow]) -> None:
    batch = batch_of(
        [
            {"at": NOON, "key_id": "k"},
            {"at": NOON, "org_id": "o", "stored": True},
            {"at": 0, "org_id": "o"},
            {"at": NOON, "key_id": "k", "project_id": "p", "stored": True, "enforced_position": 1},
            {"at": NOON, "account_id": "u", "stored": True, "enforced_position": 1},
        ]
    )
    verdicts = way(compile_by_fold(bench.ledger)).decide(batch).verdicts
    assert verdicts.column("verdict").to_pylist() == [
        "indeterminate",
        "violation",
        "indeterminate",
        "indeterminate",
        "violation",
    ]
    assert verdicts.column("governed_by").to_pylist() == [None, "org:o", None, None, "account:u"]
    assert verdicts.to_pylist() == decide_slowly(PinnedQuery(bench.query), batch).to_pylist()


def test_a_corrected_catalog_is_hindsight_only_where_the_correction_holds(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", "caching.temporary", True))
    bench.submit(NOON + 50, defined("storage.inputs_outputs", NOON + 10, default=True))
    batch = batch_of([{"at": NOON + at, "org_id": org} for at in (9, 10, 49, 50) for org in ("acme", "other")])
    expected = assert_alike(bench, batch, IN_FORCE)
    assert expected.column("hindsight").to_pylist() == [None, None, *["allowed"] * 4, None, None]


def test_threads_that_share_a_kernel_get_the_same_answers(bench: QueryLedger) -> None:
    chance = Random(5)
    grown_at_random(bench, chance, range(40))
    batches = [batch_of([_drawn(chance, 150) for _ in range(500)]) for _ in range(8)]
    kernel = Kernel(compile_by_fold(bench.ledger))
    expected = [kernel.decide(batch).verdicts for batch in batches]
    verdicts: list[list[pa.RecordBatch]] = [[] for _ in range(4)]
    threads = [
        Thread(target=lambda mine=mine: mine.extend(kernel.decide(one).verdicts for one in batches))
        for mine in verdicts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in verdicts:
        assert all(one.equals(other) for one, other in zip(mine, expected, strict=True))


def test_a_batch_with_another_schema_or_too_many_rows_is_refused(bench: QueryLedger) -> None:
    kernel = Kernel(compile_by_fold(bench.ledger))
    with pytest.raises(ValueError, match="other columns than REQUESTS"):
        kernel.decide(batch_of([]).drop_columns(["region"]))
    row = batch_of([{"at": NOON, "key_id": "k"}])
    many = row.take(pa.array([0] * (ROWS_MAX + 1)))
    assert many.schema == REQUESTS
    with pytest.raises(ValueError, match="slice it"):
        kernel.decide(many)
