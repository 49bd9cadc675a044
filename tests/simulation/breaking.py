"""A step in which something breaks and is mended: what is asked meanwhile is answered rightly or not at all, everything
goes on by itself, and what could not be said is said again, with the same key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.simulation import faults
from tests.simulation.auditor import Outcome
from tests.simulation.comparing import Mismatch
from tests.simulation.doors import Door, InProcess, Unavailable
from tests.support.reference import Json

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

FAULTS_SQLITE: Final = (faults.disk_full, faults.disk_full, faults.write_lock_held)
FAULTS_POSTGRES: Final = (
    *(faults.backends_terminated, faults.backends_terminated, faults.killed_before_commit, faults.killed_at_commit),
    *(faults.read_only, faults.append_lock_held),
)


def break_and_mend(simulation: Simulation, fault: faults.Fault) -> None:
    """Raises `Mismatch`."""
    if fault is not faults.write_lock_held:
        _during(simulation, fault, simulation.chance.choice(simulation.doors))
        return
    # The others would wait for the lock, for as long as they are patient.
    door = InProcess(simulation.url, simulation.clock, is_impatient=True)
    try:
        _during(simulation, fault, door)
    finally:
        door.close()


def _during(simulation: Simulation, fault: faults.Fault, door: Door) -> None:
    unsaid: tuple[Json, str, str, Outcome] | None = None
    with fault(simulation.url):
        for _ in range(simulation.chance.randint(1, 3)):
            with _refusals(simulation):
                simulation.ask(door, simulation.new_question())
            if isinstance(door, InProcess) and simulation.workload.maybe(0.2):
                with _refusals(simulation):
                    door.rebuild(check_only=False)
            body, key, auditor = simulation.new_body(), simulation.new_key(), simulation.auditor
            expected = auditor.expect(body, simulation.clock.now_us, door.actor, door.caller, key)
            try:
                simulation.submit(door, body, key)
            except Unavailable as error:
                simulation.counts["unavailable"] += 1
                unsaid = body, key, str(error), expected
                break
    if unsaid is None:
        return
    body, key, said, expected = unsaid
    before = simulation.auditor.head
    possible = [before, before + len(expected.receipts)] if "may or may not" in said else [before]
    simulation.doing = {"unavailable": fault.__name__, "submitted": body, "answered": said}
    head = simulation.in_process().ledger.head().position
    if head not in possible:
        raise Mismatch(simulation.report(possible, head))
    simulation.submit(door, body, key)


@contextmanager
def _refusals(simulation: Simulation) -> Iterator[None]:
    try:
        yield
    except Unavailable:
        simulation.counts["unavailable"] += 1
