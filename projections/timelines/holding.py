"""What holds at one instant everywhere, read from rows in the order of subjects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from projections.timelines.contract import Axis, Held
from projections.timelines.encoding import all_stored, held_at

Covering = tuple[str, str, Axis, bytes]
"""(subject, setting, axis, steps) of a block in which the instant lies."""


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
