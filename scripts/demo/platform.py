"""The invented platform: what it records in the ledger, and the state that its own gateway keeps beside it.

The gateway knows the present value of every setting, the exceptions that hold now and what goes on after them: no
history, no fold, no catalog. A scheduled change waits in a queue until its time. The demo knows what it plants from
this state alone, never from `check`, so that the audit is compared with something independent.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ledger.append.submissions import parse_submissions
from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.subjects import kind_of
from ledger.times import format_time
from scripts.demo.world import CONTAINING, PUBLISHED_DEFAULTS, SWITCHES

CLEARED: Final = None

Key = tuple[str, str]
"""Subject and setting."""


class PlatformChange(NamedTuple):
    """`value` None: cleared. Times in µs; None: from the moment of recording, without end."""

    subject: str
    setting: str
    value: Any
    effective_from: int | None = None
    effective_until: int | None = None


class CorrectedPeriod(NamedTuple):
    """The subject's settings in [start, until) were corrected at `until`, so hindsight differs in that period."""

    subject: str
    start: int
    until: int


class SwitchOff(NamedTuple):
    """The subject switched a setting off. `position_before`: the ledger's last position before that."""

    subject: str
    setting: str
    at: int
    position_before: int


class StoryLine(NamedTuple):
    """A line of the story for the reader, and the receipt of its last event."""

    text: str
    receipt: Receipt


