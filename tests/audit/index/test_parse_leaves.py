"""Compiled code and `read_assertion` parse leaves to the same columns, and refuse anything else."""

from pathlib import Path
from random import Random

import msgspec
import pytest

from ledger.errors import LedgerCorrupt
from projections.audit.index.event_columns import IS_CLEAR, IS_RETRACTION, NO_SETTING, EventColumns, is_link, is_raw
from projections.audit.index.parse_leaves import LeafParser
from projections.audit.index.schema import SETTINGS
from projections.audit.numba_support import AVAILABLE
from projections.temporal.changes import Change, read_assertion
from scripts.bench.event_rows import event_rows
from scripts.bench.population import Population
from tests.audit.index.random_ledger import RandomLedger
from tests.support.ledgers import open_with_clock

ORIGIN = "inforce.test/parsing"
PARSERS = [pytest.param(False, id="not compiled")]
if AVAILABLE:
    PARSERS.append(pytest.param(True, id="compiled"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[bytes]]:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    with ledger:
        RandomLedger(ledger, clock, 99).go_on(300)
        leaves = ledger.recorder.leaves(0, ledger.head().position).split(b"\n")
        return ledger.origin, leaves


def rows_in_words(columns: EventColumns) -> list[tuple[object, ...]]:
    """Each row in words, independent of the codes of names and raw values."""
    names = columns.names

    def name(row: int) -> bytes:
        start = int(names.starts[row])
        return names.bytes[start : start + int(names.lengths[row])].tobytes()

    links, raws = is_link(columns.setting), is_raw(columns.setting)
    rows: list[tuple[object, ...]] = []
    for row, value in enumerate(columns.value.tolist()):
        shown: object = value
        if value >= 0 and links[row]:
            shown = name(value)
        elif value >= 0 and raws[row]:
            shown = columns.raw[value]
        subject = int(columns.subject[row])
        numbers = (
            columns.position,
            columns.recorded_at,
            columns.start,
            columns.until,
            columns.setting,
            columns.retracts,
        )
        rows.append((*(int(column[row]) for column in numbers), shown, None if subject < 0 else name(subject)))
    return rows


@pytest.mark.parametrize("compiled", PARSERS)
def test_the_columns_equal_the_assertions(world: tuple[str, list[bytes]], compiled: bool) -> None:
    origin, leaves = world
    rows = rows_in_words(LeafParser(origin, compiled=compiled).parse(b"\n".join(leaves)))
    for leaf, row in zip(leaves, rows, strict=True):
        position, recorded_at, start, _until, setting, retracts, value, subject = row
        assertion = read_assertion(leaf)
        assert (position, recorded_at) == (assertion.position, assertion.recorded_at)
        if setting == NO_SETTING:
            assert assertion.setting not in SETTINGS or b'"definition":' in leaf
            continue
        assert SETTINGS[int(setting)] == assertion.setting  # type: ignore[call-overload]  # a number
        assert subject == msgspec.json.decode(leaf)["subject"].encode()
        if isinstance(assertion, Change):
            assert start == assertion.effective_from
            assert (value == IS_CLEAR) == (assertion.value is None)
        else:
            assert value == IS_RETRACTION
            assert retracts == int(assertion.retracts[:8] + assertion.retracts[9:13], 16)


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
def test_both_ways_parse_any_selection_of_leaves_alike(world: tuple[str, list[bytes]]) -> None:
    origin, leaves = world
    chance = Random(1)
    for count in (1, 2, 3, 50, len(leaves)):
        some = b"\n".join(chance.sample(leaves, count))
        assert rows_in_words(LeafParser(origin).parse(some)) == rows_in_words(
            LeafParser(origin, compiled=False).parse(some)
        )


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
def test_both_ways_parse_a_changed_leaf_alike(world: tuple[str, list[bytes]]) -> None:
    """Compiled code accepts only the codec's own form. Both ways read a changed leaf alike, or both refuse it."""
    origin, leaves = world
    chance = Random(2)
    refused = 0
    for _ in range(4000):
        leaf = bytearray(chance.choice(leaves))
        place = chance.randrange(len(leaf))
        change = chance.randrange(3)
        if change == 0:
            leaf[place] = chance.choice(b'"{}[]:,\\ 0123456789azTZ+-.')
        elif change == 1:
            del leaf[place]
        else:
            leaf.insert(place, chance.choice(b'" 01\\,'))
        outcomes = []
        for compiled in (True, False):
            try:
                outcomes.append(rows_in_words(LeafParser(origin, compiled=compiled).parse(bytes(leaf))))
            except LedgerCorrupt:
                outcomes.append([])
        refused += outcomes[1] == []
        assert outcomes[0] == outcomes[1], bytes(leaf)
    assert refused > 100


def test_a_leaf_of_another_ledger_is_parsed_without_compiled_code(world: tuple[str, list[bytes]]) -> None:
    _, leaves = world
    assert len(rows_in_words(LeafParser(ORIGIN).parse(b"\n".join(leaves)))) == len(leaves)


@pytest.mark.parametrize("compiled", PARSERS)
@pytest.mark.parametrize("junk", [b"", b"{}", b"nothing", b'{"specversion":"1.0"}', b"\xff\xfe"])
def test_a_line_that_is_no_event_is_refused(world: tuple[str, list[bytes]], compiled: bool, junk: bytes) -> None:
    origin, leaves = world
    with pytest.raises(LedgerCorrupt):
        LeafParser(origin, compiled=compiled).parse(b"\n".join([leaves[0], junk, leaves[1]]))


def test_the_stored_events_of_released_versions_are_read_too() -> None:
    for stored in sorted((Path(__file__).parents[2] / "life" / "fixtures").glob("**/events.jsonl")):
        leaves = [line for line in stored.read_bytes().split(b"\n") if line]
        rows = rows_in_words(LeafParser(ORIGIN).parse(b"\n".join(leaves)))
        assert [row[0] for row in rows] == [read_assertion(leaf).position for leaf in leaves]


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
def test_compiled_code_alone_reads_ordinary_events(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [row[4] for row in event_rows(Population(220, 38), "urn:inforce:x")]

    def slowly(_lines: object, _row: int, leaf: bytes) -> None:
        raise AssertionError(f"read one by one: {leaf.decode()}")

    monkeypatch.setattr("projections.audit.index.parse_leaves._LeafColumns._read", slowly)
    assert len(LeafParser("x", compiled=True).parse(b"\n".join(made)).position) == 2200
