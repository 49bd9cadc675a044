"""A timeline as rows, and back. Pure.

A step's row holds nothing but the step, so the same timeline is always the same rows, byte for byte, however many
catch-ups it grew in.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, groupby
from operator import attrgetter
from typing import Final

import msgspec

from ledger.errors import LedgerCorrupt
from ledger.times import BEGINNING, END
from projections.changes import Change
from projections.fold import Timeline
from projections.in_force import Timelines
from projections.timelines.contract import Axis, Difference, Pair, RawStep, StepKey, StepRow

_decode: Final = msgspec.json.Decoder(Change).decode
_encode: Final = msgspec.json.Encoder().encode
_AXES: Final[tuple[Axis, Axis]] = ("current", "in_force")
# No code point sorts above it, in SQLite's order of bytes and in PostgreSQL's collation "C" alike.
_LAST: Final = "\U0010ffff"


def decode_change(text: str, subject: str) -> Change:
    """Raises `LedgerCorrupt`."""
    try:
        return _decode(text)
    except msgspec.MsgspecError as error:
        raise _unreadable(subject) from error


def timelines_of(rows: Iterable[RawStep]) -> Timelines:
    """The timelines that these rows, of one subject's setting and by axis and start, stand for.

    Raises `LedgerCorrupt` where they overlap or cannot be read.
    """
    by_axis: dict[str, tuple[list[int], list[Change | None]]] = {"current": ([], []), "in_force": ([], [])}
    axis, edge = "", BEGINNING
    starts: list[int] = []
    changes: list[Change | None] = []
    # Most steps are on both axes.
    decoded: dict[str, Change] = {}
    for subject, _, row_axis, start, until, position, text in rows:
        if row_axis != axis:
            _close(starts, changes, edge)
            starts, changes = by_axis[row_axis]
            axis, edge = row_axis, BEGINNING
        if start < edge or until <= start:
            raise _unreadable(subject)
        if start > edge:
            starts.append(edge)
            changes.append(None)
        change = decoded.get(text)
        if change is None:
            change = decoded[text] = decode_change(text, subject)
        if change.position != position:
            raise _unreadable(subject)
        starts.append(start)
        changes.append(change)
        edge = until
    _close(starts, changes, edge)
    current, in_force = (Timeline(*steps) if steps[0] else Timeline() for steps in by_axis.values())
    return Timelines(current, in_force)


def _close(starts: list[int], changes: list[Change | None], edge: int) -> None:
    if starts and edge < END:
        starts.append(edge)
        changes.append(None)


def by_setting(rows: Iterable[StepRow]) -> dict[str, dict[str, Timelines]]:
    """Subject → setting → timelines of rows in the order of their key."""
    found: dict[str, dict[str, Timelines]] = {}
    for subject, of_subject in groupby(rows, key=attrgetter("subject")):
        found[subject] = {
            setting: timelines_of(of_setting) for setting, of_setting in groupby(of_subject, key=attrgetter("setting"))
        }
    return found


def changed_rows(pair: Pair, before: Iterable[RawStep], after: Timelines) -> tuple[list[StepKey], list[RawStep]]:
    """What to remove and what to write so that the rows of `pair`, which were `before`, say `after`.

    A change's text is decided by its position, so rows of one period and position are the same.
    """
    subject, setting = pair
    stale: dict[tuple[Axis, int], tuple[int, int]] = {}
    texts: dict[int, str] = {}
    for _, _, axis, start, until, position, text in before:
        stale[axis, start] = (until, position)
        texts[position] = text
    written: list[RawStep] = []
    for axis, timeline in zip(_AXES, after, strict=True):
        starts = timeline.starts
        for start, until, change in zip(starts, [*starts[1:], END], timeline.changes, strict=True):
            if change is None:
                continue
            position = change.position
            if stale.pop((axis, start), None) == (until, position):
                continue
            text = texts.get(position) or _encode(change).decode()
            texts[position] = text
            written.append((subject, setting, axis, start, until, position, text))
    # What is written over what was there has been taken out of `stale` above.
    return [StepKey(subject, setting, axis, start) for axis, start in stale], written


def subject_range(kind: str | None, prefix: str | None, after: str | None = None) -> tuple[str, str, str] | None:
    """(low, high, after): the subjects wanted have low <= subject <= high and subject > after. None: there are none."""
    asked = [text for text in (kind, prefix, after) if text]
    if not all(text.isascii() and text.isprintable() for text in asked):
        return None
    lows = [f"{kind}:" if kind else "", prefix or ""]
    highs = [low + _LAST for low in lows]
    return max(lows), min(highs), after or ""


def first_of(*found: Iterable[Difference], limit: int) -> list[Difference]:
    """The first differences by subject, the subjects' own rows before those of their settings."""
    return sorted(chain(*found), key=lambda one: (one.subject, one.setting or "", one.axis or ""))[:limit]


def _unreadable(subject: str) -> LedgerCorrupt:
    return LedgerCorrupt(f"the stored timelines of {subject} cannot be right; run inforce rebuild")
