"""The log of the clients of a crash campaign: everything they sent, received and read, to check the ledger against."""

import threading
from collections.abc import Iterable
from random import Random
from typing import Any, Final, Literal, NamedTuple

from ledger.times import parse_time
from tests.simulation.compare import without_outlook
from tests.support.reference import Json

ACTOR: Final = "anonymous"
"""The caller and the actor of every request, because there is no authentication yet."""

ANSWERS_MAX: Final = 60

Outcome = Literal["unknown", "acknowledged", "refused"]


class SentSubmission:
    """One submission. `name` begins the reason of each of its events and, if `has_key`, is its Idempotency-Key."""

    def __init__(self, name: str, body: Json, *, has_key: bool) -> None:
        self.name = name
        self.body = body
        self.has_key = has_key
        self.outcome: Outcome = "unknown"
        self.receipts: list[Json] = []
        self.was_unknown = False
        """Whether its response was lost at least once."""

    @property
    def events(self) -> list[Json]:
        """The submissions in it, in order."""
        events: list[Json] = self.body.get("events", [self.body])
        return events

    def acknowledge(self, receipts: list[Json]) -> list[str]:
        """Notes the receipts. Returns findings."""
        if self.outcome == "refused":
            return [f"{self.name} was refused before and is acknowledged now: {receipts}"]
        if self.outcome == "acknowledged" and not _are_equal(receipts, self.receipts):
            return [f"{self.name} got {self.receipts} first and {receipts} on a retry"]
        self.outcome, self.receipts = "acknowledged", receipts
        return []

    def refuse(self, code: str) -> list[str]:
        """Notes that nothing was recorded. Returns findings."""
        if self.outcome == "acknowledged":
            return [f"{self.name} was acknowledged with {self.receipts} and then refused: {code}"]
        self.outcome = "refused"
        return []


def _are_equal(receipts: list[Json], first: list[Json]) -> bool:
    """Whether they say the same. If a busy database did not answer in time, a receipt lacks the outlook of its event,
    which is recorded none the less."""
    pairs = list(zip(receipts, first, strict=False))
    return len(receipts) == len(first) and all(
        without_outlook(one) == without_outlook(other) if _lacks_outlook(one) or _lacks_outlook(other) else one == other
        for one, other in pairs
    )


def _lacks_outlook(receipt: Json) -> bool:
    return "outlook_unknown" in [warning["code"] for warning in receipt.get("warnings", ())]


class PastAnswer(NamedTuple):
    """A query about a past known_at, and the part of its answer that may never change."""

    path: str
    record: Json | None
    """The request record of a check."""
    stable: Json


def stable_part(answer: Json) -> Json:
    """The part of an answer that later events may not change: all but the position, the subject's version
    there, and the hindsight."""
    stable = {name: value for name, value in answer.items() if name not in ("position", "version", "hindsight")}
    if "as_of" in stable:
        stable["as_of"] = {name: value for name, value in stable["as_of"].items() if name != "position"}
    return stable


class ClientLog:
    """The log of one ledger, over all rounds. Thread-safe."""

    def __init__(self) -> None:
        self.sent: dict[str, SentSubmission] = {}
        self.leaves: dict[int, bytes] = {}
        self.past_answers: list[PastAnswer] = []
        self.findings: list[str] = []
        self.acknowledged = 0
        self.submissions = 0
        self.position = 0
        """The highest acknowledged position."""
        self.changed = threading.Condition()
        self._versions: dict[str, int] = {}
        self._changes: list[str] = []
        self._instants: list[str] = []
        self._last = 0

    def send(self, sent: SentSubmission) -> None:
        """Called before sending: from here on the submission may be recorded."""
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

    def add_events(self, leaves: Iterable[tuple[int, bytes]]) -> None:
        """Notes events as served, by position."""
        with self.changed:
            for position, leaf in leaves:
                if self.leaves.setdefault(position, leaf) != leaf:
                    self.findings.append(
                        f"position {position} was served as {self.leaves[position]!r} and then as {leaf!r}"
                    )

    def add_answer(self, answer: PastAnswer) -> None:
        with self.changed:
            self.past_answers = [*self.past_answers[-ANSWERS_MAX:], answer]

    def version(self, subject: str) -> int:
        """The highest version in a receipt."""
        return self._versions.get(subject, 0)

    def subjects(self) -> list[str]:
        """The subjects of acknowledged events."""
        with self.changed:
            return sorted(self._versions)

    def change(self, chance: Random) -> str | None:
        """The event id of an acknowledged change."""
        with self.changed:
            return chance.choice(self._changes) if self._changes else None

    def instant(self, chance: Random) -> str | None:
        """The recorded_at of an acknowledged submission, mostly of a late one."""
        with self.changed:
            return chance.choice(self._instants[-chance.choice((5, 50, 5000)) :]) if self._instants else None

    def is_past(self, instant: str) -> bool:
        """Whether no later submission can get this recorded_at."""
        with self.changed:
            return parse_time(instant) <= self._last

    def with_outcome(self, outcome: Outcome) -> list[SentSubmission]:
        with self.changed:
            return [sent for sent in self.sent.values() if sent.outcome == outcome]


def receipts_of(answer: Any) -> list[Json]:
    """The receipts in the response to a submission."""
    receipts: list[Json] = answer["receipts"]
    return receipts
