"""An audit over HTTP of the two real logs agrees with `inforce audit`, row by row."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger.times import parse_time
from projections.audit.summary import AGAINST
from tests.api.audits.logs import ended, read_pages
from tests.api.client import changed
from tests.support.command import Inforce, folder, inforce_on_both
from tests.support.ledgers import open_with_clock, submit

__all__ = ["folder", "inforce_on_both"]


class RealLog(NamedTuple):
    """`parameters`: how the log is read; `settings`: (subject, setting, value), each set at the time of a request."""

    parameters: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str, Any], ...]


def aider(lines: list[bytes]) -> RealLog:
    users = sorted({json.loads(line)["user"] for line in lines})
    parameters = (("map", "request_id=id"), ("map", "account_id=user"), ("map", "model_id=model"))
    turns = [(f"account:{user}", "training.opt_in", on) for on in (True, False) for user in users]
    return RealLog((*parameters, ("set", "handling.trained=true")), tuple(turns))


def azure(_lines: list[bytes]) -> RealLog:
    parameters = (("map", "at=TIMESTAMP"), ("set", "org_id=acme"), ("set", "handling.cached=1"), ("timezone", "UTC"))
    turns = [("org:acme", "caching.temporary", number % 2 == 1) for number in range(12)]
    return RealLog(parameters, tuple(turns))


def instants(lines: list[bytes]) -> Iterator[int]:
    for line in lines:
        if line.startswith(b"{"):
            yield parse_time(json.loads(line)["at"])
        elif line[:2] == b"20":
            yield parse_time(line[:26].decode().replace(" ", "T") + "Z")


@pytest.mark.parametrize(
    ("file", "log"), [("aider-requests.jsonl.gz", aider), ("azure-llm-conv-2023.csv.gz", azure)], ids=["aider", "azure"]
)
def test_an_audit_of_a_real_log_agrees_with_the_command(
    file: str,
    log: Callable[[list[bytes]], RealLog],
    inforce_on_both: Inforce,
    database_url: str,
    real_data: Callable[[str], Path],
) -> None:
    path = real_data(f"requests/{file}")
    lines = gzip.decompress(path.read_bytes()).splitlines()
    real = log(lines)
    times = sorted(set(instants(lines)))
    ledger, clock = open_with_clock(database_url, times[0] - 1)
    with ledger:
        for number, (subject, setting, value) in enumerate(real.settings, 1):
            clock.now_us = times[number * len(times) // (len(real.settings) + 1)]
            submit(ledger, changed(subject, setting, value))
    with TestClient(create_app(database_url, sign_in=False)) as client:
        answer = client.post(
            f"/v1/audits?{urlencode(real.parameters)}",
            content=path.read_bytes(),
            headers={"Content-Type": "application/gzip"},
        )
        audit = ended(client, answer.json()["id"])
        findings = read_pages(client, audit["id"], "findings", 1000)
    options = [word for name, value in real.parameters for word in (f"--{name}", value)]
    ran = inforce_on_both("audit", str(path), *options, "--out", "verdicts.ndjson", "--format", "json")
    assert ran.code == 1
    summary = ran.json()
    assert audit["summary"] == {name: summary[name] for name in audit["summary"]}
    assert (audit["pin"], audit["log"]["sha256"]) == (summary["pin"], summary["log"]["sha256"])
    rows = [json.loads(row) for row in Path("verdicts.ndjson").read_bytes().splitlines()]
    against = [row | {"source": "log"} for row in rows if row["verdict"] in AGAINST]
    assert findings == against
    assert 0 < len(against) < len(rows)
