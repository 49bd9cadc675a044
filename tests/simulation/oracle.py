"""The oracle: a ledger in plain Python lists that predicts the outcome of every submission and the events after it.

It implements the rules of projections/README.md and api/README.md a second time, one event at a time, on JSON. It
shares no code with ledger/ or projections/ (except the parsing of times, as in `tests.support.reference`) and caches
nothing. Two values are random, half of an event id and the salt of a reason: the oracle copies the id from the receipt
and ignores the salt.
"""

import copy
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ledger.times import format_time, parse_time
from tests.support.reference import Json, Reference

CATALOG = "catalog:settings"
OWN_MEMBERS = ("setting", "value", "effective_from", "effective_until")
REFERENCES = ("owner", "attached_to", "region.within")
"""The settings of the built-in catalog whose values name subjects."""


class Outcome(NamedTuple):
    """The outcome of a submission: `code` "recorded" with receipts, or a problem's code with its pointers."""

    code: str
    receipts: tuple[Json, ...] = ()
    pointers: tuple[str, ...] = ()


class EventRefused(Exception):
    """An event of a submission cannot be recorded; the arguments are the pointers to the wrong members."""


class Conflict(Exception):
    """expected_version is not the version."""


class Oracle(Reference):
    """Every event that the ledger should hold, and every query of `Reference` about them."""

    def __init__(self, leaves: Iterable[bytes]) -> None:
        """`leaves`: the first events of the ledger, either the built-in catalog or an import."""
        super().__init__(leaves)
        self.reasons: dict[int, str] = {}
        self.submissions: dict[tuple[str, str], tuple[str, tuple[Json, ...]]] = {}
        """(caller, idempotency key) → the body and its receipts."""
        self._by_setting: dict[tuple[str, str], list[Json]] = defaultdict(list)
        for event in self.events:
            event["data"].pop("personal", None)
            self._by_setting[event["subject"], event["data"]["setting"]].append(event)

    def at_position(self, position: int) -> "Oracle":
        """The ledger as it was when its last event was the one at `position`."""
        earlier = Oracle([])
        earlier.events = self.events[:position]
        for event in earlier.events:
            earlier._by_setting[event["subject"], event["data"]["setting"]].append(event)
        earlier.reasons = self.reasons
        return earlier

    def known(self, subject: str, setting: str, known_at: int | None) -> list[Json]:
        """Gives the same as the reference, but searches only the events of this setting: faster."""
        every, self.events = self.events, self._by_setting.get((subject, setting), [])
        try:
            return super().known(subject, setting, known_at)
        finally:
            self.events = every

    def changes_of(self, subject: str, setting: str) -> list[Json]:
        return self._by_setting.get((subject, setting), [])

    @property
    def head(self) -> int:
        return len(self.events)

    @property
    def head_recorded_at(self) -> int:
        return parse_time(self.events[-1]["time"])

    def version(self, subject: str) -> int:
        return sum(event["subject"] == subject for event in self.events)

    def subjects(self) -> list[str]:
        return sorted({event["subject"] for event in self.events}, key=str.encode)

    def find(self, event_id: str) -> Json | None:
        return next((event for event in self.events if event["id"] == event_id), None)

    def is_retracted(self, event_id: str) -> bool:
        return any(event["data"].get("retracts") == event_id for event in self.events)

    # The outcome of a submission.

    def expect(self, body: Json, now: int, actor: str, caller: str = "", key: str | None = None) -> Outcome:
        """The outcome that the ledger should return for `body` at `now` (µs). Changes nothing; `record` does.
        The event_id of a receipt is None here, because the ledger chooses it."""
        if key is not None and (caller, key) in self.submissions:
            sent, receipts = self.submissions[caller, key]
            return Outcome("recorded", receipts) if sent == _text(body) else Outcome("idempotency_key_reused")
        if self.is_clock_behind(now):
            return Outcome("clock_behind")
        recorded_at = self.recorded_at(now)
        try:
            events = self._decide(body, recorded_at, actor)
        except Conflict:
            return Outcome("version_conflict")
        except ExceptionGroup as faults:
            return Outcome("bad_submission", pointers=tuple(map(str, faults.exceptions)))
        return Outcome("recorded", tuple(receipt_of(event) for event in events))

    def is_clock_behind(self, now: int) -> bool:
        """Whether nothing is recorded at `now` (µs), because the last event was recorded over a minute later."""
        return bool(self.events) and self.head_recorded_at - now > 60_000_000

    def recorded_at(self, now: int) -> int:
        return max(now, self.head_recorded_at + 1) if self.events else now

    def record(
        self, body: Json, receipts: tuple[Json, ...], actor: str, caller: str = "", key: str | None = None
    ) -> None:
        """Adds the events that the ledger has recorded, with the ids of its receipts."""
        if key is not None and (caller, key) in self.submissions:
            return
        recorded_at = parse_time(receipts[0]["recorded_at"])
        events = self._decide(body, recorded_at, actor)
        for event, receipt in zip(events, receipts, strict=True):
            event["id"] = receipt["event_id"]
            self.append(event, event.pop("reason"))
        if key is not None:
            self.submissions[caller, key] = (_text(body), receipts)

    def outlook(self, event: Json) -> Json:
        """The members of the event's receipt about what follows, as known when it was recorded."""
        known_at = parse_time(event["time"])
        data = event["data"]
        until = None if "retracts" in data else self.stops_deciding(event, known_at)
        later = self.beginning_after(event, known_at)
        names = data["setting"] in REFERENCES and "value" in data
        recorded = {one["subject"] for one in self.events if parse_time(one["time"]) <= known_at}
        doubted = [data["value"]] if names and data["value"] not in recorded else []
        return {
            "holds_until": None if until is None else format_time(until),
            "still_scheduled": [
                {
                    "position": one["data"]["position"],
                    "effective_from": one["data"]["effective_from"],
                    "effective_until": one["data"].get("effective_until"),
                    "value": one["data"].get("value", one["data"].get("definition")),
                }
                for one in later[:100]
            ],
            "still_scheduled_left_out": len(later[100:]),
            "retracts": data.get("retracts"),
            "warnings": [("unknown_subject", subject) for subject in doubted],
        }

    def append(self, event: Json, reason: str | None) -> None:
        self.events.append(event)
        self._by_setting[event["subject"], event["data"]["setting"]].append(event)
        if reason is not None:
            self.reasons[event["data"]["position"]] = reason

    def _decide(self, body: Json, recorded_at: int, actor: str) -> list[Json]:
        decided: list[Json] = []
        faults: list[EventRefused] = []
        cancelled: list[tuple[Json, Json]] = []
        is_batch = "events" in body
        for index, submission in enumerate(_events_of(body)):
            try:
                event = self._event(submission, decided, recorded_at, _events_of(body))
            except EventRefused as fault:
                faults += [EventRefused(f"/events/{index}{place}" if is_batch else place) for place in fault.args]
                continue
            before = self.version(event["subject"])
            if submission.get("expected_version") not in (None, before):
                raise Conflict
            earlier = sum(one["subject"] == event["subject"] for one in decided)
            data = {"position": self.head + len(decided) + 1, "version": before + earlier + 1}
            event["data"] = data | event["data"] | {"actor": actor}
            event["time"] = format_time(recorded_at)
            event["sequence"] = f"{data['position']:020}"
            event["reason"] = submission.get("reason")
            decided.append(event)
            if submission.get("cancels_scheduled"):
                cancelled += [(one, event) for one in self._scheduled(event, decided, [one for one, _ in cancelled])]
        if faults:
            raise ExceptionGroup("refused", faults)
        for target, change in cancelled:
            decided.append(self._cancellation(target, change, decided))
        return decided

    def _require_known(self, submission: Json, together: list[Json], decided: list[Json], now: int) -> None:
        """If the catalog demands at the moment of recording that a kind is known, a reference must name a subject of it
        that has an event, or gets one with the same submission."""
        named = submission.get("value") if submission.get("setting") in REFERENCES else None
        demand = self._definition("subjects.must_be_known", now, decided)
        if named is None or demand is None or named.partition(":")[0] not in demand["default"]:
            return
        if not self.version(named) and named not in [one.get("subject") for one in together]:
            raise EventRefused("/value")

    def _scheduled(self, change: Json, decided: list[Json], cancelled: list[Json]) -> list[Json]:
        """The recorded changes of the setting that begin later than `change`, and that nothing has retracted."""
        gone = [one["id"] for one in cancelled] + [one["data"].get("retracts") for one in decided]
        start = parse_time(change["data"]["effective_from"])
        return [
            event
            for event in self.changes_of(change["subject"], change["data"]["setting"])
            if "retracts" not in event["data"]
            and parse_time(event["data"]["effective_from"]) > start
            and not self.is_retracted(event["id"])
            and event["id"] not in gone
        ]

    def _cancellation(self, target: Json, change: Json, decided: list[Json]) -> Json:
        """The event that retracts `target` because `change` cancels it."""
        earlier = sum(one["subject"] == change["subject"] for one in decided)
        position = self.head + len(decided) + 1
        data = {
            "position": position,
            "version": self.version(change["subject"]) + earlier + 1,
            "retracts": target["id"],
            "setting": target["data"]["setting"],
            "actor": change["data"]["actor"],
        }
        return change | {
            "id": None,
            "type": "inforce.change.retracted.v1",
            "sequence": f"{position:020}",
            "data": data,
        }

    def _event(self, submission: Json, decided: list[Json], now: int, together: list[Json]) -> Json:
        """The event of one submission of those submitted `together`, without position and version. Raises
        `EventRefused`."""
        data: Json
        match submission["type"]:
            case "change.retracted":
                target = self.find(submission["event_id"])
                retracted = [one["data"].get("retracts") for one in decided]
                if target is None or target["type"] not in (
                    "inforce.setting.changed.v1",
                    "inforce.setting.cleared.v1",
                ):
                    raise EventRefused("/event_id")
                if self.is_retracted(target["id"]) or target["id"] in retracted:
                    raise EventRefused("/event_id")
                if parse_time(target["data"]["effective_from"]) < now and submission.get("reason") is None:
                    raise EventRefused("/reason")
                data = {"retracts": target["id"], "setting": target["data"]["setting"]}
                subject = target["subject"]
            case "setting.defined":
                before = [
                    *self.changes_of(CATALOG, submission["setting"]),
                    *_of(decided, CATALOG, submission["setting"]),
                ]
                value_types = {e["data"]["definition"]["value_type"] for e in before}
                changed = _changed_against_the_rules(before[0], submission["definition"]) if before else []
                if value_types and submission["definition"]["value_type"] not in value_types:
                    changed = ["/definition/value_type"]
                start = _start(submission, now, changed)
                definition = copy.deepcopy(submission["definition"])
                data = {
                    "setting": submission["setting"],
                    "definition": definition,
                    "effective_from": format_time(start),
                }
                subject = CATALOG
            case _:
                subject = submission["subject"]
                start = now if submission.get("effective_from") is None else parse_time(submission["effective_from"])
                definition = self._definition(submission["setting"], start, decided)
                # Of the demand that kinds are known, only the default counts.
                is_demand = submission["setting"] == "subjects.must_be_known"
                if definition is None or is_demand or subject.partition(":")[0] not in definition["kinds"]:
                    raise EventRefused("/setting")
                data = {"setting": submission["setting"]}
                if submission["type"] == "setting.changed":
                    data["value"] = _value(submission["value"], definition)
                    if submission["setting"] == "owner" and submission["value"] == subject:
                        raise EventRefused("/value")
                    self._require_known(submission, together, decided, now)
                until = submission.get("effective_until")
                if until is not None and parse_time(until) <= start:
                    raise EventRefused("/effective_until")
                data["effective_from"] = format_time(_start(submission, now))
                data["effective_until"] = until and format_time(parse_time(until))
                _refuse_to_cancel_its_own(submission, start, decided)
        return {
            "specversion": "1.0",
            "id": None,
            "source": self.events[0]["source"],
            "type": f"inforce.{submission['type']}.v1",
            "subject": subject,
            "datacontenttype": "application/json",
            "data": data,
        }

    def _definition(self, setting: str, at: int, decided: list[Json]) -> Json | None:
        """The definition with the latest effective_from until `at`; of equal ones the last recorded."""
        latest: Json | None = None
        since = None
        for event in [*self.changes_of(CATALOG, setting), *_of(decided, CATALOG, setting)]:
            start = parse_time(event["data"]["effective_from"])
            if start <= at and (since is None or start >= since):
                latest, since = event["data"]["definition"], start
        return latest


