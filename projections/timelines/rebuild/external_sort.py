"""What was said, brought from the order of events into the order of subjects, within bounded memory.

The events table is in the order of positions, and a subject's events lie all over it: to read them subject by subject
costs three times as much as to read them as they lie (a page of the file for every event; more where the file is larger
than the memory). So they are read once as they lie, and put into buckets by ranges of subjects; what does not fit in
memory goes to a temporary file that has no name, so that nothing is left of it whatever becomes of the process.

From here on a change is the bytes that a timeline's step is stored as: most are never taken apart again.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

import msgspec
from msgspec import Raw, Struct

from ledger.errors import LedgerUnavailable
from ledger.recorders.contract import Recorder
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.in_force import goes_on_from

BUCKET_EVENTS: Final = 10_000
"""What is folded at a time: some megabytes, which a processor's cache holds."""
HELD_EVENTS: Final = 200_000
"""About 250 bytes each until they go to the file, and 150 there."""
_SAMPLES_A_BUCKET: Final = 10


class Said(Struct, array_like=True, gc=False):
    """What an event says about `subject`: `assertion`, a `Change` or `Retraction` in msgpack.

    `start`: see `goes_on_from`.
    """

    subject: str
    setting: str
    start: int | None
    retracting: bool
    assertion: Raw


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Said]).decode
read_change: Final = msgspec.msgpack.Decoder(Change).decode
_read_retraction: Final = msgspec.msgpack.Decoder(Retraction).decode


def read_said(said: Said) -> Assertion:
    return _read_retraction(said.assertion) if said.retracting else read_change(said.assertion)


class Range(NamedTuple):
    """The subjects with above < subject <= upto in byte order; `upto` None: to the last."""

    above: str
    upto: str | None


def ranges(recorder: Recorder, events: int, bucket_events: int) -> list[Range]:
    """All subjects, cut so that each range has about so many of the first `events` events. A guess from a sample: where
    it is wrong, a range is larger or smaller, and nothing else."""
    wanted = events // bucket_events
    if wanted < 2:
        return [Range("", None)]
    # Drawn, not evenly spaced: whoever writes in turns has a rhythm. From a fixed seed: the same again every time.
    random = Random(events)  # noqa: S311 - a sample, no secret
    drawn = sorted({random.randrange(events) + 1 for _ in range(wanted * _SAMPLES_A_BUCKET)})
    subjects = recorder.subjects_at(drawn)
    every = max(1, len(subjects) // wanted)
    cuts = subjects[every - 1 : -1 : every]
    return [Range(above, upto) for above, upto in zip(["", *cuts], [*cuts, None], strict=True)]


class _Part(NamedTuple):
    """So many of a bucket's events, in the file."""

    at: int
    length: int
    events: int


class Sorter:
    """Takes assertions in position order, gives them back bucket by bucket. A bucket for each of `ranges`, which
    follow each other. Raises `LedgerUnavailable` where there is no room for its file."""

    def __init__(self, ranges: Sequence[Range], held_events: int = HELD_EVENTS) -> None:
        self._bounds = [range_.upto for range_ in ranges[:-1] if range_.upto is not None]
        self._buckets: list[list[bytes]] = [[] for _ in ranges]
        self._written: list[list[_Part]] = [[] for _ in ranges]
        self._held_events = held_events
        self._held = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, page: Iterable[tuple[str, Assertion]]) -> int:
        """(subject, what is said about it), in position order. How many there were."""
        bounds, buckets = self._bounds, self._buckets
        before = self._held
        for subject, said in page:
            buckets[bisect_left(bounds, subject)].append(
                _encode((subject, said.setting, goes_on_from(said), isinstance(said, Retraction), said))
            )
            self._held += 1
        added = self._held - before
        if self._held >= self._held_events:
            self._write()
        return added

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
            at = self._file.seek(0, 2)
            for bucket, written in zip(self._buckets, self._written, strict=True):
                if bucket:
                    length = self._file.write(b"".join(bucket))
                    written.append(_Part(at, length, len(bucket)))
                    at += length
                    bucket.clear()
        except OSError as error:
            raise _no_room(error) from error
        self._held = 0

    def buckets(self) -> Iterator[Iterator[Said]]:
        """What was said about the subjects of each range, in position order."""
        for number, (bucket, written) in enumerate(zip(self._buckets, self._written, strict=True)):
            yield self._said(written, bucket)
            self._buckets[number] = []

    def _said(self, written: Iterable[_Part], held: Sequence[bytes]) -> Iterator[Said]:
        for part in written:
            yield from _together(part.events, self._read(part))
        yield from _together(len(held), b"".join(held))

    def _read(self, part: _Part) -> bytes:
        assert self._file is not None
        try:
            self._file.seek(part.at)
            return self._file.read(part.length)
        except OSError as error:
            raise _no_room(error) from error


def _together(events: int, content: bytes) -> list[Said]:
    # An array of msgpack is its length (`array 32`) and its members, one after the other.
    return _decode(b"\xdd" + events.to_bytes(4, "big") + content)


def _no_room(error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"the temporary file in {tempfile.gettempdir()} cannot be used ({error.strerror}): a rebuild wants about 150"
        " bytes for each event there; make room, or name another folder with TMPDIR"
    )
