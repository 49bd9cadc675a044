"""Proposed changes, and the moment at which each would have been recorded.

A file of proposals holds submissions (see `api/README.md`), one a line, each with an optional `recorded_at`. A
proposal's moment is

1. its `recorded_at`;
2. without one, its `effective_from`;
3. without either, the log's first request, so that the proposal governs all requests.

A moment of kind 2 or 3 is never before the ledger's first event, nor before the event that a retraction retracts: it
moves up to there. At its moment a proposal comes after all events recorded by then; of several proposals at one moment
the later line comes later. Permissions, reasons for changes of the past and expected versions do not count, because
nothing is written. Proved by tests/audit/what_if/test_proposals.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO, Final, NamedTuple

from ledger import strict_json
from ledger.append.submissions import RetractChange, Submission, parse_submission
from ledger.errors import BadInput, BadTime
from ledger.times import parse_time
from ledger.transfer.lines import ImportLine, ImportLines

PROPOSALS_MAX: Final = 10_000
"""A handful of ideas, not a ledger: each costs a few look-ups and the history of its subject."""

_REASON: Final = "as proposed"
"""Stands for the reason that a change of the past needs."""


class ProposedChange(NamedTuple):
    """`line` counts from 1. `recorded_at` (µs): None if the line has none."""

    line: int
    submission: Submission
    recorded_at: int | None

    @property
    def moment(self) -> int | None:
        """In µs, if the line itself determines it."""
        if self.recorded_at is not None or isinstance(self.submission, RetractChange):
            return self.recorded_at
        return self.submission.effective_from


def read_proposals(stream: BinaryIO) -> tuple[ProposedChange, ...]:
    """The proposals in `stream`, gzip or plain, by line. Raises `BadInput` at the first invalid line."""
    proposals = tuple(map(_proposal, ImportLines(stream)))
    if not proposals:
        raise BadInput("there is no line; name a file with a submission on each, as they are sent to the ledger")
    if len(proposals) > PROPOSALS_MAX:
        raise BadInput(
            f"{len(proposals)} proposals, and at most {PROPOSALS_MAX} are possible; record them in a copy of the ledger"
        )
    return proposals


def need_first_request(proposals: Iterable[ProposedChange]) -> int | None:
    """The line of the first proposal whose moment is the log's first request; None if no proposal needs the log."""
    return next((proposal.line for proposal in proposals if proposal.moment is None), None)


def _proposal(line: ImportLine) -> ProposedChange:
    try:
        value = strict_json.loads(line.text, what="the line")
        if not isinstance(value, dict):
            raise BadInput("each line must be one submission, a JSON object")
        recorded_at = _recorded_at(value.pop("recorded_at", None))
        submission = parse_submission(value, "")
    except BadInput as error:
        raise line_error(line.number, error.detail) from None
    if getattr(submission, "cancels_scheduled", None):
        raise line_error(
            line.number, "a proposal cannot say cancels_scheduled; write a line that retracts each scheduled change"
        )
    update = {"expected_version": None, "reason": submission.reason or _REASON}
    return ProposedChange(line.number, submission.model_copy(update=update), recorded_at)


def _recorded_at(text: Any) -> int | None:
    try:
        return None if text is None else parse_time(text)
    except BadTime as error:
        raise BadInput(f"/recorded_at: {error.detail}") from None


def line_error(line: int, detail: str) -> BadInput:
    return BadInput(f"line {line}: {detail}")
