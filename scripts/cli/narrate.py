"""Events as sentences: what each event changed, from when, and whether a later event retracted it.

A sentence names the value before the change, so the narrator must get every event of its subjects, from the first.
Proved by tests/cli/test_replay.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ledger.codec import parse_leaf
from ledger.events import ChangeRetracted
from ledger.recorders.contract import Entry
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING, END
from projections.temporal.changes import Change, Retraction, read_assertion, read_entries
from projections.temporal.fold import Timeline, fold
from scripts.cli.output import human_bound, human_time, json_text

StreamOf = Callable[[str, int], Iterable[Entry]]
"""(subject, version) → its entries up to that version."""

_NO_CHANGES: Final = Timeline()


class Narrator:
    """Reads a subject again with `stream_of` only if one of its changes is retracted."""

    def __init__(self, stream_of: StreamOf) -> None:
        self._stream_of = stream_of
        self._timelines: dict[tuple[str, str], Timeline] = {}
        self._retracted_by: dict[str, Entry] = {}

    def note_retractions(self, entries: Iterable[Entry]) -> None:
        """Lets the sentence about a change name the later event that retracted it."""
        for entry in entries:
            if entry.topic == ChangeRetracted.TOPIC:
                self._retracted_by[str(parse_leaf(entry.leaf).data.retracts)] = entry

    def sentence(self, entry: Entry, reason: str | None) -> str:
        """Call it for every event in order."""
        event = read_assertion(entry.leaf)
        what = self._retraction(entry, event) if isinstance(event, Retraction) else self._change(entry, event)
        why = f'{event.actor}: "{reason}"' if reason is not None else event.actor
        by = None if isinstance(event, Retraction) else self._retracted_by.get(event.event_id)
        later = f"  — retracted by #{by.position} on {human_time(by.recorded_at)}" if by else ""
        return f"{human_time(entry.recorded_at)}  #{entry.position}  {entry.subject}  {what}  ({why}){later}"

    def _change(self, entry: Entry, change: Change) -> str:
        timeline = self._timelines.setdefault((entry.subject, change.setting), Timeline())
        before = self._value_at(entry.subject, change.setting, change.effective_from)
        defined_before = timeline.at(change.effective_from)
        timeline.apply(change)
        if entry.subject == CATALOG_SUBJECT:
            return f"{change.setting}  {_definition(defined_before, change)}  {_period(change, timeline)}"
        after = self._value_at(entry.subject, change.setting, change.effective_from)
        cleared = " (cleared)" if change.value is None else ""
        return f"{change.setting}  {_difference(before, after)}{cleared}  {_period(change, timeline)}"

    def _retraction(self, entry: Entry, retraction: Retraction) -> str:
        events = read_entries(self._stream_of(entry.subject, entry.version))
        change = next(e for e in events if isinstance(e, Change) and e.event_id == retraction.retracts)
        key = entry.subject, retraction.setting
        before = self._value_at(*key, change.effective_from)
        self._timelines[key] = fold(events)[retraction.setting]
        after = self._value_at(*key, change.effective_from)
        start = human_bound(change.effective_from)
        return f"{retraction.setting}  retracts #{change.position}: {_difference(before, after)}  from {start} on"

    def _value_at(self, subject: str, setting: str, instant: int) -> str:
        own = self._timelines.get((subject, setting), _NO_CHANGES).at(instant)
        if own is not None and own.value is not None:
            return json_text(own.value)
        definition = self._timelines.get((CATALOG_SUBJECT, setting), _NO_CHANGES).at(instant)
        if definition is None or not isinstance(definition.value, dict):
            return "nothing"
        return f"default {json_text(definition.value['default'])}"


def _difference(before: str, after: str) -> str:
    return f"still {after}" if before == after else f"{before} → {after}"


def _definition(before: Change | None, change: Change) -> str:
    definition: Mapping[str, Any] = change.value if isinstance(change.value, dict) else {}
    default = json_text(definition.get("default"))
    if before is None or not isinstance(before.value, dict):
        kinds = ", ".join(definition.get("kinds", ()))
        return f"defined: {definition.get('value_type')} of {kinds}, default {default}"
    old = json_text(before.value.get("default"))
    return f"redefined: default {old} → {default}" if old != default else f"redefined: default {default}"


def _period(change: Change, timeline: Timeline) -> str:
    """When the change holds, and whether it is scheduled or backdated."""
    start, until = change.effective_from, change.effective_until
    if start == BEGINNING:
        return "from the beginning"
    if start == change.recorded_at:
        words, note = "from now", ""
    else:
        words = f"from {human_time(start)}"
        note = ", scheduled" if start > change.recorded_at else ", backdated"
    if until is not None:
        return f"{words} until {human_bound(until)}{note}"
    # A change without an end holds until the next change that is already scheduled.
    next_start = timeline.step(start).until
    next_change = timeline.at(next_start) if next_start < END else None
    if next_change is None:
        return f"{words} on{note}"
    return f"{words} until #{next_change.position} on {human_time(next_start)}{note}"
