"""Steps → rows: several settings of a subject side by side, a row wherever one of them changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from projections.audit.index.fold_columns import Flags, Steps
from projections.audit.index.ordering import ordered
from projections.audit.index.schema import Int64s, UInt32s
from projections.audit.index.sharing import in_threads


@dataclass(frozen=True)
class Wide:
    """Ascending by subject and `at` (µs). events: int32[rows, settings], the deciding events' rows in the columns, or
    -1. Neighbours of a subject differ, and its first row has something."""

    subject: NDArray[np.int32]
    at: Int64s
    events: NDArray[np.int32]

    def slices(self, subjects: int) -> tuple[UInt32s, UInt32s]:
        """Where each subject's rows start, and how many they are."""
        counts = np.bincount(self.subject, minlength=subjects)
        return (np.cumsum(counts) - counts).astype(np.uint32), counts.astype(np.uint32)

    def only(self, rows: Flags) -> Wide:
        if rows.all():
            return self
        return Wide(self.subject[rows], self.at[rows], self.events[rows])


def widen(steps: Steps, settings: Sequence[int], subjects: Flags) -> Wide:
    """`subjects`: by code, those wanted."""
    wanted = (steps.setting >= settings[0]) & (steps.setting <= settings[-1])
    chosen = np.flatnonzero(wanted if subjects.all() else wanted & subjects[steps.subject])
    order = chosen[ordered(steps.subject[chosen], steps.at[chosen], len(subjects))]
    subject, at = steps.subject[order], steps.at[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (subject[1:] != subject[:-1]) | (at[1:] != at[:-1])
    row_of = (np.cumsum(new) - 1).astype(np.int32)
    subject, at = subject[new], at[new]
    first = np.ones(len(subject), np.bool_)
    first[1:] = subject[1:] != subject[:-1]
    begins = np.maximum.accumulate(np.where(first, np.arange(len(subject), dtype=np.int32), 0))
    setting, event = steps.setting[order], steps.event[order]
    events = np.empty((len(subject), len(settings)), np.int32)

    def fill(place: int) -> None:
        # The last row up to each that has a step of the setting, and if it is of the same subject, what that is.
        of_setting = np.flatnonzero(setting == settings[place])
        rows = row_of[of_setting]
        latest = np.full(len(subject), -1, np.int32)
        latest[rows] = rows
        np.maximum.accumulate(latest, out=latest)
        there = np.full(len(subject) + 1, -1, np.int32)
        there[rows] = event[of_setting]
        # One more behind them all, for where there is none.
        events[:, place] = there[np.where(latest >= begins, latest, -1)]

    in_threads(fill, range(len(settings)))
    differs: Flags = np.asarray((events >= 0).any(axis=1))
    if len(events) > 1:
        differs[1:] = np.where(first[1:], differs[1:], (events[1:] != events[:-1]).any(axis=1))
    return Wide(subject, at, events).only(differs)


def differing(asked: Wide, later: Wide, subjects: NDArray[np.intp], count: int) -> Flags:
    """Which of `subjects`, by their place there, do not have the same rows in both; `count`: of all subjects."""
    starts, counts = asked.slices(count)
    later_starts, later_counts = later.slices(count)
    differs: Flags = np.asarray(counts[subjects] != later_counts[subjects])
    alike = np.flatnonzero(~differs)
    lengths = counts[subjects[alike]].astype(np.int64)
    owner = np.repeat(alike, lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    one = starts[subjects[owner]] + within
    other = later_starts[subjects[owner]] + within
    unequal = (asked.at[one] != later.at[other]) | (asked.events[one] != later.events[other]).any(axis=1)
    differs[owner[unequal]] = True
    return differs
