"""A ledger and its auditor, step by step: whatever the workload does to the one is done to the other, and compared.

A run is decided by its seed: the same seed takes the same steps. Where the two part, `Mismatch` says at which step,
with which operation, what was expected and what was found, and how to see it again.
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
from ledger.transfer.transfer import export_lines, export_personal, import_ledger
from tests.simulation.answers import Answers
from tests.simulation.auditor import Auditor, Outcome
from tests.simulation.breaking import FAULTS_POSTGRES, FAULTS_SQLITE, break_and_mend
from tests.simulation.comparing import Mismatch, first_difference, without_chosen, without_salt
from tests.simulation.doors import Door, InProcess, OverHttp, Pinned, asked_plainly
from tests.simulation.importing import foretell
from tests.simulation.workload import Workload
from tests.support.ledgers import GENESIS, NOW
from tests.support.reference import Json

HOUR: Final = 3_600_000_000
YEAR: Final = 365 * 24 * HOUR
LAST: Final = parse_time("2150-01-01T00:00:00Z")
"""The clock is not put beyond it: effective times end in 2199."""
EVENTS_MAX: Final = 300
"""Of one ledger; then another is begun. The auditor looks through all of them for every question."""
ORIGIN: Final = "simulation.example"


class Simulation:
    """`new_database` gives the URL of an empty database at each call."""

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
        self.doors: list[Door] = []
        self.pins: list[Pinned] = []
        with open_ledger(self.url, create=True, clock=self.clock, origin=ORIGIN) as ledger:
            self.auditor = Auditor(entry.leaf for entry in ledger.page(0))
        self._compare("events that a ledger begins with", GENESIS, self.auditor.head)
        self._open_doors()

    def close(self) -> None:
        for door in self.doors:
            door.close()
        self.doors, self.pins = [], []

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
        self.doing = "the last look at everything"
        self._look_at_everything()

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
            self._look_at_everything: 1,
            self._fault: 1.5,
            self._next_ledger: 0.15,
        }

    # What the ledger is told.

    def _submission(self) -> None:
        if self.auditor.head > EVENTS_MAX:
            self._next_ledger()
        door = self.chance.choice(self.doors)
        self.submit(door, self.new_body(), self.new_key() if self.workload.maybe(0.4) else None)

    def new_body(self) -> Json:
        return self.workload.submission(self.auditor, self.auditor.recorded_at(self.clock.now_us))

    def new_key(self) -> str:
        self.keys += 1
        return f"key-{self.keys}"

    def submit(self, door: Door, body: Json, key: str | None) -> None:
        self.doing = {"submit": body, "key": key, "by": door.caller}
        expected = self.auditor.expect(body, self.clock.now_us, door.actor, door.caller, key)
        self._take(door, body, key, expected, door.submit(body, key))

    def _take(self, door: Door, body: Json, key: str | None, expected: Outcome, got: Outcome) -> None:
        """Compares what came of a submission, and lets the auditor record what was recorded."""
        self.counts[got.code] += 1
        self._compare("outcome", without_chosen(expected, expected), without_chosen(got, expected))
        if got.code != "recorded":
            return
        if None in [receipt["event_id"] for receipt in expected.receipts]:
            known = {event["id"] for event in self.auditor.events}
            chosen = [receipt["event_id"] for receipt in got.receipts]
            self._compare("event ids that are new", len(chosen), len(set(chosen) - known))
            self.counts["events"] += len(chosen)
        self.auditor.record(body, got.receipts, door.actor, door.caller, key)
        first = got.receipts[0]["position"]
        self._compare_feed(self.in_process(), first - 1, len(got.receipts))

    def _retry(self) -> None:
        """An earlier key again, from whoever used it: with the same body, or another."""
        if not self.auditor.submissions:
            return
        caller, key = self.chance.choice(list(self.auditor.submissions))
        door = self.chance.choice([door for door in self.doors if door.caller == caller])
        body = json.loads(self.auditor.submissions[caller, key][0])
        if self.workload.maybe(0.2):
            body = {"events": [*body.get("events", [body])] * 2}
        self.submit(door, body, key)

    def _race(self) -> None:
        """The same submission at several doors at once: with one key it is recorded once and answered alike; with an
        expected_version one of them wins."""
        doors = [door for door in self.doors if isinstance(door, InProcess)]
        subject = self.chance.choice(("org:acme", "account:u1"))
        body: Json = {"type": "setting.changed", "subject": subject, "setting": "training.opt_in", "value": True}
        key = self.new_key() if self.workload.maybe(0.5) else None
        if key is None:
            body["expected_version"] = self.auditor.version(subject)
        self.doing = {"race": body, "key": key}
        expected = self.auditor.expect(body, self.clock.now_us, doors[0].actor, doors[0].caller, key)
        # Two at each door: what arrives together may be recorded together.
        with ThreadPoolExecutor(2 * len(doors)) as pool:
            outcomes = list(pool.map(lambda door: door.submit(body, key), doors * 2))
        winners = [outcome for outcome in outcomes if outcome.code == "recorded"]
        losers = [outcome.code for outcome in outcomes if outcome.code != "recorded"]
        if key is None:
            self._compare("who lost", ["version_conflict"] * (len(outcomes) - 1), losers)
        else:
            self._compare("who is told to wait", {"idempotency_key_in_flight"}, {"idempotency_key_in_flight", *losers})
        self._compare("what the winners were told", [winners[0]] * len(winners), winners)
        self._take(doors[0], body, key, expected, winners[0])

    # What the ledger is asked.

    def _question(self) -> None:
        door = self.chance.choice(self.doors)
        self.ask(door, self.new_question())

    def new_question(self) -> Json:
        return self.workload.question(self.auditor, self.auditor.recorded_at(self.clock.now_us))

    def ask(self, door: Door, question: Json) -> None:
        self.doing = {"question": question, "by": door.caller}
        expected = Answers(self.auditor, self.clock.now_us).answer(question)
        if isinstance(door, OverHttp) and self.workload.maybe(0.3):
            # What somebody was just told of must be in the answer, whoever wrote it; nobody waits for it.
            question = {**question, "at_least": self.auditor.head}
        self._compare("answer", expected, without_salt(door.ask(question)))
        self.counts["answers"] += 1

    def _pinned_audit(self) -> None:
        """An audit begins, or one that began earlier goes on at the position where it began."""
        if not self.pins or self.workload.maybe(0.2):
            now = max(self.clock.now_us, self.auditor.head_recorded_at)
            self.pins = [*self.pins[-1:], Pinned(self.in_process().pinned(), self.auditor.head, now)]
        for pin in self.pins:
            earlier = self.auditor.at_position(pin.position)
            question = self.new_question()
            if question["ask"] in ("history", "subjects"):
                continue
            self.doing = {"pinned at": pin.position, "question": question}
            expected = Answers(earlier, pin.now).answer(question)
            self._compare("answer", expected, asked_plainly(pin.query, question))
            self.counts["answers"] += 1

    def _look_at_everything(self) -> None:
        for door in self.doors:
            if isinstance(door, InProcess):
                self._compare_feed(door, 0, self.auditor.head + 1)
            for question in [{"ask": "subjects"}, *map(_state_now, self.auditor.subjects())]:
                self.ask(door, question)

    def _compare_feed(self, door: InProcess, after: int, limit: int) -> None:
        entries = door.ledger.page(after, limit)
        found = [without_salt(json.loads(entry.leaf)) for entry in entries]
        self._compare("events in the feed", self.auditor.events[after : after + limit], found)

    # What happens around it.

    def _clock(self) -> None:
        kind = self.chance.random()
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
            (self.auditor.head, True, (), not check_only),
            (rebuilt.position, rebuilt.live_equal, tuple(rebuilt.differences), rebuilt.swapped),
        )

    def _reopening(self) -> None:
        index = self.chance.randrange(len(self.doors))
        self.pins = []
        door = self.doors[index]
        door.close()
        is_in_process = isinstance(door, InProcess)
        self.doors[index] = InProcess(self.url, self.clock) if is_in_process else OverHttp(self.url, self.clock)

    def _fault(self) -> None:
        fault = self.chance.choice(FAULTS_SQLITE if self.url.startswith("sqlite:") else FAULTS_POSTGRES)
        self.counts[fault.__name__] += 1
        break_and_mend(self, fault)
        for door in self.doors:
            self.ask(door, self.new_question())

    # From one ledger to the next.

    def _next_ledger(self) -> None:
        """A fresh database: with the same ledger in it, or with what was said elsewhere; and on from there."""
        before, source = self.url, self.in_process().ledger
        self.url = self.new_database()
        is_same = self.auditor.head <= EVENTS_MAX and self.workload.maybe(0.6)
        self.doing = "import of exported events" if is_same else "import of submissions"
        self.counts[self.doing] += 1
        if is_same:
            lines, personal = b"".join(export_lines(source)), b"".join(export_personal(source))
            clock = ManualClock(max(self.clock.now_us, self.auditor.head_recorded_at))
            import_ledger(self.url, io.BytesIO(lines), personal=io.BytesIO(personal) if personal else None, clock=clock)
            with open_ledger(self.url) as restored:
                self._compare("exported bytes", lines, b"".join(export_lines(restored)))
            self.auditor.submissions = {}
        else:
            self._import_submissions()
        self.close()
        self._open_doors()
        self.counts["ledgers"] += 1
        assert before != self.url

    def _import_submissions(self) -> None:
        self.clock.now_us = NOW
        foretold, lines = foretell(self.workload, self.auditor.events[:GENESIS], NOW)
        if not lines:
            with open_ledger(self.url, create=True, clock=self.clock, origin=ORIGIN) as ledger:
                self.auditor = Auditor(entry.leaf for entry in ledger.page(0))
            return
        import_ledger(self.url, io.BytesIO(lines), origin=ORIGIN, clock=self.clock)
        with open_ledger(self.url) as ledger:
            ids = [json.loads(entry.leaf)["id"] for entry in ledger.page(0)]
        self._compare("events imported", len(foretold.events), len(ids))
        for event, event_id in zip(foretold.events, ids, strict=True):
            event["id"] = event_id
        self.auditor = foretold

    def _open_doors(self) -> None:
        self.doors = [InProcess(self.url, self.clock), InProcess(self.url, self.clock), OverHttp(self.url, self.clock)]

    def in_process(self) -> InProcess:
        door = self.chance.choice([door for door in self.doors if isinstance(door, InProcess)])
        assert isinstance(door, InProcess)
        return door

    # Where they part.

    def _compare(self, what: str, expected: Any, found: Any) -> None:
        self.counts["comparisons"] += 1
        if expected != found:
            raise Mismatch(self.report(expected, found, what))

    def report(self, expected: Any, found: Any, what: str = "") -> str:
        place, one, other = first_difference(expected, found)
        kind = "sqlite" if self.url.startswith("sqlite:") else "postgresql"
        return (
            f"seed {self.seed}, step {self.step}: {what}\n"
            f"  doing:     {json.dumps(self.doing, default=str, ensure_ascii=False)}\n"
            f"  clock:     {format_time(self.clock.now_us)}, position {self.auditor.head}\n"
            f"  differs at {place or 'the whole'}\n"
            f"  expected:  {one!r}\n"
            f"  found:     {other!r}\n"
            f"  again:     ./scripts/test tests/simulation/test_simulation.py -k {kind}"
            f" --simulation-seed {self.seed} --simulation-steps {self.step}"
        )


def _state_now(subject: str) -> Json:
    return {"ask": "state", "subject": subject, "at": NOW, "known_at": None}
