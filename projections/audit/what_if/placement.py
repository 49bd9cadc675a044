"""Proposals as the ledger would have recorded them: held against its own rules at their moments, and numbered.

The rules are `ledger.append.decide`: what the catalog was at the moment, earlier proposals included, says which values
fit.
What was recorded later stands as it was recorded, also where a ledger with the proposal in it would have refused it.
Proved by tests/audit/what_if/test_placement.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from ledger.append.decide import RetractionTarget, Streams, decide
from ledger.append.submissions import DefineSetting, RetractChange
from ledger.catalog import Catalog, Definition
from ledger.codec import SOURCE_PREFIX, recorded_bytes
from ledger.errors import BadInput, BadSubmission
from ledger.store import Ledger
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import format_time
from projections.audit.what_if.numbering import Numbering
from projections.audit.what_if.proposals import ProposedChange, line_error
from projections.temporal.changes import Assertion, Change, Retraction, read_assertion, read_entry
from projections.temporal.coordinates import KnownAt, Pin


class PlacedProposals(NamedTuple):
    """The proposals in the order of their moments. `said`: of each subject that they are about everything that is said
    of it then, proposals included, in order and as `numbering` numbers it. `since`: of each proposal the later of its
    two instants, µs. `recorded_at`: of the last event then, µs."""

    numbering: Numbering
    said: dict[str, list[Assertion]]
    since: tuple[int, ...]
    recorded_at: int


class _Placed(NamedTuple):
    """A proposal at its moment, behind the event at position `after`."""

    proposal: ProposedChange
    moment: int
    after: int
    target: RetractionTarget | None


def place_proposals(
    ledger: Ledger, pin: Pin, proposals: Iterable[ProposedChange], first_request: int | None, known_at: KnownAt
) -> PlacedProposals:
    """What the ledger up to `pin` and the proposals come to. `first_request`: of the log, µs; None: it has none.

    Raises `BadInput` with the line at the first proposal that the ledger would not have taken at its moment, and for
    one that nobody would know of at a fixed `known_at`.
    """
    making = _Making(ledger, pin)
    placed = sorted((making.place(one, first_request) for one in proposals), key=lambda one: one.moment)
    if isinstance(known_at, int):
        for one in placed:
            if one.moment > known_at:
                raise line_error(
                    one.proposal.line,
                    f"made at {format_time(one.moment)} it is not known at {format_time(known_at)}, which was asked "
                    "for, and would change nothing; name an earlier recorded_at or a later known_at",
                )
    numbering = Numbering([one.after for one in placed], [one.proposal.line for one in placed])
    making.renumber(numbering)
    for place, one in zip(numbering.places.tolist(), placed, strict=True):
        making.take(one, place)
    last = max([pin.recorded_at or 0, *(one.moment for one in placed)])
    return PlacedProposals(numbering, making.in_order(), tuple(making.since), last)


class _Making:
    def __init__(self, ledger: Ledger, pin: Pin) -> None:
        first = ledger.recorder.entry(1)
        if not pin.position or first is None:
            raise BadInput("the ledger holds no event, so that there is nothing to be otherwise")
        self._ledger = ledger
        self._source = SOURCE_PREFIX + ledger.origin
        self._until = pin.position
        self._began = first.recorded_at
        self._said: dict[str, list[Assertion]] = {}
        self._about: set[str] = set()
        self._definitions: list[Change] = []
        self._catalog = Catalog()
        self._learned = 0
        self._versions: defaultdict[str, int] = defaultdict(int)
        self.since: list[int] = []

    def place(self, proposal: ProposedChange, first_request: int | None) -> _Placed:
        """Reads what is said of the subject that the proposal is about."""
        submission = proposal.submission
        target, known = None, self._began
        if isinstance(submission, RetractChange):
            found = self._target(submission.event_id)
            if found is not None:
                target, recorded_at = found
                if proposal.recorded_at is not None and proposal.recorded_at < recorded_at:
                    raise line_error(
                        proposal.line,
                        f"/event_id: the event was recorded at {format_time(recorded_at)} and cannot be retracted at "
                        f"{format_time(proposal.recorded_at)}; name a later recorded_at",
                    )
                known = max(known, recorded_at)
        elif not isinstance(submission, DefineSetting):
            self._read(submission.subject)
        self._read(CATALOG_SUBJECT)
        if proposal.recorded_at is not None and proposal.recorded_at < self._began:
            raise line_error(
                proposal.line,
                f"/recorded_at: {format_time(proposal.recorded_at)} lies before the ledger was begun, at "
                f"{format_time(self._began)}; name a later one",
            )
        moment = proposal.moment if proposal.moment is not None else first_request
        moment = known if moment is None else max(moment, known)
        return _Placed(proposal, moment, self._last_by(moment), target)

    def renumber(self, numbering: Numbering) -> None:
        for said in self._said.values():
            moved = numbering.moved(np.array([one.position for one in said], np.int64)).tolist()
            said[:] = (replace(one, position=position) for one, position in zip(said, moved, strict=True))
        self._definitions = [one for one in self._said[CATALOG_SUBJECT] if isinstance(one, Change)]

    def take(self, placed: _Placed, position: int) -> None:
        """Decides, as the ledger would have. In the order of moments, because one rests on the other."""
        proposal, moment, _after, target = placed
        submission = proposal.submission
        self._learn(position)
        retracted = set[str]()
        targets = dict[str, RetractionTarget]()
        if target is not None:
            targets[target.event_id] = target
            before = (one for one in self._said[target.subject] if one.position < position)
            retracted = {one.retracts for one in before if isinstance(one, Retraction)}
        streams = Streams(self._catalog, self._versions, targets, retracted)
        try:
            decided = decide((submission,), streams, now=moment, actor="", entropy=bytes)
        except BadSubmission as error:
            raise line_error(proposal.line, error.detail) from None
        (draft,) = decided.drafts
        if isinstance(submission, DefineSetting):
            self._keeps_its_type(proposal.line, submission)
        # As it would stand in the ledger, and be read there.
        assertion = read_assertion(recorded_bytes(draft, self._source, position, moment))
        self._said[draft.subject].append(assertion)
        self._about.add(draft.subject)
        self.since.append(max(moment, assertion.effective_from) if isinstance(assertion, Change) else moment)
        if isinstance(submission, DefineSetting) and isinstance(assertion, Change):
            defined = (submission.setting, assertion.effective_from, submission.definition)
            self._catalog = self._catalog.extended([defined], self._catalog.version + 1)

    def in_order(self) -> dict[str, list[Assertion]]:
        return {subject: sorted(said, key=_position) for subject, said in self._said.items() if subject in self._about}

    def _learn(self, before: int) -> None:
        """Brings the catalog up to what was recorded before the position."""
        while self._learned < len(self._definitions) and self._definitions[self._learned].position < before:
            change = self._definitions[self._learned]
            defined = (change.setting, change.effective_from, Definition.model_validate(change.value))
            self._catalog = self._catalog.extended([defined], self._catalog.version + 1)
            self._learned += 1

    def _keeps_its_type(self, line: int, submission: DefineSetting) -> None:
        later = next((one.value for one in self._definitions if one.setting == submission.setting), None)
        if isinstance(later, dict) and later["value_type"] != submission.definition.value_type:
            raise line_error(
                line,
                f"/definition/value_type: a setting keeps its type, and this one is defined as {later['value_type']} "
                "later; define another setting instead",
            )

    def _read(self, subject: str) -> None:
        if subject not in self._said:
            entries = (entry for entry in self._ledger.stream(subject) if entry.position <= self._until)
            self._said[subject] = [read_entry(entry.position, entry.version, entry.leaf) for entry in entries]

    def _target(self, event_id: str) -> tuple[RetractionTarget, int] | None:
        """What is to be retracted, and when it was recorded."""
        entry = self._ledger.find(event_id)
        if entry is None or entry.position > self._until:
            return None
        self._read(entry.subject)
        said = read_assertion(entry.leaf)
        start = said.effective_from if isinstance(said, Change) else None
        return RetractionTarget(event_id, entry.subject, entry.topic, said.setting, start), entry.recorded_at

    def _last_by(self, moment: int) -> int:
        """The last position whose event was recorded by the moment: times never fall."""
        low, high = 1, self._until
        while low < high:
            middle = (low + high + 1) // 2
            entry = self._ledger.recorder.entry(middle)
            assert entry is not None, "positions have no gaps"
            if entry.recorded_at <= moment:
                low = middle
            else:
                high = middle - 1
        return low


def _position(said: Assertion) -> int:
    return said.position
