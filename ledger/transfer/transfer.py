"""A whole ledger out, and into an empty one (WIRE.md section 3).

`export_lines` gives the exact bytes of every event; `import_ledger` restores them, or records submissions that were
accepted elsewhere at the times they carry. Elsewhere only the ledger sets recorded_at: an import is the operator's.
Nothing half-written is ever opened: from before its first batch until its last, the ledger says that an import is at
work, and what an import that failed had made is taken away again. Proved by tests/transfer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import BinaryIO, Final, Literal, NamedTuple

import msgspec

from ledger.append.decide import Entropy
from ledger.clock import Clock, SystemClock
from ledger.drafts import PersonalData
from ledger.entropy import fresh
from ledger.errors import BadImport, BadInput, InforceError, LedgerUnavailable
from ledger.opening import new_origin, open_recorder, sqlite_path
from ledger.recorders.contract import IMPORTING, Entry, Recorder, Stale
from ledger.store import Ledger
from ledger.subjects import is_origin
from ledger.transfer.import_events import PersonalLines, PersonalRow, Restored, is_event_line, origin_of, restored
from ledger.transfer.import_submissions import resubmitted
from ledger.transfer.lines import Lines
from ledger.verbatim import exact

BATCH: Final = 10_000
"""Events to a commit, and to a page of an export."""

Progress = Callable[[int, int], None]
"""Is told, batch by batch, the events recorded and the bytes taken from the stream."""


class ImportSummary(NamedTuple):
    """What an import recorded. `events` counts all that the ledger now holds, the genesis catalog included;
    `submissions` the distinct moments of recording, of which `first` and `last` (µs) are the outermost."""

    source: Literal["events", "submissions"]
    origin: str
    events: int
    submissions: int
    first: int
    last: int
    personal: int


def export_lines(ledger: Ledger, *, after: int = 0, until: int | None = None) -> Iterator[bytes]:
    """The events with after < position <= until, as the ledger stands at the start: exact bytes, one a line.

    Raises `LedgerCorrupt`, naming the position, in place of an event that is no line.
    """
    for page in _pages(ledger, after, until):
        for entry in exact(page):
            yield entry.leaf + b"\n"


def export_personal(ledger: Ledger) -> Iterator[bytes]:
    """The personal data kept beside the events, in order of position: it is not part of their bytes."""
    for page in _pages(ledger, 0, None):
        kept = ledger.recorder.personal([entry.position for entry in page])
        for position, data in sorted(kept.items()):
            yield msgspec.json.encode(PersonalRow(position, data.salt.hex(), data.content)) + b"\n"


def _pages(ledger: Ledger, after: int, until: int | None) -> Iterator[list[Entry]]:
    head = ledger.head().position
    last = head if until is None else min(until, head)
    while page := ledger.page(after, BATCH, last):
        yield page
        after = page[-1].position


def import_ledger(
    url: str,
    stream: BinaryIO,
    *,
    personal: BinaryIO | None = None,
    origin: str | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
    entropy: Entropy = fresh,
) -> ImportSummary:
    """Fills the empty or absent ledger at `url` with what `stream` holds: exported events, or submissions.

    `personal` is an export of personal data that belongs to exported events; `origin` names the new ledger of
    submissions (None makes a unique one; exported events keep theirs). Raises `BadImport`, `BadInput` and
    `LedgerUnavailable`, and then leaves no part of it behind.
    """
    lines = Lines(stream)
    rows = iter(lines)
    first = next(rows, None)
    if first is None:
        raise BadImport("there is no line to import")
    rows = chain((first,), rows)
    source: Literal["events", "submissions"]
    if is_event_line(first):
        source, named = "events", origin_of(first)
        if origin not in (None, named):
            raise BadInput("exported events keep the origin that they were exported with; leave the origin out")
        items = restored(rows, named, PersonalLines(personal) if personal else None)
    else:
        source, named = "submissions", origin or new_origin()
        if not is_origin(named):
            raise BadInput("an origin is written like a host and a path in lower case: ledger.example.com/eu")
        if personal:
            raise BadInput("personal data belongs to exported events; submissions carry their reasons themselves")
        items = resubmitted(rows, named, (clock or SystemClock()).now(), entropy)
    # The first submission is verified before anything is made.
    items = chain((next(items),), items)
    with _empty_ledger(url, named) as (recorder, importing):
        return _fill(recorder, importing, items, lines, progress)._replace(source=source, origin=named)


def _fill(
    recorder: Recorder, importing: str, items: Iterator[Restored], lines: Lines, progress: Progress | None
) -> ImportSummary:
    summary = ImportSummary("events", "", 0, 0, 0, 0, 0)
    last_batch = False
    while not last_batch:
        entries: list[Entry] = []
        kept: list[tuple[int, PersonalData]] = []
        moments = 0
        recorded_at = summary.last if summary.events else None
        for entry, data in items:
            entries.append(entry)
            if data is not None:
                kept.append((entry.position, data))
            if entry.recorded_at != recorded_at:
                recorded_at = entry.recorded_at
                moments += 1
            if len(entries) == BATCH:
                break
        last_batch = len(entries) < BATCH
        recorder.restore(entries, kept, importing=importing, last=last_batch)
        if entries:
            summary = summary._replace(
                events=summary.events + len(entries),
                submissions=summary.submissions + moments,
                first=summary.first if summary.events else entries[0].recorded_at,
                last=entries[-1].recorded_at,
                personal=summary.personal + len(kept),
            )
        if progress is not None:
            progress(summary.events, lines.bytes_read)
    return summary


@contextmanager
def _empty_ledger(url: str, origin: str) -> Iterator[tuple[Recorder, str]]:
    """A ledger that is ours to fill, said to be in the hands of an import; gone again if an error leaves the block."""
    file = sqlite_path(url)[0] if url.startswith("sqlite:") else None
    existed = file is not None and file.exists()
    importing = secrets.token_hex(16)
    recorder = open_recorder(url)
    try:
        _take(recorder, origin, importing)
        try:
            yield recorder, importing
        except BaseException:
            # Whatever hinders this, the ledger still says that its import was not finished.
            with suppress(InforceError, Stale):
                recorder.drop(importing)
                if file is not None and not existed:
                    recorder.close()
                    for part in ("-wal", "-shm", ""):
                        file.with_name(file.name + part).unlink(missing_ok=True)
            raise
    except Stale:
        raise LedgerUnavailable("another import into this ledger has begun since; this one was given up") from None
    finally:
        recorder.close()


def _take(recorder: Recorder, origin: str, importing: str) -> None:
    meta = recorder.meta()
    if meta:
        if IMPORTING not in meta and (held := recorder.head().position):
            raise BadImport(
                f"this ledger holds {held} events and an import fills an empty one; name another database with --db"
            )
        recorder.drop(meta.get(IMPORTING))
    recorder.create({"origin": origin, IMPORTING: importing})
    if recorder.meta().get(IMPORTING) != importing:
        raise Stale
