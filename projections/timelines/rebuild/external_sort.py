"""Sorts changes from the order of events into the order of subjects, within bounded memory.

The events are read once in their order and put into buckets by ranges of subjects (why: projections/DECISIONS.md).
Changes that do not fit in memory go to a temporary file without a name, so that nothing is left of it even if the
process is killed.

From here on a change is the bytes that a timeline's step is stored as: most changes are never decoded again.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import BinaryIO, Final, NamedTuple, Self

import msgspec
from msgspec import Raw, Struct

from ledger.errors import LedgerUnavailable
from ledger.recorders.contract import Recorder
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.in_force import appends_from

BUCKET_EVENTS: Final = 10_000
"""Folded at a time: some megabytes, which a processor's cache holds."""
HELD_EVENTS: Final = 200_000
"""In memory, of about 250 bytes each, until they go to the file, where each takes 150."""
HELD_BYTES: Final = 64 * 1024 * 1024
"""Of encoded events, which go to the file when they reach this size, however few they are."""
BUCKET_BYTES: Final = 16 * 1024 * 1024
"""Of encoded events, folded at a time: a larger bucket is given back in parts, subject by subject."""
_SAMPLES_A_BUCKET: Final = 10


class EncodedEvent(Struct, array_like=True, gc=False):
    """An event about `subject`. `assertion`: its `Change` or `Retraction` in msgpack. `start`: see `appends_from`."""

    subject: str
    setting: str
    start: int | None
    retracting: bool
    assertion: Raw


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[EncodedEvent]).decode
decode_change: Final = msgspec.msgpack.Decoder(Change).decode
_decode_retraction: Final = msgspec.msgpack.Decoder(Retraction).decode


def decode_assertion(event: EncodedEvent) -> Assertion:
    return _decode_retraction(event.assertion) if event.retracting else decode_change(event.assertion)


class SubjectRange(NamedTuple):
    """The subjects with above < subject <= upto in byte order; `upto` None: to the last."""

    above: str
    upto: str | None


def ranges(recorder: Recorder, events: int, bucket_events: int) -> list[SubjectRange]:
    """All subjects, cut so that each range has about `bucket_events` of the first `events` events.

    An estimate from a sample: a wrong one makes a range larger or smaller, and changes nothing else.
    """
    count = events // bucket_events
    if count < 2:
        return [SubjectRange("", None)]
    # At random, not evenly spaced: a source that writes in turns has a rhythm. A fixed seed repeats the same sample.
    random = Random(events)  # noqa: S311 - a sample, no secret
    sample = sorted({random.randrange(events) + 1 for _ in range(count * _SAMPLES_A_BUCKET)})
    subjects = recorder.subjects_at(sample)
    every = max(1, len(subjects) // count)
    cuts = subjects[every - 1 : -1 : every]
    return [SubjectRange(above, upto) for above, upto in zip(["", *cuts], [*cuts, None], strict=True)]


class _FilePart(NamedTuple):
    """Some of a bucket's events, in the file."""

    offset: int
    length: int
    events: int


class Sorter:
    """Takes assertions in position order, and gives them back bucket by bucket: a bucket, or some for a large one, for
    each of `ranges`, which follow each other. Raises `LedgerUnavailable` if there is no room for its file."""

    def __init__(
        self,
        ranges: Sequence[SubjectRange],
        held_events: int = HELD_EVENTS,
        held_bytes: int = HELD_BYTES,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._bounds = [range_.upto for range_ in ranges[:-1] if range_.upto is not None]
        self._buckets: list[list[bytes]] = [[] for _ in ranges]
        self._written: list[list[_FilePart]] = [[] for _ in ranges]
        self._held_events = held_events
        self._held_bytes, self._bucket_bytes = held_bytes, bucket_bytes
        self._held = self._bytes = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, page: Iterable[tuple[str, Assertion]]) -> int:
        """Adds (subject, assertion) pairs in position order. Returns their number."""
        bounds, buckets = self._bounds, self._buckets
        before, bytes_ = self._held, self._bytes
        for subject, assertion in page:
            retracting = isinstance(assertion, Retraction)
            encoded = _encode((subject, assertion.setting, appends_from(assertion), retracting, assertion))
            buckets[bisect_left(bounds, subject)].append(encoded)
            self._held += 1
            bytes_ += len(encoded)
        added = self._held - before
        self._bytes = bytes_
        if self._held >= self._held_events or bytes_ >= self._held_bytes:
            self._write()
        return added

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
            offset = self._file.seek(0, 2)
            for bucket, written in zip(self._buckets, self._written, strict=True):
                if bucket:
                    length = self._file.write(b"".join(bucket))
                    written.append(_FilePart(offset, length, len(bucket)))
                    offset += length
                    bucket.clear()
        except OSError as error:
            raise _no_room(error) from error
        self._held = self._bytes = 0

    def buckets(self) -> Iterator[Iterator[EncodedEvent]]:
        """The events of each range of subjects, in position order; of a large one, of some subjects after others."""
        for number, (bucket, written) in enumerate(zip(self._buckets, self._written, strict=True)):
            if sum(part.length for part in written) + sum(map(len, bucket)) <= self._bucket_bytes:
                yield self._bucket(written, bucket)
            else:
                for subjects in self._shares(written, bucket):
                    yield (event for event in self._bucket(written, bucket) if event.subject in subjects)
            self._buckets[number] = []

    def _shares(self, written: Iterable[_FilePart], held: Sequence[bytes]) -> Iterator[frozenset[str]]:
        """The bucket's subjects, in byte order, so many at a time that their events have about `bucket_bytes`."""
        sizes: dict[str, int] = {}
        for event in self._bucket(written, held):
            sizes[event.subject] = sizes.get(event.subject, 0) + len(bytes(event.assertion))
        share, total = set[str](), 0
        for subject, size in sorted(sizes.items()):
            share.add(subject)
            total += size
            if total >= self._bucket_bytes:
                yield frozenset(share)
                share, total = set(), 0
        if share:
            yield frozenset(share)

    def _bucket(self, written: Iterable[_FilePart], held: Sequence[bytes]) -> Iterator[EncodedEvent]:
        for part in written:
            yield from _decode_events(part.events, self._read(part))
        yield from _decode_events(len(held), b"".join(held))

    def _read(self, part: _FilePart) -> bytes:
        assert self._file is not None
        try:
            self._file.seek(part.offset)
            return self._file.read(part.length)
        except OSError as error:
            raise _no_room(error) from error


def _decode_events(events: int, content: bytes) -> list[EncodedEvent]:
    # In msgpack an array is its length (`array 32`), then its members one after the other.
    return _decode(b"\xdd" + events.to_bytes(4, "big") + content)


def _no_room(error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"the temporary file in {tempfile.gettempdir()} cannot be used ({error.strerror}): a rebuild wants about 150"
        " bytes for each event there; make room, or name another folder with TMPDIR"
    )
