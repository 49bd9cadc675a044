"""Importing a whole ledger into an empty one: exported events, or submissions that were accepted elsewhere.

Otherwise only the ledger sets recorded_at, so importing is for operators. A half-finished import can never be opened:
from before its first batch until its last, the ledger carries the fact that an import is running, and a failed import
removes everything that it created. Proved by tests/transfer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import BinaryIO, Final, Literal, NamedTuple

from ledger.clock import Clock, SystemClock
from ledger.drafts import PersonalData
from ledger.entropy import EntropySource, random_bytes
from ledger.errors import BadImport, BadInput, InforceError, LedgerUnavailable
from ledger.opening import new_incarnation, new_origin, open_recorder, require_origin
from ledger.recorders.contract import IMPORTING, INCARNATION, Entry, PreconditionFailed, Recorder
from ledger.strict_json import MAX_BYTES
from ledger.times import format_time
from ledger.transfer.import_events import ImportedEntry, PersonalLines, entries_of_events, is_event_line, origin_of
from ledger.transfer.import_submissions import entries_of_submissions
from ledger.transfer.lines import ImportLine, ImportLines

BATCH: Final = 10_000
"""Events in one commit."""
BATCH_BYTES: Final = 16 * 1024 * 1024
"""A commit ends with the event whose leaf and reason reach this size."""

Progress = Callable[[int, int], None]
"""Called after each batch with the events recorded and the bytes read from the stream so far."""


class ImportSummary(NamedTuple):
    """`events` counts all events in the ledger, the genesis catalog included; `submissions` the distinct recorded_at
    times, of which `first` and `last` (µs) are the outermost."""

    source: Literal["events", "submissions"]
    origin: str
    events: int
    submissions: int
    first: int
    last: int
    personal: int


def import_ledger(
    url: str,
    stream: BinaryIO,
    *,
    personal: BinaryIO | None = None,
    origin: str | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    clock: Clock | None = None,
    entropy: EntropySource = random_bytes,
) -> ImportSummary:
    """Fills the empty or missing ledger at `url` from `stream`: exported events, or submissions.

    `personal` is an export of personal data that belongs to exported events. `origin` names the new ledger of
    submissions (None makes a unique origin; exported events keep theirs). `announce` gets a line that says where the
    ledger is, once it is filled, and another one if its last events lie ahead of the clock. Raises `BadImport`,
    `BadInput` and `LedgerUnavailable`, and then leaves nothing behind.
    """
    clock = clock or SystemClock()
    lines = ImportLines(stream)
    rows = iter(lines)
    first = next(rows, None)
    if first is None:
        raise BadImport("there is no line to import")
    first, rows = whole_document(first, rows)
    rows = chain((first,), rows)
    source: Literal["events", "submissions"]
    if is_event_line(first):
        source, ledger_origin = "events", origin_of(first)
        if origin not in (None, ledger_origin):
            raise BadInput("exported events keep the origin that they were exported with; leave the origin out")
        entries = entries_of_events(rows, ledger_origin, PersonalLines(personal) if personal else None)
    else:
        source, ledger_origin = "submissions", origin or new_origin()
        require_origin(ledger_origin)
        if personal:
            raise BadInput("personal data belongs to exported events; submissions contain their reasons themselves")
        entries = entries_of_submissions(rows, ledger_origin, clock.now(), entropy)
    # Verify the first entry before anything is created.
    entries = chain((next(entries),), entries)
    with _claimed_ledger(url, ledger_origin) as (recorder, importing):
        summary = _fill(recorder, importing, entries, lines, progress)
        if announce is not None:
            announce(f"began a new ledger {recorder.location}")
            if summary.last > (now := clock.now()):
                announce(
                    f"the last event was recorded at {format_time(summary.last)}, and this machine's clock shows "
                    f"{format_time(now)}: what was recorded ahead of it is not in force yet, and nothing is recorded "
                    "while the clock is far behind; see inforce doctor clock"
                )
        return summary._replace(source=source, origin=ledger_origin)


def whole_document(first: ImportLine, rows: Iterator[ImportLine]) -> tuple[ImportLine, Iterator[ImportLine]]:
    """The first line and the others; a document over several lines, as editors print one, is one line.

    Raises `BadImport` if the first line is no JSON value, and neither is the whole file.
    """
    try:
        first.json()
    except BadImport:
        text = bytearray(first.text)
        for line in rows if text.startswith((b"{", b"[")) else ():
            text += b"\n" + line.text
            if len(text) > MAX_BYTES:
                break
        document = first._replace(text=bytes(text))
        # This names the first line, too.
        document.json()
        return document, iter(())
    return first, rows


def _fill(
    recorder: Recorder,
    importing: str,
    imported: Iterator[ImportedEntry],
    lines: ImportLines,
    progress: Progress | None,
) -> ImportSummary:
    summary = ImportSummary("events", "", 0, 0, 0, 0, 0)
    last_batch = False
    while not last_batch:
        entries: list[Entry] = []
        personal: list[tuple[int, PersonalData]] = []
        submissions = bytes_ = 0
        recorded_at = summary.last if summary.events else None
        for entry, data in imported:
            entries.append(entry)
            if data is not None:
                personal.append((entry.position, data))
                bytes_ += len(data.content)
            bytes_ += len(entry.leaf)
            if entry.recorded_at != recorded_at:
                recorded_at = entry.recorded_at
                submissions += 1
            if len(entries) == BATCH or bytes_ >= BATCH_BYTES:
                break
        else:
            last_batch = True
        recorder.restore(entries, personal, importing=importing, last=last_batch)
        if entries:
            summary = summary._replace(
                events=summary.events + len(entries),
                submissions=summary.submissions + submissions,
                first=summary.first if summary.events else entries[0].recorded_at,
                last=entries[-1].recorded_at,
                personal=summary.personal + len(personal),
            )
        if progress is not None:
            progress(summary.events, lines.bytes_read)
    return summary


@contextmanager
def _claimed_ledger(url: str, origin: str) -> Iterator[tuple[Recorder, str]]:
    """An empty ledger that this import has claimed, and the claim; removed again if an error leaves the block."""
    importing = secrets.token_hex(16)
    recorder = open_recorder(url)
    existed = recorder.file is None or recorder.file.exists()
    try:
        _claim(recorder, origin, importing)
        try:
            yield recorder, importing
        except BaseException:
            # If this fails too, the ledger still carries the fact that its import was not finished.
            with suppress(InforceError, PreconditionFailed):
                _remove(recorder, importing, existed=existed)
            raise
    except PreconditionFailed:
        raise LedgerUnavailable("another import into this ledger has begun; this one was abandoned") from None
    finally:
        recorder.close()


def _remove(recorder: Recorder, importing: str, *, existed: bool) -> None:
    try:
        recorder.drop(importing)
    except InforceError:
        # A full disk may lack the room to drop tables. A new file can be deleted all the same.
        if existed or recorder.meta().get(IMPORTING) != importing:
            raise
    if not existed:
        recorder.delete_file()


def _claim(recorder: Recorder, origin: str, importing: str) -> None:
    """Raises `BadImport` if the ledger has events, `PreconditionFailed` if another import is quicker."""
    meta = recorder.meta()
    if meta:
        if IMPORTING not in meta and (count := recorder.head().position):
            raise BadImport(
                f"this ledger holds {count} events and an import fills an empty one; name another database with --db"
            )
        recorder.drop(meta.get(IMPORTING))
    recorder.create({"origin": origin, INCARNATION: new_incarnation(), IMPORTING: importing})
    if recorder.meta().get(IMPORTING) != importing:
        raise PreconditionFailed
