"""Every fault of a submission is named by a pointer, and nothing is recorded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.append.submissions import EFFECTIVE_MAX, EFFECTIVE_MIN, canonical_json
from ledger.built_in_catalog import BUILT_IN
from ledger.clock import ManualClock
from ledger.store import Ledger
from ledger.subjects import KINDS
from ledger.times import format_time
from tests.support.ledgers import NOW, change, define, definition, open_with_clock, submit
from tests.support.refusals import faults

GENESIS = len(BUILT_IN)
HOUR = 3_600_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db", NOW - HOUR)
    clock.now_us = NOW
    with ledger:
        yield ledger


def clear(**more: Any) -> dict[str, Any]:
    return {"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in", **more}


def retract(event_id: str, **more: Any) -> dict[str, Any]:
    return {"type": "change.retracted", "event_id": event_id, **more}


WRONG_SHAPE: dict[str, tuple[Any, str, str]] = {
    "no object": (["SECRET"], "", "must be one submission"),
    "null": (None, "", "must be one submission"),
    "a text": ("SECRET", "", "must be one submission"),
    "no type": ({"subject": "org:a"}, "", "type must be one of"),
    "an unknown type": ({"type": "SECRET"}, "", "type must be one of"),
    "a type that is no text": ({"type": 1}, "", "type must be one of"),
    "the reserved erasure": ({"type": "personal_data.erased", "subject": "org:a"}, "/type", "reserved"),
    "an unknown member": (change(efective_from=None), "/efective_from", "does not belong"),
    "an unknown member of any kind": ({**change(), "SECRET \n": 1}, "", "does not belong"),
    "a missing member": ({"type": "setting.changed", "subject": "org:a", "value": True}, "/setting", "required"),
    "a missing value": ({"type": "setting.changed", "subject": "org:a", "setting": "x"}, "/value", "required"),
    "a cleared value": (clear(value=True), "/value", "does not belong"),
    "a batch with something beside": ({"events": [change()], "x": 1}, "", "one member"),
    "a batch that is no array": ({"events": {}}, "/events", "array of 1 to 1000"),
    "an empty batch": ({"events": []}, "/events", "array of 1 to 1000"),
    "a batch of 1001": ({"events": [change()] * 1001}, "/events", "array of 1 to 1000"),
    "a batch in a batch": ({"events": [{"events": [change()]}]}, "/events/0", "type must be one of"),
    "a bad member of a batch": ({"events": [change(), 7]}, "/events/1", "object"),
    "a subject without a kind": (change("acme"), "/subject", "kind:id"),
    "a subject of no kind": (change("planet:earth"), "/subject", "unknown kind"),
    "the catalog as a subject": (change("catalog:settings"), "/subject", "unknown kind"),
    "a subject without an id": (change("org:"), "/subject", "1-256"),
    "a subject with white space": (change("org:SECRET x"), "/subject", "1-256"),
    "a subject with a newline": (change("org:a\n"), "/subject", "1-256"),
    "a subject that is too long": (change("org:" + "a" * 257), "/subject", "1-256"),
    "a subject that is not ASCII": (change("org:é"), "/subject", "1-256"),
    "a subject that is no text": (change(subject=7), "/subject", "text"),  # type: ignore[arg-type]  # wrong on purpose
    "a setting outside the grammar": ({**change(), "setting": "SECRET x"}, "/setting", "1-128"),
    "a setting that is too long": ({**change(), "setting": "a" * 129}, "/setting", "1-128"),
    "a setting that is no text": ({**change(), "setting": None}, "/setting", "string"),
    "a naive time": (change(effective_from="2026-01-01T00:00:00"), "/effective_from", "offset"),
    "a date": (change(effective_from="2026-01-01"), "/effective_from", "offset"),
    "a word": (change(effective_from="now"), "/effective_from", "offset"),
    "a numeric time": (change(effective_from=1767225600), "/effective_from", "not a number"),
    "a numeric end": (change(effective_until=1767225600.5), "/effective_until", "not a number"),
    "no such day": (change(effective_from="2026-02-30T00:00:00Z"), "/effective_from", "no such day"),
    "an absurdly early time": (change(effective_from="1899-12-31T23:59:59.999999Z"), "/effective_from", "1900"),
    "an absurdly late time": (change(effective_from="2200-01-01T00:00:00Z"), "/effective_from", "1900"),
    "an absurdly late end": (change(effective_until="2200-01-01T00:00:00.000001Z"), "/effective_until", "2200-01-01"),
    "an empty reason": (change(reason=""), "/reason", "at least 1"),
    "a reason of spaces": (change(reason="   "), "/reason", "no reason"),
    "a reason of line ends": (change(reason="\r\n\t\u2003"), "/reason", "no reason"),
    "a reason that nobody sees": (change(reason="\u200b\u00ad"), "/reason", "no reason"),
    "a reason of letters without a shape": (change(reason="\u3164\u115f \u2800"), "/reason", "no reason"),
    "spaces as the reason of a clear": (clear(reason=" "), "/reason", "no reason"),
    "spaces as the reason of a retraction": (retract("x", reason=" "), "/reason", "no reason"),
    "spaces as the reason of a definition": (define(reason=" "), "/reason", "no reason"),
    "a reason that is too long": (change(reason="x" * 2001), "/reason", "at most 2000"),
    "a reason that is no text": (change(reason=["SECRET"]), "/reason", "string"),
    "half a character in a reason": (change(reason="\ud800"), "/reason", "unicode"),
    "a negative version": (change(expected_version=-1), "/expected_version", "greater"),
    "a version that is a text": (change(expected_version="1"), "/expected_version", "integer"),
    "a version that is a bool": (change(expected_version=True), "/expected_version", "integer"),
    "an immense version": (change(expected_version=10**4000), "/expected_version", "less"),
    "an event id that is no text": (retract(7), "/event_id", "string"),  # type: ignore[arg-type]  # wrong on purpose
}


@pytest.mark.parametrize("name", WRONG_SHAPE)
def test_a_malformed_submission_is_refused_with_a_pointer(ledger: Ledger, name: str) -> None:
    body, pointer, message = WRONG_SHAPE[name]
    fault, *_ = faults(ledger, body)
    assert fault.pointer == pointer
    assert message in fault.detail


def test_every_fault_of_a_batch_is_named(ledger: Ledger) -> None:
    named_faults = faults(ledger, change("x"), change(), change(reason="", effective_from=1))
    assert [fault.pointer for fault in named_faults] == [
        "/events/0/subject",
        "/events/2/effective_from",
        "/events/2/reason",
    ]
    named_faults = faults(ledger, change(value=1), change(), {**change(), "setting": "no.such"})
    assert [fault.pointer for fault in named_faults] == ["/events/0/value", "/events/2/setting"]


VALUES: dict[str, tuple[str, str, list[Any], list[Any]]] = {
    "bool": ("org:a", "training.opt_in", [True, False], [1, 0, "true", "yes", None, [], 1.0]),
    "one_of": ("model:m", "model.hosting", ["hosted", "passthrough"], ["Hosted", "", True, None, ["hosted"]]),
    "text": ("model:m", "model.author", ["", "x" * 4096, "é\u0000🙂"], ["x" * 4097, 1, None, "\ud800", ["x"]]),
    "set_of": (
        "org:a",
        "residency.regions",
        [[], ["eu"], ["us", "eu"], [f"r{number}" for number in range(256)]],
        ["eu", ["eu", "eu"], [""], [1], [None], ["\udfff"], [f"r{number}" for number in range(257)], {"eu": 1}],
    ),
    "subject_ref": ("key:k", "owner", ["org:a", "project:p", "account:u"], ["key:k", "model:m", "org", "a", 1, None]),
}


@pytest.mark.parametrize("value_type", VALUES)
def test_a_value_is_accepted_unconverted_or_refused(ledger: Ledger, value_type: str) -> None:
    subject, setting, good, bad = VALUES[value_type]
    for value in good:
        submit(ledger, {**change(subject, value), "setting": setting})
    for value in bad:
        (fault,) = faults(ledger, {**change(subject, value), "setting": setting})
        assert fault.pointer == "/value"


def test_an_integer_has_the_exact_range_of_a_double(ledger: Ledger) -> None:
    submit(ledger, define("limit", definition=definition(value_type="integer", default=0, protective=0)))
    edge = 2**53 - 1
    for value in (0, edge, -edge):
        submit(ledger, {**change("org:a", value), "setting": "limit"})
    for bad in (edge + 1, -edge - 1, 10**4000, 1.0, True, "1", None):
        assert faults(ledger, {**change("org:a", bad), "setting": "limit"})[0].pointer == "/value"


def test_an_unknown_setting_is_refused(ledger: Ledger) -> None:
    for body in (change(), clear()):
        (fault,) = faults(ledger, {**body, "setting": "SECRET.setting"})
        assert (fault.pointer, fault.detail[:15]) == ("/setting", "unknown setting")


def test_a_setting_on_a_kind_that_may_not_have_it_is_refused(ledger: Ledger) -> None:
    (fault,) = faults(ledger, {**change("account:a"), "setting": "passthrough.allowed"})
    assert fault == ("/setting", "this setting belongs to subjects of kind org, not account (writable by: admin)")


@pytest.mark.parametrize("kind", KINDS)
def test_a_subject_whose_id_holds_its_kind_is_refused_as_no_record_can_name_it(ledger: Ledger, kind: str) -> None:
    (fault,) = faults(ledger, change(f"{kind}:{kind}:x"))
    assert fault == ("/subject", f"the subject's id holds its kind, {kind}; write {kind}:x")
    for long in ("", "x" * 100):
        (fault,) = faults(ledger, change(f"{kind}:{kind}:{long}"))
        assert fault == ("/subject", f"the subject's id holds its kind, {kind}; write the kind once")


@pytest.mark.parametrize(
    ("subject", "setting", "value"),
    [
        ("key:k", "owner", "org:org:x"),
        ("account:a", "attached_to", "org:org:x"),
        ("region:r", "region.within", "region:region:x"),
    ],
)
def test_a_reference_whose_id_holds_its_kind_is_refused(ledger: Ledger, subject: str, setting: str, value: str) -> None:
    (fault,) = faults(ledger, {**change(subject, value), "setting": setting})
    meant = value.partition(":")[2]
    assert fault.pointer == "/value"
    assert fault.detail.startswith(f"the subject's id holds its kind, {meant.partition(':')[0]}; write {meant}")


def test_an_id_may_begin_like_its_kind_or_hold_another_kind(ledger: Ledger) -> None:
    submit(ledger, change("org:org"), change("org:organic:x"), change("org:account:x"), change("account:org:x"))


def test_a_subject_cannot_own_itself(ledger: Ledger) -> None:
    assert faults(ledger, {**change("project:p", "project:p"), "setting": "owner"})[0].pointer == "/value"


# Periods, at t - 1 µs, t and t + 1 µs


@pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, False), (1, True)])
@pytest.mark.parametrize("make", [change, clear])
def test_a_period_ends_after_it_starts(ledger: Ledger, make: Any, offset: int, accepted: bool) -> None:
    start = NOW + HOUR
    for begins in (start, None):
        end = format_time((start if begins else NOW) + offset)
        body = make(effective_until=end)
        if begins:
            body["effective_from"] = format_time(begins)
        if accepted and begins:
            submit(ledger, body)
        elif not accepted:
            (fault,) = faults(ledger, body)
            assert fault.pointer == "/effective_until"
    if accepted:
        assert isinstance(ledger.clock, ManualClock)
        ledger.clock.now_us = NOW + 10
        submit(ledger, make(effective_until=format_time(NOW + 10 + offset)))


@pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, True), (1, True)])
@pytest.mark.parametrize("make", [change, clear])
def test_a_backdated_change_needs_a_reason(ledger: Ledger, make: Any, offset: int, accepted: bool) -> None:
    start = format_time(NOW + offset)
    if accepted:
        submit(ledger, make(effective_from=start))
    else:
        (fault,) = faults(ledger, make(effective_from=start))
        assert fault.pointer == "/effective_from"
        assert "needs a reason" in fault.detail
        (receipt,) = submit(ledger, make(effective_from=start, reason="found out late"))
        assert receipt.effective_from == NOW + offset


@pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, True), (1, True)])
def test_a_backdated_definition_needs_a_reason(ledger: Ledger, offset: int, accepted: bool) -> None:
    start = format_time(NOW + offset)
    if accepted:
        submit(ledger, define(effective_from=start))
    else:
        assert faults(ledger, define(effective_from=start))[0].pointer == "/effective_from"
        submit(ledger, define(effective_from=start, reason="found out late"))


@pytest.mark.parametrize("until", [EFFECTIVE_MAX - 1, EFFECTIVE_MAX])
def test_changes_begin_from_1900_to_2199_and_end_in_2200_at_the_latest(ledger: Ledger, until: int) -> None:
    (receipt,) = submit(
        ledger,
        change(effective_from=format_time(EFFECTIVE_MIN), effective_until=format_time(until), reason="for ever"),
    )
    assert receipt.effective_until == until


def test_spaces_around_a_reason_stay(ledger: Ledger) -> None:
    (receipt,) = submit(ledger, change(reason=" ticket 4711\n"))
    assert ledger.reasons([receipt.position]) == {receipt.position: " ticket 4711\n"}


def test_an_explicit_null_is_the_same_as_leaving_it_out(ledger: Ledger) -> None:
    (receipt,) = submit(ledger, change(effective_from=None, effective_until=None, reason=None, expected_version=None))
    assert (receipt.effective_from, receipt.effective_until) == (NOW, None)


# Retractions


def test_a_retraction_names_an_existing_change(ledger: Ledger) -> None:
    (receipt,) = submit(ledger, change())
    unknown = "00000000-0099" + receipt.event_id[13:]
    for event_id in (unknown, "", "SECRET", receipt.event_id.upper() + "x"):
        (fault,) = faults(ledger, retract(event_id, reason="why"))
        assert fault == ("/event_id", "there is no event with this id in this ledger")


def test_a_change_is_retracted_once(ledger: Ledger) -> None:
    (receipt,) = submit(ledger, change())
    twice = retract(receipt.event_id, reason="why")
    (fault,) = faults(ledger, twice, twice)
    assert fault == ("/events/1/event_id", "this change has been retracted already")
    submit(ledger, twice)
    (fault,) = faults(ledger, twice)
    assert fault == ("/event_id", "this change has been retracted already")


def test_a_retraction_cannot_be_retracted(ledger: Ledger) -> None:
    (receipt,) = submit(ledger, change())
    (retraction,) = submit(ledger, retract(receipt.event_id, reason="why"))
    (fault,) = faults(ledger, retract(retraction.event_id, reason="why"))
    assert "a retraction cannot be retracted" in fault.detail


def test_a_definition_cannot_be_retracted(ledger: Ledger) -> None:
    (receipt,) = submit(ledger, define())
    (fault,) = faults(ledger, retract(receipt.event_id, reason="why"))
    assert "only changes can be retracted" in fault.detail


@pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, True), (1, True)])
def test_retracting_an_effective_change_needs_a_reason(ledger: Ledger, offset: int, accepted: bool) -> None:
    assert isinstance(ledger.clock, ManualClock)
    start = NOW + HOUR
    (receipt,) = submit(ledger, change(effective_from=format_time(start)))
    ledger.clock.now_us = start - offset
    if accepted:
        submit(ledger, retract(receipt.event_id))
    else:
        (fault,) = faults(ledger, retract(receipt.event_id))
        assert fault.pointer == "/reason"
        submit(ledger, retract(receipt.event_id, reason="why"))


def test_equal_json_values_have_one_canonical_text() -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == canonical_json({"a": None, "b": [1, "é"]})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