def _refuse_to_cancel_its_own(submission: Json, start: int, decided: list[Json]) -> None:
    """Raises `EventRefused` if a change that begins at `start` would cancel an earlier one of its own batch."""
    earlier = _of(decided, submission["subject"], submission["setting"])
    begins = [parse_time(one["data"]["effective_from"]) for one in earlier if "retracts" not in one["data"]]
    if submission.get("cancels_scheduled") and any(begin > start for begin in begins):
        raise EventRefused("/cancels_scheduled")


def _changed_against_the_rules(first: Json, definition: Json) -> list[str]:
    """The definition of a built-in setting, which the ledger itself recorded first, may have another default and other
    texts. A default must stay a value."""
    built_in = first["data"]["definition"]
    if first["data"]["actor"] != "inforce":
        return []
    changed = [
        f"/definition/{member}"
        for member in ("value_type", "kinds", "members", "ref_kinds")
        if sorted(built_in.get(member) or "") != sorted(definition.get(member) or "")
    ]
    if built_in["protective"] != definition["protective"]:
        changed.append("/definition/protective")
    if built_in["default"] is not None and definition["default"] is None:
        changed.append("/definition/default")
    return changed


def _events_of(body: Json) -> list[Json]:
    events: list[Json] = body.get("events", [body])
    return events