class Platform:
    """`current`: the present values. `revisions`: subject → how often its values changed; "": values of models and
    defaults, which concern every subject."""

    def __init__(self, ledger: Ledger, clock: ManualClock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.current: dict[Key, Any] = {}
        self.defaults: dict[str, Any] = dict(PUBLISHED_DEFAULTS)
        self.revisions: Counter[str] = Counter()
        self.position = ledger.head().position
        self.submissions = 0
        self.keys: dict[str, list[str]] = {}
        """Organization or account → the ids of the keys it was given, even if another subject owns them now."""
        self.projects: dict[str, list[str]] = {}
        self.members: dict[str, list[str]] = {}
        self.story: list[StoryLine] = []
        self.corrected: list[CorrectedPeriod] = []
        self.switched_off: list[SwitchOff] = []
        self._regimes: dict[Key, Any] = {}
        self._exceptions: dict[Key, list[tuple[int, Any]]] = {}
        """Those that have begun and not ended: (number of the change, value), the last recorded last."""
        self._changes = 0
        self._scheduled: list[tuple[int, int, Callable[[], None]]] = []
        self._scheduled_count = 0

    def value(self, subject: str, setting: str) -> Any:
        """The policy that the gateway enforces for this subject now."""
        return self.current.get((subject, setting), self.defaults.get(setting))

    def allowed_regions(self, subject: str) -> tuple[str, ...]:
        """The regions in which the subject's data may be handled, in place of those that contain others; none:
        anywhere."""
        named = self.value(subject, "residency.regions")
        return tuple(region for name in named for region in CONTAINING.get(name, (name,)))

    def chain(self, subject: str) -> tuple[str, ...]:
        """From `subject` to the governing subject. A chain that ends at a key or a project has no owner."""
        chain = [subject]
        while kind_of(chain[-1]) in ("key", "project"):
            owner = self.current.get((chain[-1], "owner"))
            if owner is None:
                return tuple(chain)
            chain.append(owner)
        if kind_of(chain[-1]) == "account":
            organization = self.current.get((chain[-1], "attached_to"))
            if organization is not None:
                chain.append(organization)
        return tuple(chain)

    def advance(self, now: int) -> None:
        """Sets the invented time to `now` (µs), and applies what was scheduled up to then."""
        while self._scheduled and self._scheduled[0][0] <= now:
            _, _, happen = heapq.heappop(self._scheduled)
            happen()
        self.clock.now_us = now

    def record(
        self, actor: str, *changes: PlatformChange, reason: str | None = None, story: str | None = None
    ) -> tuple[Receipt, ...]:
        """Records the changes as one submission, and applies them. `story`: what to tell the reader, if anything."""
        before = self.position
        receipts = self._submit({"events": [_submission(change, reason) for change in changes]}, actor, story)
        for change in changes:
            self._apply(change, before)
        return receipts

    def retract(
        self, actor: str, receipt: Receipt, change: PlatformChange, value_before: Any, *, reason: str, story: str
    ) -> None:
        """Retracts a change, so that the setting has `value_before` again (None: no value of its own)."""
        self._submit({"type": "change.retracted", "event_id": receipt.event_id, "reason": reason}, actor, story)
        assert receipt.effective_from is not None
        self._regimes[change.subject, change.setting] = value_before
        self._show((change.subject, change.setting))
        self.corrected.append(CorrectedPeriod(change.subject, receipt.effective_from, self.clock.now_us))

    def redefine_default(self, actor: str, setting: str, default: Any, effective_from: int, *, story: str) -> None:
        stored = list(default) if isinstance(default, tuple) else default
        definition = {**BUILT_IN[setting].as_json(), "default": stored}
        body = {"type": "setting.defined", "setting": setting, "definition": definition}
        self._submit({**body, "effective_from": format_time(effective_from)}, actor, story)

        def begin() -> None:
            self.defaults[setting] = default
            self.revisions[""] += 1

        self._schedule(effective_from, begin)

    def _submit(self, body: dict[str, Any], actor: str, story: str | None) -> tuple[Receipt, ...]:
        receipts = self.ledger.submit(parse_submissions(body), actor=actor)
        # The demo's expectations hold only if no two submissions share an instant.
        assert receipts[-1].recorded_at == self.clock.now_us
        self.position = receipts[-1].position
        self.submissions += 1
        if story is not None:
            self.story.append(StoryLine(story, receipts[-1]))
        return receipts

    def _apply(self, change: PlatformChange, position_before: int) -> None:
        now, key = self.clock.now_us, (change.subject, change.setting)
        start = now if change.effective_from is None else change.effective_from
        self._changes += 1
        number, until = self._changes, change.effective_until
        if until is not None:
            self._schedule(until, partial(self._end, key, number))
        if start > now:
            self._schedule(start, partial(self._begin, key, number, change.value, until is not None))
            return
        if start < now:
            self.corrected.append(CorrectedPeriod(change.subject, start, now))
        value_before = self.value(*key)
        self._begin(key, number, change.value, until is not None)
        if change.setting in SWITCHES and value_before is True and self.value(*key) is False:
            self.switched_off.append(SwitchOff(change.subject, change.setting, now, position_before))

    def _begin(self, key: Key, number: int, value: Any, is_exception: bool) -> None:
        """A change takes effect. One without an end ends the exceptions that were recorded before it."""
        exceptions = self._exceptions.setdefault(key, [])
        if is_exception:
            exceptions.append((number, value))
            exceptions.sort(key=itemgetter(0))
        else:
            self._regimes[key] = value
            exceptions[:] = [one for one in exceptions if one[0] > number]
        self._show(key)

    def _end(self, key: Key, number: int) -> None:
        """An exception reaches its end, unless it was ended before."""
        exceptions = self._exceptions[key]
        if any(one[0] == number for one in exceptions):
            exceptions[:] = [one for one in exceptions if one[0] != number]
            self._show(key)

    def _show(self, key: Key) -> None:
        exceptions = self._exceptions.get(key)
        self._set(key, exceptions[-1][1] if exceptions else self._regimes.get(key, CLEARED))

    def _schedule(self, instant: int, happen: Callable[[], None]) -> None:
        self._scheduled_count += 1
        heapq.heappush(self._scheduled, (instant, self._scheduled_count, happen))

    def _set(self, key: Key, value: Any) -> None:
        self.revisions["" if key[1] == "model.hosting" else key[0]] += 1
        if value is CLEARED:
            self.current.pop(key, None)
        else:
            self.current[key] = value


def _submission(change: PlatformChange, reason: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"subject": change.subject, "setting": change.setting}
    if change.value is CLEARED:
        body["type"] = "setting.cleared"
    else:
        value = list(change.value) if isinstance(change.value, tuple) else change.value
        body |= {"type": "setting.changed", "value": value}
    for name in ("effective_from", "effective_until"):
        instant = getattr(change, name)
        if instant is not None:
            body[name] = format_time(instant)
    return body if reason is None else {**body, "reason": reason}
