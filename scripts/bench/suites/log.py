"""`bench log`: the transparency log, beside bare hashlib over the same bytes.

Integration takes the events of a ledger into the tree and signs it: it reads and hashes every leaf, stores the tiles,
proves the tree again, and publishes. The baseline hashes the same leaves and as many nodes, and does nothing else.

Proofs come from a tree of random leaves, stored in the ledger's own tables, because a proof reads tiles and no events.
Cold: nothing is known of the tree but its head, so each tile is read and proved first. Warm: the tiles are at hand. The
baseline hashes as many nodes as two full tiles have.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from hashlib import sha256
from random import Random
from statistics import median
from time import perf_counter_ns
from typing import Any, Final

from ledger.opening import open_ledger
from ledger.recorders.log_tables import LogTables, StoredHead
from ledger.store import Ledger
from ledger.transparency.checkpoint_memory import CheckpointMemory
from ledger.transparency.integrator import Integrator
from ledger.transparency.keys import new_key
from ledger.transparency.merkle import TreeHead, verify_inclusion
from ledger.transparency.published_log import leaves_between, tile_reader
from ledger.transparency.tile_tree import GrowingTree, ProvedTiles
from scripts.bench.ledgers import generate_ledger
from scripts.bench.marks import judge
from scripts.bench.measure import Case, by_case, case_table, measure, percentile, take_turns
from scripts.bench.population import ROUNDS, subjects_for
from scripts.bench.report import Column, SuiteResult, Table, count, number
from scripts.bench.suite import SuiteContext

EVENTS: Final = 100_000
LEAVES: Final = 1_000_000
PROOFS: Final = 300
_APPEND: Final = 65_536
_TILE_NODES: Final = 255

HASHLIB_TREE: Final = "hashlib: the same leaves and nodes"
INTEGRATE: Final = "inforce: integrate, prove, sign, publish"
HASHLIB_TILES: Final = "hashlib: the nodes of two tiles"
COLD: Final = "proof, tiles read and proved"
WARM: Final = "proof, tiles at hand"


def run(context: SuiteContext) -> SuiteResult:
    events, leaves, proofs = (1000, 2000, 20) if context.quick else (EVENTS, LEAVES, PROOFS)
    leaves = context.events or leaves
    integration = _integration(context, events)
    rows = _proofs(context, leaves, proofs)
    by_name = {row["case"]: row for row in rows}
    note = f"p99 {number(by_name[COLD]['p99_us'] / 1000)} ms; with tiles at hand {number(by_name[WARM]['p50_us'])} µs"
    return SuiteResult(
        [integration[0], Table(f"a tree of {leaves:,} leaves, µs a proof", _COLUMNS, rows)],
        [
            judge("log.integrate", integration[1]),
            judge("log.proof", by_name[COLD]["p50_us"] / 1000, size=leaves, note=note),
        ],
        ["speed: the median time of the table's baseline, divided by that of the row; 0.5 is half as fast"],
    )


_COLUMNS: Final = (
    Column("case", "case"),
    Column("p50_us", "p50", number),
    Column("p99_us", "p99", number),
    Column("asked", "proofs", count),
)


def _integration(context: SuiteContext, events: int) -> tuple[Table, float]:
    """The table, and the number of events a second."""
    url = context.databases.url()
    generate_ledger(url, subjects_for(events, ROUNDS), ROUNDS)
    ledger = context.stack.enter_context(open_ledger(url))
    size = ledger.head().position
    leaves = leaves_between(ledger.recorder, 0, size)
    cases = [
        Case(HASHLIB_TREE, None, lambda _prepared: _hash_tree(leaves)),
        Case(INTEGRATE, HASHLIB_TREE, lambda integrator: int(integrator.catch_up()), lambda: _integrator(ledger)),
    ]
    measurements = measure("bench log", cases, context.turns)
    return case_table(f"{size:,} events", "event", measurements), by_case(measurements)[INTEGRATE].per_second


def _integrator(ledger: Ledger) -> Integrator:
    """For the whole ledger: what is integrated is deleted, and nothing was signed."""
    ledger.recorder.log_tables().clear_tree()
    with ledger.recorder.transaction(commit=True) as cursor:
        cursor.execute(f"DELETE FROM {ledger.recorder.events_table.removesuffix('events')}log_heads")  # noqa: S608 - our own names
    return Integrator(ledger, [new_key(ledger.origin)], CheckpointMemory(None))


def _hash_tree(leaves: list[bytes]) -> int:
    row = [sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(row) > 1:
        above = [sha256(b"\1" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]
        row = above + row[2 * len(above) :]
    return len(leaves)


def _proofs(context: SuiteContext, leaves: int, proofs: int) -> list[dict[str, Any]]:
    ledger = context.stack.enter_context(open_ledger(context.databases.url(), create=True))
    tables = ledger.recorder.log_tables()
    rng = Random(3)  # noqa: S311 - the same work every time
    head, hashes = _store_tree(tables, leaves, rng)
    indexes = [rng.randrange(leaves) for _ in range(proofs)]
    warm = ProvedTiles(tile_reader(tables), head)
    pair = bytes(64)

    def of_hashlib() -> None:
        for _ in range(2 * _TILE_NODES):
            sha256(b"\1" + pair).digest()

    def cold(index: int) -> None:
        verify_inclusion(hashes(index), index, ProvedTiles(tile_reader(tables), head).inclusion_proof(index), head)

    def at_hand(index: int) -> None:
        warm.inclusion_proof(index)

    def case(prove: Callable[[int], None]) -> Callable[[int], list[int]]:
        return lambda _turn: [_time_ns(lambda index=index: prove(index)) for index in indexes]  # type: ignore[misc]  # mypy does not infer lambdas with defaults

    gc.collect()
    # The warm case begins with every tile that it needs, as far as they are kept.
    for index in indexes:
        warm.inclusion_proof(index)
    cases = {HASHLIB_TILES: case(lambda _index: of_hashlib()), COLD: case(cold), WARM: case(at_hand)}
    turns = take_turns("bench log", cases, context.turns)
    rows = []
    for name, times in turns.items():
        p50, p99 = (median(percentile(each, percent) for each in times) / 1000 for percent in (50, 99))
        rows.append({"case": name, "p50_us": round(p50, 4), "p99_us": round(p99, 4), "asked": proofs})
    return rows


def _time_ns(work: Callable[[], object]) -> int:
    began = perf_counter_ns()
    work()
    return perf_counter_ns() - began


def _store_tree(tables: LogTables, leaves: int, rng: Random) -> tuple[TreeHead, Callable[[int], bytes]]:
    """Stores the tiles of a tree of random leaves; answers its head, and the hash of each leaf."""
    tree, before = GrowingTree(0, {}), None
    while tree.size < leaves:
        width = min(_APPEND, leaves - tree.size)
        content = rng.randbytes(32 * width)
        tree.append([content[place : place + 32] for place in range(0, len(content), 32)])
        after = StoredHead(*tree.head())
        tables.grow(before, after, {tile[:2]: hashes for tile, hashes in tree.changed.items()})
        tree.changed.clear()
        before = after

    def hash_of(index: int) -> bytes:
        tile, place = divmod(index, 256)
        return tables.tiles([(0, tile)])[0, tile][32 * place : 32 * place + 32]

    return tree.head(), hash_of
