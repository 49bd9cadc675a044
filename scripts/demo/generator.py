"""Generates the demo's files: the ledger of eighteen months, and the request log with what is planted in it."""

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
from ledger.errors import BadInput
from ledger.opening import open_recorder
from ledger.private_files import make_private_file, make_private_folder, write_private
from ledger.store import Ledger
from ledger.times import DAY, SECOND
from projections.decisions.model import REASONS
from scripts.demo.platform import Platform, StoryLine, SwitchOff
from scripts.demo.story import (
    CORRECTED_ORG,
    PASSTHROUGH_OFF_FROM,
    PASSTHROUGH_OFF_ORG,
    WITHDRAWN_FROM,
    Action,
    story,
)
from scripts.demo.traffic import (
    DENIED,
    DENIED_SHARE,
    FREQUENT_VIOLATORS,
    NOT_PLANTED,
    PLANTED_MIN,
    Judgement,
    LoggedRequest,
    Reasons,
    Traffic,
    planted_counts,
)
from scripts.demo.world import BEGIN, FINISH, HOUR, MINUTE

LEDGER: Final = "ledger.db"
LOG: Final = "requests.jsonl.gz"
PLANTED: Final = "planted.jsonl"
ABOUT: Final = "README.txt"
_FIRST_WORDS: Final = "Made by inforce demo."
_FILES: Final = (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", LOG, PLANTED)

_ABOUT_TEXT: Final = f"""{_FIRST_WORDS} The next demo in this folder replaces these files and no others.

{LEDGER}          the ledger of an invented platform (SQLite)
{LOG}  its invented request log
{PLANTED}      the violations planted in the log, by request_id
"""

ORIGIN: Final = "larkspur.example/demo"
UNREADABLE: Final = {
    11: b'{"request_id":"req-broken-1","at":"2024-11-08T10:15:02Z","account_id":"u0',
    27: b'{"request_id":"req-broken-2","at":"2025-01-30 11:02:45","org_id":"harbor-health"}',
    48: b'{"request_id":"req-broken-3","at":"2025-05-19T23:59:60.5Z","org_id":"quill-legal"}',
    66: b'{"request_id":"req-broken-4","at":"2025-09-02T08:00:00Z","model_id":"fathom/fathom-8b"}',
    93: b'{"request_id":"req-broken-5","at":"2025-12-12T12:12:12Z","org_id":"cinder-studio",'
    b'"handling":{"stored":"no"}}',
}
"""Percent of the log → the line to put there: cut off; a time without an offset; no such time; no sender; a text for a
bool. The audit must reject each line."""

TimedAction = Callable[[], LoggedRequest | None]


class DemoData(NamedTuple):
    """The ledger, the log, and what the audit must find. Requests are named by request_id, lines by number."""

    folder: Path
    story: list[StoryLine]
    events: int
    submissions: int
    subjects: int
    requests: int
    planted: dict[str, Judgement]
    differ_in_hindsight: frozenset[str]
    unreadable: frozenset[int]


def prepare(folder: Path) -> None:
    """Makes the folder, or deletes the files of an earlier demo and no others. Raises `BadInput` if the folder holds
    files of anybody else."""
    about = folder / ABOUT
    if folder.exists():
        if not folder.is_dir():
            raise BadInput("the demo's folder is a file; name another with --keep")
        is_ours = about.is_file() and about.read_text(errors="replace").startswith(_FIRST_WORDS)
        if not is_ours and any(folder.iterdir()):
            raise BadInput("the demo's folder holds files that are not of a demo; name another with --keep")
    try:
        make_private_folder(folder)
        _remove_files(folder)
        write_private(about, _ABOUT_TEXT.encode())
    except OSError as error:
        raise BadInput(f"the demo's folder cannot be written ({error.strerror}); name another with --keep") from None


def _remove_files(folder: Path) -> None:
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def generate(folder: Path, requests: int, seed: int, progress: Callable[[int], None] | None = None) -> DemoData:
    """Generates the same files, to the last byte, for the same seed. `folder` must be prepared.

    Calls `progress` from time to time with the number of requests written. Leaves no file if it is interrupted.
    """
    try:
        return _generate(folder, requests, seed, progress)
    except BaseException:
        _remove_files(folder)
        raise


def _generate(folder: Path, requests: int, seed: int, progress: Callable[[int], None] | None) -> DemoData:
    rng = Random(seed)  # noqa: S311 - an invented world that must be reproducible
    clock = ManualClock(BEGIN)
    recorder = open_recorder(f"sqlite:///{(folder / LEDGER).absolute()}")
    recorder.create({"origin": ORIGIN})
    with Ledger(recorder, clock, origin=ORIGIN, entropy=Random(seed).randbytes) as ledger:  # noqa: S311 - as above
        ledger.ensure_genesis()
        platform = Platform(ledger, clock)
        # Level 1, because the log is read once; mtime 0, so that the bytes are the same every time.
        make_private_file(folder / LOG)
        compressed = gzip.GzipFile(folder / LOG, "wb", compresslevel=1, mtime=0)
        with io.BufferedWriter(compressed, 1 << 18) as log:
            simulation = _Simulation(platform, Traffic(platform, rng), rng, requests, log)
            simulation.run(progress)
        planted = [{"request_id": name, **judgement._asdict()} for name, judgement in simulation.planted.items()]
        write_private(folder / PLANTED, msgspec.json.Encoder().encode_lines(planted))
        return DemoData(
            folder=folder,
            story=platform.story,
            events=platform.position,
            submissions=platform.submissions,
            subjects=len({subject for subject, _setting in platform.current}),
            requests=simulation.request_count,
            planted=simulation.planted,
            differ_in_hindsight=simulation.differ_in_hindsight(),
            unreadable=frozenset(simulation.unreadable),
        )


class _Simulation:
    """Merges the story and the traffic in the order of time."""

    def __init__(self, platform: Platform, traffic: Traffic, rng: Random, requests: int, log: BinaryIO) -> None:
        self.platform = platform
        self.traffic = traffic
        self.rng = rng
        self.requests = requests
        self.log = log
        self.line_count = 0
        self.request_count = 0
        self.planted: dict[str, Judgement] = {}
        self.unreadable: list[int] = []
        self._governed: list[tuple[str, str, int]] = []
        self._early: list[str] = []
        counts = planted_counts(requests)
        self._early_left = counts.pop(("before_first_record",))
        self._lagging_left = counts.pop(("enforcement_lag",))
        self._to_plant: list[Reasons] = [reasons for reasons, count in counts.items() for _ in range(count)]
        self._to_plant += [DENIED] * max(PLANTED_MIN, round(requests * DENIED_SHARE / 1000))
        rng.shuffle(self._to_plant)
        self._agenda: list[tuple[int, int, TimedAction]] = []
        self._agenda_count = 0
        self._switches_seen = 0

    def run(self, progress: Callable[[int], None] | None) -> None:
        for at in sorted(BEGIN - self.rng.randrange(1, 5 * DAY) for _ in range(self._early_left)):
            self._write(self.traffic.early(at))
        self._fill_agenda()
        times = sorted(self._request_time() for _ in range(self.requests - self._early_left - self._lagging_left))
        count = len(times)
        slots = set(self.rng.sample(range(count // 20, count - count // 20), len(self._to_plant)))
        unreadable = {count * percent // 100: line for percent, line in UNREADABLE.items()}
        due = 0
        for number, at in enumerate(times):
            if progress is not None and number % 1000 == 0:
                progress(number)
            self._advance(at)
            due += number in slots
            planted = self._plant() if due else None
            due -= planted is not None
            self._write(planted or self.traffic.honest())
            if number in unreadable:
                self.line_count += 1
                self.unreadable.append(self.line_count)
                self.log.write(unreadable[number] + b"\n")
        self._advance(FINISH)
        # Fewer requests may have met a lagging gateway than were reserved.
        while self.request_count < self.requests:
            self._advance(self.platform.clock.now_us + SECOND)
            self._write(self.traffic.honest())
        # A story that was cut too short fails here, not by a demo that lacks a reason.
        reasons = {reason for judgement in self.planted.values() for reason in judgement.reasons}
        assert not self._to_plant, f"never planted: {self._to_plant}"
        expected = REASONS.keys() - NOT_PLANTED
        assert reasons == expected, f"never planted: {expected - reasons}"

    def differ_in_hindsight(self) -> frozenset[str]:
        """The requests from before the ledger, and those in a period that was corrected later."""
        periods = self.platform.corrected
        request_ids = {
            request_id
            for request_id, governing, at in self._governed
            if any(period.subject == governing and period.start <= at < period.until for period in periods)
        }
        return frozenset(request_ids.union(self._early))

    def _request_time(self) -> int:
        """Later times are likelier, because the platform grows, and days likelier than nights."""
        share = max(self.rng.random(), self.rng.random() * 0.9)
        start = BEGIN + 10 * DAY
        day = start + int((FINISH - start) // DAY * share) * DAY
        return day + int(self.rng.triangular(0, 24 * HOUR - 1, 14 * HOUR))

    def _fill_agenda(self) -> None:
        for at, action in story(self.rng):
            self._at(at, partial(self._happen, action))
        for day in (1, 5, 11):
            self._at(WITHDRAWN_FROM + day * DAY + 10 * HOUR, partial(self.traffic.trained, CORRECTED_ORG))
        self._at(PASSTHROUGH_OFF_FROM + 9 * DAY, self._passthrough_violation)

    def _at(self, at: int, action: TimedAction) -> None:
        self._agenda_count += 1
        heapq.heappush(self._agenda, (at, self._agenda_count, action))

    def _advance(self, now: int) -> None:
        while self._agenda and self._agenda[0][0] <= now:
            at, _, action = heapq.heappop(self._agenda)
            self.platform.advance(at)
            request = action()
            if request is not None:
                self._write(request)
        self.platform.advance(now)

    def _happen(self, action: Action) -> None:
        action(self.platform)
        for switch in self.platform.switched_off[self._switches_seen :]:
            for _ in range(self.rng.randint(0, 2 + self.requests // 50_000)):
                self._at(switch.at + self.rng.randrange(20 * SECOND, 25 * MINUTE), partial(self._lagging, switch))
        self._switches_seen = len(self.platform.switched_off)

    def _lagging(self, switch: SwitchOff) -> LoggedRequest | None:
        request = self.traffic.lagging(switch) if self._lagging_left else None
        self._lagging_left -= request is not None
        return request

    def _passthrough_violation(self) -> LoggedRequest | None:
        """The violation that the demo shows: soon after the organization switched passthrough off."""
        reasons: Reasons = ("passthrough_not_allowed",)
        if reasons in self._to_plant:
            self._to_plant.remove(reasons)
        return self.traffic.violating(reasons, [PASSTHROUGH_OFF_ORG])

    def _plant(self) -> LoggedRequest | None:
        """The next violation, or the one after it if the platform has no sender for the next one now."""
        for index in range(min(2, len(self._to_plant))):
            reasons = self._to_plant[-1 - index]
            senders = FREQUENT_VIOLATORS if self.rng.random() < 0.5 and reasons != DENIED else ()
            request = self.traffic.violating(reasons, senders)
            if request is not None:
                del self._to_plant[-1 - index]
                return request
        return None

    def _write(self, request: LoggedRequest) -> None:
        if self.request_count == self.requests:
            return
        request_id = request.record["request_id"]
        self.log.write(msgspec.json.encode(request.record) + b"\n")
        self.line_count += 1
        self.request_count += 1
        if request.governing is not None:
            self._governed.append((request_id, request.governing, request.at))
        if request.expected is not None:
            self.planted[request_id] = request.expected
            if request.expected.reasons == ("before_first_record",):
                self._early.append(request_id)
