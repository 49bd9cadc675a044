"""The stored form of timelines: steps → bytes, and back. Pure.

A subject is one row, and each setting's timelines are a member of it. A timeline with more than `BLOCK_STEPS` steps is
cut into blocks of that length, counted from its first step. Full blocks are rows of their own; the remaining steps (1
to `BLOCK_STEPS`, so that there is always a last one to extend) stay in the subject's row as its tail. So one more event
costs the same however long the history is: an update reads and writes from the block on that it reaches into.

The in-force timeline is stored only where it differs from the current one: a block equal to the current one's of the
same number is left out, and so is an equal tail.

Cuts and omissions depend on the steps alone. So equal timelines are always equal bytes, however
many catch-ups they grew in. Proved by tests/timelines/test_encoding.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice, pairwise
from operator import itemgetter, lt
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from ledger.errors import LedgerCorrupt
from ledger.times import BEGINNING, END
from projections.temporal.changes import Change, same_change
from projections.temporal.fold import Timeline
from projections.temporal.in_force import Timelines, empty_timelines
from projections.timelines.contract import Axis, BlockRow, DamagedRows, SubjectChange

BLOCK_STEPS: Final = 64

_Count = Annotated[int, Meta(ge=0)]


class TailSteps(Struct, array_like=True, gc=False):
    """The last steps of the current timeline, and the number of full blocks before them.

    Step i holds from starts[i] (µs) to the next; a change of None is a gap.
    """

    blocks: _Count
    starts: list[int]
    changes: list[Change | None]


class InForceTail(Struct, array_like=True, gc=False):
    """As `TailSteps`; a change that is in the current tail, too, is stored as its first index there."""

    blocks: _Count
    starts: list[int]
    changes: list[_Count | Change | None]


class StoredSetting(Struct, array_like=True, gc=False):
    """A setting in a subject's row. `in_force` None: the same as `current`."""

    current: TailSteps
    in_force: InForceTail | None


class AppendedSetting(Struct, array_like=True, gc=False):
    """The `StoredSetting` of a setting without blocks and with equal timelines, for writing only.

    `current`: the members of `TailSteps`, with each change as its stored bytes.
    """

    current: tuple[int, list[int], list[Raw | None]]
    in_force: None = None


class BlockSteps(Struct, array_like=True, gc=False):
    starts: list[int]
    changes: list[Change | None]


class TimelineSuffix(NamedTuple):
    """The timelines of one setting from block number `first` on. `blocks`: the block rows that are part of it."""

    first: int
    timelines: Timelines
    blocks: Sequence[BlockRow]


Settings = dict[str, Raw | StoredSetting]
"""Setting → its `StoredSetting`, still encoded or new. In the order of the settings' names."""

Covering = tuple[str, str, Axis, bytes]
"""(subject, setting, axis, steps) of a block that covers the instant asked for."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_raw: Final = msgspec.msgpack.Decoder(dict[str, Raw]).decode
_decode_setting: Final = msgspec.msgpack.Decoder(StoredSetting).decode
_decode_all: Final = msgspec.msgpack.Decoder(dict[str, StoredSetting]).decode
_decode_block: Final = msgspec.msgpack.Decoder(BlockSteps).decode


class _Steps(NamedTuple):
    starts: list[int]
    changes: list[Change | None]

    def same(self, other: _Steps) -> bool:
        return self.starts == other.starts and all(map(same_change, self.changes, other.changes))


def decode_settings(subject: str, blob: bytes) -> Settings:
    """The settings of a subject's row, each still encoded. Raises `LedgerCorrupt`."""
    with _CorruptIfInvalid(subject):
        return dict[str, Raw | StoredSetting](_decode_raw(blob))


def encode_settings(settings: Mapping[str, Raw | StoredSetting | AppendedSetting]) -> bytes:
    return _encode(dict(sorted(settings.items())))


def decode_timelines(
    subject: str, blob: bytes, blocks: Iterable[BlockRow] | Callable[[], Iterable[BlockRow]] = ()
) -> dict[str, Timelines]:
    """Setting → timelines of a subject's row and its blocks. Raises `LedgerCorrupt` if they do not fit together."""
    with _CorruptIfInvalid(subject):
        settings = _decode_all(blob)
        rows: dict[str, list[BlockRow]] = {}
        if any(stored.current.blocks or (stored.in_force and stored.in_force.blocks) for stored in settings.values()):
            for row in blocks() if callable(blocks) else blocks:
                rows.setdefault(row.setting, []).append(row)
        return {setting: _suffix(stored, rows.get(setting, ()), 0).timelines for setting, stored in settings.items()}


