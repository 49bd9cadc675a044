"""Events as sentences: what each one changed, from when, and whether it was taken back later.

The teller must hear every event of the subjects it tells of, from the first, because a sentence says what was before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ledger.codec import parse_leaf
from ledger.events import ChangeRetracted
from ledger.recorders.contract import Entry
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING, END
from projections.temporal.changes import Change, JsonValue, Retraction, read_assertion, read_entries
from projections.temporal.fold import Timeline, fold
from scripts.cli.output import encode, human_time

StreamOf = Callable[[str, int], Iterable[Entry]]
"""(subject, version) → its entries up to that version."""

_UNSAID: Final = Timeline()


class Teller:
    """`stream_of` is asked only where something is taken back."""

    def __init__(self, stream_of: StreamOf) -> None:
        self._stream_of = stream_of
        self._timelines: dict[tuple[str, str], Timeline] = {}
        self._fates: dict[str, Entry] = {}

    def foretell(self, entries: Iterable[Entry]) -> None:
        """Takes note of what is taken back later."""
        for entry in entries:
            if entry.topic == ChangeRetracted.TOPIC:
                self._fates[str(parse_leaf(entry.leaf).data.retracts)] = entry

    def hear(self, entry: Entry, reason: str | None) -> str:
        """The sentence for the next event."""
        said = read_assertion(entry.leaf)
        words = self._taken_back(entry, said) if isinstance(said, Retraction) else self._change(entry, said)
        why = f'{said.actor}: "{reason}"' if reason is not None else said.actor
        fate = None if isinstance(said, Retraction) else self._fates.get(said.event_id)
        later = f"  — taken back by #{fate.position} on {human_time(fate.recorded_at)}" if fate else ""
        return f"{human_time(entry.recorded_at)}  #{entry.position}  {entry.subject}  {words}  ({why}){later}"

    def _change(self, entry: Entry, change: Change) -> str:
        timeline = self._timelines.setdefault((entry.subject, change.setting), Timeline())
        before = self._value_at(entry.subject, change.setting, change.effective_from)
        defined_before = timeline.at(change.effective_from)
        timeline.apply(change)
        if entry.subject == CATALOG_SUBJECT:
            return f"{change.setting}  {_definition(defined_before, change)}  {_period(change, timeline)}"
        after = self._value_at(entry.subject, change.setting, change.effective_from)
        what = f"still {after}" if before == after else f"{before} → {after}"
        cleared = " (cleared)" if change.value is None else ""
        return f"{change.setting}  {what}{cleared}  {_period(change, timeline)}"

    def _taken_back(self, entry: Entry, retraction: Retraction) -> str:
        known = read_entries(self._stream_of(entry.subject, entry.version))
        taken = next(c for c in known if isinstance(c, Change) and c.event_id == retraction.retracts)
        place = entry.subject, retraction.setting
        before = self._value_at(*place, taken.effective_from)
        self._timelines[place] = fold(known)[retraction.setting]
        after = self._value_at(*place, taken.effective_from)
        what = f"still {after}" if before == after else f"{before} → {after}"
        return f"{retraction.setting}  takes back #{taken.position}: {what}  from {human_time(taken.effective_from)} on"

    def _value_at(self, subject: str, setting: str, instant: int) -> str:
        own = self._timelines.get((subject, setting), _UNSAID).at(instant)
        if own is not None and own.value is not None:
            return _json(own.value)
        definition = self._timelines.get((CATALOG_SUBJECT, setting), _UNSAID).at(instant)
        if definition is None or not isinstance(definition.value, dict):
            return "nothing"
        return f"default {_json(definition.value['default'])}"


def _definition(before: Change | None, change: Change) -> str:
    now: Mapping[str, Any] = change.value if isinstance(change.value, dict) else {}
    default = _json(now.get("default"))
    if before is None or not isinstance(before.value, dict):
        return f"defined: {now.get('value_type')} of {', '.join(now.get('kinds', ()))}, default {default}"
    was = _json(before.value.get("default"))
    return f"defined anew: default {was} → {default}" if was != default else f"defined anew: default {default}"


def _period(change: Change, timeline: Timeline) -> str:
    """When it holds, and how that lies to the moment of recording."""
    start, until = change.effective_from, change.effective_until
    if start == BEGINNING:
        return "from the beginning"
    mark = ""
    if start == change.recorded_at:
        words = "from now"
    else:
        words = f"from {human_time(start)}"
        mark = ", scheduled" if start > change.recorded_at else ", backdated"
    if until is not None:
        return f"{words} until {human_time(until)}{mark}"
    # Without an end of its own it gives way to what was already scheduled.
    next_start = timeline.step(start).until
    successor = timeline.at(next_start) if next_start < END else None
    if successor is None:
        return f"{words} on{mark}"
    return f"{words} until #{successor.position} on {human_time(next_start)}{mark}"


def _json(value: JsonValue) -> str:
    return encode(value).decode()
