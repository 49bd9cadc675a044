"""The stored form of timelines: steps → bytes, and back. Pure.

A subject is one row, and a setting's timelines are a member of it. A timeline with more than `BLOCK_STEPS` steps is cut
into blocks of so many, counted from its first step: full ones are rows of their own, what is left over (1 to
`BLOCK_STEPS` steps, so that there is always a last step to go on from) stays in the subject's row. So one more event
costs the same however long the history is: an update reads and writes only from the block on that it reaches into.

The in-force timeline is stored where it differs from the current one: a block that is the same as the current one's of
the same number is left out, and so are the last steps.

Where the cuts lie and what is left out depend on the steps alone: the same
timelines are always the same bytes, however many catch-ups they grew in. Proved by tests/test_stored_form.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice, pairwise
from operator import itemgetter, lt
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from ledger.errors import LedgerCorrupt
from ledger.times import BEGINNING, END
from projections.temporal.changes import Change
from projections.temporal.fold import Timeline
from projections.temporal.in_force import Timelines, nothing
from projections.timelines.contract import Axis, BlockRow, Held

BLOCK_STEPS: Final = 64

_Count = Annotated[int, Meta(ge=0)]


class Last(Struct, array_like=True, gc=False):
    """The last steps of the current timeline, and how many full blocks there are before them. Step i holds from
    starts[i] (µs) to the next; a change of None is a gap."""

    blocks: _Count
    starts: list[int]
    changes: list[Change | None]


class LastInForce(Struct, array_like=True, gc=False):
    """As `Last`; `changes` that are among the last current ones are said by their first index there."""

    blocks: _Count
    starts: list[int]
    changes: list[_Count | Change | None]


class Stored(Struct, array_like=True, gc=False):
    """A setting in a subject's row. `in_force` None: as `current`."""

    current: Last
    in_force: LastInForce | None


class Ready(Struct, array_like=True, gc=False):
    """As the `Stored` of a setting without any block, the same on both axes: written, never read."""

    current: tuple[int, list[int], list[Raw | None]]
    """0, and as the rest of `Last`: changes as the bytes that they are stored as."""
    in_force: None = None


class Block(Struct, array_like=True, gc=False):
    starts: list[int]
    changes: list[Change | None]


class Part(NamedTuple):
    """The timelines of one setting from the block with number `first` on. `cut`: whether there are rows of these."""

    first: int
    timelines: Timelines
    cut: bool


Settings = dict[str, Raw | Stored]
"""Setting → its `Stored`: as it was read, or new. In the order of the settings' names."""

Blocks = Callable[[str, int], Iterable[BlockRow]]
"""(setting, first) → the rows of its blocks with that number or a higher one."""

Covering = tuple[str, str, Axis, bytes]
"""(subject, setting, axis, steps) of a block in which the instant lies."""

_encode: Final = msgspec.msgpack.Encoder().encode
_settings: Final = msgspec.msgpack.Decoder(dict[str, Raw]).decode
_stored: Final = msgspec.msgpack.Decoder(Stored).decode
_all_stored: Final = msgspec.msgpack.Decoder(dict[str, Stored]).decode
_block: Final = msgspec.msgpack.Decoder(Block).decode


class _Piece(NamedTuple):
    starts: list[int]
    changes: list[Change | None]

    def same(self, other: _Piece) -> bool:
        """A change is known by its position."""
        return self.starts == other.starts and all(map(_same, self.changes, other.changes))


def settings_of(subject: str, blob: bytes) -> Settings:
    """What a subject's row holds, not yet read. Raises `LedgerCorrupt`."""
    with _reading(subject):
        return dict[str, Raw | Stored](_settings(blob))


def encoded(settings: Mapping[str, Raw | Stored | Ready]) -> bytes:
    return _encode(dict(sorted(settings.items())))


