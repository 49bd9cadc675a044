"""A step of the simulation during a fault.

While the fault lasts, each answer must be right or unavailable. Afterwards everything must work without help, and the
step sends the refused submission again with its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.simulation import faults
from tests.simulation.clients import InProcessClient, LedgerClient, Unavailable
from tests.simulation.compare import Mismatch
from tests.simulation.oracle import Outcome
from tests.support.reference import Json

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

FAULTS_SQLITE: Final = (faults.disk_full, faults.disk_full, faults.write_lock_held)
FAULTS_POSTGRES: Final = (
    *(faults.backends_terminated, faults.backends_terminated, faults.killed_before_commit, faults.killed_at_commit),
    *(faults.read_only, faults.append_lock_held),
)


def run_fault(simulation: Simulation, fault: faults.Fault) -> None:
    """Raises `Mismatch`."""
    if fault is not faults.write_lock_held:
        _during(simulation, fault, simulation.chance.choice(simulation.clients))
        return
    # Every other client would wait for the lock until its timeout.
    client = InProcessClient(simulation.url, simulation.clock, waits_for_locks=False)
    try:
        _during(simulation, fault, client)
    finally:
        client.close()


def _during(simulation: Simulation, fault: faults.Fault, client: LedgerClient) -> None:
    unrecorded: tuple[Json, str, str, Outcome] | None = None
    with fault(simulation.url):
        for _ in range(simulation.chance.randint(1, 3)):
            with _count_unavailable(simulation):
                simulation.ask(client, simulation.new_question())
            if isinstance(client, InProcessClient) and simulation.workload.maybe(0.2):
                with _count_unavailable(simulation):
                    client.rebuild(check_only=False)
            body, key, oracle = simulation.new_body(), simulation.new_key(), simulation.oracle
            expected = oracle.expect(body, simulation.clock.now_us, client.actor, client.caller, key)
            try:
                simulation.submit(client, body, key)
            except Unavailable as error:
                simulation.counts["unavailable"] += 1
                unrecorded = body, key, str(error), expected
                break
    if unrecorded is None:
        return
    body, key, detail, expected = unrecorded
    before = simulation.oracle.head
    possible = [before, before + len(expected.receipts)] if "may or may not" in detail else [before]
    simulation.doing = {"unavailable": fault.__name__, "submitted": body, "answer": detail}
    head = simulation.in_process().ledger.head().position
    if head not in possible:
        raise Mismatch(simulation.report(possible, head))
    simulation.submit(client, body, key)


@contextmanager
def _count_unavailable(simulation: Simulation) -> Iterator[None]:
    try:
        yield
    except Unavailable:
        simulation.counts["unavailable"] += 1
