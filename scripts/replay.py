"""`replay`: prints the ledger event by event, as sentences or as the exact bytes.

Proved by tests/cli/test_replay.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

import click
import msgspec

from ledger.errors import NotFound
from ledger.events import SettingDefined
from ledger.opening import open_ledger
from ledger.reader import PAGE_MAX
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT, KINDS
from ledger.verbatim import valid_entries
from scripts.cli.narrate import Narrator
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
    """What to print, by the time of recording (µs): events in [since, until), none of them later than `known_at`."""

    since: int | None
    until: int | None
    known_at: int | None

    def includes(self, entry: Entry) -> bool:
        return (self.since is None or entry.recorded_at >= self.since) and not self.is_over(entry)

    def is_over(self, entry: Entry) -> bool:
        """Whether this event and all later ones lie behind the period."""
        ended = self.until is not None and entry.recorded_at >= self.until
        return ended or (self.known_at is not None and entry.recorded_at > self.known_at)


@click.command(context_settings=EXAMPLES)
@click.option("--subject", type=SubjectRef(*KINDS, "catalog"), help="Only events about this subject.")
@click.option("--since", type=Instant(), help="Only events recorded at this time or later.")
@click.option("--until", type=Instant(), help="Only events recorded before this time.")
@click.option("--known-at", type=Instant(), help="As if replayed at this time: ignore everything recorded later.")
@click.option(
    "--pace",
    type=click.FloatRange(0, 60),
    metavar="SECONDS",
    help="How long to wait between two events. Without it: reading speed on a terminal, 0 elsewhere.",
)
@database
@output_format
def replay(
    db: str,
    format_: Format,
    subject: str | None,
    pace: float | None,
    *,
    since: int | None,
    until: int | None,
    known_at: int | None,
) -> None:
    """Print the ledger event by event.

    Prints a sentence per event, in the order of recording: the value before and after, from when it holds, who
    recorded it and why, and whether it was retracted later. --format ndjson prints the exact bytes of each event.

    \b
      inforce replay --subject org:acme
      inforce replay --since 2026-03-01T00:00:00Z --until 2026-04-01T00:00:00Z
      inforce replay --known-at 2026-03-15T00:00:00Z --pace 0
      inforce replay --format ndjson | head -1 | sha256sum
    """
    with open_ledger(db) as ledger:
        if subject is not None and not ledger.recorder.versions([subject])[subject]:
            raise NotFound("the subject has no history in this ledger")
        period = Period(since, until, known_at)
        if format_ == "table":
            _print_sentences(ledger, subject, period, pace)
            return
        entries = (entry for entry in _entries(ledger, subject, period) if period.includes(entry))
        _write(format_, valid_entries(entries))


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
    """Everything from the first event to the end of the period."""
    if subject is not None:
        yield from (entry for entry in ledger.stream(subject) if not period.is_over(entry))
        return
    after = 0
    head = ledger.head().position
    while page := ledger.page(after, PAGE_MAX, head):
        for entry in page:
            if period.is_over(entry):
                return
            yield entry
        after = page[-1].position


def _print_sentences(ledger: Ledger, subject: str | None, period: Period, pace: float | None) -> None:
    wait = (READING_PACE_S if sys.stdout.isatty() else 0) if pace is None else pace
    narrator = Narrator(lambda of, version: ledger.stream(of, until=version))
    # An event of the period may have been retracted after it.
    narrator.note_retractions(_entries(ledger, subject, Period(None, None, period.known_at)))
    # From the first event on: a sentence names the value before.
    entries = _entries(ledger, subject, period)
    if subject not in (None, CATALOG_SUBJECT):
        # Where the subject has no value of its own, the value before is the default of that moment.
        entries = merge(_entries(ledger, CATALOG_SUBJECT, period), entries, key=attrgetter("position"))
    count = 0
    while batch := list(islice(entries, PAGE_MAX)):
        for sentence in _sentences(
            ledger, narrator, batch, lambda entry: period.includes(entry) and subject in (None, entry.subject)
        ):
            if count and wait:
                sys.stdout.flush()
                time.sleep(wait)
            print_line(sentence)
            count += 1
    if not count:
        print_line("nothing was recorded in this period")


def _sentences(
    ledger: Ledger, narrator: Narrator, batch: list[Entry], is_printed: Callable[[Entry], bool]
) -> Iterator[str]:
    reasons = ledger.reasons(entry.position for entry in batch if is_printed(entry))
    genesis: list[Entry] = []
    for entry in batch:
        sentence = narrator.sentence(entry, reasons.get(entry.position))
        if not is_printed(entry):
            continue
        if entry.topic == SettingDefined.TOPIC and entry.position == 1 + len(genesis):
            genesis.append(entry)
            continue
        if genesis:
            yield _genesis_sentence(genesis)
            genesis = []
        yield sentence
    if genesis:
        yield _genesis_sentence(genesis)


def _genesis_sentence(genesis: list[Entry]) -> str:
    """One sentence for the built-in definitions with which every ledger begins."""
    return (
        f"{human_time(genesis[0].recorded_at)}  #1 to #{len(genesis)}  the ledger begins, with the definitions of "
        f"{len(genesis)} settings  (--subject {CATALOG_SUBJECT} --format ndjson prints them)"
    )
