"""Receipts say until when a change decides, what is scheduled and what is doubtful, as known when it was recorded."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from api.responses import encode, receipts_json
from ledger.append.submissions import Submission, parse_submissions
from ledger.clock import ManualClock
from ledger.errors import LedgerCorrupt
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.times import format_time
from projections.query import outlooks
from projections.query.outlooks import OutlookReader
from projections.temporal import outlook
from tests.support.ledgers import NOW, OPERATOR, ORIGIN, change, define, definition
from tests.support.random_history import RandomHistory
from tests.support.reference_time import ReferenceLedger

HOUR = 3_600_000_000
Json = dict[str, Any]


class Recorded(NamedTuple):
    submissions: tuple[Submission, ...]
    receipts: tuple[Receipt, ...]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def ledger(database_url: str, clock: ManualClock) -> Iterator[Ledger]:
    with open_ledger(database_url, create=True, clock=clock, origin=ORIGIN) as ledger:
        yield ledger


def record(ledger: Ledger, *bodies: Json) -> Recorded:
    submissions = parse_submissions({"events": list(bodies)})
    return Recorded(submissions, ledger.submit(submissions, actor=OPERATOR))


def wire(reader: OutlookReader, recorded: Recorded) -> list[Json]:
    """The receipts as they are answered."""
    document = json.loads(encode(receipts_json(recorded.receipts, reader.read(*recorded))))
    receipts: list[Json] = document["receipts"]
    return receipts


def answer(ledger: Ledger, *bodies: Json) -> list[Json]:
    return wire(OutlookReader(ledger), record(ledger, *bodies))


def at(hours: int) -> str:
    return format_time(NOW + hours * HOUR)


def scheduled(start: int, until: int | None = None, value: bool = True, **more: Any) -> Json:
    return change(value=value, effective_from=at(start), effective_until=None if until is None else at(until), **more)


# By example


def test_an_opt_out_beside_a_scheduled_opt_in_shows_it(ledger: Ledger) -> None:
    (opt_in,) = record(ledger, scheduled(24)).receipts
    (receipt,) = answer(ledger, change(value=False))
    assert receipt["holds_until"] == at(24)
    assert receipt["still_scheduled"] == [
        {"position": opt_in.position, "effective_from": at(24), "effective_until": None, "value": True}
    ]
    assert (receipt["still_scheduled_left_out"], receipt["retracts"], receipt["warnings"]) == (0, None, [])


def test_the_input_of_the_issue_an_opt_out_before_and_during_a_pause(ledger: Ledger, clock: ManualClock) -> None:
    record(ledger, change(value=True))
    record(ledger, scheduled(48, 96, False))
    clock.now_us = NOW + 24 * HOUR
    (before,) = answer(ledger, change(value=False))
    assert before["holds_until"] == at(48)
    assert [one["effective_until"] for one in before["still_scheduled"]] == [at(96)]
    clock.now_us = NOW + 72 * HOUR
    (during,) = answer(ledger, change(value=False))
    assert (during["holds_until"], during["still_scheduled"]) == (None, [])


@pytest.mark.parametrize(("offset", "listed"), [(-1, False), (0, False), (1, True)])
def test_what_begins_later_is_listed(ledger: Ledger, offset: int, listed: bool) -> None:
    (other,) = record(ledger, change(effective_from=format_time(NOW + HOUR + offset))).receipts
    (receipt,) = answer(ledger, change(effective_from=format_time(NOW + HOUR)))
    assert [one["position"] for one in receipt["still_scheduled"]] == ([other.position] if listed else [])
    assert receipt["holds_until"] == (format_time(NOW + HOUR + 1) if listed else None)


def test_a_temporary_change_holds_until_its_own_end(ledger: Ledger) -> None:
    record(ledger, scheduled(5), scheduled(2, 9))
    (receipt,) = answer(ledger, scheduled(1, 8))
    assert receipt["holds_until"] == receipt["effective_until"] == at(8)
    assert [one["effective_from"] for one in receipt["still_scheduled"]] == [at(2), at(5)]


def test_a_change_that_never_decides_stops_where_it_begins(ledger: Ledger) -> None:
    first, second, covered, cover = answer(
        ledger, scheduled(1), scheduled(1, value=False), scheduled(3, 4), scheduled(2, 6)
    )
    assert first["holds_until"] == first["effective_from"] == at(1)
    assert second["holds_until"] == at(2)
    assert covered["holds_until"] == covered["effective_from"] == at(3)
    assert cover["holds_until"] == at(6)


def test_a_retraction_lists_what_is_still_scheduled_and_what_it_retracts(ledger: Ledger) -> None:
    first, second = record(ledger, scheduled(1), scheduled(2)).receipts
    (receipt,) = answer(ledger, {"type": "change.retracted", "event_id": first.event_id})
    assert (receipt["holds_until"], receipt["retracts"]) == (None, first.event_id)
    assert [one["position"] for one in receipt["still_scheduled"]] == [second.position]


def test_a_cancellation_leaves_nothing_scheduled(ledger: Ledger) -> None:
    (scheduled_receipt,) = record(ledger, scheduled(1)).receipts
    opt_out, retraction = answer(ledger, change(value=False, cancels_scheduled=True))
    assert (opt_out["holds_until"], opt_out["still_scheduled"]) == (None, [])
    assert (retraction["retracts"], retraction["still_scheduled"]) == (scheduled_receipt.event_id, [])


def test_clears_sets_and_definitions_are_listed_with_their_values(ledger: Ledger) -> None:
    regions = {**change(value=["us", "eu"]), "setting": "residency.regions"}
    clear = {"type": "setting.cleared", "subject": "org:acme", "setting": "residency.regions"}
    record(ledger, {**regions, "effective_from": at(1)}, {**clear, "effective_from": at(2)})
    (receipt,) = answer(ledger, regions)
    assert [one["value"] for one in receipt["still_scheduled"]] == [["eu", "us"], None]
    record(ledger, define(effective_from=at(1), definition=definition(title="Later")))
    (receipt,) = answer(ledger, define())
    assert receipt["holds_until"] == at(1)
    assert receipt["still_scheduled"][0]["value"]["title"] == "Later"


def test_what_is_listed_is_bounded_and_the_rest_counted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    record(ledger, *(scheduled(1 + hours) for hours in range(outlook.SCHEDULED_MAX + 1)))
    (receipt,) = answer(ledger, change())
    assert [one["effective_from"] for one in receipt["still_scheduled"]] == [at(1 + hours) for hours in range(100)]
    assert receipt["still_scheduled_left_out"] == 1
    monkeypatch.setattr(outlook, "LISTED_MAX", 150)
    receipts = answer(ledger, change(), change(value=False), change("org:other"))
    assert [len(receipt["still_scheduled"]) for receipt in receipts] == [100, 50, 0]
    assert [receipt["still_scheduled_left_out"] for receipt in receipts] == [1, 51, 0]


def test_the_bytes_of_listed_values_are_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {**change("model:m", "x" * 1000), "setting": "model.author"}
    record(ledger, *({**model, "effective_from": at(hours)} for hours in (1, 2, 3)))
    monkeypatch.setattr(outlook, "LISTED_BYTES_MAX", 2100)
    (receipt,) = answer(ledger, model)
    assert len(receipt["still_scheduled"]) == 2
    assert receipt["still_scheduled_left_out"] == 1
    assert receipt["holds_until"] == at(1)


# Warnings


OWNER = {**change("key:k", "org:acme"), "setting": "owner"}
ATTACHED = {**change("account:u", "org:acme"), "setting": "attached_to"}


@pytest.mark.parametrize("body", [OWNER, ATTACHED])
def test_a_reference_to_a_subject_without_events_is_accepted_with_a_warning(ledger: Ledger, body: Json) -> None:
    reader = OutlookReader(ledger)
    early = record(ledger, body)
    (warning,) = wire(reader, early)[0]["warnings"]
    assert (warning["code"], warning["subject"]) == ("unknown_subject", "org:acme")
    assert "org:acme" in warning["detail"]
    record(ledger, change("org:acme"))
    late = record(ledger, body)
    assert [receipt["warnings"] for receipt in wire(reader, late)] == [[]]
    assert [receipt["warnings"] for receipt in wire(reader, early)] == [[warning]]


def test_a_subject_whose_first_event_is_in_the_same_submission_is_known(ledger: Ledger) -> None:
    receipts = answer(ledger, OWNER, change("org:acme"), {**OWNER, "subject": "key:k2", "value": "org:typo"})
    assert [len(receipt["warnings"]) for receipt in receipts] == [0, 0, 1]


def test_a_text_that_looks_like_a_reference_is_no_reference(ledger: Ledger) -> None:
    assert answer(ledger, {**change("model:m", "org:nobody"), "setting": "model.author"})[0]["warnings"] == []


def test_outlooks_that_cannot_be_read_do_not_hide_that_the_events_are_recorded(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: Any, **__: Any) -> Any:
        raise LedgerCorrupt("the event at position 7 cannot be read")

    recorded = record(ledger, scheduled(1))
    monkeypatch.setattr(ledger, "page", unreadable)
    (one,) = OutlookReader(ledger).read_or_warn(*recorded)
    (warning,) = one.warnings
    assert (warning.code, "position 7" in warning.detail) == ("outlook_unknown", True)
    with pytest.raises(LedgerCorrupt):
        OutlookReader(ledger).read(*recorded)


# From memory


def reads(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that read from now on."""
    calls: list[str] = []

    def counted(target: Any, name: str) -> None:
        method: Callable[..., Any] = getattr(target, name)

        def call(*arguments: Any, **more: Any) -> Any:
            calls.append(name)
            return method(*arguments, **more)

        monkeypatch.setattr(target, name, call)

    for name in ("page", "catalog"):
        counted(ledger, name)
    for name in ("stream", "leaves_of", "first_positions"):
        counted(ledger.recorder, name)
    return calls


