"""Runs a ledger and its oracle step by step: both get the same random operations, and every result is compared.

The seed decides the run: the same seed gives the same steps. If the two differ, `Mismatch` names the step, the
operation, both values, and the command that repeats the run.
"""

import io
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, Final

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.times import format_time, parse_time
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from tests.simulation.clients import HttpClient, InProcessClient, LedgerClient, PinnedAudit, ask_query
from tests.simulation.compare import OUTLOOK, Mismatch, first_difference, without_event_ids, without_salt
from tests.simulation.expected_answers import ExpectedAnswers
from tests.simulation.fault_steps import FAULTS_POSTGRES, FAULTS_SQLITE, run_fault
from tests.simulation.import_plan import plan_import
from tests.simulation.oracle import Oracle, Outcome
from tests.simulation.workload import Workload
from tests.support.ledgers import GENESIS, NOW
from tests.support.reference import Json

HOUR: Final = 3_600_000_000
YEAR: Final = 365 * 24 * HOUR
LAST: Final = parse_time("2150-01-01T00:00:00Z")
"""The clock does not go further: effective times end in 2199."""
EVENTS_MAX: Final = 300
"""In one ledger; then the run starts another. The oracle searches all events for every query."""
ORIGIN: Final = "simulation.example"


class Simulation:
    """`new_database` returns the URL of an empty database at each call."""

    def __init__(self, new_database: Callable[[], str], seed: int) -> None:
        self.new_database = new_database
        self.seed = seed
        self.step = 0
        self.counts: Counter[str] = Counter()
        self.chance = Random(seed)
        self.workload = Workload(self.chance)
        self.clock = ManualClock(NOW)
        self.doing: Any = "beginning"
        self.keys = 0
        self.url = new_database()
        self.clients: list[LedgerClient] = []
        self.pins: list[PinnedAudit] = []
        with open_ledger(self.url, create=True, clock=self.clock, origin=ORIGIN) as ledger:
            self.oracle = Oracle(entry.leaf for entry in ledger.page(0))
        self._compare("events of a new ledger", GENESIS, self.oracle.head)
        self._open_clients()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.clients, self.pins = [], []

    def run(self, steps: int) -> None:
        """Raises `Mismatch`."""
        operations, weights = zip(*self._operations().items(), strict=True)
        for _ in range(steps):
            self.step += 1
            operation = self.chance.choices(operations, weights)[0]
            self.doing = operation.__name__.strip("_")
            self.counts[self.doing] += 1
            try:
                operation()
            except Mismatch:
                raise
            except Exception as error:
                raise Mismatch(self.report("an answer or a refusal", f"{type(error).__name__}: {error}")) from error
        self.doing = "the final comparison of everything"
        self._compare_everything()

    def _operations(self) -> dict[Callable[[], None], float]:
        return {
            self._submission: 30,
            self._question: 40,
            self._clock: 12,
            self._retry: 4,
            self._race: 1,
            self._pinned_audit: 5,
            self._rebuild: 1.5,
            self._reopening: 2,
            self._compare_everything: 1,
            self._fault: 1.5,
            self._next_ledger: 0.15,
        }

    # Submissions.

    def _submission(self) -> None:
        if self.oracle.head > EVENTS_MAX:
            self._next_ledger()
        client = self.chance.choice(self.clients)
        self.submit(client, self.new_body(), self.new_key() if self.workload.maybe(0.4) else None)

    def new_body(self) -> Json:
        return self.workload.submission(self.oracle, self.oracle.recorded_at(self.clock.now_us))

    def new_key(self) -> str:
        self.keys += 1
        return f"key-{self.keys}"

    def submit(self, client: LedgerClient, body: Json, key: str | None) -> None:
        self.doing = {"submit": body, "key": key, "by": client.caller}
        expected = self.oracle.expect(body, self.clock.now_us, client.actor, client.caller, key)
        self._settle(client, body, key, expected, client.submit(body, key))

    def _settle(self, client: LedgerClient, body: Json, key: str | None, expected: Outcome, actual: Outcome) -> None:
        """Compares the outcomes of a submission, and lets the oracle record its events."""
        self.counts[actual.code] += 1
        if (expected.code, actual.code) == ("clock_behind", "bad_submission"):
            # The form of a submission is judged before the clock: some of its faults, if not all.
            expected = self.oracle.expect(body, self.oracle.head_recorded_at, client.actor)
            some = set(actual.pointers) & set(expected.pointers)
            actual, expected = actual._replace(pointers=()), expected._replace(pointers=())
            self._compare("some of the faults", True, bool(some))
        self._compare("outcome", without_event_ids(expected, expected), without_event_ids(actual, expected))
        if actual.code != "recorded":
            return
        if None in [receipt["event_id"] for receipt in expected.receipts]:
            known = {event["id"] for event in self.oracle.events}
            chosen = [receipt["event_id"] for receipt in actual.receipts]
            self._compare("number of new event ids", len(chosen), len(set(chosen) - known))
            self.counts["events"] += len(chosen)
        self.oracle.record(body, actual.receipts, client.actor, client.caller, key)
        self._compare_outlooks(actual)
        first = actual.receipts[0]["position"]
        self._compare_feed(self.in_process(), first - 1, len(actual.receipts))

    def _compare_outlooks(self, actual: Outcome) -> None:
        """Compares what the receipts say about what follows, unless a fault kept it from being read."""
        for receipt in actual.receipts:
            warnings = [(warning["code"], warning["subject"]) for warning in receipt["warnings"]]
            if "outlook_unknown" not in [code for code, _ in warnings]:
                expected = self.oracle.outlook(self.oracle.events[receipt["position"] - 1])
                outlook = {name: receipt[name] for name in OUTLOOK} | {"warnings": warnings}
                self._compare(f"outlook of #{receipt['position']}", expected, outlook)

    def _retry(self) -> None:
        """Sends an earlier key of the same caller again, with the same body or another."""
        if not self.oracle.submissions:
            return
        caller, key = self.chance.choice(list(self.oracle.submissions))
        client = self.chance.choice([client for client in self.clients if client.caller == caller])
        body = json.loads(self.oracle.submissions[caller, key][0])
        if self.workload.maybe(0.2):
            body = {"events": [*body.get("events", [body])] * 2}
        self.submit(client, body, key)

    def _race(self) -> None:
        """Sends the same submission through several clients at once. With one key it is recorded once, and the
        outcomes are equal; with an expected_version one of them wins."""
        self._mend_clock()
        racing = [client for client in self.clients if isinstance(client, InProcessClient)]
        subject = self.chance.choice(("org:acme", "account:u1"))
        body: Json = {"type": "setting.changed", "subject": subject, "setting": "training.opt_in", "value": True}
        key = self.new_key() if self.workload.maybe(0.5) else None
        if key is None:
            body["expected_version"] = self.oracle.version(subject)
        self.doing = {"race": body, "key": key}
        expected = self.oracle.expect(body, self.clock.now_us, racing[0].actor, racing[0].caller, key)
        # Two for each client, so that one group commit may contain both.
        with ThreadPoolExecutor(2 * len(racing)) as pool:
            outcomes = list(pool.map(lambda client: client.submit(body, key), racing * 2))
        winners = [outcome for outcome in outcomes if outcome.code == "recorded"]
        losers = [outcome.code for outcome in outcomes if outcome.code != "recorded"]
        if key is None:
            self._compare("outcomes of the losers", ["version_conflict"] * (len(outcomes) - 1), losers)
        else:
            self._compare(
                "outcomes beside the first", {"idempotency_key_in_flight"}, {"idempotency_key_in_flight", *losers}
            )
        self._compare("receipts of the winners", [winners[0]] * len(winners), winners)
        self._settle(racing[0], body, key, expected, winners[0])

    # Queries.

    def _question(self) -> None:
        client = self.chance.choice(self.clients)
        self.ask(client, self.new_question())

    def new_question(self) -> Json:
        return self.workload.question(self.oracle, self.oracle.recorded_at(self.clock.now_us))

    def ask(self, client: LedgerClient, question: Json) -> None:
        self.doing = {"question": question, "by": client.caller}
        expected = ExpectedAnswers(self.oracle, self.clock.now_us).answer(question)
        if isinstance(client, HttpClient) and self.workload.maybe(0.3):
            # The answer must include every acknowledged event, also of other clients, without waiting.
            question = {**question, "at_least": self.oracle.head}
        self._compare("answer", expected, without_salt(client.ask(question)))
        self.counts["answers"] += 1

    def _pinned_audit(self) -> None:
        """Starts an audit, or continues an earlier one at the position where it began."""
        if not self.pins or self.workload.maybe(0.2):
            pinned = PinnedAudit(self.in_process().pinned(), self.oracle.head, self.clock.now_us)
            self.pins = [*self.pins[-1:], pinned]
        for pin in self.pins:
            earlier = self.oracle.at_position(pin.position)
            question = self.new_question()
            if question["ask"] in ("history", "subjects"):
                continue
            self.doing = {"pinned at": pin.position, "question": question}
            expected = ExpectedAnswers(earlier, pin.now).answer(question)
            self._compare("answer", expected, without_salt(ask_query(pin.query, question)))
            self.counts["answers"] += 1

    def _compare_everything(self) -> None:
        for client in self.clients:
            if isinstance(client, InProcessClient):
                self._compare_feed(client, 0, self.oracle.head + 1)
            for question in [{"ask": "subjects"}, *map(_state_now, self.oracle.subjects())]:
                self.ask(client, question)

    def _compare_feed(self, client: InProcessClient, after: int, limit: int) -> None:
        entries = client.ledger.page(after, limit)
        events = [without_salt(json.loads(entry.leaf)) for entry in entries]
        self._compare("events in the feed", self.oracle.events[after : after + limit], events)

    # Events around the ledger.

    def _mend_clock(self) -> None:
        if self.oracle.is_clock_behind(self.clock.now_us):
            self.clock.now_us = self.oracle.head_recorded_at

    def _clock(self) -> None:
        kind = self.chance.random()
        if self.workload.maybe(0.5):
            self._mend_clock()
        if kind < 0.3:
            return
        if kind < 0.9:
            self.clock.now_us += self.chance.choice((1, 1, 2, 3, 1000, 5_000_000))
        elif kind < 0.97:
            self.clock.now_us -= HOUR
            self.counts["an hour back"] += 1
        elif self.clock.now_us < LAST:
            self.clock.now_us += YEAR
            self.counts["a year on"] += 1

    def _rebuild(self) -> None:
        check_only = self.workload.maybe(0.3)
        rebuilt = self.in_process().rebuild(check_only)
        self._compare(
            "rebuild",
            (self.oracle.head, True, (), not check_only),
            (rebuilt.position, rebuilt.live_equal, tuple(rebuilt.differences), rebuilt.swapped),
        )

    def _reopening(self) -> None:
        index = self.chance.randrange(len(self.clients))
        self.pins = []
        client = self.clients[index]
        client.close()
        is_in_process = isinstance(client, InProcessClient)
        self.clients[index] = (
            InProcessClient(self.url, self.clock) if is_in_process else HttpClient(self.url, self.clock)
        )

    def _fault(self) -> None:
        fault = self.chance.choice(FAULTS_SQLITE if self.url.startswith("sqlite:") else FAULTS_POSTGRES)
        self.counts[fault.__name__] += 1
        run_fault(self, fault)
        for client in self.clients:
            self.ask(client, self.new_question())

    # The next ledger.

    def _next_ledger(self) -> None:
        """Continues in a fresh database, after an import of the same ledger or of submissions from elsewhere."""
        before, source = self.url, self.in_process().ledger
        self.url = self.new_database()
        is_same = self.oracle.head <= EVENTS_MAX and self.workload.maybe(0.6)
        self.doing = "import of exported events" if is_same else "import of submissions"
        self.counts[self.doing] += 1
        if is_same:
            lines, personal = b"".join(export_lines(source)), b"".join(export_personal(source))
            clock = ManualClock(max(self.clock.now_us, self.oracle.head_recorded_at))
            import_ledger(self.url, io.BytesIO(lines), personal=io.BytesIO(personal) if personal else None, clock=clock)
            with open_ledger(self.url) as restored:
                self._compare("exported bytes", lines, b"".join(export_lines(restored)))
            self.oracle.submissions = {}
        else:
            self._import_submissions()
        self.close()
        self._open_clients()
        self.counts["ledgers"] += 1
        assert before != self.url

    def _import_submissions(self) -> None:
        self.clock.now_us = NOW
        planned, lines = plan_import(self.workload, self.oracle.events[:GENESIS], NOW)
        if not lines:
            with open_ledger(self.url, create=True, clock=self.clock, origin=ORIGIN) as ledger:
                self.oracle = Oracle(entry.leaf for entry in ledger.page(0))
            return
        import_ledger(self.url, io.BytesIO(lines), origin=ORIGIN, clock=self.clock)
        with open_ledger(self.url) as ledger:
            ids = [json.loads(entry.leaf)["id"] for entry in ledger.page(0)]
        self._compare("imported events", len(planned.events), len(ids))
        for event, event_id in zip(planned.events, ids, strict=True):
            event["id"] = event_id
        self.oracle = planned

    def _open_clients(self) -> None:
        self.clients = [
            InProcessClient(self.url, self.clock),
            InProcessClient(self.url, self.clock),
            HttpClient(self.url, self.clock),
        ]

    def in_process(self) -> InProcessClient:
        client = self.chance.choice([client for client in self.clients if isinstance(client, InProcessClient)])
        assert isinstance(client, InProcessClient)
        return client

    # Differences.

    def _compare(self, what: str, expected: Any, actual: Any) -> None:
        self.counts["comparisons"] += 1
        if expected != actual:
            raise Mismatch(self.report(expected, actual, what))

    def report(self, expected: Any, actual: Any, what: str = "") -> str:
        place, one, other = first_difference(expected, actual)
        kind = "sqlite" if self.url.startswith("sqlite:") else "postgresql"
        return (
            f"seed {self.seed}, step {self.step}: {what}\n"
            f"  doing:     {json.dumps(self.doing, default=str, ensure_ascii=False)}\n"
            f"  clock:     {format_time(self.clock.now_us)}, position {self.oracle.head}\n"
            f"  differs at {place or 'the whole'}\n"
            f"  expected:  {one!r}\n"
            f"  actual:    {other!r}\n"
            f"  again:     ./scripts/test tests/simulation/test_simulation.py -k {kind}"
            f" --simulation-seed {self.seed} --simulation-steps {self.step}"
        )


def _state_now(subject: str) -> Json:
    return {"ask": "state", "subject": subject, "at": NOW, "known_at": None}
