"""Proposed changes, and the moment at which each is taken to have been made.

A file of proposals holds submissions as in WIRE.md section 2, one a line, each with a `recorded_at` if it wants one.
The moment of a proposal, at which it would have been recorded, is

1. its `recorded_at`;
2. without one its `effective_from`;
3. without either the log's first request, which it then governs as it does all after it.

Nothing is recorded before the ledger was begun, nor a retraction before what it takes back: moments that are not said
in so many words (2 and 3) are moved up to there. At its moment a proposal comes after all that was recorded by then,
and of several at one moment the later line comes later. Who may write what, what a change of the past needs and which
version was expected do not count: nothing is written. Proved by tests/audit/what_if/test_proposals.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO, Final, NamedTuple

from ledger import strict_json
from ledger.append.submissions import (
    ChangeSetting,
    ClearSetting,
    DefineSetting,
    RetractChange,
    Submission,
    parse_submission,
)
from ledger.errors import BadInput, BadJson, BadSubmission, BadTime
from ledger.times import parse_time
from ledger.transfer.lines import Line, Lines

PROPOSALS_MAX: Final = 10_000
"""What somebody thinks of changing, not a ledger: each costs a few look-ups, and its subject's history."""

_NOT_COUNTED: Final = {"expected_version": None}
_SAID: Final = "as proposed"
"""In place of the reason that a change of the past would need."""


class ProposedChange(NamedTuple):
    """`line` counts from 1. `recorded_at` (µs): None where the line names none."""

    line: int
    submission: Submission
    recorded_at: int | None

    @property
    def moment(self) -> int | None:
        """As far as the line itself says it, in µs."""
        if self.recorded_at is not None or isinstance(self.submission, RetractChange):
            return self.recorded_at
        return self.submission.effective_from


def read_proposals(stream: BinaryIO) -> tuple[ProposedChange, ...]:
    """The lines of `stream`, gzip or plain, in their order. Raises `BadInput` at the first that is none."""
    found = tuple(_proposal(line) for line in Lines(stream))
    if not found:
        raise BadInput("there is no line; name a file with a submission on each, as they are sent to the ledger")
    if len(found) > PROPOSALS_MAX:
        raise BadInput(f"{len(found)} proposals, and at most {PROPOSALS_MAX} are taken at once; make them in a copy")
    return found


def need_first_request(proposals: Iterable[ProposedChange]) -> int | None:
    """The line of the first proposal whose moment is the log's first request; None: the log need not be known."""
    return next((proposal.line for proposal in proposals if proposal.moment is None), None)


def _proposal(line: Line) -> ProposedChange:
    try:
        value = strict_json.loads(line.text, what="the line")
    except BadJson as error:
        raise line_error(line.number, error.detail) from None
    if not isinstance(value, dict):
        raise line_error(line.number, "each line must be one submission, a JSON object")
    recorded_at = _recorded_at(line.number, value)
    try:
        submission = parse_submission(value, "")
    except BadSubmission as error:
        raise line_error(line.number, error.detail) from None
    said: dict[str, Any] = dict(_NOT_COUNTED)
    if submission.reason is None:
        said["reason"] = _SAID
    return ProposedChange(line.number, _with(submission, said), recorded_at)


def _recorded_at(line: int, value: dict[str, Any]) -> int | None:
    said = value.pop("recorded_at", None)
    if said is None:
        return None
    try:
        return parse_time(said)
    except BadTime as error:
        raise line_error(line, f"/recorded_at: {error.detail}") from None


def _with(submission: Submission, said: dict[str, Any]) -> Submission:
    match submission:
        case ChangeSetting() | ClearSetting() | RetractChange() | DefineSetting():
            return submission.model_copy(update=said)


def line_error(line: int, detail: str) -> BadInput:
    return BadInput(f"line {line}: {detail}")
