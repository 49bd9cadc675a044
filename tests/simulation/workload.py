"""Random submissions and queries from a seed.

They use few subjects and instants within few microseconds, so that periods meet, overlap and end each other, and so
that queries hit one microsecond before, at and after each boundary.
"""

from random import Random
from typing import Any

from ledger.times import format_time, parse_time
from tests.simulation.oracle import CATALOG, Oracle
from tests.support.ledgers import definition
from tests.support.reference import Json

GOVERNORS = ("account:u1", "account:u2", "org:acme", "org:beta")
OWNED = ("key:k1", "key:k2", "project:p1")
MODELS = ("model:maker/m1", "model:m2")
REGIONS = ("region:eu", "region:eu-west", "region:world")
PROVIDERS = ("provider:upstream", "provider:other")
MUST_BE_KNOWN = "subjects.must_be_known"
OBSERVED_REGIONS = ("eu", "us", "eu-west", "world", " Z\u00fcrich", "Zu\u0308rich")
RECEIVERS = ("Upstream", "Elsewhere", " upstream inc.", "STRASSE AG")
NOBODY = "org:nobody"
"""Has no event in any ledger."""
SWITCHES = ("training.opt_in", "storage.inputs_outputs", "caching.temporary")
BETA = "beta.search"
KNOWN_SETTINGS = (*SWITCHES, "passthrough.allowed", "residency.regions", "network.private_only", MUST_BE_KNOWN)
QUESTIONS = ("state", "state", "timeline", "history", "diff", "catalog", "subjects", "check", "check", "check_all")


