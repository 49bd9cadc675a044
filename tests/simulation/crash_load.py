"""The clients of a crash campaign: threads that submit, retry, conflict, read and check over HTTP until the server
dies, and log every response.

After a 503 or a broken connection the outcome of a submission is unknown. Any other response outside the contract is a
finding. A client whose server was killed continues at another server, if there is one, with a retry.
"""

import http.client
import threading
from collections.abc import Sequence
from random import Random
from typing import Any, Final
from urllib.parse import quote

import msgspec

from tests.simulation.crash_client_log import ClientLog, PastAnswer, SentSubmission, receipts_of, stable_part
from tests.simulation.crash_workload import CrashWorkload
from tests.support.reference import Json
from tests.support.waiting import GIVE_UP_S

ANSWER_SECONDS_MAX: Final = GIVE_UP_S
PAUSE_S: Final = 0.02
"""After a 503, in place of Retry-After, which would take too long for a campaign."""
FEED_LIMIT: Final = 40


class Page(msgspec.Struct):
    events: list[msgspec.Raw]
    next_after: int
    head: int


class _Numbered(msgspec.Struct):
    class Data(msgspec.Struct):
        position: int

    data: Data


class Connection:
    """A keep-alive connection to a server. Raises OSError or HTTPException if it breaks."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)

    def ask(self, path: str, body: Json | None = None, key: str | None = None) -> tuple[int, bytes]:
        """(status, exact bytes of the response). With a body the request is a POST."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            headers["Idempotency-Key"] = f'"{key}"'
        sent = None if body is None else msgspec.json.encode(body)
        self._http.request("GET" if body is None else "POST", path, sent, headers)
        answer = self._http.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._http.close()


LOST: Final = (OSError, http.client.HTTPException)


