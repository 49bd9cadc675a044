"""Clients of the real ledger: through objects in this process, or through the HTTP application. JSON in, JSON out.

Every client has its own `Ledger`, as another process of the deployment has: several are open on one database.
"""

import hashlib
import json
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from starlette.testclient import TestClient

from api import responses
from api.app import create_app
from ledger.append.submissions import parse_submissions
from ledger.clock import Clock
from ledger.drafts import Idempotency
from ledger.errors import ClockBehind, InforceError, LedgerUnavailable, NotWritable
from ledger.opening import open_ledger, open_recorder
from ledger.store import Ledger
from ledger.times import format_time
from projections.decisions.model import decision_json, read_record
from projections.query.history import history
from projections.query.outlooks import OutlookReader
from projections.query.query import PinnedQuery, Query
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import RebuildResult, rebuild
from projections.timelines.store import open_timelines
from tests.simulation.oracle import Outcome
from tests.support.reference import Json


class Unavailable(Exception):
    """The ledger is unavailable now."""


class LedgerClient(Protocol):
    caller: str
    actor: str

    def submit(self, body: Json, key: str | None = None) -> Outcome:
        """Raises `Unavailable`."""

    def ask(self, question: Json) -> Json:
        """The answer, or {"problem": code}. Raises `Unavailable`."""

    def close(self) -> None: ...


class InProcessClient:
    """`Ledger` and `Query`, as a program uses them that embeds inforce."""

    caller = actor = "simulation"

    def __init__(self, url: str, clock: Clock, *, waits_for_locks: bool = True) -> None:
        self.ledger = open_ledger(url, clock=clock)
        if not waits_for_locks:
            origin = self.ledger.origin
            self.ledger.close()
            self.ledger = Ledger(open_recorder(url, lock_timeout=0), clock, origin=origin)
        self.query = Query(self.ledger)
        self._outlook_reader = OutlookReader(self.ledger)

    def submit(self, body: Json, key: str | None = None) -> Outcome:
        sent = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        idempotency = None if key is None else Idempotency(self.caller, key, sent)
        try:
            receipts = self.ledger.submit(
                parse_submissions(body), actor=self.actor, idempotency=idempotency, batch="events" in body
            )
        except NotWritable as error:
            return Outcome(error.code)
        except LedgerUnavailable as error:
            raise Unavailable(error.detail) from error
        except InforceError as error:
            return Outcome(error.code, pointers=tuple(fault.pointer for fault in getattr(error, "faults", ())))
        outlooks = self._outlook_reader.read_or_warn(parse_submissions(body), receipts)
        document: Json = json.loads(responses.encode(responses.receipts_json(receipts, outlooks)))
        return Outcome("recorded", tuple(document["receipts"]))

    def ask(self, question: Json) -> Json:
        try:
            return ask_query(self.query, question)
        except LedgerUnavailable as error:
            raise Unavailable(error.detail) from error

    def pinned(self) -> Query:
        return PinnedQuery(self.query)

    def rebuild(self, check_only: bool) -> RebuildResult:
        """Raises `Unavailable`."""
        try:
            return rebuild(Projector(self.ledger, open_timelines(self.ledger)), check_only=check_only)
        except LedgerUnavailable as error:
            raise Unavailable(error.detail) from error

    def close(self) -> None:
        self.ledger.close()


def ask_query(query: Query, question: Json) -> Json:
    """The answer as in HTTP responses, or {"problem": code}. Raises `LedgerUnavailable`."""
    try:
        answer: Json = json.loads(responses.encode(_answer(query, question)))
    except LedgerUnavailable:
        raise
    except InforceError as error:
        return {"problem": error.code}
    return answer


def _answer(query: Query, question: Json) -> Json:
    q = dict(question)
    match q.pop("ask"):
        case "state":
            return responses.state_json(query.state(**q))
        case "timeline":
            return responses.timeline_json(query.timeline(**q))
        case "history":
            return responses.history_json(history(query.ledger, **q))
        case "diff":
            return responses.diff_json(q["subject"], q["start"], q["end"], query.diff(**q))
        case "catalog":
            return responses.catalog_json(q["at"], query.catalog(**q))
        case "subjects":
            position, rows = query.subjects(**q)
            return responses.subjects_json(position, rows, len(rows) + 1)
        case "check":
            return decision_json(query.check(read_record(q["record"], q["at"]), q["known_at"]))
        case "check_all":
            records = [read_record(record, 0) for record in q["records"]]
            return responses.decisions_json(query.check_all(records, q["known_at"]))
        case other:
            raise AssertionError(other)


class HttpClient:
    """The HTTP application over its own ledger."""

    caller = actor = "anonymous"

    def __init__(self, url: str, clock: Clock) -> None:
        with ExitStack() as stack:
            ledger = stack.enter_context(open_ledger(url, clock=clock))
            self.client = stack.enter_context(TestClient(create_app(ledger, sign_in=False)))
            self._stack = stack.pop_all()

    def submit(self, body: Json, key: str | None = None) -> Outcome:
        headers = {} if key is None else {"Idempotency-Key": f'"{key}"'}
        answer = self._body(self.client.post("/v1/events", json=body, headers=headers))
        if "problem" in answer:
            return Outcome(answer["problem"], pointers=tuple(error.get("pointer", "") for error in answer["errors"]))
        return Outcome("recorded", tuple(answer.get("receipts", [answer])))

    def ask(self, question: Json) -> Json:
        q = dict(question)
        ask, subject = q.pop("ask"), quote(q.pop("subject", ""))
        path = {"catalog": "/v1/catalog", "subjects": "/v1/subjects"}.get(ask, f"/v1/subjects/{subject}/{ask}")
        if ask in ("check", "check_all"):
            body = q["record"] | {"at": format_time(q["at"])} if ask == "check" else {"requests": q["records"]}
            known_at = "9999-01-01T00:00:00Z" if q["known_at"] is None else q["known_at"]
            parameters = _parameters({"known_at": known_at, "at_least": q.get("at_least")})
            answer = self._body(self.client.post("/v1/checks", json=body, params=parameters))
        else:
            answer = self._body(self.client.get(path, params=_parameters(q)))
        return {"problem": answer["problem"]} if "problem" in answer else answer

    def _body(self, response: Any) -> Json:
        body: Json = response.json()
        if response.status_code == 503 and body["code"] != ClockBehind.code:
            raise Unavailable(body["detail"])
        if response.status_code >= 400:
            assert response.status_code <= 503, body
            return {"problem": body["code"], "errors": body.get("errors", [])}
        return body

    def close(self) -> None:
        self._stack.close()


_PARAMETER = {"start": "from", "end": "to", "settings": "setting"}


def _parameters(arguments: Json) -> Json:
    parameters: Json = {}
    for name, value in arguments.items():
        if value is not None:
            is_time = isinstance(value, int) and name not in ("limit", "after", "at_least")
            parameters[_PARAMETER.get(name, name)] = format_time(value) if is_time else value
    return parameters


class PinnedAudit(NamedTuple):
    """An audit that began at one position and continues with queries."""

    query: Query
    position: int
    now: int
    """The present (µs) when it began."""
