"""Real request logs against a policy history of the test's own; every verdict is computed again here, in plain Python.

The clock of the ledger goes through the log's own time, so each change is known from the moment that it is made on.
"""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.store import Ledger
from tests.support.command import Inforce, folder, inforce_on_both
from tests.support.ledgers import submit

__all__ = ["folder", "inforce_on_both"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Verdict(NamedTuple):
    verdict: str
    reasons: tuple[str, ...]


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


class Past:
    """A ledger whose clock is turned to the moment of each change."""

    def __init__(self, url: str, begun: datetime) -> None:
        self.clock = ManualClock(micros(begun))
        self.ledger: Ledger = open_ledger(url, create=True, clock=self.clock, origin="test.example")

    def change(self, at: datetime, subject: str, setting: str, value: Any) -> None:
        self.clock.now_us = micros(at)
        body = {"type": "setting.changed", "subject": subject, "setting": setting, "value": value}
        (receipt,) = submit(self.ledger, body)
        assert receipt.recorded_at == receipt.effective_from == micros(at)


def verdicts_of(
    inforce: Inforce, log: Path, *options: str, early: str | None = None
) -> tuple[dict[str, Any], dict[int, Verdict]]:
    """The summary, and the verdict of each line. `early`: requests of all that are older than the ledger."""
    ran = inforce("audit", str(log), *options, "--out", "verdicts.ndjson", "--format", "json")
    assert ran.code == 1
    if early is None:
        assert ran.err == ""
    else:
        assert ran.err.startswith(f"inforce: {early} requests were made before the ledger's first event")
        assert ran.err.count("\n") == 1
    verdicts: dict[int, Verdict] = {}
    for line in Path("verdicts.ndjson").read_bytes().splitlines():
        decision = json.loads(line)
        assert decision["line"] not in verdicts
        verdicts[decision["line"]] = Verdict(decision["verdict"], tuple(decision["reasons"]))
    return ran.json(), verdicts


def agree(summary: dict[str, Any], verdicts: dict[int, Verdict], expected: dict[int, Verdict]) -> None:
    wrong = {line: (verdicts.get(line), verdict) for line, verdict in expected.items() if verdicts.get(line) != verdict}
    assert not wrong, dict(list(wrong.items())[:5])
    assert verdicts.keys() == expected.keys()
    assert summary["rows"] == len(expected) + summary["rejects"]
    assert summary["verdicts"] == Counter(verdict.verdict for verdict in expected.values())
    assert summary["reasons"] == Counter(reason for verdict in expected.values() for reason in verdict.reasons)
    assert sum(sum(by["verdicts"].values()) for by in summary["subjects"]) == len(expected)


# Aider: accounts that opt in and out of training, models that become known as hosted or passthrough.

BEGUN = datetime(2024, 9, 1, tzinfo=UTC)
LATER = timedelta(days=90)


def hosting_of(model: str, at: datetime) -> str | None:
    """Models with a path in their name are passthrough; every third name becomes known in 2025 only."""
    known_from = datetime(2025, 1, 1, tzinfo=UTC) if len(model) % 3 == 0 else BEGUN + timedelta(hours=1)
    if at < known_from:
        return None
    return "passthrough" if "/" in model else "hosted"


def trains(begin: datetime, at: datetime) -> bool:
    """Opted in at `begin`, out 90 days later, for good again a year later."""
    return begin <= at < begin + LATER or at >= begin + timedelta(days=365)


def aider_verdict(request: dict[str, Any], begin: datetime) -> Verdict:
    at = datetime.fromisoformat(request["at"])
    if at < BEGUN:
        return Verdict("indeterminate", ("before_first_record",))
    hosting = hosting_of(request["model"], at)
    reasons = []
    if hosting is None:
        reasons.append("unknown_model")
    if hosting == "passthrough":
        reasons.append("passthrough_not_allowed")
    if not trains(begin, at):
        reasons.append("trained_without_opt_in")
    if reasons == ["unknown_model"]:
        return Verdict("indeterminate", tuple(reasons))
    return Verdict("violation" if reasons else "compliant", tuple(reasons))


def test_every_aider_request_gets_the_verdict_that_plain_python_gives_it(
    inforce_on_both: Inforce, database_url: str, real_data: Callable[[str], Path]
) -> None:
    log = real_data("requests/aider-requests.jsonl.gz")
    with gzip.open(log, "rt", encoding="utf-8") as file:
        requests = [json.loads(line) for line in file]
    assert len(requests) == 5563
    users = sorted({request["user"] for request in requests})
    # To the second of a real request each, so that many requests meet a change exactly.
    starts = [datetime.fromisoformat(request["at"]) for request in requests if request["at"] >= "2024-10"]
    begins = {user: starts[(index * 37) % len(starts)] for index, user in enumerate(users)}
    busiest = Counter(request["user"] for request in requests).most_common(1)[0][0]
    begins[busiest] = starts[100]
    past = Past(database_url, BEGUN)
    with past.ledger:
        changes = sorted(_aider_changes(requests, begins))
        for number, (at, subject, setting, value) in enumerate(changes):
            # Two changes of one moment are a microsecond apart; no request lies between.
            shift = sum(1 for other in changes[:number] if other[0] == at)
            assert shift == 0 or setting == "model.hosting"
            past.change(at + timedelta(microseconds=shift), subject, setting, value)
        assert any(datetime.fromisoformat(r["at"]) == begins[r["user"]] for r in requests)
    summary, verdicts = verdicts_of(
        inforce_on_both,
        log,
        *("--map", "request_id=id", "--map", "account_id=user", "--map", "model_id=model"),
        *("--set", "handling.trained=true"),
        early="14 of 5,563",
    )
    expected = {line: aider_verdict(r, begins[r["user"]]) for line, r in enumerate(requests, 1)}
    assert len({verdict.reasons for verdict in expected.values()}) >= 6
    agree(summary, verdicts, expected)


def _aider_changes(
    requests: list[dict[str, Any]], begins: dict[str, datetime]
) -> Iterator[tuple[datetime, str, str, Any]]:
    for model in sorted({request["model"] for request in requests}):
        for at in (BEGUN + timedelta(hours=1), datetime(2025, 1, 1, tzinfo=UTC)):
            hosting = hosting_of(model, at)
            if hosting is not None:
                yield at, f"model:{model}", "model.hosting", hosting
                break
    for user, begin in begins.items():
        for at, value in ((begin, True), (begin + LATER, False), (begin + timedelta(days=365), True)):
            yield at, f"account:{user}", "training.opt_in", value


# Azure: one organization, whose caching is switched off and on, at the very moment of a request each.


def azure_time(text: str) -> datetime:
    """Seven digits, cut to six, UTC."""
    return datetime.strptime(text[:26], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(microseconds=1)], ids=["at_a_request", "just_after_one"])
