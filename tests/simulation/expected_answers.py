"""The expected answer to every query, as JSON in the shapes of api/README.md, computed from the oracle."""

from typing import Any

from ledger.times import BEGINNING, format_time, parse_time
from tests.simulation.oracle import CATALOG, Oracle
from tests.support.reference import UNLIMITED, Json, ReferenceState, event_json

KnownAt = int | str | None
"""An instant (µs), "at" for in force, or None for everything recorded so far."""

NOT_FOUND: Json = {"problem": "not_found"}


class ExpectedAnswers:
    """The answers at `now` (µs) of a ledger with the events of `oracle`."""

    def __init__(self, oracle: Oracle, now: int) -> None:
        self.oracle = oracle
        self.now = max(now, oracle.head_recorded_at)
        self._stretch: tuple[int, int] | None = None
        """Where changes may be missing, because the clock is far behind the last event, and nobody acknowledged it."""
        if oracle.is_clock_behind(now):
            times = [parse_time(event["time"]) for event in oracle.events]
            right = [time for time in times if time <= now]
            self._stretch = (min(now, right[-1] + 1) if right else now, oracle.head_recorded_at + 1)

    def answer(self, question: Json) -> Json:
        """`question` is {"ask": method} with its arguments; instants in µs."""
        arguments = {name: value for name, value in question.items() if name != "ask"}
        answer: Json = getattr(self, question["ask"])(**arguments)
        return answer

    def state(self, subject: str, at: int, known_at: KnownAt, settings: list[str] | None = None) -> Json:
        if not self.oracle.version(subject):
            return NOT_FOUND
        defined = self._settings_with_events(CATALOG)
        if settings is not None and not set(settings) <= set(defined):
            return NOT_FOUND
        # The demand that a kind be known is a setting of no subject: a state shows it only by name.
        shown = [key for key in defined if key != "subjects.must_be_known"] if settings is None else settings
        states = [self._state(subject, key, at, known_at) for key in shown]
        return {
            "subject": subject,
            **self._coordinates(at, known_at),
            "version": self.oracle.version(subject),
            "settings": {
                one.setting: _setting_json(one) | {"next": self._next(one, at, known_at)}
                for one in states
                if one.source in ("explicit", "default")
            },
            **self._notice(at, parse_time(self._instant(at, known_at))),
        }

    def _next(self, state: ReferenceState, at: int, known_at: KnownAt) -> Json | None:
        following = self.oracle.next_change(state.subject, state.setting, at, self._known(at, known_at))
        if following is None:
            return None
        start, later = following
        deciding = later.cleared_by or later.event
        return {
            "position": deciding and deciding["data"]["position"],
            "effective_from": format_time(start),
            "value": later.value,
            "source": later.source,
        }

    def timeline(self, subject: str, known_at: KnownAt, setting: str | None = None) -> Json:
        if not self.oracle.version(subject):
            return NOT_FOUND
        settings = self._settings_shown(subject, known_at) if setting is None else [setting]
        intervals = [interval for key in settings for interval in self._intervals(subject, key, known_at)]
        if setting is not None and all(interval["source"] in ("undefined", "not_applicable") for interval in intervals):
            return NOT_FOUND
        return {
            "subject": subject,
            "known_at": "at" if known_at == "at" else self._instant(BEGINNING, known_at),
            "position": self.oracle.head,
            "intervals": intervals,
            # In force, a timeline spans all of time.
            **self._notice(self.now if known_at == "at" else parse_time(self._instant(BEGINNING, known_at))),
        }

    def history(self, subject: str, setting: str | None = None, after: int | None = None, limit: int = 100) -> Json:
        events = [event for event in self.oracle.events if event["subject"] == subject]
        if not events:
            return NOT_FOUND
        retractions = {event["data"].get("retracts"): event["id"] for event in events}
        rows = [
            event
            for event in reversed(events)
            if setting in (None, event["data"]["setting"]) and (after is None or event["data"]["version"] < after)
        ]
        return {
            "subject": subject,
            "events": [
                {
                    "event": event,
                    "reason": self.oracle.reasons.get(event["data"]["position"]),
                    "retracted_by": retractions.get(event["id"]),
                    "holds_until": self._holds_until(event, UNLIMITED),
                    "holds_until_at_recording": self._holds_until(event, parse_time(event["time"])),
                }
                for event in rows[:limit]
            ],
            "next_after": rows[limit - 1]["data"]["version"] if len(rows) > limit else None,
            "position": self.oracle.head,
            **self._notice(*(parse_time(event["time"]) for event in rows[:limit])),
        }

    def _holds_until(self, event: Json, known_at: int | None) -> str | None:
        until = None if "retracts" in event["data"] else self.oracle.stops_deciding(event, known_at)
        return None if until is None else format_time(until)

    def diff(self, subject: str, start: int, end: int, known_at: KnownAt) -> Json:
        if not self.oracle.version(subject):
            return NOT_FOUND
        differences = []
        for setting in self._settings_with_events(CATALOG):
            before, after = (self._state(subject, setting, at, known_at) for at in (start, end))
            applies = "explicit" in (before.source, after.source) or "default" in (before.source, after.source)
            if applies and before.value != after.value:
                changed_by = self._between(before, after, start, end, known_at)
                differences.append(
                    {
                        "setting": setting,
                        "before": _setting_json(before),
                        "after": _setting_json(after),
                        "changed_by": changed_by,
                    }
                )
        return {
            "subject": subject,
            "from": format_time(start),
            "to": format_time(end),
            "known_at": "at" if known_at == "at" else self._instant(start, known_at),
            "position": self.oracle.head,
            "differences": differences,
            **self._notice(start, end, *(() if known_at == "at" else (parse_time(self._instant(start, known_at)),))),
        }

    def _between(
        self, before: ReferenceState, after: ReferenceState, start: int, end: int, known_at: KnownAt
    ) -> list[Json]:
        """The change that decides at the later instant; also the one that decided at the earlier instant, if it came to
        its own end between the two, or its retraction."""
        earlier, later = (before, after) if start <= end else (after, before)
        first, last = min(start, end), max(start, end)
        changes: dict[int, Json] = {}
        newest, gone = _newest(later), _newest(earlier)
        if newest is not None and newest != gone:
            changes[newest["data"]["position"]] = _change_json(newest)
        if gone is not None:
            until = gone["data"].get("effective_until")
            if until is not None and parse_time(until) <= last:
                # Unless a standing change had ended it before, so that no exception is left at its end.
                end = parse_time(until) - 1
                left = self.oracle.deciding(earlier.subject, earlier.setting, end, self._known(end, known_at))
                if left is not None and left["data"].get("effective_until") is not None:
                    changes[gone["data"]["position"]] = _change_json(gone)
            for event in self.oracle.changes_of(earlier.subject, earlier.setting):
                in_between = first < parse_time(event["time"]) <= last
                if known_at == "at" and in_between and event["data"].get("retracts") == gone["id"]:
                    changes[event["data"]["position"]] = _change_json(event)
        return [changes[position] for position in sorted(changes)]

    def catalog(self, at: int, known_at: KnownAt) -> Json:
        known = self._known(at, known_at)
        settings: Json = {}
        for setting in self._settings_with_events(CATALOG):
            event = self.oracle.definition(setting, at, known)
            if event is not None:
                members = event_json(event)
                del members["effective_until"]
                settings[setting] = event["data"]["definition"] | members
        notice = self._notice(at, parse_time(self._instant(at, known_at)))
        return {**self._coordinates(at, known_at), "settings": settings, **notice}

    def subjects(self, kind: str | None = None) -> Json:
        rows = []
        for subject in self.oracle.subjects():
            if kind in (None, subject.partition(":")[0]):
                events = [event for event in self.oracle.events if event["subject"] == subject]
                position = events[-1]["data"]["position"]
                rows.append({"subject": subject, "version": len(events), "position": position})
        return {"subjects": rows, "next_after": None, "position": self.oracle.head}

    def check(self, record: Json, at: int, known_at: KnownAt) -> Json:
        known = self._known(at, known_at)
        answer = self.oracle.check(record, at, known)
        later = self.oracle.check(record, at, UNLIMITED)
        notice = self._notice(at, parse_time(self._instant(at, known_at)))
        answer["as_of"] = self._coordinates(at, known_at) | notice
        if (answer["verdict"], answer["handling"]) != (later["verdict"], later["handling"]):
            answer["hindsight"] = later | {"changed_by": self._changed_by(answer, later, min(known or 0, self.now))}
        return answer

    def _changed_by(self, answer: Json, later: Json, known_at: int) -> list[Json]:
        """The newer deciding events, and the retractions of the older ones (projections/README.md)."""
        changes = []
        before = {(fact["subject"], fact["setting"]): fact for fact in answer["evidence"]}
        for fact in later["evidence"]:
            known = before.get((fact["subject"], fact["setting"]))
            if known is not None and known["value"] == fact["value"]:
                continue
            newest = _newest_fact(fact)
            is_newer = newest is not None and parse_time(newest["recorded_at"]) > known_at
            if is_newer:
                changes.append(fact)
            if known is None:
                continue
            since = [
                event
                for event in self.oracle.changes_of(fact["subject"], fact["setting"])
                if "retracts" in event["data"] and parse_time(event["time"]) > known_at
            ]
            decided_by = _newest_fact(known)
            of_fact = [e for e in since if decided_by is not None and e["data"]["retracts"] == decided_by["event_id"]]
            changes += [_change_json(event) for event in of_fact or ([] if is_newer else since)]
        return changes

    def check_all(self, records: list[Json], known_at: KnownAt) -> Json:
        decisions = [self.check(record, parse_time(record["at"]), known_at) for record in records]
        return {"decisions": decisions, "position": self.oracle.head}

    # Helpers.

    def _known(self, at: int, known_at: KnownAt) -> int | None:
        return at if known_at == "at" else None if known_at is None else int(known_at)

    def _state(self, subject: str, setting: str, at: int, known_at: KnownAt) -> ReferenceState:
        return self.oracle.setting_state(subject, setting, at, self._known(at, known_at))

    def _instant(self, at: int, known_at: KnownAt) -> str:
        known = self._known(at, known_at)
        return format_time(self.now if known is None else min(known, self.now))

    def _coordinates(self, at: int, known_at: KnownAt) -> Json:
        return {"at": format_time(at), "known_at": self._instant(at, known_at), "position": self.oracle.head}

    def _notice(self, *instants: int) -> Json:
        """The member of an answer with these coordinates (µs)."""
        if self._stretch is None or not any(self._stretch[0] <= instant < self._stretch[1] for instant in instants):
            return {}
        start, until = map(format_time, self._stretch)
        return {"clock_notice": {"from": start, "until": until, "acknowledged_at_position": None}}

    def _settings_with_events(self, subject: str) -> list[str]:
        return sorted({event["data"]["setting"] for event in self.oracle.events if event["subject"] == subject})

    def _settings_shown(self, subject: str, known_at: KnownAt) -> list[str]:
        """The settings with a change in force at any instant, as known then or now. With an earlier known_at: the
        settings with an event by then."""
        if isinstance(known_at, int) and known_at < self.oracle.head_recorded_at:
            events = [event for event in self.oracle.events if event["subject"] == subject]
            return sorted({e["data"]["setting"] for e in events if parse_time(e["time"]) <= known_at})
        return [
            setting
            for setting in self._settings_with_events(subject)
            if any(event is not None for _, event in self.oracle.steps(subject, setting, UNLIMITED))
            or any(self.oracle.deciding(subject, setting, at, at) for at in self._instants(subject, setting))
        ]

    def _instants(self, subject: str, setting: str) -> list[int]:
        """Every instant at which the setting may change, as known at any time or in force."""
        instants = {BEGINNING}
        for event in [*self.oracle.changes_of(subject, setting), *self.oracle.changes_of(CATALOG, setting)]:
            instants.add(parse_time(event["time"]))
            for name in ("effective_from", "effective_until"):
                if event["data"].get(name) is not None:
                    instants.add(parse_time(event["data"][name]))
        return sorted(instants)

    def _intervals(self, subject: str, setting: str, known_at: KnownAt) -> list[Json]:
        intervals: list[Json] = []
        for instant in self._instants(subject, setting):
            state = self._state(subject, setting, instant, known_at)
            interval = {
                "setting": setting,
                "value": state.value,
                "source": state.source,
                "from": None if instant == BEGINNING else format_time(instant),
                "until": None,
                "event_id": state.event and state.event["id"],
            }
            if intervals:
                if all(intervals[-1][name] == interval[name] for name in ("source", "event_id")):
                    continue
                intervals[-1]["until"] = interval["from"]
            intervals.append(interval)
        return intervals


def _newest(state: ReferenceState) -> Json | None:
    events = [event for event in (state.event, state.cleared_by) if event is not None]
    return max(events, key=lambda event: event["data"]["position"], default=None)


def _newest_fact(fact: Json) -> Json | None:
    events: list[Json] = [one for one in (fact, fact.get("cleared_by")) if one and one.get("position")]
    return max(events, key=lambda one: one["position"], default=None)


def _setting_json(state: ReferenceState) -> Json:
    setting: Json = {"value": state.value, "source": state.source}
    if state.event is not None:
        setting |= event_json(state.event)
    if state.cleared_by is not None:
        setting["cleared_by"] = event_json(state.cleared_by)
    return setting


def _change_json(event: Json) -> Json:
    data = event["data"]
    if "retracts" in data:
        change: dict[str, Any] = {"setting": data["setting"], "retracts": data["retracts"], "event_id": event["id"]}
        return change | {
            "position": data["position"],
            "version": data["version"],
            "recorded_at": event["time"],
            "actor": data["actor"],
        }
    return {"setting": data["setting"], "value": data.get("value", data.get("definition"))} | event_json(event)