def change_at(
    subject: str, stored: StoredSetting, axis: Axis, at: int, covering: Mapping[Axis, bytes]
) -> Change | None:
    """The change at `at` (µs) on an axis. `covering`: the steps of the setting's blocks that cover the instant.

    Raises `LedgerCorrupt`.
    """
    with _CorruptIfInvalid(subject):
        current, in_force = _tails(stored)
        blocks, steps = current if axis == "current" else in_force
        if blocks and at < steps.starts[0]:
            # A block that is not stored for the in-force axis equals the current one's.
            steps = _checked(_decode_block(covering[axis] if axis in covering else covering["current"]))
        return Timeline(*steps).at(at)


def changes_at(
    rows: Iterable[tuple[str, bytes]], covering: Iterable[Covering], axis: Axis, at: int, damaged: set[str]
) -> Iterator[SubjectChange]:
    """The change at `at` (µs) of every subject and setting. `rows`: (subject, settings) of subjects' rows.

    `rows` and `covering` are in byte order, and are read only as far as the caller iterates. Subjects in `damaged` are
    left out, and those whose rows cannot be decoded are added to it.
    """
    blocks = groupby(covering, key=itemgetter(0))
    subject_of_blocks, block_rows = next(blocks, ("", iter(())))
    for subject, settings in rows:
        while subject_of_blocks and subject_of_blocks < subject:
            subject_of_blocks, block_rows = next(blocks, ("", iter(())))
        by_setting: dict[str, dict[Axis, bytes]] = {}
        if subject_of_blocks == subject:
            for _, setting, of_axis, steps in block_rows:
                by_setting.setdefault(setting, {})[of_axis] = steps
        changes: list[tuple[str, Change | None]] = []
        try:
            changes = [
                (setting, change_at(subject, stored, axis, at, by_setting.get(setting, {})))
                for setting, stored in decode_stored(subject, settings).items()
            ]
        except LedgerCorrupt:
            damaged.add(subject)
        if subject in damaged:
            continue
        for setting, change in changes:
            if change is not None:
                yield SubjectChange(subject, setting, change)


def decode_stored(subject: str, blob: bytes) -> dict[str, StoredSetting]:
    """The settings of a subject's row, without their blocks. Raises `LedgerCorrupt`."""
    with _CorruptIfInvalid(subject):
        return _decode_all(blob)


def load_suffix(
    subject: str, raw: Raw | StoredSetting | None, reach: int, blocks: Callable[[int], Sequence[BlockRow]]
) -> TimelineSuffix:
    """A setting's timelines from a step on that begins before instant `reach` (µs), or all of them.

    `blocks`: the rows of the blocks from a number on. Raises `LedgerCorrupt`.
    """
    if raw is None:
        return TimelineSuffix(0, empty_timelines(), ())
    with _CorruptIfInvalid(subject):
        stored = _decode_setting(raw) if isinstance(raw, Raw) else raw
        (full, current), (full_in_force, in_force) = _tails(stored)
        first = min(full, full_in_force)
        if full == full_in_force and (first == 0 or max(current.starts[0], in_force.starts[0]) < reach):
            return _suffix(stored, (), first)
        back = 1
        while True:
            first = max(0, first - back)
            suffix = _suffix(stored, blocks(first), first)
            if first == 0 or all(timeline.starts[0] < reach for timeline in suffix.timelines):
                return suffix
            back *= 2


def _suffix(stored: StoredSetting, rows: Iterable[BlockRow], first: int) -> TimelineSuffix:
    current: dict[int, _Steps] = {}
    in_force: dict[int, _Steps] = {}
    blocks = list(rows)
    for row in blocks:
        steps = _checked(_decode_block(row.steps))
        if len(steps.starts) != BLOCK_STEPS or row.start != steps.starts[0]:
            raise _InvalidSteps
        (current if row.axis == "current" else in_force)[row.number] = steps
    tail, tail_in_force = _tails(stored)
    timeline = _joined(tail, current, first)
    if stored.in_force is None and not in_force:
        return TimelineSuffix(first, Timelines(timeline, timeline), blocks)
    timeline_in_force = _joined(tail_in_force, {**current, **in_force}, first)
    return TimelineSuffix(first, Timelines(timeline, timeline_in_force), blocks)


