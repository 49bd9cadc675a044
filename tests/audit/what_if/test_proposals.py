"""Files of proposals: their lines, the moments that a line itself determines, and errors in one line."""

import gzip
import io
from typing import Any

import pytest

from ledger.errors import BadInput
from projections.audit.what_if.proposals import PROPOSALS_MAX, ProposedChange, need_first_request, read_proposals
from tests.support.ledgers import change, define
from tests.support.transfers import AT, AT_US, LATER, jsonl


def read(content: bytes) -> tuple[ProposedChange, ...]:
    return read_proposals(io.BytesIO(content))


def test_lines_are_numbered_as_in_editors_and_gzip_is_recognised() -> None:
    lines = b"\n" + jsonl(change()) + b"\r\n  \n" + jsonl(define())
    assert [one.line for one in read(lines)] == [2, 5]
    assert read(gzip.compress(lines)) == read(lines)


@pytest.mark.parametrize(
    ("line", "moment"),
    [
        (change(), None),
        (change(recorded_at=None, effective_from=None), None),
        (change(effective_from=LATER), AT_US + 1_500_000),
        (change(effective_from=LATER, recorded_at=AT), AT_US),
        (define(effective_from=LATER), AT_US + 1_500_000),
        ({"type": "change.retracted", "event_id": "one"}, None),
        ({"type": "change.retracted", "event_id": "one", "recorded_at": AT}, AT_US),
    ],
)
def test_recorded_at_takes_precedence_over_effective_from(line: dict[str, Any], moment: int | None) -> None:
    (proposal,) = read(jsonl(line))
    assert proposal.moment == moment
    assert need_first_request([proposal]) == (1 if moment is None else None)


def test_reasons_and_expected_versions_do_not_count() -> None:
    (plain, detailed) = read(jsonl(change(), change(expected_version=7, reason="a ticket")))
    assert plain.submission.reason is not None
    assert detailed.submission.reason == "a ticket"
    assert detailed.submission.expected_version is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is no line"),
        (b'{"type":', "line 1: the line is not JSON"),
        (b"[1]", "line 1: each line must be one submission, a JSON object"),
        (jsonl(change(), change() | {"setting": "no such\nkey"}), "line 2: /setting: a setting's key is"),
        (jsonl(change(recorded_at="yesterday")), "line 1: /recorded_at: "),
        (jsonl(change(recorded_at=AT_US)), "line 1: /recorded_at: "),
        (jsonl(change(effective_from="1850-01-01T00:00:00Z")), "line 1: /effective_from: an effective time must lie"),
        (jsonl(change(actor="somebody")), "line 1: /actor: this member does not belong here"),
        (jsonl(change(), change(cancels_scheduled=True)), "line 2: a proposal cannot say cancels_scheduled"),
        (jsonl(change(reason=" ")), "line 1: /reason: a reason of spaces is no reason"),
        (jsonl({"events": [change()]}), "line 1: type must be one of"),
        (gzip.compress(jsonl(change()), mtime=0)[:-9], "line 1: the gzip data ends here, too early"),
    ],
)
def test_an_invalid_line_is_an_error_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(BadInput) as error:
        read(content)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_number_of_proposals_is_limited() -> None:
    assert len(read(jsonl(change()) * PROPOSALS_MAX)) == PROPOSALS_MAX
    with pytest.raises(BadInput, match=f"^{PROPOSALS_MAX + 1} proposals, and at most {PROPOSALS_MAX}"):
        read(jsonl(change()) * (PROPOSALS_MAX + 1))