def timelines_of(
    subject: str, blob: bytes, blocks: Iterable[BlockRow] | Callable[[], Iterable[BlockRow]] = ()
) -> dict[str, Timelines]:
    """Setting → timelines of a subject's row and its blocks. Raises `LedgerCorrupt` where they cannot be right."""
    with _reading(subject):
        found = _all_stored(blob)
        rows: dict[str, list[BlockRow]] = {}
        if any(_has_blocks(stored) for stored in found.values()):
            for row in blocks() if callable(blocks) else blocks:
                rows.setdefault(row.setting, []).append(row)
        return {setting: _part(stored, rows.get(setting, ()), 0).timelines for setting, stored in found.items()}


def held_at(subject: str, stored: Stored, axis: Axis, at: int, covering: Mapping[Axis, bytes]) -> Change | None:
    """What holds at `at` (µs) on an axis. `covering`: the steps of the setting's blocks in which the instant lies.

    Raises `LedgerCorrupt`.
    """
    with _reading(subject):
        last, in_force = _lasts(stored)
        blocks, piece = last if axis == "current" else in_force
        if blocks and at < piece.starts[0]:
            # A block that is not stored for the in-force axis is the current one's.
            piece = _piece(_block(covering[axis] if axis in covering else covering["current"]))
        return Timeline(*piece).at(at)


def held(rows: Iterable[tuple[str, bytes]], covering: Iterable[Covering], axis: Axis, at: int) -> Iterator[Held]:
    """`rows`: (subject, settings) of subjects' rows. Both are in byte order, and only read as far as is asked for."""
    blocks = groupby(covering, key=itemgetter(0))
    subject_of_blocks, found = next(blocks, ("", iter(())))
    for subject, settings in rows:
        while subject_of_blocks and subject_of_blocks < subject:
            subject_of_blocks, found = next(blocks, ("", iter(())))
        by_setting: dict[str, dict[Axis, bytes]] = {}
        if subject_of_blocks == subject:
            for _, setting, of_axis, steps in found:
                by_setting.setdefault(setting, {})[of_axis] = steps
        for setting, stored in all_stored(subject, settings).items():
            change = held_at(subject, stored, axis, at, by_setting.get(setting, {}))
            if change is not None:
                yield Held(subject, setting, change)


def all_stored(subject: str, blob: bytes) -> dict[str, Stored]:
    """Setting → what a subject's row holds of it. Raises `LedgerCorrupt`."""
    with _reading(subject):
        return _all_stored(blob)


def _has_blocks(stored: Stored) -> bool:
    return bool(stored.current.blocks or (stored.in_force and stored.in_force.blocks))


def part(subject: str, raw: Raw | Stored | None, reach: int, blocks: Callable[[int], Sequence[BlockRow]]) -> Part:
    """The part of a setting's timelines from a step on that begins before instant `reach` (µs), or all of them.

    `blocks`: the rows of the blocks from a number on. Raises `LedgerCorrupt`.
    """
    if raw is None:
        return Part(0, nothing(), False)
    with _reading(subject):
        stored = _stored(raw) if isinstance(raw, Raw) else raw
        (full, current), (full_in_force, in_force) = _lasts(stored)
        first = min(full, full_in_force)
        if full == full_in_force and (first == 0 or max(current.starts[0], in_force.starts[0]) < reach):
            return _part(stored, (), first)
        back = 1
        while True:
            first = max(0, first - back)
            found = _part(stored, blocks(first), first)
            if first == 0 or all(timeline.starts[0] < reach for timeline in found.timelines):
                return found
            back *= 2


def _part(stored: Stored, rows: Iterable[BlockRow], first: int) -> Part:
    current: dict[int, _Piece] = {}
    in_force: dict[int, _Piece] = {}
    for row in rows:
        piece = _piece(_block(row.steps))
        if len(piece.starts) != BLOCK_STEPS or row.start != piece.starts[0]:
            raise _Wrong
        (current if row.axis == "current" else in_force)[row.number] = piece
    last, last_in_force = _lasts(stored)
    cut = bool(current or in_force)
    whole = _joined(last, current, first)
    if stored.in_force is None and not in_force:
        return Part(first, Timelines(whole, whole), cut)
    return Part(first, Timelines(whole, _joined(last_in_force, {**current, **in_force}, first)), cut)


_Last = tuple[int, _Piece]
"""How many full blocks there are, and the steps behind them."""


