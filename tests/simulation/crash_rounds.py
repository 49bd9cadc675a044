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

from tests.simulation.crash_client_log import ClientLog, SentSubmission
from tests.simulation.crash_content_checks import DatabaseContent, SubmissionChecks, check_preserved, check_rows
from tests.simulation.crash_databases import Database
from tests.simulation.crash_kills import KillRound
from tests.simulation.crash_plans import Plan, Plans
from tests.simulation.crash_processes import Process, Processes
from tests.simulation.crash_service_checks import ServiceChecks

FINDINGS_SHOWN: Final = 10
PROGRESS_EVERY: Final = 25


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
        self.client_log = ClientLog()
        self.content = DatabaseContent([], [], {})
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
                    self._failure_text(plan, [*self.client_log.findings, f"{type(error).__name__}: {error}"])
                ) from error
            if self.client_log.findings:
                raise CrashFailure(self._failure_text(plan, self.client_log.findings))
            if self.counts.rounds % PROGRESS_EVERY == 0:
                print(f"so far: {self.counts.figure(self.database.name, self.plans.seed)}", flush=True)
        return self.counts

    def _round(self, plan: Plan) -> None:
        if plan.is_fresh:
            self._begin_ledger()
        self._kill_while_starting(plan.start_kills)
        server = self._server or self._start(plan)
        submissions, acknowledged = self.client_log.submissions, self.client_log.acknowledged
        refused = len(self.client_log.with_outcome("refused"))
        left_over = set(self.client_log.with_outcome("unknown"))
        strike = KillRound(plan, self.plans, self.database, self.processes, self.client_log, server)
        strike.run()
        acknowledged = self.client_log.acknowledged - acknowledged
        refused = len(self.client_log.with_outcome("refused")) - refused
        unknown = [sent for sent in self.client_log.with_outcome("unknown") if sent not in left_over]
        self._server = self._start(plan)
        recorded = self._examine(plan, self._server.port(), unknown)
        self.counts = self.counts._replace(
            rounds=self.counts.rounds + 1,
            kills=self.counts.kills + strike.kills + len(plan.start_kills),
            submissions=self.counts.submissions + self.client_log.submissions - submissions,
            acknowledged=self.counts.acknowledged + acknowledged,
            refused=self.counts.refused + refused,
            unknown=self.counts.unknown + len(unknown),
            recorded=self.counts.recorded + recorded,
        )

    def _begin_ledger(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server = None
        self.database.create()
        self.client_log = ClientLog()
        self.content = DatabaseContent([], [], {})

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

    def _examine(self, plan: Plan, port: int, unknown: Sequence[SentSubmission]) -> int:
        """How many of the unknown ones were recorded; what is wrong goes to the memory."""
        found = self.database.content()
        findings = check_preserved(self.content, found)
        findings += [
            f"position {position} was served as {leaf!r} and is not that any more"
            for position, leaf in self.client_log.leaves.items()
            if position > len(found.rows) or found.rows[position - 1].leaf != leaf
        ]
        recorded = self._check(found, findings)
        verb = self.processes.run("rebuild", "--check", "--db", self.database.url)
        questioning = ServiceChecks(port, self.client_log, self.plans.chance(plan.number, "questions"))
        questioning.compare_with_earlier({row.position: row.leaf for row in found.rows})
        questioning.retry(unknown)
        self.content = self.database.content()
        questioning.compare_with_reference(row.leaf for row in self.content.rows)
        questioning.close()
        if verb.wait() != 0:
            findings.append(f"the projections are not those of a rebuild: {verb.log.read_text()}")
        findings += check_preserved(found, self.content)
        self._check(self.content, findings)
        self.counts = self.counts._replace(
            events=self.counts.events + len(self.content.rows) - (0 if plan.is_fresh else self._counted)
        )
        self._counted = len(self.content.rows)
        # First: what happened to the ledger says more than what its clients saw of it. Once: both looks may find it.
        self.client_log.findings[:0] = dict.fromkeys(findings)
        return sum(sent.name in recorded for sent in unknown)

    def _check(self, held: DatabaseContent, findings: list[str]) -> set[str]:
        """The names of the submissions that are recorded."""
        submissions = SubmissionChecks(held)
        findings += check_rows(held.rows)
        findings += submissions.check(list(self.client_log.sent.values()))
        return set(submissions.owner.values())

    def _failure_text(self, plan: Plan, findings: Sequence[str]) -> str:
        kept = Path(tempfile.mkdtemp(prefix="inforce-crash-"))
        with (kept / "sent.jsonl").open("w") as file:
            for sent in self.client_log.sent.values():
                known = {"name": sent.name, "has_key": sent.has_key, "outcome": sent.outcome}
                file.write(json.dumps(known | {"body": sent.body, "receipts": sent.receipts}) + "\n")
        (kept / "findings.txt").write_text("\n".join(findings) + "\n")
        for log in self.processes.folder.glob("*.log"):
            if log.stat().st_size:
                shutil.copy(log, kept)
        try:
            where = self.database.save_copy(kept)
        except Exception as error:
            where = f"the ledger could not be kept: {error!r}"
        shown = "\n".join(f"- {finding[:2000]}" for finding in findings[:FINDINGS_SHOWN])
        return (
            f"crash, {self.database.name}: round {plan.number} of seed {self.plans.seed} ({plan.kind}), "
            f"{len(findings)} findings:\n{shown}\n"
            f"once more: ./scripts/test --crash {plan.number + 1} --crash-seed {self.plans.seed}\n"
            f"kept in {kept}: what was sent, what the processes said, and {where}"
        )
