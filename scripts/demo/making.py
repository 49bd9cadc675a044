"""Lives through the eighteen months: records the ledger, and writes the request log with what is planted in it."""

from __future__ import annotations

import gzip
import heapq
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import BinaryIO, Final, NamedTuple

import msgspec

from ledger.clock import ManualClock
from ledger.opening import open_recorder
from ledger.store import Ledger
from ledger.times import DAY, SECOND
from projections.decisions.model import REASONS
from scripts.demo import folder as places
from scripts.demo.platform import Line, Narrowed, Platform
from scripts.demo.story import CLOSED, CLOSED_FROM, REWRITTEN, WITHDRAWN_FROM, story
from scripts.demo.traffic import (
    CARELESS,
    PLANTED_MIN,
    TURNED_AWAY,
    TURNED_AWAY_SHARE,
    Reasons,
    Request,
    Traffic,
    Truth,
    wanted,
)
from scripts.demo.world import BEGIN, FINISH, HOUR, MINUTE

ORIGIN: Final = "larkspur.example/demo"
UNREADABLE: Final = (
    b'{"request_id":"req-broken-1","at":"2024-11-08T10:15:02Z","account_id":"u0',
    b'{"request_id":"req-broken-2","at":"2025-01-30 11:02:45","org_id":"harbor-health"}',
    b'{"request_id":"req-broken-3","at":"2025-05-19T23:59:60.5Z","org_id":"quill-legal"}',
    b'{"request_id":"req-broken-4","at":"2025-09-02T08:00:00Z","model_id":"fathom/fathom-8b"}',
    b'{"request_id":"req-broken-5","at":"2025-12-12T12:12:12Z","org_id":"cinder-studio","handling":{"stored":"no"}}',
)
"""Cut off; without an offset; no such time; nobody named; a text for a bool. To be rejected, each with its number."""

Act = Callable[[], Request | None]


class Made(NamedTuple):
    """The ledger and the log, and everything that must be found in it, by request_id and by line number."""

    folder: Path
    told: list[Line]
    events: int
    submissions: int
    subjects: int
    requests: int
    planted: dict[str, Truth]
    rewritten: frozenset[str]
    """The requests that are judged otherwise with what was recorded later."""
    unreadable: frozenset[int]


def make(folder: Path, requests: int, seed: int, progress: Callable[[int], None] | None = None) -> Made:
    """The same for the same seed, to the last byte of every event. `folder` is there and empty of ours.

    `progress` is told, now and then, how many requests are written.
    """
    rng = Random(seed)  # noqa: S311 - an invented world, and one that must come again
    clock = ManualClock(BEGIN)
    recorder = open_recorder(f"sqlite:///{(folder / places.LEDGER).absolute()}")
    recorder.create({"origin": ORIGIN})
    with Ledger(recorder, clock, origin=ORIGIN, entropy=Random(seed).randbytes) as ledger:  # noqa: S311 - as above
        ledger.begin()
        platform = Platform(ledger, clock)
        # Quick rather than small: it is read once. Without a time of its own, so that it is the same every time.
        packed = gzip.GzipFile(folder / places.LOG, "wb", compresslevel=1, mtime=0)
        with io.BufferedWriter(packed, 1 << 18) as log:
            months = _Months(platform, Traffic(platform, rng), rng, requests, log)
            months.live_through(progress)
        planted = "".join(
            msgspec.json.encode({"request_id": request_id, **truth._asdict()}).decode() + "\n"
            for request_id, truth in months.planted.items()
        )
        (folder / places.PLANTED).write_text(planted)
        return Made(
            folder=folder,
            told=platform.told,
            events=platform.position,
            submissions=platform.submissions,
            subjects=len({subject for subject, _setting in platform.books}),
            requests=months.written,
            planted=months.planted,
            rewritten=months.rewritten(),
            unreadable=frozenset(months.unreadable),
        )


