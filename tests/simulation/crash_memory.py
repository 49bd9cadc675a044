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

Fate = Literal["unknown", "acknowledged", "refused"]


class Sent:
    """One submission. `name` is its Idempotency-Key, if `has_key`, and begins the reason of each of its events."""

    def __init__(self, name: str, body: Json, *, has_key: bool) -> None:
        self.name = name
        self.body = body
        self.has_key = has_key
        self.fate: Fate = "unknown"
        self.receipts: list[Json] = []
        self.was_unknown = False
        """Whether its answer was lost at least once."""

    @property
    def events(self) -> list[Json]:
        """The submissions in it, in order."""
        events: list[Json] = self.body.get("events", [self.body])
        return events

    def acknowledge(self, receipts: list[Json]) -> list[str]:
        """Keeps what it was told; the objections to it."""
        if self.fate == "refused":
            return [f"{self.name} was refused before and is acknowledged now: {receipts}"]
        if self.fate == "acknowledged" and receipts != self.receipts:
            return [f"{self.name} was told {self.receipts} first and {receipts} on a retry"]
        self.fate, self.receipts = "acknowledged", receipts
        return []

    def refuse(self, code: str) -> list[str]:
        """Keeps that nothing was recorded; the objections to that."""
        if self.fate == "acknowledged":
            return [f"{self.name} was acknowledged with {self.receipts} and then refused: {code}"]
        self.fate = "refused"
        return []


class Asked(NamedTuple):
    """A question about a moment that is over, and what must be the same in every answer to it, for ever."""

    path: str
    record: Json | None
    """For a check."""
    essence: Json


def essence_of(answer: Json) -> Json:
    """What later events may not alter: all but how far the ledger had got, and what hindsight says."""
    kept = {name: value for name, value in answer.items() if name not in ("position", "hindsight")}
    if "as_of" in kept:
        kept["as_of"] = {name: value for name, value in kept["as_of"].items() if name != "position"}
    return kept


class Memory:
    """Of one ledger, over all rounds. For many threads."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.leaves: dict[int, bytes] = {}
        self.asked: list[Asked] = []
        self.objections: list[str] = []
        self.acknowledged = 0
        self.submissions = 0
        self.position = 0
        """The highest that was acknowledged."""
        self.moved = threading.Condition()
        self._versions: dict[str, int] = {}
        self._changes: list[str] = []
        self._instants: list[str] = []
        self._last = 0

    def send(self, sent: Sent) -> None:
        """From here on it may be recorded."""
        with self.moved:
            self.sent[sent.name] = sent
            self.submissions += 1
            self.moved.notify_all()

    def acknowledge(self, sent: Sent, receipts: list[Json]) -> None:
        with self.moved:
            is_new = sent.fate != "acknowledged"
            self.objections += sent.acknowledge(receipts)
            if is_new and sent.fate == "acknowledged":
                self.acknowledged += 1
                self._learn(sent)
            self.moved.notify_all()

    def _learn(self, sent: Sent) -> None:
        for event, receipt in zip(sent.events, sent.receipts, strict=False):
            subject, version = receipt["subject"], receipt["version"]
            self._versions[subject] = max(version, self._versions.get(subject, 0))
            if event["type"] in ("setting.changed", "setting.cleared"):
                self._changes.append(receipt["event_id"])
        self.position = max(self.position, sent.receipts[-1]["position"])
        self._instants.append(sent.receipts[-1]["recorded_at"])
        self._last = max(self._last, parse_time(self._instants[-1]))

    def refuse(self, sent: Sent, code: str) -> None:
        with self.moved:
            self.objections += sent.refuse(code)

    def object(self, objection: str) -> None:
        with self.moved:
            self.objections.append(objection)

    def read(self, leaves: Iterable[tuple[int, bytes]]) -> None:
        """Events as they were served, by position."""
        with self.moved:
            for position, leaf in leaves:
                if self.leaves.setdefault(position, leaf) != leaf:
                    self.objections.append(
                        f"position {position} was served as {self.leaves[position]!r} and then as {leaf!r}"
                    )

    def keep(self, asked: Asked) -> None:
        with self.moved:
            self.asked = [*self.asked[-ANSWERS_MAX:], asked]

    def version(self, subject: str) -> int:
        """The last that anybody was told."""
        return self._versions.get(subject, 0)

    def subjects(self) -> list[str]:
        """Those with an acknowledged event."""
        with self.moved:
            return sorted(self._versions)

    def change(self, chance: Random) -> str | None:
        """An acknowledged change's event id."""
        with self.moved:
            return chance.choice(self._changes) if self._changes else None

    def instant(self, chance: Random) -> str | None:
        """A recorded_at of an acknowledged submission, mostly a late one."""
        with self.moved:
            return chance.choice(self._instants[-chance.choice((5, 50, 5000)) :]) if self._instants else None

    def is_over(self, instant: str) -> bool:
        """Whether no later submission can be recorded at it."""
        with self.moved:
            return parse_time(instant) <= self._last

    def with_fate(self, fate: Fate) -> list[Sent]:
        with self.moved:
            return [sent for sent in self.sent.values() if sent.fate == fate]


def told(answer: Any) -> list[Json]:
    """The receipts of an answer to a submission."""
    receipts: list[Json] = answer["receipts"]
    return receipts
