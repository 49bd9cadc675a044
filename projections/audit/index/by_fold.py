"""The policy index by the fold alone: every subject's timelines, one after the other. Slow and obvious.

`compile` makes the same of millions of events; what this makes is what it must come to.
"""

from __future__ import annotations

from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from projections.audit.index.pin import pin_of
from projections.audit.index.reference import Axis, Building
from projections.audit.index.schema import PolicyIndex
from projections.temporal.changes import Assertion, Change, read_entry
from projections.temporal.coordinates import IN_FORCE, KnownAt, Pin
from projections.temporal.fold import fold
from projections.temporal.in_force import fold_both


def compile_by_fold(ledger: Ledger, known_at: KnownAt = IN_FORCE, pin: Pin | None = None) -> PolicyIndex:
    """The index of `ledger` at `pin` (None: its head): in force, as known at an instant (µs), or now (None).

    Raises `LedgerCorrupt` at an event that cannot be read, and `LedgerUnavailable`.
    """
    pin = pin or pin_of(ledger)
    said: dict[str, list[Assertion]] = {CATALOG_SUBJECT: []}
    since = [0]
    while len(since) <= pin.position and (page := ledger.page(len(since) - 1, until=pin.position)):
        for entry in page:
            assertion = read_entry(entry.position, entry.version, entry.leaf)
            said.setdefault(entry.subject, []).append(assertion)
            start = assertion.effective_from if isinstance(assertion, Change) else assertion.recorded_at
            since.append(max(assertion.recorded_at, start))
    building = Building()
    catalogs = building.catalogs(*axes(said.pop(CATALOG_SUBJECT), known_at))
    for subject, assertions in said.items():
        building.add(subject, *axes(assertions, known_at), assertions)
    return building.index(pin, known_at, catalogs, since)


def axes(assertions: list[Assertion], known_at: KnownAt) -> tuple[Axis, Axis]:
    """One subject's timelines on the axis of `known_at`, and with everything known."""
    both = fold_both(assertions)
    later = {setting: timelines.current for setting, timelines in both.items()}
    if known_at is None:
        return later, later
    if known_at == IN_FORCE:
        return {setting: timelines.in_force for setting, timelines in both.items()}, later
    return fold(one for one in assertions if one.recorded_at <= known_at), later
