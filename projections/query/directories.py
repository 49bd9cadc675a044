"""The directory of regions and providers at a snapshot: few subjects, read together when a decision first needs them.

Proved by tests/query/test_directories.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ledger.store import Ledger
from ledger.subjects import kind_of
from projections.decisions.directory import DIRECTORY_KINDS, BothDirectories, DirectorySteps, Whole
from projections.query.subject_cache import SubjectTimelines
from projections.temporal.fold import Timeline
from projections.timelines.store import TimelineStore

AS_KNOWN_MAX: Final = 16
"""Directories as known at an instant, of a read context: a batch has one known_at."""


def is_in_directory(subject: str) -> bool:
    return kind_of(subject) in DIRECTORY_KINDS


def directory_subjects(ledger: Ledger, store: TimelineStore, position: int) -> tuple[str, ...]:
    """All regions and providers with events up to `position`, and maybe some with later ones only."""
    tracked, subjects = position, set[str]()
    for kind in DIRECTORY_KINDS:
        # A damaged row says nothing, but its subject has a history.
        of_kind, (rows, damaged) = store.subjects(kind)
        tracked = min(tracked, of_kind)
        subjects |= {row.subject for row in rows} | damaged
    for page in ledger.pages(tracked, position):
        subjects |= {entry.subject for entry in page if is_in_directory(entry.subject)}
    return tuple(sorted(subjects))


def both_directories(
    subjects: Mapping[str, SubjectTimelines], catalog: SubjectTimelines, whole: Whole
) -> BothDirectories:
    """In force, and with everything known."""
    in_force = {subject: _axis(timelines, in_force=True) for subject, timelines in subjects.items()}
    later = {subject: _axis(timelines, in_force=False) for subject, timelines in subjects.items()}
    return BothDirectories(
        DirectorySteps(in_force, _axis(catalog, in_force=True), whole),
        DirectorySteps(later, _axis(catalog, in_force=False), whole),
    )


def _axis(timelines: SubjectTimelines, *, in_force: bool) -> Mapping[str, Timeline]:
    return {setting: both.in_force if in_force else both.current for setting, both in timelines.items()}


def directory_as_known(
    subjects: tuple[str, ...],
    folded: Callable[[str], Mapping[str, Timeline]],
    catalog: Mapping[str, Timeline],
    whole: Whole,
) -> DirectorySteps:
    """`folded`: a subject → its timelines as known at the instant; `catalog`: those of the definitions."""
    return DirectorySteps({subject: folded(subject) for subject in subjects}, catalog, whole)