def _of(events: list[Json], subject: str, setting: str) -> list[Json]:
    return [event for event in events if event["subject"] == subject and event["data"]["setting"] == setting]


def _start(submission: Json, now: int, faults: Sequence[str] = ()) -> int:
    """A change of the past needs a reason. `faults`: the faults of the submission so far."""
    given = submission.get("effective_from")
    start = now if given is None else parse_time(given)
    late = ["/effective_from"] if start < now and submission.get("reason") is None else []
    if faults or late:
        raise EventRefused(*faults, *late)
    return start


def _value(value: Any, definition: Json) -> Any:
    match definition["value_type"]:
        case "bool":
            fits = isinstance(value, bool)
        case "one_of":
            fits = value in definition["members"]
        case "set_of":
            texts = isinstance(value, list) and all(isinstance(member, str) and member for member in value)
            fits = texts and len(set(value)) == len(value) and set(value) <= set(definition.get("members", value))
            value = sorted(value) if fits else value
        case "integer":
            fits = isinstance(value, int) and not isinstance(value, bool)
        case "subject_ref":
            fits = isinstance(value, str) and value.partition(":")[0] in definition["ref_kinds"]
        case _:
            fits = isinstance(value, str)
    if not fits:
        raise EventRefused("/value")
    return value


def receipt_of(event: Json) -> Json:
    """The receipt of an event, without its outlook (`Oracle.outlook`)."""
    data = event["data"]
    return {
        "event_id": event["id"],
        "position": data["position"],
        "subject": event["subject"],
        "version": data["version"],
        "recorded_at": event["time"],
        "effective_from": data.get("effective_from"),
        "effective_until": data.get("effective_until"),
    }


def _text(body: Json) -> str:
    return json.dumps(body, sort_keys=True)
