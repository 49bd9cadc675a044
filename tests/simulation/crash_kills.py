"""The kills of one round: runs clients, kills servers and disturbs the database as planned, and ends all of them."""

import signal
import time
from typing import Final

from tests.simulation.crash_client_log import ClientLog
from tests.simulation.crash_databases import Database
from tests.simulation.crash_load import Client
from tests.simulation.crash_plans import Plan, Plans
from tests.simulation.crash_processes import Process, Processes
from tests.support.waiting import GIVE_UP_S

PATIENCE_S: Final = GIVE_UP_S
"""The longest wait for acknowledgements; a server recovers sooner."""


class KillRound:
    """`server` is running. After `run` no server of the round is alive."""

    def __init__(
        self,
        plan: Plan,
        plans: Plans,
        database: Database,
        processes: Processes,
        client_log: ClientLog,
        server: Process,
    ) -> None:
        self.plan = plan
        self.database = database
        self.processes = processes
        self.client_log = client_log
        self.kills = 0
        self._servers = [server]
        if plan.kind == "two servers":
            self._servers.append(processes.serve(database.url))
        self._ports = [one.port() for one in self._servers]
        self._dead: set[int] = set()
        self._clients = [
            Client(
                f"r{plan.number}c{number}",
                plans.chance(plan.number, "client", number),
                client_log,
                self._ports if number % 2 == 0 else self._ports[::-1],
                self._dead,
            )
            for number in range(plan.clients)
        ]

    def run(self) -> None:
        # In a round of kind catch-up this thread submits as the first client, so that the kill follows at once.
        for client in self._clients[self.plan.kind == "catch-up" :]:
            client.start()
        try:
            match self.plan.kind:
                case "first request":
                    self._wait_for_submission()
                    time.sleep(self.plan.delay_s)
                case "catch-up":
                    self._clients[0].submit_batch(self.plan.batch)
                    time.sleep(self.plan.delay_s)
                case "rebuild":
                    self._rebuild()
                case "two servers":
                    self._one_of_two()
                case "backends":
                    self._terminate_backends()
                case "restart":
                    self._restart_database()
                case _:
                    self._wait_for(self.plan.after_acknowledged)
                    time.sleep(self.plan.delay_s)
        finally:
            for index in range(len(self._servers)):
                self._kill(index)
            for client in self._clients:
                client.end(PATIENCE_S)

    def _kill(self, index: int) -> None:
        if self._ports[index] not in self._dead:
            self._dead.add(self._ports[index])
            self._servers[index].kill()
            self.kills += 1

    def _wait_for_submission(self) -> None:
        with self.client_log.changed:
            assert self.client_log.changed.wait_for(lambda: bool(self.client_log.sent), PATIENCE_S), (
                "no client submitted anything"
            )

    def _wait_for(self, acknowledgements: int) -> None:
        with self.client_log.changed:
            enough = self.client_log.acknowledged + acknowledgements
            arrived = self.client_log.changed.wait_for(lambda: self.client_log.acknowledged >= enough, PATIENCE_S)
        if not arrived:
            missing = enough - self.client_log.acknowledged
            self.client_log.report(
                f"{missing} of {acknowledgements} acknowledgements did not come within {PATIENCE_S} s"
            )

    def _rebuild(self) -> None:
        self._wait_for(self.plan.after_acknowledged)
        how = ["--check"] if self.plan.is_check else []
        rebuild = self.processes.run("rebuild", *how, "--db", self.database.url)
        time.sleep(self.plan.delay_s)
        if self.plan.first_victim == "rebuild":
            rebuild.kill()
            time.sleep(self.plan.gap_s)
            return
        self._kill(0)
        if self.plan.gap_s:
            time.sleep(self.plan.gap_s)
            rebuild.kill()
        elif rebuild.wait() != 0:
            self.client_log.report(f"the rebuild ended with {rebuild.status()}: {rebuild.log.read_text()}")

    def _one_of_two(self) -> None:
        self._wait_for(self.plan.after_acknowledged)
        time.sleep(self.plan.delay_s)
        self._kill(0)
        # The second server continues at once: the locks of the first one are free.
        self._wait_for(self.plan.clients)
        if self.plan.survivor_ends_well:
            self._dead.add(self._ports[1])
            self._servers[1].send(signal.SIGTERM)
            if self._servers[1].wait() != 0:
                output = self._servers[1].log.read_text()
                self.client_log.report(f"after SIGTERM the server ended with {self._servers[1].status()}: {output}")

    def _terminate_backends(self) -> None:
        self._wait_for(self.plan.after_acknowledged)
        for pause, count in self.plan.disturbances:
            time.sleep(pause)
            self.database.terminate_connections(count)
        self._wait_for(self.plan.clients)
        time.sleep(self.plan.delay_s / 4)

    def _restart_database(self) -> None:
        self._wait_for(self.plan.after_acknowledged)
        self.database.restart("immediate", self.plan.gap_s)
        self._wait_for(self.plan.clients)
        time.sleep(self.plan.delay_s / 4)
