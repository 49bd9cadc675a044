"""`replay`: prints the ledger event by event, as sentences or as the exact bytes.

A sentence names the value before the change, so the narrator must get every event of its subjects, from the first.
Proved by tests/cli/test_replay.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge
from itertools import islice, takewhile
from operator import attrgetter
from typing import Any, Final, NamedTuple

import click
import msgspec

from ledger.codec import parse_leaf
from ledger.errors import NotFound
from ledger.events import ChangeRetracted, SettingDefined
from ledger.opening import open_ledger
from ledger.reader import PAGE_MAX
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT, KINDS, RESERVED_KINDS
from ledger.times import BEGINNING, END
from ledger.verbatim import valid_entries
from projections.temporal.changes import Change, Retraction, read_assertion, read_entries, same_change
from projections.temporal.fold import Timeline, fold
from projections.timelines.store import timelines_as_stored
from scripts.cli.instants import Instant, timezone
from scripts.cli.options import Format, after, database, output_format, subject_ref
from scripts.cli.output import csv_bytes, csv_row, human_bound, human_time, json_text, print_line, write, write_json

READING_PACE_S: Final = 0.15
_NO_CHANGES: Final = Timeline()
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


@click.command
@click.option("--subject", type=subject_ref(*KINDS, *RESERVED_KINDS), help="Only events about this subject.")
@after
@click.option("--since", type=Instant(), help="Only events recorded at this time or later.")
@click.option("--until", type=Instant(), help="Only events recorded before this time.")
@click.option("--known-at", type=Instant(), help="As if replayed at this time: ignore everything recorded later.")
@click.option(
    "--pace",
    type=click.FloatRange(0, 60),
    metavar="SECONDS",
    help="How long to wait between two events. Without it: reading speed on a terminal, 0 elsewhere.",
)
@timezone
@database
@output_format
def replay(
    db: str,
    format_: Format,
    subject: str | None,
    pace: float | None,
    *,
    after: int,
    since: int | None,
    until: int | None,
    known_at: int | None,
) -> None:
    """Print the ledger event by event.

    Prints a sentence per event, in the order of recording: the value before and after, from when and until when it
    holds as far as is known by then, which temporary change it ends early, who recorded it and why, and whether it was
    retracted later. --format ndjson prints the exact bytes of each event.

    \b
      inforce replay --subject org:acme
      inforce replay --since 2026-03-01 --until 2026-04-01 --timezone Europe/Berlin
      inforce replay --known-at 2026-03-15T00:00:00Z --pace 0
      inforce replay --format ndjson | head -1 | sha256sum
    """
    with open_ledger(db) as ledger:
        if subject is not None and not _has_history(ledger, subject):
            raise NotFound("the subject has no history in this ledger")
        ledger.require_reached(after)
        period = _Period(after, BEGINNING if since is None else since)
        end_known = END if known_at is None else known_at + 1
        end = end_known if until is None else min(until, end_known)
        if format_ == "table":
            # An event of the period may have been retracted after it.
            narrator = Narrator(ledger, _entries(ledger, subject, end_known))
            _print_sentences(ledger, subject, narrator, period, end, pace)
            return
        _write(format_, valid_entries(filter(period.holds, _entries(ledger, subject, end))))


class _Period(NamedTuple):
    """The events after a position that were recorded at `start` (µs) or later."""

    after: int
    start: int

    def holds(self, entry: Entry) -> bool:
        return entry.position > self.after and entry.recorded_at >= self.start


def _has_history(ledger: Ledger, subject: str) -> bool:
    ledger.newest_of = timelines_as_stored(ledger).newest
    return ledger.version_at(subject, ledger.head().position) > 0


def _write(format_: Format, entries: Iterator[Entry]) -> None:
    if format_ == "ndjson":
        for entry in entries:
            write(entry.leaf + b"\n")
    elif format_ == "csv":
        write(csv_bytes([_FIELDS]))
        for entry in entries:
            write(csv_bytes([csv_row(msgspec.Raw(entry.leaf), _FIELDS)]))
    elif sys.stdout.isatty():
        write_json({"events": [msgspec.Raw(entry.leaf) for entry in entries]})
    else:
        separator = b'{"events":['
        for entry in entries:
            write(separator + b"\n" + entry.leaf)
            separator = b","
        write(b'{"events":[]}\n' if separator != b"," else b"\n]}\n")


def _entries(ledger: Ledger, subject: str | None, end: int) -> Iterator[Entry]:
    """Everything that was recorded before `end` (µs)."""
    entries = _all_entries(ledger) if subject is None else ledger.stream(subject)
    return takewhile(lambda entry: entry.recorded_at < end, entries)


def _all_entries(ledger: Ledger) -> Iterator[Entry]:
    for page in ledger.pages(0, ledger.head().position):
        yield from page


def _print_sentences(
    ledger: Ledger, subject: str | None, narrator: Narrator, period: _Period, end: int, pace: float | None
) -> None:
    wait = (READING_PACE_S if sys.stdout.isatty() else 0) if pace is None else pace
    # From the first event on: a sentence names the value before.
    entries = _entries(ledger, subject, end)
    if subject not in (None, CATALOG_SUBJECT):
        # Where the subject has no value of its own, the value before is the default of that moment.
        entries = merge(_entries(ledger, CATALOG_SUBJECT, end), entries, key=attrgetter("position"))
    count = 0
    for sentence in _sentences(
        ledger, narrator, entries, lambda entry: period.holds(entry) and subject in (None, entry.subject)
    ):
        if count and wait:
            sys.stdout.flush()
            time.sleep(wait)
        print_line(sentence)
        count += 1
    if not count:
        print_line("nothing was recorded in this period")


def _sentences(
    ledger: Ledger, narrator: Narrator, entries: Iterator[Entry], is_printed: Callable[[Entry], bool]
) -> Iterator[str]:
    genesis: list[Entry] = []
    while batch := list(islice(entries, PAGE_MAX)):
        personal = ledger.personal(entry for entry in batch if is_printed(entry))
        for entry in batch:
            data = personal.get(entry.position)
            sentence = narrator.sentence(entry, None if data is None else data.reason)
            if not is_printed(entry):
                continue
            if (
                entry.topic == SettingDefined.TOPIC
                and entry.position == 1 + len(genesis)
                # Definitions that a newer inforce added are recorded later.
                and (not genesis or entry.recorded_at == genesis[0].recorded_at)
            ):
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


class Narrator:
    """Events as sentences. Reads a subject again only if one of its changes is retracted.

    `later_entries`: the retractions among them are named in the sentences about what they retract.
    """

    def __init__(self, ledger: Ledger, later_entries: Iterable[Entry]) -> None:
        self._ledger = ledger
        self._timelines: dict[tuple[str, str], Timeline] = {}
        self._retracted_by = {
            str(parse_leaf(entry.leaf).data.retracts): entry
            for entry in later_entries
            if entry.topic == ChangeRetracted.TOPIC
        }

    def sentence(self, entry: Entry, reason: str | None) -> str:
        """Call it for every event in order."""
        event = read_assertion(entry.leaf)
        what = self._retraction(entry, event) if isinstance(event, Retraction) else self._change(entry, event)
        why = f'{event.actor}: "{reason}"' if reason is not None else event.actor
        by = None if isinstance(event, Retraction) else self._retracted_by.get(event.event_id)
        later = f"  — retracted by #{by.position} on {human_time(by.recorded_at)}" if by else ""
        return f"{human_time(entry.recorded_at)}  #{entry.position}  {entry.subject}  {what}  ({why}){later}"

    def _change(self, entry: Entry, change: Change) -> str:
        timeline = self._timelines.setdefault((entry.subject, change.setting), Timeline())
        before = self._value_at(entry.subject, change.setting, change.effective_from)
        decided_before = timeline.at(change.effective_from)
        if not timeline.apply(change):
            events = read_entries(self._ledger.stream(entry.subject, until=entry.version))
            timeline = self._timelines[entry.subject, change.setting] = fold(events)[change.setting]
        if entry.subject == CATALOG_SUBJECT:
            return f"{change.setting}  {_definition(decided_before, change)}  {_period(change, timeline)}"
        after = self._value_at(entry.subject, change.setting, change.effective_from)
        cleared = " (cleared)" if change.value is None else ""
        ends = _ended(change, decided_before)
        return f"{change.setting}  {_difference(before, after)}{cleared}  {_period(change, timeline)}{ends}"

    def _retraction(self, entry: Entry, retraction: Retraction) -> str:
        events = read_entries(self._ledger.stream(entry.subject, until=entry.version))
        change = next(e for e in events if isinstance(e, Change) and e.event_id == retraction.retracts)
        key = entry.subject, retraction.setting
        before = self._value_at(*key, change.effective_from)
        self._timelines[key] = fold(events)[retraction.setting]
        after = self._value_at(*key, change.effective_from)
        start = human_bound(change.effective_from)
        return f"{retraction.setting}  retracts #{change.position}: {_difference(before, after)}  from {start} on"

    def _value_at(self, subject: str, setting: str, instant: int) -> str:
        own = self._timelines.get((subject, setting), _NO_CHANGES).at(instant)
        if own is not None and own.value is not None:
            return json_text(own.value)
        definition = self._timelines.get((CATALOG_SUBJECT, setting), _NO_CHANGES).at(instant)
        if definition is None or not isinstance(definition.value, dict):
            return "nothing"
        return f"default {json_text(definition.value['default'])}"


def _difference(before: str, after: str) -> str:
    return f"still {after}" if before == after else f"{before} → {after}"


def _definition(before: Change | None, change: Change) -> str:
    definition: Mapping[str, Any] = change.value if isinstance(change.value, dict) else {}
    default = json_text(definition.get("default"))
    if before is None or not isinstance(before.value, dict):
        kinds = ", ".join(definition.get("kinds", ()))
        return f"defined: {definition.get('value_type')} of {kinds}, default {default}"
    old = json_text(before.value.get("default"))
    return f"redefined: default {old} → {default}" if old != default else f"redefined: default {default}"


def _ended(change: Change, decided_before: Change | None) -> str:
    """The temporary change that a change without an end ends early."""
    if change.effective_until is not None or decided_before is None or decided_before.effective_until is None:
        return ""
    return f", ends #{decided_before.position}, which was to hold until {human_time(decided_before.effective_until)}"


def _period(change: Change, timeline: Timeline) -> str:
    """When the change holds, and whether it is scheduled or backdated."""
    start, until = change.effective_from, change.effective_until
    if start == BEGINNING:
        return "from the beginning"
    if start == change.recorded_at:
        words, note = "from now", ""
    else:
        words = f"from {human_time(start)}"
        note = ", scheduled" if start > change.recorded_at else ", backdated"
    if until is not None:
        return f"{words} until {human_bound(until)}{note}"
    # A change without an end holds until the next change that is already scheduled.
    next_start = timeline.step(start).until
    while next_start < END and same_change(timeline.at(next_start), change):
        next_start = timeline.step(next_start).until
    next_change = timeline.at(next_start) if next_start < END else None
    if next_change is None:
        return f"{words} on{note}"
    return f"{words} until #{next_change.position} on {human_time(next_start)}{note}"