class _Months:
    """The merge of what happens and what is requested, in the order of time."""

    def __init__(self, platform: Platform, traffic: Traffic, rng: Random, requests: int, log: BinaryIO) -> None:
        self.platform = platform
        self.traffic = traffic
        self.rng = rng
        self.requests = requests
        self.log = log
        self.lines = 0
        self.written = 0
        self.planted: dict[str, Truth] = {}
        self.unreadable: list[int] = []
        self._handled: list[tuple[str, str, int]] = []
        self._early: list[str] = []
        counts = wanted(requests)
        self._early_left = counts.pop(("before_first_record",))
        self._late_left = counts.pop(("enforcement_lag",))
        self._waiting: list[Reasons] = [reasons for reasons, count in counts.items() for _ in range(count)]
        self._waiting += [TURNED_AWAY] * max(PLANTED_MIN, round(requests * TURNED_AWAY_SHARE / 1000))
        rng.shuffle(self._waiting)
        self._agenda: list[tuple[int, int, Act]] = []
        self._noted = 0
        self._narrowed = 0

    def live_through(self, progress: Callable[[int], None] | None) -> None:
        for at in sorted(BEGIN - self.rng.randrange(1, 5 * DAY) for _ in range(self._early_left)):
            self._write(self.traffic.early(at))
        self._fill_agenda()
        times = sorted(self._usual_time() for _ in range(self.requests - self._early_left - self._late_left))
        count = len(times)
        slots = set(self.rng.sample(range(count // 20, count - count // 20), len(self._waiting)))
        unreadable = dict(zip((count * share // 100 for share in (11, 27, 48, 66, 93)), UNREADABLE, strict=True))
        due = 0
        for number, at in enumerate(times):
            if progress is not None and number % 1000 == 0:
                progress(number)
            self._live_until(at)
            due += number in slots
            planted = self._plant() if due else None
            due -= planted is not None
            self._write(planted or self.traffic.honest())
            if number in unreadable:
                self.lines += 1
                self.unreadable.append(self.lines)
                self.log.write(unreadable[number] + b"\n")
        self._live_until(FINISH)
        # Where fewer changes than hoped for could be overtaken by a request.
        while self.written < self.requests:
            self._live_until(self.platform.clock.now_us + SECOND)
            self._write(self.traffic.honest())
        # Whoever shrinks the story finds out here, not by a demo that no longer shows everything.
        shown = {reason for truth in self.planted.values() for reason in truth.reasons}
        assert not self._waiting, f"never planted: {self._waiting}"
        assert shown == set(REASONS), f"never planted: {set(REASONS) - shown}"

    def rewritten(self) -> frozenset[str]:
        """Nothing was known about the earliest; the others' past was told otherwise later."""
        periods = self.platform.rewritten
        told_otherwise = {
            request_id
            for request_id, governing, at in self._handled
            if any(period.subject == governing and period.start <= at < period.until for period in periods)
        }
        return frozenset(told_otherwise.union(self._early))

    def _usual_time(self) -> int:
        """More as the platform grows, and more by day than by night."""
        share = max(self.rng.random(), self.rng.random() * 0.9)
        start = BEGIN + 10 * DAY
        day = start + int((FINISH - start) // DAY * share) * DAY
        return day + int(self.rng.triangular(0, 24 * HOUR - 1, 14 * HOUR))

    def _fill_agenda(self) -> None:
        for happening in story(self.rng):
            self._note(happening.at, partial(self._happen, happening.act))
        for day in (1, 5, 11):
            self._note(WITHDRAWN_FROM + day * DAY + 10 * HOUR, partial(self.traffic.trained, REWRITTEN))
        self._note(CLOSED_FROM + 9 * DAY, self._after_the_withdrawal)

    def _note(self, at: int, act: Act) -> None:
        self._noted += 1
        heapq.heappush(self._agenda, (at, self._noted, act))

    def _live_until(self, now: int) -> None:
        while self._agenda and self._agenda[0][0] <= now:
            at, _, act = heapq.heappop(self._agenda)
            self.platform.advance(at)
            request = act()
            if request is not None:
                self._write(request)
        self.platform.advance(now)

    def _happen(self, act: Callable[[Platform], object]) -> None:
        act(self.platform)
        for narrowed in self.platform.narrowed[self._narrowed :]:
            for _ in range(self.rng.randint(0, 2 + self.requests // 50_000)):
                self._note(narrowed.at + self.rng.randrange(20 * SECOND, 25 * MINUTE), partial(self._lag, narrowed))
        self._narrowed = len(self.platform.narrowed)

    def _lag(self, narrowed: Narrowed) -> Request | None:
        request = self.traffic.late(narrowed) if self._late_left else None
        self._late_left -= request is not None
        return request

    def _after_the_withdrawal(self) -> Request | None:
        reasons: Reasons = ("passthrough_not_allowed",)
        if reasons in self._waiting:
            self._waiting.remove(reasons)
        return self.traffic.spoiled(reasons, [CLOSED])

    def _plant(self) -> Request | None:
        """The next thing that waits to be planted; the one after it, where the platform has nobody for that yet."""
        for place in range(min(2, len(self._waiting))):
            reasons = self._waiting[-1 - place]
            senders = CARELESS if self.rng.random() < 0.5 else ()
            request = self.traffic.turned_away() if reasons == TURNED_AWAY else self.traffic.spoiled(reasons, senders)
            if request is not None:
                del self._waiting[-1 - place]
                return request
        return None

    def _write(self, request: Request) -> None:
        if self.written == self.requests:
            return
        request_id = request.record["request_id"]
        self.log.write(msgspec.json.encode(request.record) + b"\n")
        self.lines += 1
        self.written += 1
        if request.governing is not None:
            self._handled.append((request_id, request.governing, request.at))
        if request.truth is not None:
            self.planted[request_id] = request.truth
            if request.truth.reasons == ("before_first_record",):
                self._early.append(request_id)
