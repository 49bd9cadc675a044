"""A copy of a ledger that really holds the proposed changes: exported, with new events between the old, and imported.

Shares no code with what-if: this module orders and numbers the events by itself.
"""

import io
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from ledger.catalog import Definition
from ledger.clock import ManualClock
from ledger.codec import decode, encode, event_id, leaf_hash
from ledger.errors import BadImport
from ledger.events import AnyEvent, ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.opening import open_ledger, open_recorder
from ledger.recorders.contract import IMPORTING, Entry
from ledger.store import Ledger
from ledger.times import parse_time
from ledger.transfer.import_ledger import import_ledger

TAIL = "-8000-8000-00000000beef"
FAR = parse_time("2030-01-01T00:00:00Z")


class Change(NamedTuple):
    """`body`: a submission, as JSON. `moment`: its recorded time, µs."""

    moment: int
    body: dict[str, Any]
    line: int


class Copy(NamedTuple):
    """`own`: position in the copy → position in the original, or minus the line of a change. `position`: the
    inverse."""

    ledger: Ledger
    own: dict[int, int]
    position: dict[int, int]
    imported: bool

    def enforced(self, position: int | None) -> int | None:
        """The position in the copy of a gateway that had enforced `position` in the original."""
        if position is None or position == 0:
            return position
        last = max(self.position)
        return self.position[position] if position <= last else position + self.position[last] - last + self._behind()

    def _behind(self) -> int:
        return max(self.own) - self.position[max(self.position)]


def changed_copy(ledger: Ledger, url: str, changes: Sequence[Change]) -> Copy:
    events = [decode(entry.leaf) for entry in ledger.page(0, 1_000_000)]
    order: list[tuple[int, int, int, AnyEvent | Change]] = [(one.recorded_at, 0, one.position, one) for one in events]
    order += [(one.moment, 1, place, one) for place, one in enumerate(changes)]
    order.sort(key=lambda one: one[:3])
    versions: defaultdict[str, int] = defaultdict(int)
    ids = {event.event_id: event for event in events}
    new_ids: dict[str, str] = {}
    own: dict[int, int] = {}
    written: list[AnyEvent] = []
    for position, (_moment, _new, _place, one) in enumerate(order, 1):
        event = _event(one, ids) if isinstance(one, Change) else one
        own[position] = -one.line if isinstance(one, Change) else one.position
        versions[event.subject] += 1
        tail = TAIL if isinstance(one, Change) else event.event_id[13:]
        new_id = event_id(position, tail)
        if not isinstance(one, Change):
            new_ids[event.event_id] = new_id
        moved: dict[str, Any] = {"position": position, "version": versions[event.subject], "event_id": new_id}
        if isinstance(event, ChangeRetracted):
            moved["retracts"] = new_ids[event.retracts]
        written.append(event.model_copy(update=moved))
    source = f"urn:inforce:{ledger.origin}"
    lines = [encode(event, source) for event in written]
    imported = True
    try:
        import_ledger(url, io.BytesIO(b"\n".join(lines)))
    except BadImport:
        # The ledger would have refused a later event. What-if keeps that event, so the copy does, too.
        imported = False
        _restore(url, ledger.origin, written, lines)
    copy = open_ledger(url, clock=ManualClock(FAR))
    return Copy(copy, own, {theirs: position for position, theirs in own.items() if theirs > 0}, imported)


def _event(change: Change, ids: dict[str, AnyEvent]) -> AnyEvent:
    body, moment = change.body, change.moment

    def instant(member: str) -> int | None:
        return parse_time(body[member]) if body.get(member) else None

    start = instant("effective_from") or moment
    common: dict[str, Any] = {
        "event_id": "",
        "position": 1,
        "version": 1,
        "recorded_at": moment,
        "actor": "somebody else",
    }
    if body["type"] == "change.retracted":
        target = ids[body["event_id"]]
        assert isinstance(target, SettingChanged | SettingCleared)
        return ChangeRetracted(**common, subject=target.subject, setting=target.setting, retracts=target.event_id)
    common["setting"] = body["setting"]
    if body["type"] == "setting.defined":
        definition = Definition.model_validate(body["definition"])
        return SettingDefined(**common, subject="catalog:settings", definition=definition, effective_from=start)
    common |= {"subject": body["subject"], "effective_from": start, "effective_until": instant("effective_until")}
    if body["type"] == "setting.cleared":
        return SettingCleared(**common)
    value = body["value"]
    return SettingChanged(**common, value=tuple(sorted(value)) if isinstance(value, list) else value)


def _restore(url: str, origin: str, events: list[AnyEvent], lines: list[bytes]) -> None:
    recorder = open_recorder(url)
    recorder.create({"origin": origin, IMPORTING: "a copy"})
    entries = [
        Entry(event.position, event.subject, event.version, event.TOPIC, line, event.recorded_at, leaf_hash(line))
        for event, line in zip(events, lines, strict=True)
    ]
    recorder.restore(entries, [], importing="a copy", last=True)
    recorder.close()
