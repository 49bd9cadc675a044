"""After a crash: is what was read still served, do retries get what was told, and are answers what the events say?"""

import time
from collections.abc import Iterable
from random import Random
from typing import Final
from urllib.parse import quote

import msgspec

from ledger.times import parse_time
from tests.simulation.crash_client_log import ClientLog, SentSubmission, stable_part
from tests.simulation.crash_load import Connection, submit
from tests.simulation.crash_workload import CrashWorkload
from tests.support.reference import Json, Reference

READ_AGAIN: Final = 12
RETRIED: Final = 10
QUESTIONS: Final = 5
RECOVERY_SECONDS_MAX: Final = 20.0


class ServiceChecks:
    """Of the server at a port, which has just been started. Findings go to the memory."""

    def __init__(self, port: int, client_log: ClientLog, chance: Random) -> None:
        self.client_log = client_log
        self.chance = chance
        self._connection = Connection(port)

    def close(self) -> None:
        self._connection.close()

    def retry(self, unknown: Iterable[SentSubmission]) -> None:
        """A sample of what was acknowledged, in this round or long ago, and all that is unknown: each to its end."""
        acknowledged = [sent for sent in self.client_log.with_outcome("acknowledged") if sent.has_key]
        sample = self.chance.sample(acknowledged, min(RETRIED, len(acknowledged)))
        for sent in (*sample, *(one for one in unknown if one.has_key)):
            deadline = time.monotonic() + RECOVERY_SECONDS_MAX
            while submit(self._connection, self.client_log, sent) == 503:
                if time.monotonic() > deadline:
                    self.client_log.report(f"{sent.name} was put off for {RECOVERY_SECONDS_MAX} s after a restart")
                    return
                time.sleep(0.02)

    def compare_with_earlier(self, leaves: dict[int, bytes]) -> None:
        """Events by their ids, as they are in the database, and the answers that may not have changed."""
        for position in self.chance.sample(sorted(leaves), min(READ_AGAIN, len(leaves))):
            event_id = msgspec.json.decode(leaves[position])["id"]
            status, answer = self._ask(f"/v1/events/{event_id}")
            if (status, answer) != (200, leaves[position]):
                self.client_log.report(
                    f"event {event_id} was {leaves[position]!r} and is served as {status} {answer!r}"
                )
        asked = self.client_log.past_answers
        for one in self.chance.sample(asked, min(READ_AGAIN, len(asked))):
            status, answer = self._ask(one.path, one.record)
            if status != 200:
                self.client_log.report(
                    f"{one.path} of {one.record} was answered {one.stable} and now {status} {answer!r}"
                )
            elif stable_part(msgspec.json.decode(answer)) != one.stable:
                self.client_log.report(f"{one.path} of {one.record} was answered {one.stable} and now {answer!r}")

    def compare_with_reference(self, leaves: Iterable[bytes]) -> None:
        """States and checks, with the slow reference over the same events."""
        reference = Reference(leaves)
        workload = CrashWorkload(self.chance, self.client_log)
        for _ in range(QUESTIONS):
            moment, subjects = workload.coordinates(), self.client_log.subjects()
            if moment is None or not subjects:
                return
            at, known_at = moment
            subject = self.chance.choice(subjects)
            self._compare_state(reference, subject, at, known_at)
            self._compare_check(reference, workload.record(at), known_at)

    def _compare_state(self, reference: Reference, subject: str, at: str, known_at: str) -> None:
        path = f"/v1/subjects/{quote(subject)}/state?at={at}&known_at={known_at}"
        status, answer = self._ask(path)
        if status != 200:
            self.client_log.report(f"{path} was answered {status} {answer!r}")
            return
        settings = msgspec.json.decode(answer)["settings"]
        defined = {event["data"]["setting"] for event in reference.events if "definition" in event["data"]}
        expected = {}
        for setting in defined:
            told = reference.setting_state(subject, setting, parse_time(at), parse_time(known_at))
            if told.source in ("explicit", "default"):
                expected[setting] = (told.value, told.source, told.position)
        found = {setting: (said["value"], said["source"], _newest(said)) for setting, said in settings.items()}
        if found != expected:
            self.client_log.report(f"{path} is {found} and the reference says {expected}")

    def _compare_check(self, reference: Reference, record: Json, known_at: str) -> None:
        status, answer = self._ask(f"/v1/checks?known_at={known_at}", record)
        decision = msgspec.json.decode(answer)
        found = {name: value for name, value in decision.items() if name not in ("as_of", "hindsight")}
        expected = reference.check(record, parse_time(record["at"]), parse_time(known_at))
        if status != 200 or found != expected:
            self.client_log.report(
                f"the check of {record} at {known_at} is {status} {found}; the reference says {expected}"
            )

    def _ask(self, path: str, record: Json | None = None) -> tuple[int, bytes]:
        """Waits out a 503: after a crash of the database server its connections come back one by one."""
        deadline = time.monotonic() + RECOVERY_SECONDS_MAX
        while True:
            status, answer = self._connection.ask(path, record)
            if status != 503 or time.monotonic() > deadline:
                return status, answer
            time.sleep(0.02)


def _newest(said: Json) -> int:
    """The position of the last event that made a setting what it is."""
    positions: list[int] = [said.get("position", 0), said.get("cleared_by", {}).get("position", 0)]
    return max(positions)
