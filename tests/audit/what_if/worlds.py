"""Small ledgers with events of every kind, logs around their instants, and proposals of every kind, all random."""

import json
from random import Random
from typing import Any

import pyarrow as pa

from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.errors import BadSubmission
from ledger.store import Ledger
from ledger.times import format_time, parse_time
from projections.audit.schemas import REQUESTS
from projections.decisions.published import PUBLISHED
from tests.audit.what_if.copying import Change
from tests.support.ledgers import NOW, submit

ACCOUNTS, ORGS = ("account:u1", "account:u2"), ("org:acme", "org:beta")
PROJECTS, KEYS, MODELS = ("project:p1",), ("key:k1", "key:k2"), ("model:a/b", "model:c")
SWITCHES = ("training.opt_in", "storage.inputs_outputs", "caching.temporary")
OF_ORGS = ("passthrough.allowed", "network.private_only")
REASON = {"reason": "the form was filed late"}


PRECISIONS = ("bf16", " bf16", "maker", "fp8")


class World:
    """A ledger with `submissions` of all kinds, and the instants and changes in it."""

    def __init__(self, random: Random, ledger: Ledger, clock: ManualClock, submissions: int) -> None:
        self.random = random
        self.random_served = Random(20)
        """For how models are served, so that all else stays as it is drawn."""
        self.ledger = ledger
        self.clock = clock
        self.instants = [NOW]
        self.changes: list[tuple[str, int]] = []
        """(event id, recorded_at) of changes that can be retracted."""
        for _ in range(submissions):
            clock.now_us += random.choice((1, 2, 3, 1000))
            self._submit()

    def _submit(self) -> None:
        bodies = [self.body() for _ in range(self.random.choice((1, 1, 1, 3)))]
        if self.changes and self.random.random() < 0.15:
            event_id, _ = self.changes.pop(self.random.randrange(len(self.changes)))
            bodies = [{"type": "change.retracted", "event_id": event_id, **REASON}]
        try:
            receipts = submit(self.ledger, *bodies)
        except BadSubmission:
            # A definition has removed the setting from this kind of subject.
            return
        for body, receipt in zip(bodies, receipts, strict=True):
            self.instants.append(receipt.recorded_at)
            self._add_instants(body)
            if body["type"] in ("setting.changed", "setting.cleared"):
                self.changes.append((receipt.event_id, receipt.recorded_at))

    def body(self) -> dict[str, Any]:
        if self.random.random() < 0.12:
            return self._definition()
        subject, setting, value = self._draw_change()
        body = {"subject": subject, "setting": setting, **self.period()}
        if self.random.random() < 0.15:
            return {"type": "setting.cleared", **body}
        return {"type": "setting.changed", "value": value, **body}

    def _draw_change(self) -> tuple[str, str, Any]:
        choice = self.random.choice
        kind = self.random.randrange(10)
        if kind < 4:
            return choice(ACCOUNTS + ORGS), choice(SWITCHES), choice((True, False))
        if kind == 4:
            return choice(ORGS), choice(OF_ORGS), choice((True, False))
        if kind == 5:
            return choice(ORGS), "residency.regions", choice(([], ["eu"], ["us", "eu"]))
        if kind == 6:
            return choice(ACCOUNTS), "attached_to", choice((*ORGS, "org:new"))
        if kind == 7:
            return choice(KEYS + PROJECTS), "owner", choice((*ORGS, *ACCOUNTS, "account:new"))
        if kind == 8:
            return choice(KEYS), "owner", choice((*PROJECTS, "project:new"))
        setting = choice(("model.hosting", "model.provider", "model.policy_url", "model.regions"))
        values: dict[str, tuple[Any, ...]] = {
            "model.hosting": ("hosted", "passthrough", "passthrough"),
            "model.provider": ("maker", "ändrer"),
            "model.policy_url": ("https://maker.example/p", "https://other.example/p"),
            "model.regions": (["eu"], ["us"], ["eu", "us"]),
        }
        drawn = choice(MODELS), setting, choice(values[setting])
        if self.random_served.random() < 0.5:
            setting = self.random_served.choice(PUBLISHED)
            texts = setting in ("model.precision", "model.revision")
            return drawn[0], setting, self.random_served.choice(PRECISIONS if texts else (True, False))
        return drawn

    def _definition(self) -> dict[str, Any]:
        setting = self.random.choice((*SWITCHES, *OF_ORGS, "residency.regions", "model.hosting", "owner"))
        members = BUILT_IN[setting].as_json()
        defaults: tuple[Any, ...] = (True, False)
        if setting == "residency.regions":
            defaults = ([], ["eu"], ["mars"])
        elif setting == "model.hosting":
            defaults = (None, "hosted", "passthrough")
        elif setting == "owner":
            defaults = (None, "org:acme", "org:fallback")
        members["default"] = self.random.choice(defaults)
        members["protective"] = self.random.choice(defaults)
        if setting in SWITCHES and self.random.random() < 0.2:
            members["kinds"] = ["account"]
        period = {"effective_from": self.near(), **REASON} if self.random.random() < 0.4 else {}
        return {"type": "setting.defined", "setting": setting, "definition": members, **period}

    def near(self) -> str:
        return format_time(self.random.choice(self.instants) + self.random.randrange(-5, 30))

    def period(self) -> dict[str, Any]:
        period: dict[str, Any] = {}
        if self.random.random() < 0.5:
            start = self.clock.now_us + self.random.randrange(-20, 20)
            period |= {"effective_from": format_time(start), **REASON}
            if self.random.random() < 0.5:
                period["effective_until"] = format_time(start + 1 + self.random.randrange(20))
        return period

    def _add_instants(self, body: dict[str, Any]) -> None:
        self.instants += [parse_time(body[name]) for name in ("effective_from", "effective_until") if body.get(name)]

    def proposals(self, count: int, first_request: int) -> tuple[bytes, list[Change]]:
        """(lines for what-if, the changes that they stand for, by line)"""
        lines, changes = [], []
        for line in range(1, count + 1):
            body, recorded = self.body(), 0
            if self.changes and self.random.random() < 0.3:
                event_id, recorded = self.changes.pop(self.random.randrange(len(self.changes)))
                body = {"type": "change.retracted", "event_id": event_id}
            body.pop("reason", None)
            if self.random.random() < 0.5:
                moment = max(self.random.choice(self.instants) + self.random.randrange(-3, 4), recorded, NOW)
                lines.append(body | {"recorded_at": format_time(moment)})
            elif "effective_from" in body:
                moment = max(parse_time(body["effective_from"]), NOW)
                lines.append(body)
            else:
                moment = max(first_request, recorded, NOW)
                lines.append(body)
            changes.append(Change(moment, body, line))
            self.instants.append(moment)
            self._add_instants(body)
        return "\n".join(map(json.dumps, lines)).encode(), changes

    def requests(self, rows: int) -> pa.RecordBatch:
        choice, random = self.random.choice, self.random.random

        def bare(*subjects: str) -> str:
            return choice(subjects).partition(":")[2]

        records: list[dict[str, Any]] = []
        for row in range(rows):
            record: dict[str, Any] = {"request_id": choice((f"r{row}", None))}
            record["at"] = choice(self.instants) + choice((-1, 0, 0, 1, 7))
            who = self.random.randrange(6)
            if who in (0, 1, 5):
                record["key_id"] = bare(*KEYS, "key:unknown")
            if who in (2, 5):
                record["project_id"] = bare(*PROJECTS, "project:unknown")
            if who == 3 or random() < 0.1:
                record["org_id"] = bare(*ORGS, "org:new", "org:unknown")
            if who == 4 or len(record) == 2:
                record["account_id"] = bare(*ACCOUNTS, "account:unknown")
            if random() < 0.8:
                record["model_id"] = bare(*MODELS, "model:unknown")
            if random() < 0.4:
                record["enforced_position"] = self.random.randrange(self.ledger.head().position + 4)
            for name in ("stored", "cached", "trained"):
                record[name] = choice((None, None, True, False))
            record["forwarded_to"] = choice((None, None, "maker", "ändrer"))
            record["region"] = choice((None, None, "eu", "us"))
            record["network"] = choice((None, None, "public", "private"))
            if self.random_served.random() < 0.15:
                served = self.random_served.choice
                record["precision"], record["revision"] = (served((None, "int4", *PRECISIONS)) for _ in range(2))
                record["distilled"], record["censored"] = (served((None, True, False)) for _ in range(2))
            records.append(record)
        columns = {name: [record.get(name) for record in records] for name in REQUESTS.names}
        arrays = [
            pa.array(columns[field.name], pa.int64()).cast(field.type)
            if field.name == "at"
            else pa.array(columns[field.name], field.type)
            for field in REQUESTS
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=REQUESTS)
