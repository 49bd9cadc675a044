"""The invented platform: what it records in the ledger and, beside it, the plain books of its own gateway.

The books say what every setting is at this moment and nothing else: no history, no fold, no catalog. A scheduled
change is a note in the diary that is carried out when its day comes. What the demo plants is known from these books,
never from asking `check`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any, Final, NamedTuple

from ledger.append.submissions import parse_submissions
from ledger.catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.subjects import kind_of
from ledger.times import format_time
from scripts.demo.world import PUBLISHED_DEFAULTS, SWITCHES

CLEARED: Final = None
_ABSENT: Final = object()


class Said(NamedTuple):
    """A change: the value (None: cleared) and when it holds (µs; None: from the moment of recording, without end)."""

    subject: str
    setting: str
    value: Any
    effective_from: int | None = None
    effective_until: int | None = None


class Rewritten(NamedTuple):
    """What was said about [start, until) was set right only at `until`: hindsight differs for this subject then."""

    subject: str
    start: int
    until: int


class Narrowed(NamedTuple):
    """The subject had a switch on and now has it off; `position_before` is the ledger's last one before that."""

    subject: str
    setting: str
    at: int
    position_before: int


class Line(NamedTuple):
    """A line of the story as it is told: when, what, and the last event it made."""

    at: int
    text: str
    receipt: Receipt


class Platform:
    def __init__(self, ledger: Ledger, clock: ManualClock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.books: dict[tuple[str, str], Any] = {}
        self.defaults: dict[str, Any] = dict(PUBLISHED_DEFAULTS)
        self.position = ledger.head().position
        self.submissions = 0
        self.keys: dict[str, list[str]] = {}
        """Organization or account → the ids of its keys, whoever holds them now."""
        self.projects: dict[str, list[str]] = {}
        self.members: dict[str, list[str]] = {}
        self.told: list[Line] = []
        self.rewritten: list[Rewritten] = []
        self.narrowed: list[Narrowed] = []
        self.pages: Counter[str] = Counter()
        """Subject → how often something of it was written in the books; "" for what concerns everybody."""
        self._diary: list[tuple[int, int, tuple[str, str] | None, Any]] = []
        self._noted = 0

    def value(self, subject: str, setting: str) -> Any:
        """What the gateway enforces for this subject at this moment."""
        return self.books.get((subject, setting), self.defaults.get(setting))

    def chain(self, subject: str) -> tuple[str, ...]:
        """From `subject` to whose settings hold for it; one that ends at a key or project belongs to nobody."""
        chain = [subject]
        while kind_of(chain[-1]) in ("key", "project"):
            owner = self.books.get((chain[-1], "owner"))
            if owner is None:
                return tuple(chain)
            chain.append(owner)
        if kind_of(chain[-1]) == "account":
            attached = self.books.get((chain[-1], "attached_to"))
            if attached is not None:
                chain.append(attached)
        return tuple(chain)

    def advance(self, now: int) -> None:
        """Lets the invented time be `now` (µs), and what the diary holds up to then take effect."""
        while self._diary and self._diary[0][0] <= now:
            _, _, entry, value = heapq.heappop(self._diary)
            if entry is None:
                self.defaults.update(value)
                self.pages[""] += 1
            else:
                self._write(entry, value)
        self.clock.now_us = now

    def record(
        self, actor: str, *said: Said, reason: str | None = None, told: str | None = None
    ) -> tuple[Receipt, ...]:
        """One submission, and the books brought up to date."""
        events = [self._as_json(one, reason) for one in said]
        before = self.position
        receipts = self._submit({"events": events}, actor, told)
        for one in said:
            self._keep_books(one, before)
        return receipts

    def retract(self, actor: str, receipt: Receipt, undone: Said, formerly: Any, *, reason: str, told: str) -> None:
        """Takes a change back: from now on the setting is what it was `formerly` (None: it had no value)."""
        self._submit({"type": "change.retracted", "event_id": receipt.event_id, "reason": reason}, actor, told)
        assert receipt.effective_from is not None
        self._write((undone.subject, undone.setting), formerly)
        self.rewritten.append(Rewritten(undone.subject, receipt.effective_from, self.clock.now_us))

    def redefine_default(self, actor: str, setting: str, default: Any, effective_from: int, *, told: str) -> None:
        definition = {**BUILT_IN[setting].as_json(), "default": default}
        body = {"type": "setting.defined", "setting": setting, "definition": definition}
        self._submit({**body, "effective_from": format_time(effective_from)}, actor, told)
        self._note(effective_from, None, {setting: default})

    def _submit(self, body: dict[str, Any], actor: str, told: str | None) -> tuple[Receipt, ...]:
        receipts = self.ledger.submit(parse_submissions(body), actor=actor)
        # The story rests on it: nothing happened twice at one instant.
        assert receipts[-1].recorded_at == self.clock.now_us
        self.position = receipts[-1].position
        self.submissions += 1
        if told is not None:
            self.told.append(Line(self.clock.now_us, told, receipts[-1]))
        return receipts

    @staticmethod
    def _as_json(said: Said, reason: str | None) -> dict[str, Any]:
        body: dict[str, Any] = {"subject": said.subject, "setting": said.setting}
        if said.value is CLEARED:
            body["type"] = "setting.cleared"
        else:
            value = list(said.value) if isinstance(said.value, tuple) else said.value
            body |= {"type": "setting.changed", "value": value}
        for name in ("effective_from", "effective_until"):
            instant = getattr(said, name)
            if instant is not None:
                body[name] = format_time(instant)
        return body if reason is None else {**body, "reason": reason}

    def _keep_books(self, said: Said, position_before: int) -> None:
        now, entry = self.clock.now_us, (said.subject, said.setting)
        start = now if said.effective_from is None else said.effective_from
        if said.effective_until is not None:
            self._note(said.effective_until, entry, self.books.get(entry, CLEARED))
        if start > now:
            self._note(start, entry, said.value)
            return
        if start < now:
            self.rewritten.append(Rewritten(said.subject, start, now))
        was = self.value(*entry)
        self._write(entry, said.value)
        if said.setting in SWITCHES and was is True and self.value(*entry) is False:
            self.narrowed.append(Narrowed(said.subject, said.setting, now, position_before))

    def _note(self, instant: int, entry: tuple[str, str] | None, value: Any) -> None:
        self._noted += 1
        heapq.heappush(self._diary, (instant, self._noted, entry, value))

    def _write(self, entry: tuple[str, str], value: Any) -> None:
        self.pages["" if entry[1] == "model.hosting" else entry[0]] += 1
        if value is CLEARED:
            self.books.pop(entry, None)
        else:
            self.books[entry] = value
