"""A ledger with a transparency log, its key, and readers that verify what it serves with the reference alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psycopg

from ledger.clock import ManualClock
from ledger.opening import database_file, open_ledger
from ledger.store import Ledger
from ledger.transparency.checkpoint import SignedCheckpoint
from ledger.transparency.checkpoint_memory import CheckpointMemory, memory_of
from ledger.transparency.integrator import Integrator
from ledger.transparency.note import SigningKey
from ledger.transparency.published_log import PublishedLog
from ledger.transparency.tlog_proof import TlogProof
from tests.support import reference_tree
from tests.support.ledgers import NOW, ORIGIN, change, submit

KEY = SigningKey(ORIGIN, b"k" * 32)
NEW_KEY = SigningKey(ORIGIN, b"n" * 32)


def integrator_of(ledger: Ledger, *keys: SigningKey, memory: CheckpointMemory | None = None, **more: Any) -> Integrator:
    return Integrator(ledger, keys or (KEY,), memory or memory_of(ledger), **more)


def reopened(url: str) -> Ledger:
    return open_ledger(url, clock=ManualClock(NOW), write=True)


def grow(ledger: Ledger, events: int) -> None:
    """Records `events` changes."""
    for start in range(0, events, 900):
        bodies = [change(f"org:{number}", value=bool(number % 2)) for number in range(start, min(start + 900, events))]
        submit(ledger, *bodies, batch=True)


def require_published(ledger: Ledger, size: int) -> SignedCheckpoint:
    """The published checkpoint, verified: its tree is that of the ledger's first `size` events, by the definitions, and
    every proof and every tile of it is right."""
    log = PublishedLog(ledger.recorder)
    signed = log.checkpoint()
    assert signed is not None
    assert signed.head.size == size == log.size()
    signed.note.verified_by([KEY.verifier, NEW_KEY.verifier])
    entries = [entry for page in ledger.pages(0, size) for entry in page]
    leaves = [reference_tree.leaf(entry.leaf) for entry in entries]
    assert signed.head.root == reference_tree.root(leaves)
    assert signed.checkpoint.origin == ledger.origin
    for position in {1, size // 2 or 1, size}:
        proof = log.proof(position)
        assert proof is not None
        read = TlogProof.parse(proof)
        assert list(read.hashes) == reference_tree.path(position - 1, leaves)
        read.verify(entries[position - 1].leaf, ledger.origin, [KEY.verifier, NEW_KEY.verifier])
    assert log.proof(size + 1) is None
    return signed


def execute(url: str, statement: str, *parameters: object) -> None:
    """Alters the database as somebody can who owns it; `{}` stands for the schema, `?` for a parameter."""
    path = database_file(url)
    if path is None:
        with psycopg.connect(url) as connection:
            connection.execute(statement.format("inforce.").replace("?", "%s").encode(), parameters)
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement.format(""), parameters)