def test_every_azure_request_gets_the_verdict_that_plain_python_gives_it(
    late: timedelta, inforce_on_both: Inforce, database_url: str, real_data: Callable[[str], Path]
) -> None:
    log = real_data("requests/azure-llm-conv-2023.csv.gz")
    with gzip.open(log, "rb") as file:
        lines = file.read().split(b"\r\n")
    assert lines[0] == b"TIMESTAMP,ContextTokens,GeneratedTokens"
    times = [azure_time(line.partition(b",")[0].decode()) for line in lines[1:] if line]
    assert len(times) == 19366
    flips = [times[index] + late for index in range(200, len(times), 1600)]
    assert flips == sorted(set(flips))
    past = Past(database_url, times[0] - timedelta(days=1))
    with past.ledger:
        for number, flip in enumerate(flips):
            past.change(flip, "org:acme", "caching.temporary", number % 2 == 1)
    summary, verdicts = verdicts_of(
        inforce_on_both,
        log,
        *("--map", "at=TIMESTAMP", "--set", "org_id=acme", "--set", "handling.cached=1", "--timezone", "UTC"),
    )
    expected: dict[int, Verdict] = {}
    for line, at in enumerate(times, 2):
        allowed = sum(flip <= at for flip in flips) % 2 == 0
        expected[line] = Verdict("compliant", ()) if allowed else Verdict("violation", ("cached_against_setting",))
    agree(summary, verdicts, expected)
    assert summary["first_at"] == min(times).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
