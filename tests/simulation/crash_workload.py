"""Random submissions and queries for the clients of a crash campaign, from a seed.

Nearly all submissions are valid. There are few subjects, so that writers compete for versions and periods meet.
"""

import time
from random import Random
from typing import Any, Final

from ledger.times import SECOND, format_time
from tests.simulation.crash_client_log import ClientLog
from tests.support.ledgers import define, definition
from tests.support.reference import Json

ACCOUNTS: Final = [f"account:u{number}" for number in range(8)]
ORGS: Final = ["org:acme", "org:beta", "org:Gamma/eu"]
MODELS: Final = ["model:a/b", "model:c"]
OWNED: Final = ["key:k1", "key:k2", "project:p1"]
SUBJECTS: Final = [*ACCOUNTS, *ORGS, *MODELS, *OWNED]
SWITCHES: Final = ["training.opt_in", "storage.inputs_outputs", "caching.temporary"]
REGIONS: Final = [[], ["eu"], ["us"], ["eu", "us"]]
HOUR: Final = 3600 * SECOND


class CrashWorkload:
    """The workload of one client. `client_log` knows the events to retract, to conflict with and to query."""

    def __init__(self, chance: Random, client_log: ClientLog) -> None:
        self.chance = chance
        self.client_log = client_log

    def submission(self, name: str, *, has_key: bool) -> Json:
        """A body. Every event has a recognisable reason, unless the submission has a key."""
        if self.chance.random() < 0.25:
            return self.batch(name, self.chance.choice((2, 3, 5, 20)))
        with_reason = not has_key or self.chance.random() < 0.7
        return self._event(name, 0, with_reason=with_reason)

    def batch(self, name: str, size: int) -> Json:
        events: list[Json] = []
        retracted: set[str] = set()
        for index in range(size):
            event = self._event(name, index, with_reason=True)
            # A change can be retracted only once.
            while event.get("event_id") in retracted:
                event = self._change(name, index, with_reason=True)
            retracted |= {event["event_id"]} if "event_id" in event else set()
            events.append(event)
        return {"events": events}

    def conflicting(self, name: str) -> Json:
        """A change with an expected_version: it fails if another client writes to the subject first."""
        change = self._change(name, 0, with_reason=True)
        behind = self.chance.choice((0, 0, 0, 1))
        return change | {"expected_version": max(0, self.client_log.version(change["subject"]) - behind)}

    def _event(self, name: str, index: int, *, with_reason: bool) -> Json:
        kind = self.chance.random()
        if kind < 0.06:
            return self._definition() | {"reason": reason_of(name, index)}
        retracts = self.client_log.change(self.chance) if kind < 0.16 else None
        if retracts is not None:
            return {"type": "change.retracted", "event_id": retracts, "reason": reason_of(name, index)}
        return self._change(name, index, with_reason=with_reason)

    def _definition(self) -> Json:
        members = definition(kinds=["account", "org"], default=self.chance.random() < 0.5)
        return define(f"beta.{self.chance.randrange(4)}", definition=members, effective_from=None)

    def _change(self, name: str, index: int, *, with_reason: bool) -> Json:
        subject, setting, value = self._setting_value()
        change: Json = {"subject": subject, "setting": setting, **self._period(with_reason)}
        if with_reason:
            change["reason"] = reason_of(name, index)
        if self.chance.random() < 0.12:
            return {"type": "setting.cleared", **change}
        return {"type": "setting.changed", "value": value, **change}

    def _setting_value(self) -> tuple[str, str, Any]:
        chance = self.chance
        subject = chance.choice(SUBJECTS)
        kind = subject.partition(":")[0]
        if kind == "model":
            return subject, "model.hosting", chance.choice(("hosted", "passthrough"))
        if kind in ("key", "project"):
            owners = [*ORGS, *ACCOUNTS, *(["project:p1"] if kind == "key" else [])]
            return subject, "owner", chance.choice(owners)
        if kind == "org" and chance.random() < 0.3:
            return subject, "residency.regions", chance.choice(REGIONS)
        if kind == "account" and chance.random() < 0.15:
            return subject, "attached_to", chance.choice(ORGS)
        return subject, chance.choice(SWITCHES), chance.random() < 0.5

    def _period(self, with_reason: bool) -> Json:
        """A change of the past needs a reason, so a change without one starts now or later."""
        chance, now = self.chance, time.time_ns() // 1000
        start, until = None, None
        if chance.random() < 0.5:
            behind = -HOUR if with_reason else 60 * SECOND
            start = now + chance.randrange(behind, HOUR)
        if chance.random() < 0.3:
            until = max(start or now, now) + chance.randrange(60 * SECOND, HOUR)
        return {
            "effective_from": None if start is None else format_time(start),
            "effective_until": None if until is None else format_time(until),
        }

    def coordinates(self) -> tuple[str, str] | None:
        """(at, known_at) with a past known_at, so that the answer may not change; None before the first receipt."""
        known_at = self.client_log.instant(self.chance)
        if known_at is None:
            return None
        at = time.time_ns() // 1000 + self.chance.randrange(-HOUR, HOUR)
        return format_time(at), self.chance.choice((known_at, format_time(at)))

    def record(self, at: str) -> Json:
        """A request record."""
        chance = self.chance
        named = chance.choice([*ACCOUNTS, *ORGS, *OWNED])
        kind, _, id_ = named.partition(":")
        handling = {"stored": chance.random() < 0.5, "trained": chance.random() < 0.5, "cached": True}
        return {f"{kind}_id": id_, "at": at, "model_id": chance.choice(("a/b", "c", "x")), "handling": handling}


def reason_of(name: str, index: int) -> str:
    return f"{name}#{index}"
