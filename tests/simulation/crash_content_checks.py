"""Checks the content of a database after a crash against the submissions and receipts of its clients.

Pure, and written from api/README.md: it shares no code with the recorder, so that it cannot repeat a mistake of it.
Every function returns its findings as sentences; an empty list means that everything is right.
Proved by tests/simulation/test_crash_checks.py, which damages good histories in many ways.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from ledger.times import format_time
from tests.simulation.crash_client_log import ACTOR, SentSubmission
from tests.simulation.oracle import receipt_of
from tests.support.reference import Json

GENESIS_ACTOR: Final = "inforce"
_REASON: Final = re.compile(r"(.+)#(\d+)")


class StoredEvent(NamedTuple):
    """An event as stored in the database."""

    position: int
    subject: str
    version: int
    topic: str
    leaf: bytes
    recorded_at: int
    leaf_hash: bytes


class StoredKey(NamedTuple):
    """An idempotency key as stored in the database."""

    caller: str
    key: str
    body_sha256: bytes
    first_position: int
    event_count: int
    recorded_at: int


class DatabaseContent(NamedTuple):
    """Everything in a database, read in one transaction: rows in position order, `personal` by position."""

    rows: list[StoredEvent]
    keys: list[StoredKey]
    personal: dict[int, tuple[bytes, str]]


def check_all(content: DatabaseContent, sent: Iterable[SentSubmission]) -> list[str]:
    return [*check_rows(content.rows), *SubmissionChecks(content).check(list(sent))]


def check_preserved(before: DatabaseContent, after: DatabaseContent) -> list[str]:
    """Everything before the crash must still be there, byte for byte."""
    findings = [
        f"position {was.position} was {was} and is {now}"
        for was, now in zip(before.rows, after.rows, strict=False)
        if was != now
    ]
    if len(after.rows) < len(before.rows):
        findings.append(f"the ledger ended at {len(before.rows)} and ends at {len(after.rows)} now")
    lost = set(before.keys) - set(after.keys)
    findings += [f"the idempotency key {key} is gone or altered" for key in sorted(lost)]
    altered = [position for position, data in before.personal.items() if after.personal.get(position) != data]
    return findings + [f"the reason of the event at position {position} is gone or altered" for position in altered]


def check_rows(rows: list[StoredEvent]) -> list[str]:
    """Checks each event by itself, and the order of the events."""
    findings: list[str] = []
    positions = [row.position for row in rows]
    if positions != list(range(1, len(rows) + 1)):
        gap = next(place for place, position in enumerate(positions, 1) if place != position)
        findings.append(f"positions are not dense: {positions[gap - 1]} stands where {gap} belongs")
    versions: dict[str, int] = {}
    for row in rows:
        versions[row.subject] = versions.get(row.subject, 0) + 1
        if row.version != versions[row.subject]:
            findings.append(
                f"versions are not dense: position {row.position} is version {row.version} of {row.subject}, "
                f"not {versions[row.subject]}"
            )
        findings += _check_leaf(row)
    for one, next_ in pairwise(rows):
        if next_.recorded_at < one.recorded_at:
            findings.append(f"recorded_at steps back from position {one.position} to {next_.position}")
    return findings


def _check_leaf(row: StoredEvent) -> Iterable[str]:
    if hashlib.sha256(b"\x00" + row.leaf).digest() != row.leaf_hash:
        yield f"the leaf hash of position {row.position} is not that of its bytes"
    event = json.loads(row.leaf)
    members = {
        "position": event["data"]["position"],
        "sequence": event["sequence"],
        "id": event["id"][:13].replace("-", ""),
        "subject": event["subject"],
        "version": event["data"]["version"],
        "type": event["type"],
        "time": event["time"],
    }
    columns = {
        "position": row.position,
        "sequence": f"{row.position:020}",
        "id": f"{row.position:012x}",
        "subject": row.subject,
        "version": row.version,
        "type": f"inforce.{row.topic}.v1",
        "time": format_time(row.recorded_at),
    }
    if members != columns:
        yield f"the event at position {row.position} has the members {members} and the columns {columns}"


class SubmissionChecks:
    """Assigns each event to its submission, and checks both."""

    def __init__(self, content: DatabaseContent) -> None:
        self.rows = {row.position: row for row in content.rows}
        self.keys = {key.key: key for key in content.keys}
        self.content = content
        self.events: dict[int, Json] = {row.position: json.loads(row.leaf) for row in content.rows}
        self.owner: dict[int, str] = {}
        self.first_positions = self._first_positions()

    def _first_positions(self) -> dict[str, set[int]]:
        """Name of a submission → its first position, computed from the reason of each of its events."""
        first: dict[str, set[int]] = {}
        for position, (_, content) in self.content.personal.items():
            match = _REASON.fullmatch(json.loads(content)["reason"])
            if match is not None:
                first.setdefault(match[1], set()).add(position - int(match[2]))
        return first

    def check(self, sent: list[SentSubmission]) -> list[str]:
        findings = self._check_genesis()
        for one in sent:
            findings += self._check_sent(one)
        names = {one.name for one in sent}
        findings += [f"the idempotency key {key} was never sent" for key in self.keys.keys() - names]
        findings += [f"the idempotency key {key.key} is {key.caller}'s" for key in self.content.keys if key[0] != ACTOR]
        strays = sorted(self.rows.keys() - self.owner.keys())
        findings += [f"nobody sent the event at position {position}: {self.rows[position]}" for position in strays]
        strays = sorted(self.content.personal.keys() - self.rows.keys())
        return findings + [f"there is a reason for position {position}, which has no event" for position in strays]

    def _check_genesis(self) -> list[str]:
        genesis = [position for position, event in self.events.items() if event["data"]["actor"] == GENESIS_ACTOR]
        self.owner |= dict.fromkeys(genesis, GENESIS_ACTOR)
        if genesis != list(range(1, len(genesis) + 1)):
            return [f"the ledger begins with the built-in catalog, and it is at {genesis}"]
        return self._check_together(GENESIS_ACTOR, 1, len(genesis)) if genesis else ["there is no built-in catalog"]

    def _check_sent(self, sent: SentSubmission) -> list[str]:
        key = self.keys.get(sent.name)
        begins = self.first_positions.get(sent.name, set())
        begins |= {receipt["position"] - index for index, receipt in enumerate(sent.receipts)}
        begins |= {key.first_position} if key is not None else set()
        if not begins:
            return []
        if sent.outcome == "refused":
            return [f"{sent.name} was refused and yet is recorded, from {sorted(begins)}"]
        if len(begins) > 1:
            return [f"{sent.name} is recorded more than once or in pieces: it begins at {sorted(begins)}"]
        (first,) = begins
        findings = self._check_key(sent, first)
        for index, event in enumerate(sent.events):
            findings += self._check_event(sent, event, index, first + index)
        if sent.outcome == "acknowledged" and len(sent.receipts) != len(sent.events):
            findings.append(f"{sent.name} has {len(sent.events)} events and {len(sent.receipts)} receipts")
        return findings or self._check_together(sent.name, first, len(sent.events))

    def _check_key(self, sent: SentSubmission, first: int) -> list[str]:
        key = self.keys.get(sent.name)
        if not sent.has_key:
            return []
        if key is None:
            return [f"{sent.name} is recorded from {first} and its idempotency key is not"]
        row = self.rows.get(first)
        expected = (first, len(sent.events), row.recorded_at if row else None)
        if (key.first_position, key.event_count, key.recorded_at) == expected:
            return []
        return [f"the idempotency key of {sent.name} says {key[3:]} and its events say {expected}"]

    def _check_event(self, sent: SentSubmission, submitted: Json, index: int, position: int) -> Iterable[str]:
        where = f"event {index} of {sent.name} ({sent.outcome}) at position {position}"
        event = self.events.get(position)
        if event is None:
            yield f"{where} is lost"
            return
        if position in self.owner:
            yield f"{where} is an event of {self.owner[position]} as well"
        self.owner[position] = sent.name
        expected = self._expected(submitted, event)
        actual = {name: event["data"].get(name) for name in expected} | {"subject": event["subject"]}
        expected["subject"] = self._subject(submitted)
        if actual != expected:
            yield f"{where} is {actual} and was submitted as {expected}"
        yield from self._check_reason(where, submitted, event, position)
        if index < len(sent.receipts):
            receipt = receipt_of(event)
            if receipt != {name: sent.receipts[index].get(name) for name in receipt}:
                yield f"{where} was acknowledged as {sent.receipts[index]} and is {receipt}"

    def _expected(self, submitted: Json, event: Json) -> Json:
        """The members of the event's data, as submitted."""
        expected: Json = {"actor": ACTOR}
        if submitted["type"] == "change.retracted":
            target = self._target(submitted)
            return expected | {"retracts": submitted["event_id"], "setting": target["data"]["setting"]}
        start = submitted.get("effective_from")
        expected |= {"setting": submitted["setting"], "effective_from": event["time"] if start is None else start}
        if submitted["type"] == "setting.defined":
            return expected | {"definition": submitted["definition"]}
        return expected | {"value": submitted.get("value"), "effective_until": submitted.get("effective_until")}

    def _subject(self, submitted: Json) -> str:
        match submitted["type"]:
            case "change.retracted":
                return str(self._target(submitted)["subject"])
            case "setting.defined":
                return "catalog:settings"
        return str(submitted["subject"])

    def _target(self, submitted: Json) -> Json:
        position = int(submitted["event_id"][:13].replace("-", ""), 16)
        return self.events.get(position, {"subject": None, "data": {"setting": None}})

    def _check_reason(self, where: str, submitted: Json, event: Json, position: int) -> Iterable[str]:
        commitment = (event["data"].get("personal") or {}).get("commitment")
        reason = submitted.get("reason")
        salt, content = self.content.personal.get(position, (b"", "{}"))
        if json.loads(content).get("reason") != reason:
            yield f"{where} has the reason {content} and was submitted with {reason!r}"
        bound = hashlib.sha256(salt + content.encode()).hexdigest() if reason is not None else None
        if commitment != bound:
            yield f"{where} is bound to {commitment} and its reason has the commitment {bound}"

    def _check_together(self, name: str, first: int, count: int) -> list[str]:
        """All events of a submission share a recorded_at, and no other submission has it."""
        instants = {self.rows[position].recorded_at for position in range(first, first + count)}
        around = {self.rows[p].recorded_at for p in (first - 1, first + count) if p in self.rows}
        if len(instants) > 1:
            return [f"{name} has several recorded_at: {sorted(instants)}"]
        return [f"{name} shares its recorded_at {instant} with another" for instant in instants & around]
