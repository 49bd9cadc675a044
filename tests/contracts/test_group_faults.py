"""A failure of one member of a group is its own: the others are recorded and get their receipts."""

from collections.abc import Sequence
from typing import Any

import pytest

from ledger.append import commit as recording
from ledger.append.group_commit import OPTIMISTIC_ATTEMPTS_MAX, QueuedSubmission
from ledger.append.submissions import parse_submissions
from ledger.codec import Leaf, decode, parse_leaf
from ledger.errors import LedgerCorrupt, LedgerUnavailable
from ledger.opening import open_ledger
from ledger.recorders.contract import AppendRequest, Entry
from ledger.store import Ledger
from tests.support.ledgers import GENESIS, OPERATOR, change, key, submit


def pending(body: dict[str, Any], **more: Any) -> QueuedSubmission:
    return QueuedSubmission(parse_submissions(body), OPERATOR, more.get("idempotency"), False)


def commit(ledger: Ledger, *group: QueuedSubmission) -> None:
    assert ledger.committer.commit(list(group)) == []


def poison(monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    """Makes the event at `position` unreadable."""

    def parse(leaf: bytes) -> Leaf:
        parsed = parse_leaf(leaf)
        if parsed.data.position == position:
            raise LedgerCorrupt(f"the event at position {position} cannot be read")
        return parsed

    def decoded(leaf: bytes) -> Any:
        parse(leaf)
        return decode(leaf)

    monkeypatch.setattr(recording, "parse_leaf", parse)
    monkeypatch.setattr(recording, "decode", decoded)


def test_unreadable_old_receipts_do_not_affect_newly_recorded_members(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has used the key in between, and its events cannot be read right after the commit."""
    append, page = ledger.recorder.append, ledger.recorder.page

    def overtaken(proposals: Sequence[AppendRequest], clock: Any) -> Any:
        with open_ledger(database_url, clock=ledger.clock) as other:
            submit(other, change("org:b"), idempotency=key("k"))
        return append(proposals, clock)

    def cut_off(*_: Any) -> list[Entry]:
        raise LedgerUnavailable("the connection was lost")

    first, second = pending(change("org:a")), pending(change("org:b"), idempotency=key("k"))
    monkeypatch.setattr(ledger.recorder, "append", overtaken)
    monkeypatch.setattr(ledger.recorder, "page", cut_off)
    commit(ledger, first, second)
    monkeypatch.setattr(ledger.recorder, "page", page)
    assert first.outcome()[0].position == GENESIS + 2
    assert ledger.follower.position == GENESIS + 2
    with pytest.raises(LedgerUnavailable, match="was lost"):
        second.outcome()
    assert [entry.subject for entry in ledger.page(GENESIS)] == ["org:b", "org:a"]


@pytest.mark.parametrize("stale", [0, OPTIMISTIC_ATTEMPTS_MAX])
def test_a_retry_whose_events_cannot_be_read_fails_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, stale: int
) -> None:
    submit(ledger, change("org:a"), idempotency=key("k"))
    poison(monkeypatch, GENESIS + 1)
    group = [pending(change("org:b")), pending(change("org:a"), idempotency=key("k")), pending(change("org:c"))]
    for one in group:
        one.stale_count = stale
    commit(ledger, *group)
    assert [group[place].outcome()[0].position for place in (0, 2)] == [GENESIS + 2, GENESIS + 3]
    with pytest.raises(LedgerCorrupt, match=str(GENESIS + 1)):
        group[1].outcome()


@pytest.mark.parametrize("stale", [0, OPTIMISTIC_ATTEMPTS_MAX])
def test_a_retraction_on_a_subject_with_an_unreadable_one_fails_alone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, stale: int
) -> None:
    (taken_back,) = submit(ledger, change("org:a"))
    (target,) = submit(ledger, change("org:a"))
    retracted = {"type": "change.retracted", "reason": "a slip"}
    submit(ledger, {**retracted, "event_id": taken_back.event_id})
    poison(monkeypatch, GENESIS + 3)
    group = [
        pending(change("org:b")),
        pending({**retracted, "event_id": target.event_id}),
        # It does not depend on the subject's retractions.
        pending(change("org:a")),
        pending(change("org:a", cancels_scheduled=True)),
    ]
    for one in group:
        one.stale_count = stale
    commit(ledger, *group)
    assert [group[place].outcome()[0].position for place in (0, 2)] == [GENESIS + 4, GENESIS + 5]
    for place in (1, 3):
        with pytest.raises(LedgerCorrupt, match=str(GENESIS + 3)):
            group[place].outcome()
