"""What was said, brought from the order of events into the order of subjects, within bounded memory.

The events table is in the order of positions, and a subject's events lie all over it: to read them subject by subject
costs three times as much as to read them as they lie (a page of the file for every event; more where the file is larger
than the memory). So they are read once as they lie, and put into buckets by ranges of subjects; what does not fit in
memory goes to a temporary file that has no name, so that nothing is left of it whatever becomes of the process.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, Self

import msgspec

from ledger.errors import LedgerUnavailable
from ledger.recorders.contract import Recorder
from projections.changes import Assertion, Change, Retraction

BUCKET_EVENTS: Final = 20_000
HELD_EVENTS: Final = 200_000
"""About 700 bytes each until they go to the file, and 150 there."""
_SAMPLES_A_BUCKET: Final = 20


class _Bucket(msgspec.Struct, array_like=True, gc=False):
    """`changes`: a subject, its change, a subject, its change, …: an object less to make for each event."""

    changes: list[str | Change]
    retractions: list[tuple[str, Retraction]]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Bucket).decode


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


class Sorter:
    """Takes assertions in position order, gives them back bucket by bucket. A bucket for each of `ranges`, which
    follow each other. Raises `LedgerUnavailable` where there is no room for its file."""

    def __init__(self, ranges: Sequence[Range], held_events: int = HELD_EVENTS) -> None:
        self._bounds = [range_.upto for range_ in ranges[:-1] if range_.upto is not None]
        self._buckets = [_Bucket([], []) for _ in ranges]
        self._written: list[list[tuple[int, int]]] = [[] for _ in ranges]
        self._held_events = held_events
        self._held = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, page: Iterable[tuple[str, Assertion]]) -> None:
        """(subject, what is said about it), in position order."""
        bounds, changes = self._bounds, [bucket.changes for bucket in self._buckets]
        for subject, said in page:
            bucket = bisect_left(bounds, subject)
            if isinstance(said, Change):
                changes[bucket] += (subject, said)
            else:
                self._buckets[bucket].retractions.append((subject, said))
            self._held += 1
        if self._held >= self._held_events:
            self._write()

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
            at = self._file.seek(0, 2)
            for bucket, written in zip(self._buckets, self._written, strict=True):
                if bucket.changes or bucket.retractions:
                    written.append((at, self._file.write(_encode(bucket))))
                    at += written[-1][1]
                    bucket.changes.clear()
                    bucket.retractions.clear()
        except OSError as error:
            raise _no_room(error) from error
        self._held = 0

    def buckets(self) -> Iterator[dict[str, list[Assertion]]]:
        """Subject → what was said about it in position order, subjects in byte order; a bucket for each range."""
        for bucket, written in zip(self._buckets, self._written, strict=True):
            said: dict[str, list[Assertion]] = {}
            retracting: set[str] = set()
            for part in (*map(self._read, written), bucket):
                subjects_and_changes: Any = iter(part.changes)
                for subject, change in zip(subjects_and_changes, subjects_and_changes, strict=True):
                    of_subject = said.get(subject)
                    if of_subject is None:
                        said[subject] = [change]
                    else:
                        of_subject.append(change)
                for subject, retraction in part.retractions:
                    said.setdefault(subject, []).append(retraction)
                    retracting.add(subject)
            for subject in retracting:
                said[subject].sort(key=_position)
            bucket.changes.clear()
            bucket.retractions.clear()
            yield dict(sorted(said.items()))

    def _read(self, place: tuple[int, int]) -> _Bucket:
        assert self._file is not None
        try:
            self._file.seek(place[0])
            return _decode(self._file.read(place[1]))
        except OSError as error:
            raise _no_room(error) from error


def _position(said: Assertion) -> int:
    return said.position


def _no_room(error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"the temporary file in {tempfile.gettempdir()} cannot be used ({error.strerror}): a rebuild wants about 150"
        " bytes for each event there; make room, or name another folder with TMPDIR"
    )
