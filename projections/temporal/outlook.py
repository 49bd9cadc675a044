"""The outlook of a change: until when it decides, and which changes of its setting begin later, as known at one moment.

A change *stops deciding* at the end of its first stretch: where another change begins to decide, or where it ends. A
change that another one covers from its start on decides later or never; one that never decides stops at its own
`effective_from`. None: as far as is known it decides for ever.

Only a few of the known changes matter. Of those recorded before a submission, a change of the submission that begins at
t leaves none deciding that began at or before t: a standing change ends all exceptions that have begun, and an
exception lies over all of them. So the changes that begin later than the first change of the submission, and those of
the submission itself, give the same outlooks as all (`Expected`). Proved by tests/temporal/test_outlook.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from ledger.times import END
from projections.temporal.changes import (
    Assertion,
    Change,
    JsonValue,
    LargeValue,
    Retraction,
    large_value_bytes,
)
from projections.temporal.fold import Timeline, fold_changes
from projections.temporal.known_changes import KnownChanges

SCHEDULED_MAX: Final = 100
"""Changes that one outlook lists."""
LISTED_MAX: Final = 1000
LISTED_BYTES_MAX: Final = 256 * 1024
"""Changes, and bytes of their values as JSON, that all outlooks of one submission list together."""

_begins: Final = attrgetter("effective_from", "position")
_encode: Final = msgspec.json.Encoder().encode


class ScheduledChange(NamedTuple):
    """A change that begins later. Instants in µs; `value` None: a clear; of a definition, its members."""

    position: int
    effective_from: int
    effective_until: int | None
    value: JsonValue


class Outlook(NamedTuple):
    """`holds_until` (µs): see above; None for a retraction too. `left_out`: changes that begin later and are not
    listed in `still_scheduled`, which is in the order of their beginning."""

    holds_until: int | None
    still_scheduled: tuple[ScheduledChange, ...] = ()
    left_out: int = 0


NOTHING_FOLLOWS: Final = Outlook(None)


def first_ends(timeline: Timeline) -> dict[int, int | None]:
    """Position → the end of the first stretch (µs; None: no end) of every change that decides somewhere."""
    ends: dict[int, int | None] = {}
    for step in timeline.steps():
        if step.change is None:
            continue
        position = step.change.position
        # A further step of one change prolongs its first stretch only if it follows without a gap.
        if position not in ends or ends[position] == step.start:
            ends[position] = None if step.until == END else step.until
    return ends


def holds_until(change: Change, ends: Mapping[int, int | None]) -> int | None:
    """When `change` stops deciding, by the `first_ends` of its timeline."""
    return ends.get(change.position, change.effective_from)


class Holding(NamedTuple):
    """When a change first stops deciding (µs; see above): as known now, and as known when it was recorded."""

    now: int | None
    at_recording: int | None


def holdings(assertions: Iterable[Assertion], wanted: Container[int]) -> dict[int, Holding]:
    """Position → the holding of the change there, for the changes at the positions `wanted`.

    `assertions`: everything about one subject, or at least about the settings of these changes, in position order.
    """
    known: dict[str, KnownChanges] = {}
    at_recording: dict[int, tuple[Change, int | None]] = {}
    for _, submission in groupby(assertions, attrgetter("recorded_at")):
        batch: dict[str, list[Change]] = {}
        for assertion in submission:
            known.setdefault(assertion.setting, KnownChanges([])).add(assertion)
            if isinstance(assertion, Change):
                batch.setdefault(assertion.setting, []).append(assertion)
        for setting, changes in batch.items():
            of_page = [change for change in changes if change.position in wanted]
            if of_page:
                later = known[setting].beginning_after(min(change.effective_from for change in of_page))
                expected = Expected({change.position: change for change in (*later, *changes)}.values())
                at_recording |= {change.position: (change, expected.until(change)) for change in of_page}
    ends = {setting: first_ends(fold_changes(changes.in_order())) for setting, changes in known.items()}
    return {
        position: Holding(holds_until(change, ends[change.setting]), until)
        for position, (change, until) in at_recording.items()
    }


def value_bytes(change: Change) -> int:
    """The bytes of a change's value as JSON, about."""
    value = change.value
    if isinstance(value, LargeValue):
        return large_value_bytes(value)
    return 8 if value is None or isinstance(value, int) else len(_encode(value))


class Allowance:
    """How much the outlooks of one submission may still list."""

    def __init__(self) -> None:
        self._changes = LISTED_MAX
        self._bytes = LISTED_BYTES_MAX

    def take(self, changes: Sequence[Change]) -> tuple[ScheduledChange, ...]:
        """As many of `changes`, from the first on, as may still be listed."""
        listed: list[ScheduledChange] = []
        for change in changes[: min(SCHEDULED_MAX, self._changes)]:
            self._bytes -= value_bytes(change)
            if self._bytes < 0:
                break
            listed.append(ScheduledChange(change.position, change.effective_from, change.effective_until, change.value))
        self._changes -= len(listed)
        return tuple(listed)


class Expected:
    """One setting of one subject, as known when a submission was recorded: its outlooks on the submission's events.

    `known`: its unretracted changes, those of the submission included, in any order; changes recorded earlier that
    begin no later than all changes of the submission may be missing.
    """

    def __init__(self, known: Iterable[Change]) -> None:
        self._later = sorted(known, key=_begins)
        self._ends: dict[int, int | None] | None = None

    def of(self, assertion: Assertion, allowance: Allowance) -> Outlook:
        """A retraction has no period: its outlook lists the changes that begin after it was recorded."""
        if isinstance(assertion, Retraction):
            return Outlook(None, *self._beginning_after(assertion.recorded_at, allowance))
        return Outlook(self.until(assertion), *self._beginning_after(assertion.effective_from, allowance))

    def until(self, change: Change) -> int | None:
        """When `change` first stops deciding (µs)."""
        if self._ends is None:
            self._ends = first_ends(fold_changes(sorted(self._later, key=attrgetter("position"))))
        return holds_until(change, self._ends)

    def _beginning_after(self, instant: int, allowance: Allowance) -> tuple[tuple[ScheduledChange, ...], int]:
        """The changes that are listed, and the number of those that are not."""
        first = bisect_right(self._later, instant, key=attrgetter("effective_from"))
        count = len(self._later) - first
        if not count:
            return (), 0
        listed = allowance.take(self._later[first : first + SCHEDULED_MAX])
        return listed, count - len(listed)
