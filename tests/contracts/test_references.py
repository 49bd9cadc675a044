"""Where the catalog demands that a kind is known, a reference to a subject without events is refused."""

from typing import Any

import pytest

from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.errors import BadImport, BadSubmission
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.subjects import MUST_BE_KNOWN
from ledger.times import format_time
from tests.contracts.test_groups import queued, settle
from tests.contracts.test_submitting import SteppingClock
from tests.support.ledgers import GENESIS, NOW, change, define, definition, submit
from tests.support.transfers import AT, at, import_lines, is_untouched, jsonl

HOUR = 3_600_000_000
KINDS = ["account", "org", "project", "key"]
OWNER = {**change("key:k1", "org:acme"), "setting": "owner"}
ATTACHED = {**change("account:u1", "org:acme"), "setting": "attached_to"}


def demand(*kinds: str, **more: Any) -> dict[str, Any]:
    built_in = BUILT_IN.get(MUST_BE_KNOWN)
    if built_in is not None:
        return define(MUST_BE_KNOWN, definition={**built_in.as_json(), "default": list(kinds)}, **more)
    members = {"kinds": KINDS, "value_type": "set_of", "members": KINDS, "default": list(kinds), "protective": None}
    return define(MUST_BE_KNOWN, definition=definition(**members), **more)


@pytest.mark.parametrize("body", [OWNER, ATTACHED])
def test_a_reference_to_a_subject_without_events_is_refused_where_its_kind_must_be_known(
    ledger: Ledger, body: dict[str, Any]
) -> None:
    submit(ledger, body)
    submit(ledger, demand("org"))
    head = ledger.head()
    with pytest.raises(BadSubmission) as refused:
        submit(ledger, {**body, "value": "org:SECRET"})
    (fault,) = refused.value.faults
    assert fault.pointer == "/value"
    assert f"{MUST_BE_KNOWN} demands one of every org" in fault.detail
    assert "SECRET" not in fault.detail
    assert ledger.head() == head
    submit(ledger, change("org:SECRET"))
    submit(ledger, {**body, "value": "org:SECRET"})


@pytest.mark.parametrize("value", [["org"], []])
@pytest.mark.parametrize("subject", ["org:acme", "account:u1", "project:p1", "key:k1"])
def test_no_subject_has_a_demand_of_its_own_because_only_the_default_counts(
    ledger: Ledger, subject: str, value: list[str]
) -> None:
    of_subject = {**change(subject, value), "setting": MUST_BE_KNOWN}
    clear = {"type": "setting.cleared", "subject": subject, "setting": MUST_BE_KNOWN}
    for body in (of_subject, clear):
        with pytest.raises(BadSubmission) as refused:
            submit(ledger, body)
        (fault,) = refused.value.faults
        assert fault.pointer == "/setting"
        assert fault.detail.endswith("define the setting with that default instead (writable by: operator)")
    with pytest.raises(BadSubmission, match="belongs to subjects of kind account, org, project, key, not model"):
        submit(ledger, {**of_subject, "subject": "model:m"})


def test_other_kinds_and_other_texts_are_not_asked_for(ledger: Ledger) -> None:
    submit(ledger, demand("project", "account"))
    submit(ledger, OWNER, ATTACHED, {**change("model:m", "project:none"), "setting": "model.author"})
    with pytest.raises(BadSubmission, match="every project"):
        submit(ledger, {**OWNER, "value": "project:p1"})


@pytest.mark.parametrize("bodies", [[change("org:acme"), OWNER], [OWNER, change("org:acme")]], ids=["first", "last"])
def test_a_subject_that_begins_in_the_same_batch_is_known(ledger: Ledger, bodies: list[dict[str, Any]]) -> None:
    submit(ledger, demand("org"))
    assert len(submit(ledger, *bodies)) == 2


def test_the_demand_counts_from_its_beginning_on(ledger: Ledger, clock: ManualClock) -> None:
    submit(ledger, demand(), demand("org", effective_from=format_time(NOW + HOUR)))
    clock.now_us = NOW + HOUR - 10
    submit(ledger, OWNER)
    for recorded, accepted in ((-1, True), (0, False), (1, False)):
        ledger.clock = SteppingClock(NOW + HOUR - 5, NOW + HOUR + recorded)
        if accepted:
            assert submit(ledger, OWNER)[0].recorded_at == NOW + HOUR - 1
        else:
            with pytest.raises(BadSubmission, match="demands one of every org"):
                submit(ledger, OWNER)


def test_in_one_group_a_subject_that_an_earlier_member_begins_is_known(ledger: Ledger) -> None:
    submit(ledger, demand("org"))
    refused, first, owner = settle(ledger, queued(OWNER), queued(change("org:acme")), queued(OWNER))
    assert isinstance(refused, BadSubmission)
    assert isinstance(first, tuple)
    assert isinstance(owner, tuple)
    assert owner[0].position == first[0].position + 1


def test_a_member_whose_subject_was_not_begun_after_all_is_decided_again(
    database_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier member that would begin the subject is stale, because another process was quicker."""
    submit(ledger, demand("org"))
    preconditions = ledger.recorder.append_preconditions
    with open_ledger(database_url, clock=ledger.clock) as other:
        meanwhile: list[Any] = []

        def other_is_quicker(*arguments: Any) -> Any:
            read = preconditions(*arguments)
            if not meanwhile:
                meanwhile.append(submit(other, change("project:p1", "org:x") | {"setting": "owner"}, change("org:x")))
            return read

        monkeypatch.setattr(ledger.recorder, "append_preconditions", other_is_quicker)
        both = queued(change("org:acme"), {**change("project:p1", "org:acme"), "setting": "owner"})
        first, owner = settle(ledger, both, queued(OWNER))
    assert isinstance(first, tuple)
    assert isinstance(owner, tuple)
    assert owner[0].position > first[0].position


def test_an_import_of_submissions_keeps_to_the_demand(database_url: str) -> None:
    demanded = at(AT, demand("org"))
    with pytest.raises(BadImport, match="line 2: /value: the ledger has no event"):
        import_lines(database_url, jsonl(demanded, at(AT, OWNER)))
    assert is_untouched(database_url)
    import_lines(database_url, jsonl(demanded, at(AT, OWNER), at(AT, change("org:acme"))))
    with open_ledger(database_url) as ledger:
        assert ledger.head().position == GENESIS + 3
