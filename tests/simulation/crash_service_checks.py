"""Checks a server after a crash: events and answers are the same as before, retries get the first receipts, and states
and checks equal the reference."""

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
from tests.support.waiting import GIVE_UP_S

READ_AGAIN: Final = 12
RETRIED: Final = 10
QUESTIONS: Final = 5
RECOVERY_SECONDS_MAX: Final = GIVE_UP_S


class ServiceChecks:
    """Checks the freshly started server at `port`. Findings go to the client log."""

    def __init__(self, port: int, client_log: ClientLog, chance: Random) -> None:
        self.client_log = client_log
        self.chance = chance
        self._connection = Connection(port)

    def close(self) -> None:
        self._connection.close()

    def retry(self, unknown: Iterable[SentSubmission]) -> None:
        """Sends a sample of the acknowledged and all unknown submissions again, until each has an outcome."""
        acknowledged = [sent for sent in self.client_log.with_outcome("acknowledged") if sent.has_key]
        sample = self.chance.sample(acknowledged, min(RETRIED, len(acknowledged)))
        for sent in (*sample, *(one for one in unknown if one.has_key)):
            deadline = time.monotonic() + RECOVERY_SECONDS_MAX
            while submit(self._connection, self.client_log, sent) == 503:
                if time.monotonic() > deadline:
                    self.client_log.report(f"{sent.name} got 503 for {RECOVERY_SECONDS_MAX} s after a restart")
                    return
                time.sleep(0.02)

    def compare_with_earlier(self, leaves: dict[int, bytes]) -> None:
        """Reads events by id, which must equal the database, and repeats queries whose answers may not change."""
        for position in self.chance.sample(sorted(leaves), min(READ_AGAIN, len(leaves))):
            event_id = msgspec.json.decode(leaves[position])["id"]
            status, answer = self._ask(f"/v1/events/{event_id}")
            if (status, answer) != (200, leaves[position]):
                self.client_log.report(
                    f"event {event_id} was {leaves[position]!r} and is served as {status} {answer!r}"
                )
        past = self.client_log.past_answers
        for one in self.chance.sample(past, min(READ_AGAIN, len(past))):
            status, answer = self._ask(one.path, one.record)
            if status != 200:
                self.client_log.report(
                    f"{one.path} of {one.record} was answered {one.stable} and now {status} {answer!r}"
                )
            elif stable_part(msgspec.json.decode(answer)) != one.stable:
                self.client_log.report(f"{one.path} of {one.record} was answered {one.stable} and now {answer!r}")

    def compare_with_reference(self, leaves: Iterable[bytes]) -> None:
        """Compares states and checks with the slow reference over the same events."""
        reference = Reference(leaves)
        workload = CrashWorkload(self.chance, self.client_log)
        for _ in range(QUESTIONS):
            coordinates, subjects = workload.coordinates(), self.client_log.subjects()
            if coordinates is None or not subjects:
                return
            at, known_at = coordinates
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
        # A state shows the demand that a kind be known only by name.
        for setting in defined - {"subjects.must_be_known"}:
            state = reference.setting_state(subject, setting, parse_time(at), parse_time(known_at))
            if state.source in ("explicit", "default"):
                expected[setting] = (state.value, state.source, state.position)
        actual = {setting: (one["value"], one["source"], _newest(one)) for setting, one in settings.items()}
        if actual != expected:
            self.client_log.report(f"{path} is {actual} and the reference says {expected}")

    def _compare_check(self, reference: Reference, record: Json, known_at: str) -> None:
        status, answer = self._ask(f"/v1/checks?known_at={known_at}", record)
        decision = msgspec.json.decode(answer)
        actual = {name: value for name, value in decision.items() if name not in ("as_of", "hindsight")}
        expected = reference.check(record, parse_time(record["at"]), parse_time(known_at))
        if status != 200 or actual != expected:
            self.client_log.report(
                f"the check of {record} at {known_at} is {status} {actual}; the reference says {expected}"
            )

    def _ask(self, path: str, record: Json | None = None) -> tuple[int, bytes]:
        """Retries a 503: after a crash of the database server its connections come back one by one."""
        deadline = time.monotonic() + RECOVERY_SECONDS_MAX
        while True:
            status, answer = self._connection.ask(path, record)
            if status != 503 or time.monotonic() > deadline:
                return status, answer
            time.sleep(0.02)


def _newest(setting: Json) -> int:
    """The position of the last event behind the value of a setting."""
    positions: list[int] = [setting.get("position", 0), setting.get("cleared_by", {}).get("position", 0)]
    return max(positions)
