"""What the clients of a crash campaign sent, were told and read: all that may be held against a ledger afterwards."""

import threading
from collections.abc import Iterable
from random import Random
from typing import Any, Final, Literal, NamedTuple

from ledger.times import parse_time
from tests.support.reference import Json

ACTOR: Final = "anonymous"
"""The caller and the actor of everything, until authentication comes."""

ANSWERS_MAX: Final = 60

Outcome = Literal["unknown", "acknowledged", "refused"]


class SentSubmission:
    """One submission. `name` is its Idempotency-Key, if `has_key`, and begins the reason of each of its events."""

    def __init__(self, name: str, body: Json, *, has_key: bool) -> None:
        self.name = name
        self.body = body
        self.has_key = has_key
        self.outcome: Outcome = "unknown"
        self.receipts: list[Json] = []
        self.was_unknown = False
        """Whether its answer was lost at least once."""

    @property
    def events(self) -> list[Json]:
        """The submissions in it, in order."""
        events: list[Json] = self.body.get("events", [self.body])
        return events

    def acknowledge(self, receipts: list[Json]) -> list[str]:
        """Keeps what it was told; the findings to it."""
        if self.outcome == "refused":
            return [f"{self.name} was refused before and is acknowledged now: {receipts}"]
        if self.outcome == "acknowledged" and receipts != self.receipts:
            return [f"{self.name} was told {self.receipts} first and {receipts} on a retry"]
        self.outcome, self.receipts = "acknowledged", receipts
        return []

    def refuse(self, code: str) -> list[str]:
        """Keeps that nothing was recorded; the findings to that."""
        if self.outcome == "acknowledged":
            return [f"{self.name} was acknowledged with {self.receipts} and then refused: {code}"]
        self.outcome = "refused"
        return []


class PastAnswer(NamedTuple):
    """A question about a moment that is over, and what must be the same in every answer to it, for ever."""

    path: str
    record: Json | None
    """For a check."""
    stable: Json


def stable_part(answer: Json) -> Json:
    """What later events may not alter: all but how far the ledger had got, and what hindsight says."""
    kept = {name: value for name, value in answer.items() if name not in ("position", "hindsight")}
    if "as_of" in kept:
        kept["as_of"] = {name: value for name, value in kept["as_of"].items() if name != "position"}
    return kept


class ClientLog:
    """Of one ledger, over all rounds. For many threads."""

    def __init__(self) -> None:
        self.sent: dict[str, SentSubmission] = {}
        self.leaves: dict[int, bytes] = {}
        self.past_answers: list[PastAnswer] = []
        self.findings: list[str] = []
        self.acknowledged = 0
        self.submissions = 0
        self.position = 0
        """The highest that was acknowledged."""
        self.changed = threading.Condition()
        self._versions: dict[str, int] = {}
        self._changes: list[str] = []
        self._instants: list[str] = []
        self._last = 0

    def send(self, sent: SentSubmission) -> None:
        """From here on it may be recorded."""
        with self.changed:
            self.sent[sent.name] = sent
            self.submissions += 1
            self.changed.notify_all()

    def acknowledge(self, sent: SentSubmission, receipts: list[Json]) -> None:
        with self.changed:
            is_new = sent.outcome != "acknowledged"
            self.findings += sent.acknowledge(receipts)
            if is_new and sent.outcome == "acknowledged":
                self.acknowledged += 1
                self._note_receipts(sent)
            self.changed.notify_all()

    def _note_receipts(self, sent: SentSubmission) -> None:
        for event, receipt in zip(sent.events, sent.receipts, strict=False):
            subject, version = receipt["subject"], receipt["version"]
            self._versions[subject] = max(version, self._versions.get(subject, 0))
            if event["type"] in ("setting.changed", "setting.cleared"):
                self._changes.append(receipt["event_id"])
        self.position = max(self.position, sent.receipts[-1]["position"])
        self._instants.append(sent.receipts[-1]["recorded_at"])
        self._last = max(self._last, parse_time(self._instants[-1]))

    def refuse(self, sent: SentSubmission, code: str) -> None:
        with self.changed:
            self.findings += sent.refuse(code)

    def report(self, finding: str) -> None:
        with self.changed:
            self.findings.append(finding)

    def read(self, leaves: Iterable[tuple[int, bytes]]) -> None:
        """Events as they were served, by position."""
        with self.changed:
            for position, leaf in leaves:
                if self.leaves.setdefault(position, leaf) != leaf:
                    self.findings.append(
                        f"position {position} was served as {self.leaves[position]!r} and then as {leaf!r}"
                    )

    def keep(self, asked: PastAnswer) -> None:
        with self.changed:
            self.past_answers = [*self.past_answers[-ANSWERS_MAX:], asked]

    def version(self, subject: str) -> int:
        """The last that anybody was told."""
        return self._versions.get(subject, 0)

    def subjects(self) -> list[str]:
        """Those with an acknowledged event."""
        with self.changed:
            return sorted(self._versions)

    def change(self, chance: Random) -> str | None:
        """An acknowledged change's event id."""
        with self.changed:
            return chance.choice(self._changes) if self._changes else None

    def instant(self, chance: Random) -> str | None:
        """A recorded_at of an acknowledged submission, mostly a late one."""
        with self.changed:
            return chance.choice(self._instants[-chance.choice((5, 50, 5000)) :]) if self._instants else None

    def is_past(self, instant: str) -> bool:
        """Whether no later submission can be recorded at it."""
        with self.changed:
            return parse_time(instant) <= self._last

    def with_outcome(self, outcome: Outcome) -> list[SentSubmission]:
        with self.changed:
            return [sent for sent in self.sent.values() if sent.outcome == outcome]


def receipts_of(answer: Any) -> list[Json]:
    """The receipts of an answer to a submission."""
    receipts: list[Json] = answer["receipts"]
    return receipts
