"""The right to record: `writable_by`, reach, corrections; a refusal is of the whole batch and says nothing foreign."""

from collections.abc import Mapping
from typing import Any

import pytest

from ledger.append.authority import Authority, require
from ledger.append.submissions import parse_submissions
from ledger.built_in_catalog import BUILT_IN
from ledger.catalog import Catalog, Definition
from ledger.errors import BadSubmission, Forbidden, OutOfReach
from ledger.roles import RoleName
from ledger.times import BEGINNING, format_time, parse_time
from tests.support.ledgers import definition

NOW = parse_time("2026-03-01T12:00:00Z")
OPERATOR = Authority("principal:o has the role operator", True, False)
OWNER_SETTING = Definition.model_validate(definition(writable_by="owner"))
LATER = Definition.model_validate(definition(writable_by="operator"))
CATALOG = Catalog(
    [
        *((setting, BEGINNING, one) for setting, one in BUILT_IN.items()),
        ("beta.search", BEGINNING, OWNER_SETTING),
        ("beta.scheduled", BEGINNING, OWNER_SETTING),
        ("beta.scheduled", NOW + 1000, LATER),
        ("beta.ref", BEGINNING, OWNER_SETTING.model_copy(update={"value_type": "subject_ref", "ref_kinds": ("org",)})),
    ],
    len(BUILT_IN) + 4,
)
TARGETS = {"own": ("org:acme", "training.opt_in"), "foreign": ("org:globex", "training.opt_in")}


def scoped(role: RoleName, subject: str = "org:acme", corrector: bool = False) -> Authority:
    return Authority(f"principal:p has the role {role}@{subject}", False, corrector, {subject: frozenset({role})})


def judge(authority: Authority, *events: Mapping[str, Any]) -> None:
    require(parse_submissions({"events": list(events)}), authority, CATALOG, TARGETS, now=NOW, batch=True)


def change(setting: str = "training.opt_in", subject: str = "org:acme", **more: Any) -> dict[str, Any]:
    return {"type": "setting.changed", "subject": subject, "setting": setting, "value": True, **more}


@pytest.mark.parametrize(
    ("authority", "setting", "subject", "allowed"),
    [
        (OPERATOR, "training.opt_in", "org:acme", True),
        (OPERATOR, "network.private_only", "org:acme", True),
        (scoped("admin"), "training.opt_in", "org:acme", True),
        (scoped("admin"), "network.private_only", "org:acme", False),
        (scoped("admin"), "beta.search", "org:acme", True),
        (scoped("member"), "training.opt_in", "org:acme", False),
        (scoped("member"), "beta.search", "org:acme", True),
        (scoped("self", "account:u1"), "training.opt_in", "account:u1", True),
        (scoped("self", "account:u1"), "network.private_only", "account:u1", False),
    ],
)
def test_a_setting_is_written_by_those_whom_its_definition_names(
    authority: Authority, setting: str, subject: str, allowed: bool
) -> None:
    for type_ in ("setting.changed", "setting.cleared"):
        event = change(setting, subject, type=type_)
        if type_ == "setting.cleared":
            del event["value"]
        if allowed:
            judge(authority, event)
            continue
        with pytest.raises(Forbidden) as refused:
            judge(authority, event)
        writer = "admin" if setting == "training.opt_in" else "operator"
        assert refused.value.detail == f"{setting} is writable by {writer}, and {authority.caller}"
        assert [fault.pointer for fault in refused.value.faults] == ["/events/0/setting"]


@pytest.mark.parametrize("event", [{"value": "org:acme"}, {"type": "setting.cleared", "value": ...}])
def test_nobody_leaves_a_policy_by_a_setting_of_ones_own(event: dict[str, Any]) -> None:
    body = {name: value for name, value in change("attached_to", "account:u1", **event).items() if value is not ...}
    both = frozenset[RoleName]({"admin", "self"})
    caller = Authority("principal:p", False, True, {"account:u1": both, "org:acme": both})
    with pytest.raises(Forbidden, match="attached_to decides whose policy governs, so an operator writes it"):
        judge(caller, body)
    judge(OPERATOR, body)