def test_the_ordinary_change_reads_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = OutlookReader(ledger)
    old = record(ledger, change("org:old"), change("org:old"))
    later = [record(ledger, change(value=value)) for value in (True, False, True)]
    further = [record(ledger, change("org:old")) for _ in range(2)]
    calls = reads(ledger, monkeypatch)
    for recorded in later:
        assert reader.nowait(*recorded) is not None
    assert calls == []
    # Of a subject with a history the events before are read once.
    assert reader.nowait(*further[0]) is None
    assert wire(reader, further[0])[0]["holds_until"] is None
    assert calls == ["page", "stream"]
    assert reader.nowait(*further[1]) is not None
    # A retry of an old submission is worked out from the events again.
    first, second = wire(reader, old)
    assert (first["holds_until"], second["holds_until"]) == (first["effective_from"], None)
    assert calls == ["page", "stream", "page"]


def test_changes_of_one_period_in_one_submission_are_worked_out_from_memory(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_period = record(ledger, change(), change(value=False), change("org:b"), change())
    until = record(ledger, change("org:c", effective_until=at(1)), change("org:c", effective_until=at(1)))
    mixed = record(ledger, change("org:d"), change("org:d", effective_until=at(1)))
    calls = reads(ledger, monkeypatch)
    reader = OutlookReader(ledger)
    begin = one_period.receipts[0].recorded_at
    assert [one.outlook.holds_until for one in reader.read(*one_period)] == [begin, begin, None, None]
    assert [one.outlook.holds_until for one in reader.read(*until)] == [until.receipts[0].recorded_at, NOW + HOUR]
    assert calls == []
    # The first decides from the end of the second on.
    assert [one.outlook.holds_until for one in reader.read(*mixed)] == [None, NOW + HOUR]
    assert calls == ["page"]


def test_what_begins_before_a_scheduled_change_is_kept_too(ledger: Ledger) -> None:
    record(ledger, scheduled(1))
    reader = OutlookReader(ledger)
    wire(reader, record(ledger, scheduled(2)))
    (receipt,) = wire(reader, record(ledger, change()))
    assert [one["effective_from"] for one in receipt["still_scheduled"]] == [at(1), at(2)]


def test_a_thousand_subjects_are_read_in_a_few_statements(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [change(f"org:{number}", effective_from=at(1)) for number in range(500)]
    owners = [{**OWNER, "subject": f"key:{number}", "value": f"org:{number}"} for number in range(500)]
    record(ledger, *bodies, *owners)
    recorded = record(ledger, *(change(f"org:{number}") for number in range(500)), *owners)
    calls = reads(ledger, monkeypatch)
    receipts = wire(OutlookReader(ledger), recorded)
    assert calls == ["page", "leaves_of", "catalog", "first_positions"]
    assert [len(receipt["still_scheduled"]) for receipt in receipts] == [1] * 500 + [0] * 500
    calls.clear()
    monkeypatch.setattr(outlooks, "READ_MAX", 400)
    assert wire(OutlookReader(ledger), recorded) == receipts
    assert calls.count("leaves_of") == 3


def test_what_is_kept_in_memory_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlooks, "KEPT_BYTES_MAX", 5 * outlooks._ENTRY_BYTES)
    monkeypatch.setattr(outlooks, "KEPT_OF_SUBJECT_BYTES_MAX", 4 * outlooks._ENTRY_BYTES)
    reader = OutlookReader(ledger)
    for number in range(9):
        reader.read(*record(ledger, change(f"org:{number}")))
        reader.read(
            *record(ledger, *(scheduled(1 + hours, subject=f"org:{number}") for hours in range(1 + number % 4)))
        )
    kept_bytes = [kept.bytes for kept in reader._kept.values()]
    assert reader._bytes == sum(kept_bytes) <= outlooks.KEPT_BYTES_MAX
    assert max(kept_bytes) <= outlooks.KEPT_OF_SUBJECT_BYTES_MAX


# For any history


class Notes(RandomHistory):
    """Notes each submission and its receipts as they were answered first."""

    def __init__(self, ledger: Ledger, clock: ManualClock, seed: int, patch: pytest.MonkeyPatch) -> None:
        super().__init__(ledger, clock, seed)
        self.reader = OutlookReader(ledger)
        self.notes: list[tuple[Recorded, bytes]] = []
        submit = ledger.submit

        def noted(submissions: Sequence[Submission], **more: Any) -> tuple[Receipt, ...]:
            recorded = Recorded(tuple(submissions), submit(submissions, **more))
            # Now and then the first answer is lost, so that what is kept in memory has gaps.
            if self.random.random() < 0.9:
                self.notes.append((recorded, answered(self.reader, recorded)))
            return recorded.receipts

        patch.setattr(ledger, "submit", noted)


def answered(reader: OutlookReader, recorded: Recorded) -> bytes:
    return encode(receipts_json(recorded.receipts, reader.read(*recorded)))


@pytest.mark.parametrize("seed", range(6))
def test_receipts_are_those_of_the_rules_and_stay_the_same_for_ever(
    ledger: Ledger, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    history = Notes(ledger, clock, seed, monkeypatch)
    history.extend(150)
    reference = ReferenceLedger(entry.leaf for entry in ledger.page(0, 100_000))
    fresh = OutlookReader(ledger)
    for recorded, first in history.notes:
        assert answered(fresh, recorded) == answered(history.reader, recorded) == first
        for receipt in json.loads(first)["receipts"]:
            event = reference.events[receipt["position"] - 1]
            known_at = recorded.receipts[0].recorded_at
            until = None if "retracts" in event["data"] else reference.stops_deciding(event, known_at)
            assert receipt["holds_until"] == (None if until is None else format_time(until))
            assert [one["position"] for one in receipt["still_scheduled"]] == [
                one["data"]["position"] for one in reference.beginning_after(event, known_at)
            ]
            for one in receipt["still_scheduled"]:
                data = reference.events[one["position"] - 1]["data"]
                assert one["value"] == data.get("value", data.get("definition"))
                assert one["effective_from"] == data["effective_from"]
                assert one["effective_until"] == data.get("effective_until")
