"""Crash campaigns: kills servers under load at the moments of a plan, starts them again, and checks everything.

One seed decides the submissions, the kills and the faults of the database. Threads, processes and disks are not
controlled, so the same seed repeats the attempts, not their interleaving.
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
    """A guarantee was broken. Names the command that repeats the run and the folder with all files."""


class Counts(NamedTuple):
    rounds: int = 0
    kills: int = 0
    submissions: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    """Submissions without a response when the servers were killed."""
    recorded: int = 0
    """Unknown submissions that were recorded."""
    events: int = 0
    """Events of all ledgers."""

    def figure(self, name: str, seed: int) -> str:
        return (
            f"crash, {name}: {self.rounds} rounds, seed {seed}, {self.kills} kills, {self.submissions:,} submissions, "
            f"{self.acknowledged:,} acknowledged, {self.refused:,} refused, {self.unknown:,} unknown of which "
            f"{self.recorded:,} recorded, {self.events:,} events, 0 lost"
        )


class Campaign:
    """Runs the rounds of one seed on one database."""

    def __init__(self, database: Database, processes: Processes, seed: int) -> None:
        self.database = database
        self.processes = processes
        self.plans = Plans(seed, database.faults)
        self.counts = Counts()
        self.client_log = ClientLog()
        self.content = DatabaseContent([], [], {})
        """At the end of the round before."""
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
        earlier = set(self.client_log.with_outcome("unknown"))
        strike = KillRound(plan, self.plans, self.database, self.processes, self.client_log, server)
        strike.run()
        acknowledged = self.client_log.acknowledged - acknowledged
        refused = len(self.client_log.with_outcome("refused")) - refused
        unknown = [sent for sent in self.client_log.with_outcome("unknown") if sent not in earlier]
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
        """Returns how many of the unknown submissions were recorded. Findings go to the client log."""
        content = self.database.content()
        findings = check_preserved(self.content, content)
        findings += [
            f"position {position} was served as {leaf!r} and has changed since"
            for position, leaf in self.client_log.leaves.items()
            if position > len(content.rows) or content.rows[position - 1].leaf != leaf
        ]
        recorded = self._check(content, findings)
        rebuild = self.processes.run("rebuild", "--check", "--db", self.database.url)
        service = ServiceChecks(port, self.client_log, self.plans.chance(plan.number, "questions"))
        service.compare_with_earlier({row.position: row.leaf for row in content.rows})
        service.retry(unknown)
        self.content = self.database.content()
        service.compare_with_reference(row.leaf for row in self.content.rows)
        service.close()
        if rebuild.wait() != 0:
            findings.append(f"the stored timelines differ from a rebuild: {rebuild.log.read_text()}")
        findings += check_preserved(content, self.content)
        self._check(self.content, findings)
        self.counts = self.counts._replace(
            events=self.counts.events + len(self.content.rows) - (0 if plan.is_fresh else self._counted)
        )
        self._counted = len(self.content.rows)
        # Damage of the ledger comes before the findings of clients, which it explains. Both checks may find the same.
        self.client_log.findings[:0] = dict.fromkeys(findings)
        return sum(sent.name in recorded for sent in unknown)

    def _check(self, held: DatabaseContent, findings: list[str]) -> set[str]:
        """The names of the recorded submissions."""
        submissions = SubmissionChecks(held)
        findings += check_rows(held.rows)
        findings += submissions.check(list(self.client_log.sent.values()))
        return set(submissions.owner.values())

    def _failure_text(self, plan: Plan, findings: Sequence[str]) -> str:
        folder = Path(tempfile.mkdtemp(prefix="inforce-crash-"))
        with (folder / "sent.jsonl").open("w") as file:
            for sent in self.client_log.sent.values():
                members = {"name": sent.name, "has_key": sent.has_key, "outcome": sent.outcome}
                file.write(json.dumps(members | {"body": sent.body, "receipts": sent.receipts}) + "\n")
        (folder / "findings.txt").write_text("\n".join(findings) + "\n")
        for log in self.processes.folder.glob("*.log"):
            if log.stat().st_size:
                shutil.copy(log, folder)
        try:
            where = self.database.save_copy(folder)
        except Exception as error:
            where = f"no copy of the ledger: {error!r}"
        shown = "\n".join(f"- {finding[:2000]}" for finding in findings[:FINDINGS_SHOWN])
        return (
            f"crash, {self.database.name}: round {plan.number} of seed {self.plans.seed} ({plan.kind}), "
            f"{len(findings)} findings:\n{shown}\n"
            f"again: ./scripts/test --crash {plan.number + 1} --crash-seed {self.plans.seed}\n"
            f"see {folder}: the submissions, the output of the processes, and {where}"
        )