_Tail = tuple[int, _Steps]
"""The number of full blocks, and the steps behind them."""


def _tails(stored: StoredSetting) -> tuple[_Tail, _Tail]:
    """Of the current axis, and of the in-force one."""
    current = stored.current.blocks, _checked(stored.current)
    in_force = stored.in_force
    if in_force is None:
        return current, current
    of_current = current[1].changes
    changes = [of_current[one] if isinstance(one, int) else one for one in in_force.changes]
    return current, (in_force.blocks, _checked(BlockSteps(in_force.starts, changes)))


def _checked(steps: TailSteps | BlockSteps) -> _Steps:
    if not 0 < len(steps.starts) == len(steps.changes) <= BLOCK_STEPS:
        raise _InvalidSteps
    return _Steps(steps.starts, steps.changes)


def _joined(tail: _Tail, full: Mapping[int, _Steps], first: int) -> Timeline:
    blocks, (starts, changes) = tail
    if blocks > first:
        pieces = [*(full[number] for number in range(first, blocks)), tail[1]]
        starts = [start for piece in pieces for start in piece.starts]
        changes = [change for piece in pieces for change in piece.changes]
    begins_right = (first == 0) == (starts[0] == BEGINNING)
    if not begins_right or starts[-1] >= END or not all(map(lt, starts, islice(starts, 1, None))):
        raise _InvalidSteps
    return Timeline(starts, changes)


def encode_setting(subject: str, setting: str, suffix: TimelineSuffix) -> tuple[StoredSetting | None, list[BlockRow]]:
    """The setting's member of the subject's row (None: no step is left), and its blocks from `suffix.first` on."""
    first, (current, in_force), _ = suffix
    shared = in_force is current
    if first == 0 and current.changes == in_force.changes == [None]:
        return None, []
    if shared and len(current.starts) <= BLOCK_STEPS:
        # By far the most settings: nothing to cut, and nothing to compare.
        return StoredSetting(TailSteps(first, current.starts, current.changes), None), []
    pieces = _cut(current)
    pieces_in_force = pieces if shared else _cut(in_force)
    rows = list(_block_rows(subject, setting, "current", first, pieces))
    if not shared:
        current_rows = set(rows)
        rows += [
            row
            for row in _block_rows(subject, setting, "in_force", first, pieces_in_force)
            if row._replace(axis="current") not in current_rows
        ]
    tail, blocks = pieces[-1], first + len(pieces) - 1
    tail_in_force, blocks_in_force = pieces_in_force[-1], first + len(pieces_in_force) - 1
    stored = StoredSetting(TailSteps(blocks, tail.starts, tail.changes), None)
    if not (shared or (blocks == blocks_in_force and tail_in_force.same(tail))):
        stored.in_force = InForceTail(blocks_in_force, tail_in_force.starts, _by_index(tail_in_force, tail))
    return stored, rows


def _by_index(steps: _Steps, among: _Steps) -> list[int | Change | None]:
    index = {change.position: at for at, change in reversed(list(enumerate(among.changes))) if change is not None}
    return [None if change is None else index.get(change.position, change) for change in steps.changes]


def _cut(timeline: Timeline) -> list[_Steps]:
    starts, changes = timeline.starts, timeline.changes
    return [
        _Steps(starts[at : at + BLOCK_STEPS], changes[at : at + BLOCK_STEPS])
        for at in range(0, len(starts), BLOCK_STEPS)
    ]


def _block_rows(subject: str, setting: str, axis: Axis, first: int, pieces: list[_Steps]) -> Iterator[BlockRow]:
    """A row for each piece but the last, which is the tail."""
    for number, (piece, after) in enumerate(pairwise(pieces), first):
        yield BlockRow(
            subject=subject,
            setting=setting,
            axis=axis,
            number=number,
            start=piece.starts[0],
            until=after.starts[0],
            steps=_encode(BlockSteps(piece.starts, piece.changes)),
        )


class _InvalidSteps(Exception):
    """The steps make no timeline."""


class _CorruptIfInvalid:
    """Raises `DamagedRows` for what decoding raises. A class, because a listing enters it for every setting."""

    __slots__ = ("_subject",)

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, _InvalidSteps | msgspec.MsgspecError | UnicodeDecodeError | LookupError):
            raise DamagedRows([self._subject]) from error