class Client(threading.Thread):
    """`ports`: its servers, in order of use. `dead`: the ports of killed servers."""

    def __init__(self, name: str, chance: Random, client_log: ClientLog, ports: Sequence[int], dead: set[int]) -> None:
        super().__init__(name=name, daemon=True)
        self.chance = chance
        self.client_log = client_log
        self.workload = CrashWorkload(chance, client_log)
        self.over = threading.Event()
        self._ports = list(ports)
        self._dead = dead
        self._connection = Connection(self._ports[0])
        self._count = 0

    def run(self) -> None:
        try:
            while self._ports and not self.over.is_set():
                try:
                    self._act()
                except LOST as error:
                    self._lost(error)
        except Exception as error:
            self.client_log.report(f"client {self.name} failed: {error!r}")
            raise

    def end(self, patience_s: float) -> None:
        """Called after its servers are dead."""
        self.over.set()
        if self.ident is not None:
            self.join(patience_s)
            assert not self.is_alive(), f"client {self.name} does not end"
        self._connection.close()

    def _lost(self, error: Exception) -> None:
        port = self._ports[0]
        if port not in self._dead:
            self.client_log.report(f"a server that was not killed broke a connection or did not respond: {error!r}")
        self._connection.close()
        self._ports.pop(0)
        if self._ports:
            self._connection = Connection(self._ports[0])

    def _act(self) -> None:
        # The first act is always a submission, so that each round has one.
        act = self.chance.random() if self._count else 0.0
        if act < 0.5:
            self.submit(self._new(self.workload.submission, has_key=self.chance.random() < 0.85))
        elif act < 0.6:
            self.submit(self._new(lambda name, **_: self.workload.conflicting(name), has_key=True))
        elif act < 0.68:
            self._retry()
        elif act < 0.70:
            self._reuse_key()
        elif act < 0.78:
            self._read()
        elif act < 0.90:
            self._ask_state()
        else:
            self._check()

    def _new(self, make: Any, *, has_key: bool) -> SentSubmission:
        self._count += 1
        name = f"{self.name}-{self._count}"
        return SentSubmission(name, make(name, has_key=has_key), has_key=has_key)

    def submit(self, sent: SentSubmission) -> None:
        """Sends until it is acknowledged or refused. Without a key only once: a retry could record it twice."""
        self.client_log.send(sent)
        while not self.over.is_set() and self._ports:
            try:
                status = submit(self._connection, self.client_log, sent)
            except LOST as error:
                sent.was_unknown = True
                self._lost(error)
                status = 503
            if status != 503:
                return
            if not sent.has_key:
                return
            self.over.wait(PAUSE_S)

    def submit_batch(self, size: int) -> None:
        """Submits one large batch, which is not projected yet when the kill comes."""
        self.submit(self._new(lambda name, **_: self.workload.batch(name, size), has_key=True))

    def _retry(self) -> None:
        acknowledged = [sent for sent in self.client_log.with_outcome("acknowledged")[-300:] if sent.has_key]
        if acknowledged:
            submit(self._connection, self.client_log, self.chance.choice(acknowledged))

    def _reuse_key(self) -> None:
        acknowledged = [sent for sent in self.client_log.with_outcome("acknowledged")[-300:] if sent.has_key]
        if not acknowledged:
            return
        sent = self.chance.choice(acknowledged)
        other = self.workload.conflicting(f"{sent.name}-again")
        status, answer = self._connection.ask("/v1/events", other, sent.name)
        if status != 503 and b'"idempotency_key_reused"' not in answer and b'"idempotency_key_in_flight"' not in answer:
            self.client_log.report(f"key {sent.name} with another body was answered {status} {answer!r}")

    def _read(self) -> None:
        after = self.chance.randrange(max(1, self.client_log.position))
        status, answer = self._connection.ask(f"/v1/events?after={after}&limit={FEED_LIMIT}")
        if status == 503:
            return
        if status != 200:
            self.client_log.report(f"the feed after {after} answered {status} {answer!r}")
            return
        self.client_log.add_events(feed_leaves(self.client_log, after, answer))

    def _ask_state(self) -> None:
        subjects, coordinates = self.client_log.subjects(), self.workload.coordinates()
        if subjects and coordinates is not None:
            subject, (at, known_at) = quote(self.chance.choice(subjects)), coordinates
            self._ask(f"/v1/subjects/{subject}/state?at={at}&known_at={known_at}", None, known_at)

    def _check(self) -> None:
        coordinates = self.workload.coordinates()
        if coordinates is not None:
            at, known_at = coordinates
            self._ask(f"/v1/checks?known_at={known_at}", self.workload.record(at), known_at)

    def _ask(self, path: str, record: Json | None, known_at: str) -> None:
        acknowledged = self.client_log.position
        status, answer = self._connection.ask(path, record)
        if status == 503:
            return
        if status != 200:
            self.client_log.report(f"{path} of {record} was answered {status} {answer!r}")
            return
        decoded = msgspec.json.decode(answer)
        position = decoded["position"] if record is None else decoded["as_of"]["position"]
        if position < acknowledged:
            self.client_log.report(f"{path} answered at {position} after {acknowledged} was acknowledged")
        if self.client_log.is_past(known_at):
            self.client_log.add_answer(PastAnswer(path, record, stable_part(decoded)))


def submit(connection: Connection, client_log: ClientLog, sent: SentSubmission) -> int:
    """Sends it, for the first time or again. Returns the status; 503 for every response that asks for a retry."""
    status, answer = connection.ask("/v1/events", sent.body, sent.name if sent.has_key else None)
    code = None if status == 201 else msgspec.json.decode(answer).get("code")
    if status == 201:
        client_log.acknowledge(sent, receipts_of(msgspec.json.decode(answer)))
    elif status == 503 or code == "idempotency_key_in_flight":
        sent.was_unknown = sent.was_unknown or sent.outcome == "unknown"
        return 503
    elif code in ("version_conflict", "bad_submission"):
        client_log.refuse(sent, code)
    else:
        client_log.report(f"{sent.name} was answered {status} {answer!r}")
    return status


def feed_leaves(client_log: ClientLog, after: int, answer: bytes) -> list[tuple[int, bytes]]:
    """(position, leaf) of each event of a page. Reports gaps between positions."""
    page = msgspec.json.decode(answer, type=Page)
    leaves = [(msgspec.json.decode(raw, type=_Numbered).data.position, bytes(raw)) for raw in page.events]
    positions = [position for position, _ in leaves]
    if positions != list(range(after + 1, after + 1 + len(leaves))):
        client_log.report(f"the feed after {after} has the positions {positions}")
    if len(leaves) < FEED_LIMIT and after + len(leaves) != page.head:
        client_log.report(f"the feed after {after} ends at {after + len(leaves)} though the head is {page.head}")
    return leaves