class Workload:
    def __init__(self, chance: Random) -> None:
        self.chance = chance

    def maybe(self, probability: float) -> bool:
        return self.chance.random() < probability

    # Submissions.

    def submission(self, oracle: Oracle, now: int) -> Json:
        """One event, or a batch of up to six. Some are invalid, and the ledger must refuse them."""
        if self.maybe(0.6):
            return self.event(oracle, now)
        return {"events": [self.event(oracle, now) for _ in range(self.chance.randint(1, 6))]}

    def event(self, oracle: Oracle, now: int) -> Json:
        kind = self.chance.random()
        if kind < 0.12:
            event = self._retraction(oracle)
        elif kind < 0.2:
            event = self._definition(now)
        elif kind < 0.3:
            subject, setting, _ = self._setting_value()
            event = {"type": "setting.cleared", "subject": subject, "setting": setting, **self._period(now)}
        else:
            subject, setting, value = self._setting_value()
            if self.maybe(0.02):
                value = self.chance.choice((17, "sometimes", None, [["eu"]], ["eu", "eu"]))
            event = {"type": "setting.changed", "subject": subject, "setting": setting, "value": value}
            event |= self._period(now)
        if "setting" in event and event["type"] != "setting.defined" and self.maybe(0.1):
            event["cancels_scheduled"] = True
        if self.maybe(0.85):
            event["reason"] = self.chance.choice(("ticket 4711", "das Formular kam spät", "entered twice"))
        if self.maybe(0.08):
            subject = event.get("subject", CATALOG)
            event["expected_version"] = oracle.version(subject) + self.chance.choice((0, 0, 0, -1, 1))
            if event["expected_version"] < 0:
                del event["expected_version"]
        return event

    def _setting_value(self) -> tuple[str, str, Any]:
        kind = self.chance.random()
        if kind < 0.015:
            setting = self.chance.choice(("no.such.setting", MUST_BE_KNOWN))
            return self.chance.choice(GOVERNORS), setting, []
        if kind < 0.07:
            # For some of these the setting does not apply.
            return self.chance.choice((*GOVERNORS[2:], *GOVERNORS, OWNED[0])), "passthrough.allowed", self.maybe(0.5)
        if kind < 0.25:
            return self.chance.choice(OWNED), "owner", self.chance.choice((*GOVERNORS, "project:p1", NOBODY))
        if kind < 0.33:
            return self.chance.choice(GOVERNORS[:2]), "attached_to", self.chance.choice((*GOVERNORS[2:], NOBODY))
        if kind < 0.45:
            return self._model_value()
        if kind < 0.53:
            regions = self.chance.choice(([], ["eu"], ["us", "eu"], ["world"], ["Zu\u0308rich "]))
            return self.chance.choice(GOVERNORS[2:]), "residency.regions", regions
        if kind < 0.63:
            return self._region_value() if self.maybe(0.5) else self._provider_value()
        if kind < 0.68:
            return self.chance.choice(GOVERNORS), BETA, self.maybe(0.5)
        return self.chance.choice(GOVERNORS), self.chance.choice(SWITCHES), self.maybe(0.5)

    def _model_value(self) -> tuple[str, str, Any]:
        setting, value = self.chance.choice(
            (
                ("model.hosting", "hosted"),
                ("model.hosting", "passthrough"),
                ("model.hosting", "passthrough"),
                ("model.provider", "Upstream"),
                ("model.provider", "straße ag"),
                ("model.policy_url", "https://upstream.example/policy"),
                ("model.regions", ["eu"]),
                ("model.regions", ["eu-west", "us"]),
                ("model.precision", "bf16"),
                ("model.distilled", False),
            )
        )
        return self.chance.choice((MODELS[0], *MODELS)), setting, value

    def _region_value(self) -> tuple[str, str, Any]:
        """Regions that contain each other, also in a circle, and names that one or several of them claim."""
        if self.maybe(0.5):
            return self.chance.choice(REGIONS), "region.within", self.chance.choice((*REGIONS, "region:unheard-of"))
        names = self.chance.choice((["us"], ["Z\u00fcrich"], [" us ", "Z\u00fcrich"], ["eu"]))
        return self.chance.choice(REGIONS), "region.names", names

    def _provider_value(self) -> tuple[str, str, Any]:
        setting, value = self.chance.choice(
            (
                ("provider.names", ["UPSTREAM Inc.", "Straße AG"]),
                ("provider.names", ["upstream"]),
                ("provider.policy_url", "https://upstream.example/terms"),
                ("provider.trains", self.maybe(0.5)),
                ("provider.stores", self.maybe(0.5)),
                ("provider.retention_days", self.chance.choice((0, 30))),
                ("provider.regions", ["us"]),
            )
        )
        return self.chance.choice(PROVIDERS), setting, value

    def _retraction(self, oracle: Oracle) -> Json:
        """Retracts any change, perhaps an already retracted one; rarely an event that is no change."""
        event_id = "00000000-0fff-8000-8000-000000000000"
        if not self.maybe(0.05):
            behind = self.chance.randrange(len(oracle.events))
            event_id = oracle.events[behind if self.maybe(0.3) else max(behind, len(oracle.events) - 12)]["id"]
        return {"type": "change.retracted", "event_id": event_id}

    def _definition(self, now: int) -> Json:
        if self.maybe(0.4):
            return self._demand(now)
        setting = self.chance.choice((BETA, BETA, "caching.temporary"))
        kinds = self.chance.choice((["account", "org"], ["org"]))
        event: Json = {
            "type": "setting.defined",
            "setting": setting,
            "definition": definition(kinds=kinds, default=self.maybe(0.5)),
        }
        if setting != BETA and self.maybe(0.5):
            event["definition"]["kinds"] = ["org", "account"]
        if self.maybe(0.05):
            event["definition"] |= {"default": None}
        if self.maybe(0.05):
            event["definition"] |= {"value_type": "text", "default": "on", "protective": None}
        if self.maybe(0.5):
            event["effective_from"] = format_time(self._near(now))
        return event

    def _demand(self, now: int) -> Json:
        """That some kinds of subject are known, or none; sometimes of a kind that cannot be demanded."""
        kinds = ["account", "org", "project", "key"]
        demanded = self.chance.sample(kinds, self.chance.choice((0, 0, 1, 2)))
        event: Json = {
            "type": "setting.defined",
            "setting": MUST_BE_KNOWN,
            "definition": definition(kinds=kinds, value_type="set_of", members=kinds, protective=None)
            | {"default": sorted(demanded)},
        }
        if self.maybe(0.1):
            event["definition"]["members"] = [*kinds, "model"]
        if self.maybe(0.5):
            event["effective_from"] = format_time(self._near(now))
        return event

    def _near(self, now: int) -> int:
        return now + self.chance.randint(-20, 20) * self.chance.choice((1, 1, 500, 1_000_000))

    def _period(self, now: int) -> Json:
        period: Json = {}
        start = now
        if self.maybe(0.55):
            start = self._near(now)
            period["effective_from"] = format_time(start)
        if self.maybe(0.4):
            length = -1 if self.maybe(0.02) else self.chance.choice((1, 2, 5, 30, 2_000_000))
            period["effective_until"] = format_time(start + length)
        return period

    # Queries.

    def question(self, oracle: Oracle, now: int) -> Json:
        ask = self.chance.choice(QUESTIONS)
        at = self._instant(oracle, now)
        known_at = self._known_at(oracle, now, at)
        subject = self.chance.choice((*GOVERNORS, *OWNED, *MODELS, *REGIONS, *PROVIDERS, CATALOG, NOBODY))
        match ask:
            case "state":
                question: Json = {"subject": subject, "at": at, "known_at": known_at}
                if self.maybe(0.3) and not isinstance(known_at, int):
                    keys = self.chance.sample(KNOWN_SETTINGS, 2)
                    question["settings"] = [*keys, "no.such.setting"] if self.maybe(0.1) else keys
            case "timeline":
                question = {"subject": subject, "known_at": known_at}
                if self.maybe(0.5):
                    question["setting"] = self.chance.choice((*KNOWN_SETTINGS, BETA, "owner", "no.such.setting"))
            case "history":
                question = self._history_question(oracle, subject)
            case "diff":
                end = self._instant(oracle, now)
                question = {"subject": subject, "start": at, "end": end, "known_at": known_at}
            case "catalog":
                question = {"at": at, "known_at": known_at}
            case "subjects":
                question = {"kind": self.chance.choice((None, None, "org", "account", "catalog", "region", "provider"))}
            case "check":
                question = {"record": self.record(oracle), "at": at, "known_at": known_at}
            case _:
                question = {"records": self._records(oracle, now), "known_at": known_at}
        return {"ask": ask, **question}

    def _history_question(self, oracle: Oracle, subject: str) -> Json:
        question: Json = {"subject": subject, "limit": self.chance.choice((1, 3, 100))}
        if self.maybe(0.4):
            question["setting"] = self.chance.choice((*SWITCHES, "owner"))
        if self.maybe(0.4):
            question["after"] = self.chance.randint(1, oracle.version(subject) + 2)
        return question

    def _records(self, oracle: Oracle, now: int) -> list[Json]:
        instants = [self._instant(oracle, now) for _ in range(self.chance.randint(1, 4))]
        return [self.record(oracle) | {"at": format_time(instant)} for instant in instants]

    def record(self, oracle: Oracle) -> Json:
        if self.maybe(0.3):
            return self._placed_record()
        record: Json = {}
        for name, ids in (
            ("key_id", ("k1", "k2")),
            ("project_id", ("p1",)),
            ("org_id", ("acme", "beta", "nobody")),
            ("account_id", ("u1", "u2", "u3")),
            ("model_id", ("maker/m1", "m2", "unheard-of")),
        ):
            if self.maybe(0.4):
                record[name] = self.chance.choice(ids)
        if not record.keys() & {"key_id", "project_id", "org_id", "account_id"}:
            record["org_id"] = "acme"
        if self.maybe(0.6):
            handling: Json = {name: self.maybe(0.5) for name in ("stored", "cached", "trained") if self.maybe(0.5)}
            if self.maybe(0.3):
                handling["forwarded_to"] = self.chance.choice(RECEIVERS)
            if self.maybe(0.3):
                handling |= {"region": self.chance.choice(OBSERVED_REGIONS), "network": "public"}
            if self.maybe(0.3):
                handling |= {"precision": self.chance.choice(("bf16", " bf16", "fp8")), "distilled": self.maybe(0.5)}
            record["handling"] = handling
        if self.maybe(0.3):
            record["enforced_position"] = self.chance.randint(0, oracle.head)
        return record

    def _placed_record(self) -> Json:
        """A request that rests on regions and providers as far as it can."""
        handling = {"region": self.chance.choice(OBSERVED_REGIONS), "forwarded_to": self.chance.choice(RECEIVERS)}
        if self.maybe(0.5):
            del handling[self.chance.choice(("region", "forwarded_to"))]
        return {"org_id": self.chance.choice(("acme", "beta")), "model_id": "maker/m1", "handling": handling}

    def _instant(self, oracle: Oracle, now: int) -> int:
        """One microsecond before, at or after an instant of one of the last events; or now."""
        if self.maybe(0.15):
            return now
        event = self.chance.choice(oracle.events[-40:])
        times = [event["time"]]
        times += [event["data"][m] for m in ("effective_from", "effective_until") if event["data"].get(m)]
        return max(0, parse_time(self.chance.choice(times)) + self.chance.choice((-1, 0, 1)))

    def _known_at(self, oracle: Oracle, now: int, at: int) -> int | str | None:
        return self.chance.choice((None, "at", "at", at, self._instant(oracle, now), oracle.head_recorded_at - 1))
