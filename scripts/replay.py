"""`replay`: prints the ledger event by event."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any, Final, NamedTuple

import click
import msgspec

from ledger.errors import NotFound
from ledger.events import SettingDefined
from ledger.opening import open_ledger
from ledger.recorders.contract import Entry
from ledger.store import PAGE_MAX, Ledger
from ledger.subjects import CATALOG_SUBJECT, KINDS
from ledger.verbatim import exact
from scripts.cli.narrate import Teller
from scripts.cli.options import EXAMPLES, Format, Instant, SubjectRef, database, output_format
from scripts.cli.output import csv_bytes, csv_row, human_time, print_line, write

READING_PACE_S: Final = 0.15
_FIELDS: Final = (
    "data.position",
    "time",
    "subject",
    "data.version",
    "type",
    "data.setting",
    "data.value",
    "data.effective_from",
    "data.effective_until",
    "data.retracts",
    "data.actor",
    "id",
)


class Period(NamedTuple):
    """Of recording, in µs: what is told of lies in [since, until), and nothing later than `known_at` is known."""

    since: int | None
    until: int | None
    known_at: int | None

    def is_known(self, entry: Entry) -> bool:
        return self.known_at is None or entry.recorded_at <= self.known_at

    def tells(self, entry: Entry) -> bool:
        began = self.since is None or entry.recorded_at >= self.since
        return began and not self.is_over(entry)

    def is_over(self, entry: Entry) -> bool:
        return (self.until is not None and entry.recorded_at >= self.until) or not self.is_known(entry)


@click.command(context_settings=EXAMPLES)
@click.option("--subject", type=SubjectRef(*KINDS, "catalog"), help="Only what concerns this subject.")
@click.option("--since", type=Instant(), help="From what was recorded at this moment on.")
@click.option("--until", type=Instant(), help="Up to what was recorded before this moment.")
@click.option("--known-at", type=Instant(), help="As it could be told at this moment: of nothing recorded later.")
@click.option(
    "--pace",
    type=click.FloatRange(0, 60),
    metavar="SECONDS",
    help="Between two events. Left out: reading speed on a terminal, none elsewhere.",
)
@database
@output_format
def replay(db: str, format_: Format, subject: str | None, pace: float | None, **period: Any) -> None:
    """Tell the ledger's story, event by event.

    A sentence an event, in the order of recording: what it changed from what to what, from when on, who said so and
    why, and whether it was taken back later. --format ndjson gives the exact bytes of each event instead.

    \b
      inforce replay --subject org:acme
      inforce replay --since 2026-03-01T00:00:00Z --until 2026-04-01T00:00:00Z
      inforce replay --known-at 2026-03-15T00:00:00Z --pace 0
      inforce replay --format ndjson | head -1 | sha256sum
    """
    with open_ledger(db) as ledger:
        if subject is not None and not ledger.recorder.versions([subject])[subject]:
            raise NotFound("the subject has no history in this ledger")
        asked = Period(**period)
        if format_ == "table":
            _tell(ledger, subject, asked, pace)
            return
        entries = (entry for entry in _entries(ledger, subject, asked) if asked.tells(entry))
        _write(format_, exact(entries))


def _write(format_: Format, entries: Iterator[Entry]) -> None:
    if format_ == "ndjson":
        for entry in entries:
            write(entry.leaf + b"\n")
    elif format_ == "csv":
        write(csv_bytes([_FIELDS]))
        for entry in entries:
            write(csv_bytes([csv_row(msgspec.Raw(entry.leaf), _FIELDS)]))
    else:
        separator = b'{"events":['
        for entry in entries:
            write(separator + b"\n" + entry.leaf)
            separator = b","
        write(b'{"events":[]}\n' if separator != b"," else b"\n]}\n")


def _entries(ledger: Ledger, subject: str | None, period: Period) -> Iterator[Entry]:
    """Everything from the first event to where the period is over."""
    if subject is not None:
        entries = ledger.stream(subject)
        yield from (entry for entry in entries if not period.is_over(entry))
        return
    after = 0
    head = ledger.head().position
    while page := ledger.page(after, PAGE_MAX, head):
        for entry in page:
            if period.is_over(entry):
                return
            yield entry
        after = page[-1].position


def _tell(ledger: Ledger, subject: str | None, period: Period, pace: float | None) -> None:
    wait = (READING_PACE_S if sys.stdout.isatty() else 0) if pace is None else pace
    teller = Teller(lambda of, version: ledger.stream(of, until=version))
    # What became of an event may have been recorded after the period that is told of.
    teller.foretell(_entries(ledger, subject, Period(None, None, period.known_at)))
    heard = _entries(ledger, subject, period)
    if subject not in (None, CATALOG_SUBJECT):
        # Where a subject has no value of its own, the definition of the moment says what was before.
        heard = merge(_entries(ledger, CATALOG_SUBJECT, period), heard, key=attrgetter("position"))
    told = 0
    while batch := list(islice(heard, PAGE_MAX)):
        for sentence in _sentences(ledger, teller, batch, lambda e: period.tells(e) and subject in (None, e.subject)):
            if told and wait:
                sys.stdout.flush()
                time.sleep(wait)
            print_line(sentence)
            told += 1
    if not told:
        print_line("nothing was recorded in this period")


def _sentences(ledger: Ledger, teller: Teller, batch: list[Entry], tells: Callable[[Entry], bool]) -> Iterator[str]:
    reasons = ledger.reasons(entry.position for entry in batch if tells(entry))
    genesis: list[Entry] = []
    for entry in batch:
        sentence = teller.hear(entry, reasons.get(entry.position))
        if not tells(entry):
            continue
        if entry.topic == SettingDefined.TOPIC and entry.position == 1 + len(genesis):
            genesis.append(entry)
            continue
        if genesis:
            yield _beginning(genesis)
            genesis = []
        yield sentence
    if genesis:
        yield _beginning(genesis)


def _beginning(genesis: list[Entry]) -> str:
    return (
        f"{human_time(genesis[0].recorded_at)}  #1 to #{len(genesis)}  the ledger begins, with the definitions of "
        f"{len(genesis)} settings  (--subject {CATALOG_SUBJECT} --format ndjson tells them)"
    )
