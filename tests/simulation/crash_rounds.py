"""Campaigns: servers under load, killed at the moments of a plan, started again, and everything held against what was
said.

One seed decides what is sent, when what is killed, and what is done to the database. Threads, processes and disks keep
their own pace, so the same seed makes the same attempts, not the same interleavings.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.simulation.crash_answers import Questioning
from tests.simulation.crash_checks import Held, Submissions, check_kept, check_rows
from tests.simulation.crash_databases import Database
from tests.simulation.crash_memory import Memory, Sent
from tests.simulation.crash_plans import Plan, Plans
from tests.simulation.crash_processes import Process, Processes
from tests.simulation.crash_strikes import Strike

OBJECTIONS_SHOWN: Final = 10
TOLD_EVERY: Final = 25


class CrashFailure(AssertionError):
    """A guarantee was broken. Says how to do it again and where everything was kept."""


class Counts(NamedTuple):
    rounds: int = 0
    kills: int = 0
    submissions: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    """Had no answer when all was killed."""
    recorded: int = 0
    """Of those: were found recorded."""
    events: int = 0
    """Of all ledgers."""

    def figure(self, name: str, seed: int) -> str:
        return (
            f"crash, {name}: {self.rounds} rounds, seed {seed}, {self.kills} kills, {self.submissions:,} submissions, "
            f"{self.acknowledged:,} acknowledged, {self.refused:,} refused, {self.unknown:,} unknown of which "
            f"{self.recorded:,} recorded, {self.events:,} events, 0 lost"
        )


class Campaign:
    """`processes` has the folder for logs."""

    def __init__(self, database: Database, processes: Processes, seed: int) -> None:
        self.database = database
        self.processes = processes
        self.plans = Plans(seed, database.faults)
        self.counts = Counts()
        self.memory = Memory()
        self.held = Held([], [], {})
        """As it was when the round before ended."""
        self._server: Process | None = None
        self._counted = 0

    def run(self, rounds: int) -> Counts:
        """Raises `CrashFailure`."""
        for number in range(rounds):
            plan = self.plans.plan(number)
            try:
                self._round(plan)
            except Exception as error:
                raise CrashFailure(
                    self._told(plan, [*self.memory.objections, f"{type(error).__name__}: {error}"])
                ) from error
            if self.memory.objections:
                raise CrashFailure(self._told(plan, self.memory.objections))
            if self.counts.rounds % TOLD_EVERY == 0:
                print(f"so far: {self.counts.figure(self.database.name, self.plans.seed)}", flush=True)
        return self.counts

    def _round(self, plan: Plan) -> None:
        if plan.is_fresh:
            self._begin()
        self._kill_while_starting(plan.start_kills)
        server = self._server or self._start(plan)
        submissions, acknowledged = self.memory.submissions, self.memory.acknowledged
        refused = len(self.memory.with_fate("refused"))
        left_over = set(self.memory.with_fate("unknown"))
        strike = Strike(plan, self.plans, self.database, self.processes, self.memory, server)
        strike.carry_out()
        acknowledged = self.memory.acknowledged - acknowledged
        refused = len(self.memory.with_fate("refused")) - refused
        unknown = [sent for sent in self.memory.with_fate("unknown") if sent not in left_over]
        self._server = self._start(plan)
        recorded = self._examine(plan, self._server.port(), unknown)
        self.counts = self.counts._replace(
            rounds=self.counts.rounds + 1,
            kills=self.counts.kills + strike.kills + len(plan.start_kills),
            submissions=self.counts.submissions + self.memory.submissions - submissions,
            acknowledged=self.counts.acknowledged + acknowledged,
            refused=self.counts.refused + refused,
            unknown=self.counts.unknown + len(unknown),
            recorded=self.counts.recorded + recorded,
        )

    def _begin(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server = None
        self.database.begin()
        self.memory = Memory()
        self.held = Held([], [], {})

    def _start(self, plan: Plan) -> Process:
        return self.processes.serve(self.database.url, is_new=plan.is_new)

    def _kill_while_starting(self, delays: Sequence[float]) -> None:
        for delay in delays:
            if self._server is not None:
                self._server.kill()
            self._server = self.processes.serve(self.database.url)
            time.sleep(delay)
            self._server.kill()
            self._server = None

    def _examine(self, plan: Plan, port: int, unknown: Sequence[Sent]) -> int:
        """How many of the unknown ones were recorded; what is wrong goes to the memory."""
        found = self.database.held()
        objections = check_kept(self.held, found)
        objections += [
            f"position {position} was served as {leaf!r} and is not that any more"
            for position, leaf in self.memory.leaves.items()
            if position > len(found.rows) or found.rows[position - 1].leaf != leaf
        ]
        recorded = self._check(found, objections)
        verb = self.processes.run("rebuild", "--check", "--db", self.database.url)
        questioning = Questioning(port, self.memory, self.plans.chance(plan.number, "questions"))
        questioning.read_again({row.position: row.leaf for row in found.rows})
        questioning.retry(unknown)
        self.held = self.database.held()
        questioning.compare(row.leaf for row in self.held.rows)
        questioning.close()
        if verb.wait() != 0:
            objections.append(f"the projections are not those of a rebuild: {verb.log.read_text()}")
        objections += check_kept(found, self.held)
        self._check(self.held, objections)
        self.counts = self.counts._replace(
            events=self.counts.events + len(self.held.rows) - (0 if plan.is_fresh else self._counted)
        )
        self._counted = len(self.held.rows)
        # First: what happened to the ledger says more than what its clients saw of it. Once: both looks may find it.
        self.memory.objections[:0] = dict.fromkeys(objections)
        return sum(sent.name in recorded for sent in unknown)

    def _check(self, held: Held, objections: list[str]) -> set[str]:
        """The names of the submissions that are recorded."""
        submissions = Submissions(held)
        objections += check_rows(held.rows)
        objections += submissions.check(list(self.memory.sent.values()))
        return set(submissions.owner.values())

    def _told(self, plan: Plan, objections: Sequence[str]) -> str:
        kept = Path(tempfile.mkdtemp(prefix="inforce-crash-"))
        with (kept / "sent.jsonl").open("w") as file:
            for sent in self.memory.sent.values():
                known = {"name": sent.name, "has_key": sent.has_key, "fate": sent.fate}
                file.write(json.dumps(known | {"body": sent.body, "receipts": sent.receipts}) + "\n")
        (kept / "objections.txt").write_text("\n".join(objections) + "\n")
        for log in self.processes.folder.glob("*.log"):
            if log.stat().st_size:
                shutil.copy(log, kept)
        try:
            where = self.database.keep(kept)
        except Exception as error:
            where = f"the ledger could not be kept: {error!r}"
        shown = "\n".join(f"- {objection[:2000]}" for objection in objections[:OBJECTIONS_SHOWN])
        return (
            f"crash, {self.database.name}: round {plan.number} of seed {self.plans.seed} ({plan.kind}), "
            f"{len(objections)} objections:\n{shown}\n"
            f"once more: ./scripts/test --crash {plan.number + 1} --crash-seed {self.plans.seed}\n"
            f"kept in {kept}: what was sent, what the processes said, and {where}"
        )
