"""Places proposals in the ledger: checks each by the ledger's own rules at its moment, and numbers it.

`ledger.append.decide` has the rules; the catalog of the moment, with earlier proposals, says which values are valid. A
later event stays as it was recorded, even if a ledger with the proposal would have refused it.
Proved by tests/audit/what_if/test_placement.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from ledger.append.decide import RetractionTarget, SubmissionContext, decide
from ledger.append.submissions import DefineSetting, RetractChange
from ledger.catalog import Catalog, Definition
from ledger.codec import leaf_bytes
from ledger.errors import BadInput, BadSubmission
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import format_time
from projections.audit.what_if.numbering import Numbering
from projections.audit.what_if.proposals import ProposedChange, line_error
from projections.temporal.changes import Assertion, Change, Retraction, read_assertion, read_entry
from projections.temporal.coordinates import KnownAt, Pin


class PlacedProposals(NamedTuple):
    """The proposals by moment.

    assertions: subject of a proposal → everything recorded about it, with the proposals, in order and numbered by
    `numbering`. since: the later of each proposal's two instants, µs. recorded_at: of the last event or proposal, µs.
    """

    numbering: Numbering
    assertions: dict[str, list[Assertion]]
    since: tuple[int, ...]
    recorded_at: int


class _AtMoment(NamedTuple):
    """A proposal at its moment (µs), after the event at position `after`. `target`: of a retraction."""

    proposal: ProposedChange
    moment: int
    after: int
    target: RetractionTarget | None


def place_proposals(
    ledger: Ledger, pin: Pin, proposals: Iterable[ProposedChange], first_request: int | None, known_at: KnownAt
) -> PlacedProposals:
    """The proposals in the ledger up to `pin`. `first_request`: of the log, µs; None if it has none.

    Raises `BadInput` with the line of the first proposal that the ledger would not have accepted at its moment, or that
    comes after a fixed `known_at`.
    """
    placement = _Placement(ledger, pin)
    by_moment = sorted((placement.at_moment(one, first_request) for one in proposals), key=lambda one: one.moment)
    if isinstance(known_at, int):
        for one in by_moment:
            if one.moment > known_at:
                raise line_error(
                    one.proposal.line,
                    f"the proposal is recorded at {format_time(one.moment)}, after the known_at of this audit, "
                    f"{format_time(known_at)}, and changes nothing; name an earlier recorded_at or a later known_at",
                )
    numbering = Numbering([one.after for one in by_moment], [one.proposal.line for one in by_moment])
    placement.renumber(numbering)
    for position, one in zip(numbering.places.tolist(), by_moment, strict=True):
        placement.accept(one, position)
    last = max([pin.recorded_at or 0, *(one.moment for one in by_moment)])
    return PlacedProposals(numbering, placement.in_order(), tuple(placement.since), last)


class _Placement:
    def __init__(self, ledger: Ledger, pin: Pin) -> None:
        first = ledger.recorder.entry(1)
        if not pin.position or first is None:
            raise BadInput("the ledger holds no event, so no change to it can be compared")
        self._ledger = ledger
        self._source = ledger.source
        self._until = pin.position
        self._began = first.recorded_at
        self._assertions: dict[str, list[Assertion]] = {}
        self._changed: set[str] = set()
        self._definitions: list[Change] = []
        self._catalog = Catalog()
        self._definitions_applied = 0
        self._versions: defaultdict[str, int] = defaultdict(int)
        self.since: list[int] = []

    def at_moment(self, proposal: ProposedChange, first_request: int | None) -> _AtMoment:
        """Determines the proposal's moment, and reads the history of its subject."""
        submission = proposal.submission
        target, earliest = None, self._began
        if isinstance(submission, RetractChange):
            retracted = self._target(submission.event_id)
            if retracted is not None:
                target, recorded_at = retracted
                if proposal.recorded_at is not None and proposal.recorded_at < recorded_at:
                    raise line_error(
                        proposal.line,
                        f"/event_id: the event was recorded at {format_time(recorded_at)} and cannot be retracted at "
                        f"{format_time(proposal.recorded_at)}; name a later recorded_at",
                    )
                earliest = max(earliest, recorded_at)
        elif not isinstance(submission, DefineSetting):
            self._read(submission.subject)
        self._read(CATALOG_SUBJECT)
        if proposal.recorded_at is not None and proposal.recorded_at < self._began:
            raise line_error(
                proposal.line,
                f"/recorded_at: {format_time(proposal.recorded_at)} lies before the ledger's first event, at "
                f"{format_time(self._began)}; name a later one",
            )
        moment = proposal.moment if proposal.moment is not None else first_request
        moment = earliest if moment is None else max(moment, earliest)
        return _AtMoment(proposal, moment, self._last_by(moment), target)

    def renumber(self, numbering: Numbering) -> None:
        for assertions in self._assertions.values():
            moved = numbering.moved(np.array([one.position for one in assertions], np.int64)).tolist()
            assertions[:] = (replace(one, position=place) for one, place in zip(assertions, moved, strict=True))
        self._definitions = [one for one in self._assertions[CATALOG_SUBJECT] if isinstance(one, Change)]

    def accept(self, placed: _AtMoment, position: int) -> None:
        """Decides as the ledger would have. Called by moment, because a proposal may rest on an earlier one."""
        proposal, moment, _after, target = placed
        submission = proposal.submission
        self._apply_definitions(position)
        retracted = set[str]()
        targets = dict[str, RetractionTarget]()
        if target is not None:
            targets[target.event_id] = target
            before = (one for one in self._assertions[target.subject] if one.position < position)
            retracted = {one.retracts for one in before if isinstance(one, Retraction)}
        context = SubmissionContext(self._catalog, self._versions, targets, retracted)
        try:
            decided = decide((submission,), context, now=moment, actor="", entropy=bytes)
        except BadSubmission as error:
            raise line_error(proposal.line, error.detail) from None
        (draft,) = decided.drafts
        if isinstance(submission, DefineSetting):
            self._check_type(proposal.line, submission)
        # Encode and decode it, so that it is what a reader of the ledger would see.
        assertion = read_assertion(leaf_bytes(draft, self._source, position, moment))
        self._assertions[draft.subject].append(assertion)
        self._changed.add(draft.subject)
        self.since.append(max(moment, assertion.effective_from) if isinstance(assertion, Change) else moment)
        if isinstance(submission, DefineSetting) and isinstance(assertion, Change):
            self._define(submission.setting, assertion.effective_from, submission.definition)

    def in_order(self) -> dict[str, list[Assertion]]:
        return {
            subject: sorted(self._assertions[subject], key=attrgetter("position"))
            for subject in self._assertions
            if subject in self._changed
        }

    def _apply_definitions(self, before: int) -> None:
        """Adds to the catalog the definitions recorded before the position."""
        while self._definitions_applied < len(self._definitions):
            change = self._definitions[self._definitions_applied]
            if change.position >= before:
                return
            self._define(change.setting, change.effective_from, Definition.model_validate(change.value))
            self._definitions_applied += 1

    def _define(self, setting: str, effective_from: int, definition: Definition) -> None:
        self._catalog = self._catalog.extended([(setting, effective_from, definition)], self._catalog.version + 1)

    def _check_type(self, line: int, submission: DefineSetting) -> None:
        later = next((one.value for one in self._definitions if one.setting == submission.setting), None)
        if isinstance(later, dict) and later["value_type"] != submission.definition.value_type:
            raise line_error(
                line,
                f"/definition/value_type: a setting keeps its type, and this one is defined as {later['value_type']} "
                "later; define another setting instead",
            )

    def _read(self, subject: str) -> None:
        if subject not in self._assertions:
            entries = (entry for entry in self._ledger.stream(subject) if entry.position <= self._until)
            self._assertions[subject] = [read_entry(entry.position, entry.version, entry.leaf) for entry in entries]

    def _target(self, event_id: str) -> tuple[RetractionTarget, int] | None:
        """(the event to be retracted, its recorded_at)"""
        entry = self._ledger.find(event_id)
        if entry is None or entry.position > self._until:
            return None
        self._read(entry.subject)
        assertion = read_assertion(entry.leaf)
        start = assertion.effective_from if isinstance(assertion, Change) else None
        return RetractionTarget(event_id, entry.subject, entry.topic, assertion.setting, start), entry.recorded_at

    def _last_by(self, moment: int) -> int:
        """The last position whose event was recorded by the moment: recorded times never fall."""

        def recorded_at(position: int) -> int:
            entry = self._ledger.recorder.entry(position)
            assert entry is not None, "positions have no gaps"
            return entry.recorded_at

        return 1 + bisect_right(range(2, self._until + 1), moment, key=recorded_at)
