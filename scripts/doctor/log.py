"""`doctor log`: compares the transparency log with the events. `ledger/transparency/log_check.py` does the work.

Proved by tests/cli/test_keygen.py.
"""

from __future__ import annotations

import click

from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from ledger.transparency.checkpoint_memory import memory_of
from ledger.transparency.log_check import log_faults, noted_checkpoint
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format, database, output_format
from scripts.cli.output import show_record


@click.command("log")
@click.option("--rebuild", "rebuild_tree", is_flag=True, help="Delete the stored tree, so that it is made anew.")
@database
@output_format
def log_(db: str, format_: Format, *, rebuild_tree: bool) -> int:
    """Compare the transparency log with the events.

    Makes the whole tree anew from the events, and compares tiles, heads, and the last checkpoints: the published one,
    and the one that is noted outside the ledger. Exits 1 if anything differs. A log that differs signs no further
    checkpoint. If its tiles are damaged and the events are right, stop the servers and --rebuild: the next server, or
    inforce export --log, makes the tree anew, and signs only if it has the roots that were published.

    \b
      inforce doctor log
      inforce doctor log --rebuild
    """
    if rebuild_tree:
        _clear_tree(db)
        return exits.OK
    with open_ledger(db) as ledger, progress("comparing", ledger.head().position) as report:
        tables, memory = ledger.recorder.log_tables(), memory_of(ledger)
        noted, fault = noted_checkpoint(memory.newest)
        faults = [] if fault is None else [fault]
        faults += log_faults(
            ledger.recorder, ledger.origin, noted, lambda position: report(position, f"{position:,} events")
        )
        integrated, published = tables.head("integrated"), tables.head("published")
        record = {
            "origin": ledger.origin,
            "events": ledger.head().position,
            "integrated": 0 if integrated is None else integrated.size,
            "published": 0 if published is None else published.size,
            "noted": None if noted is None else noted.head.size,
            "note": None if memory.path is None else str(memory.path),
            "verifier_keys": [key for key, _ in tables.verifier_keys()],
            "faults": faults,
        }
    show_record(format_, record, "log")
    return exits.PROBLEM_FOUND if faults else exits.OK


def _clear_tree(db: str) -> None:
    with open_ledger(db) as ledger:
        leader = ledger.recorder.integrator_lock()
        if not leader.acquire():
            raise LedgerUnavailable("a server integrates events into the log now; stop it first")
        try:
            ledger.recorder.log_tables().clear_tree()
        finally:
            leader.release()
    exits.print_note("the stored tree is deleted; inforce serve or inforce export --log makes it anew from the events")