def test_one_wrong_submission_refuses_the_batch_and_names_each() -> None:
    with pytest.raises(Forbidden) as refused:
        judge(scoped("admin"), change(), change("network.private_only"), change("residency.regions"))
    assert [fault.pointer for fault in refused.value.faults] == ["/events/1/setting", "/events/2/setting"]
    assert refused.value.detail.endswith("(and 1 more)")


@pytest.mark.parametrize("subject", ["org:globex", "org:nobody", "principal:p", "account:u1", "model:m"])
def test_a_foreign_subject_is_refused_in_the_words_of_an_unknown_one(subject: str) -> None:
    with pytest.raises(OutOfReach) as refused:
        judge(scoped("admin"), change(), change(subject=subject), change("network.private_only"))
    assert [fault.pointer for fault in refused.value.faults] == ["/events/1/subject"]
    assert subject not in refused.value.detail


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_only_a_corrector_backdates(offset: int) -> None:
    event = change(effective_from=format_time(NOW + offset), reason="ticket")
    for authority in (OPERATOR, scoped("admin")):
        if offset >= 0:
            judge(authority, event)
        else:
            with pytest.raises(Forbidden, match="corrector"):
                judge(authority, event)
        judge(authority._replace(may_correct=True), event)


def test_only_a_corrector_retracts_and_cancels() -> None:
    retraction = {"type": "change.retracted", "event_id": "own", "reason": "wrong"}
    for event in (retraction, change(cancels_scheduled=True)):
        for authority in (OPERATOR, scoped("admin")):
            with pytest.raises(Forbidden, match="needs the role corrector"):
                judge(authority, event)
            judge(authority._replace(may_correct=True), event)
    judge(OPERATOR, change(cancels_scheduled=False))
    with pytest.raises(Forbidden, match="writable by admin"):
        judge(scoped("member", corrector=True), retraction)


@pytest.mark.parametrize("event_id", ["foreign", "nowhere"])
def test_a_foreign_event_is_as_unknown_as_one_that_does_not_exist(event_id: str) -> None:
    with pytest.raises(BadSubmission) as refused:
        judge(scoped("admin", corrector=True), {"type": "change.retracted", "event_id": event_id, "reason": "wrong"})
    assert refused.value.faults == (("/events/0/event_id", "there is no event with this id in this ledger"),)


def test_only_the_operator_defines() -> None:
    definition_ = {"type": "setting.defined", "setting": "beta.x", "definition": definition()}
    judge(OPERATOR, definition_)
    with pytest.raises(Forbidden, match="corrector"):
        judge(OPERATOR, {**definition_, "effective_from": format_time(NOW - 1)})
    with pytest.raises(Forbidden, match="the operator"):
        judge(scoped("admin"), definition_)


@pytest.mark.parametrize(("offset", "allowed"), [(999, True), (1000, False), (1001, False)])
def test_a_scheduled_definition_says_who_may_write_what_begins_with_it(offset: int, allowed: bool) -> None:
    event = change("beta.scheduled", effective_from=format_time(NOW + offset))
    if allowed:
        judge(scoped("member"), event)
    else:
        with pytest.raises(Forbidden, match="writable by operator"):
            judge(scoped("member"), event)


def test_a_value_names_no_subject_beyond_the_reach() -> None:
    judge(scoped("member"), change("beta.ref", value="org:acme"))
    for value in ("org:globex", "org:nobody"):
        with pytest.raises(OutOfReach) as refused:
            judge(scoped("member"), change("beta.ref", value=value))
        assert [fault.pointer for fault in refused.value.faults] == ["/events/0/value"]
    judge(OPERATOR, change("beta.ref", value="org:nobody"))


def test_a_corrector_alone_writes_nothing() -> None:
    with pytest.raises(OutOfReach):
        judge(Authority("principal:c has the role corrector", False, True), change())