def _lasts(stored: Stored) -> tuple[_Last, _Last]:
    """Of the current axis, and of the one in force."""
    current = stored.current.blocks, _piece(stored.current)
    in_force = stored.in_force
    if in_force is None:
        return current, current
    ours = current[1].changes
    changes = [ours[one] if isinstance(one, int) else one for one in in_force.changes]
    return current, (in_force.blocks, _piece(Block(in_force.starts, changes)))


def _piece(steps: Last | Block) -> _Piece:
    if not 0 < len(steps.starts) == len(steps.changes) <= BLOCK_STEPS:
        raise _Wrong
    return _Piece(steps.starts, steps.changes)


def _joined(last: _Last, full: Mapping[int, _Piece], first: int) -> Timeline:
    blocks, (starts, changes) = last
    if blocks > first:
        pieces = [*(full[number] for number in range(first, blocks)), last[1]]
        starts = [start for piece in pieces for start in piece.starts]
        changes = [change for piece in pieces for change in piece.changes]
    if (
        (first == 0) != (starts[0] == BEGINNING)
        or starts[-1] >= END
        or not all(map(lt, starts, islice(starts, 1, None)))
    ):
        raise _Wrong
    return Timeline(starts, changes)


def stored_form(subject: str, setting: str, of: Part) -> tuple[Stored | None, list[BlockRow]]:
    """What the subject's row holds of the setting (None: nothing is left of it), and its blocks from `of.first` on."""
    first, (current, in_force), _ = of
    shared = in_force is current
    if first == 0 and current.changes == in_force.changes == [None]:
        return None, []
    if shared and len(current.starts) <= BLOCK_STEPS:
        # By far the most: nothing to cut, and nothing to compare.
        return Stored(Last(first, current.starts, current.changes), None), []
    ours = _cut(current)
    theirs = ours if shared else _cut(in_force)
    rows = list(_rows(subject, setting, "current", first, ours))
    if not shared:
        # The same steps up to the same instant.
        same = set(rows)
        rows += [
            row
            for row in _rows(subject, setting, "in_force", first, theirs)
            if row._replace(axis="current") not in same
        ]
    last, blocks = ours[-1], first + len(ours) - 1
    other, other_blocks = theirs[-1], first + len(theirs) - 1
    tail = Stored(Last(blocks, last.starts, last.changes), None)
    if not (shared or (blocks == other_blocks and other.same(last))):
        tail.in_force = LastInForce(other_blocks, other.starts, _by_index(other, last))
    return tail, rows


def _by_index(piece: _Piece, among: _Piece) -> list[int | Change | None]:
    index = {change.position: at for at, change in reversed(list(enumerate(among.changes))) if change is not None}
    return [None if change is None else index.get(change.position, change) for change in piece.changes]


def _cut(timeline: Timeline) -> list[_Piece]:
    starts, changes = timeline.starts, timeline.changes
    if len(starts) <= BLOCK_STEPS:
        return [_Piece(starts, changes)]
    return [
        _Piece(starts[at : at + BLOCK_STEPS], changes[at : at + BLOCK_STEPS])
        for at in range(0, len(starts), BLOCK_STEPS)
    ]


def _rows(subject: str, setting: str, axis: Axis, first: int, pieces: list[_Piece]) -> Iterator[BlockRow]:
    for number, (piece, after) in enumerate(pairwise(pieces), first):
        yield BlockRow(
            subject=subject,
            setting=setting,
            axis=axis,
            number=number,
            start=piece.starts[0],
            until=after.starts[0],
            steps=_encode(Block(piece.starts, piece.changes)),
        )


def _same(one: Change | None, other: Change | None) -> bool:
    return one is other or (one is not None and other is not None and one.position == other.position)


class _Wrong(Exception):
    """The steps make no timeline."""


@contextmanager
def _reading(subject: str) -> Iterator[None]:
    try:
        yield
    except (_Wrong, msgspec.MsgspecError, UnicodeDecodeError, LookupError) as error:
        raise unreadable(subject) from error


def unreadable(subject: str) -> LedgerCorrupt:
    return LedgerCorrupt(f"the stored timelines of {subject} cannot be right; run inforce rebuild")
