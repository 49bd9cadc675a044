"""Submissions that were accepted elsewhere keep their times, or are refused with their line number."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from ledger.codec import decode
from ledger.errors import BadImport, BadInput
from ledger.events import SettingChanged
from ledger.opening import open_ledger
from ledger.times import format_time
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import ImportSummary
from tests.support.ledgers import GENESIS, NOW, change, define
from tests.support.transfers import AT, AT_US, LATER, at, entries, import_lines, is_untouched, jsonl


def test_submissions_keep_the_times_they_were_recorded_at(database_url: str) -> None:
    lines = jsonl(
        at(AT, change("org:a")),
        at("2025-01-01T01:00:00+01:00", change("org:a", False, reason="one moment, two offsets")),
        at(LATER, change("org:b", effective_from="2024-06-01T00:00:00Z", reason="known late")),
    )
    summary = import_lines(database_url, lines, origin="imported.example")
    assert summary == ImportSummary("submissions", "imported.example", GENESIS + 3, 3, AT_US - 1, AT_US + 1_500_000, 2)
    stored = entries(database_url)
    assert [entry.recorded_at for entry in stored] == [AT_US - 1] * GENESIS + [AT_US] * 2 + [AT_US + 1_500_000]
    assert [(entry.position, entry.version) for entry in stored[GENESIS:]] == [
        (GENESIS + 1, 1),
        (GENESIS + 2, 2),
        (GENESIS + 3, 1),
    ]
    events = [decode(entry.leaf) for entry in stored]
    assert {event.imported for event in events[:GENESIS]} == {False}
    changes = [event for event in events[GENESIS:] if isinstance(event, SettingChanged)]
    assert [event.effective_from for event in changes] == [AT_US, AT_US, AT_US - 214 * 86_400_000_000]
    assert {(event.imported, event.actor) for event in changes} == {(True, "import")}
    with open_ledger(database_url) as ledger:
        assert ledger.reasons(range(GENESIS + 10)) == {
            GENESIS + 2: "one moment, two offsets",
            GENESIS + 3: "known late",
        }


def test_an_import_of_submissions_can_be_exported_and_restored(database_url: str, tmp_path: Path) -> None:
    import_lines(database_url, jsonl(at(AT, change(reason="why")), at(AT, define()), at(LATER, change())))
    with open_ledger(database_url) as ledger:
        lines, rows = b"".join(export_lines(ledger)), b"".join(export_personal(ledger))
    copy = f"sqlite:///{tmp_path}/copy.db"
    import_lines(copy, lines, personal=io.BytesIO(rows))
    assert entries(copy) == entries(database_url)


def test_a_line_may_name_its_actor(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    import_lines(url, jsonl(at(AT, change(actor="alice")), at(AT, change()), at(AT, change(actor='b"ø\x01T'))))
    assert [decode(entry.leaf).actor for entry in entries(url)[GENESIS:]] == ["alice", "import", 'b"ø\x01T']


def test_a_definition_holds_for_changes_of_the_same_and_later_submissions(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    beta = {**change(), "setting": "beta.search"}
    import_lines(url, jsonl(at(AT, define()), at(AT, beta), at(LATER, beta)))
    assert len(entries(url)) == GENESIS + 3


def test_one_submission_may_have_more_lines_than_a_request_could(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    summary = import_lines(url, jsonl(*(at(AT, change(f"org:{number % 7}")) for number in range(2500))))
    assert (summary.events, summary.submissions) == (GENESIS + 2500, 2)


def test_an_expected_version_is_compared_with_the_version_before_the_submission(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    first = at(AT, change(expected_version=0))
    import_lines(url, jsonl(first, first, at(LATER, change(expected_version=2))))
    with pytest.raises(BadImport, match="line 3: the subject is at version 2 here"):
        import_lines(f"{url}.other", jsonl(first, first, at(LATER, change(expected_version=1))))


@pytest.mark.parametrize(("step", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_time_that_this_machine_has_not_reached_is_refused(tmp_path: Path, step: int, accepted: bool) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    lines = jsonl(at(format_time(NOW + step), change()))
    if accepted:
        assert import_lines(url, lines).last == NOW + step
    else:
        with pytest.raises(BadImport, match="line 1: recorded_at lies in the future"):
            import_lines(url, lines)
        assert is_untouched(url)


BAD_SUBMISSIONS: dict[str, Any] = {
    "no recorded_at": (change(), "recorded_at is required"),
    "a naive time": (at("2025-01-01T00:00:00", change()), "/recorded_at: not a time"),
    "a numeric time": ({**change(), "recorded_at": 1735689600}, "/recorded_at: a time must be a text"),
    "an absurd time": (at("0001-01-01T00:00:00Z", change()), "1900"),
    "a time before the line before": (at("2024-12-31T23:59:59.999999Z", change()), "before that of the line before"),
    "a wrong value": (at(AT, change(value="SECRET")), "/value: the value must be true or false"),
    "an unknown setting": (at(AT, {**change(), "setting": "SECRET"}), "/setting: unknown setting"),
    "an unknown member": (at(AT, {**change(), "SECRET\n": 1}), "does not belong"),
    "an unknown type": (at(AT, {"type": "SECRET"}), "type must be one of"),
    "backdated without a reason": (at(LATER, change(effective_from=AT)), "needs a reason"),
    "an actor that is a number": (at(AT, change(actor=7)), "/actor"),
    "an empty actor": (at(AT, change(actor="")), "/actor"),
    "a cancellation": (at(AT, change(cancels_scheduled=True)), "cannot say cancels_scheduled"),
    "a retraction": (at(AT, {"type": "change.retracted", "event_id": "SECRET"}), "new ids"),
    "an array": ([at(AT, change())], "one submission"),
    "an exported event": ({"specversion": "1.0"}, "exported event among submissions"),
}


@pytest.mark.parametrize("name", BAD_SUBMISSIONS)
def test_a_bad_submission_is_named_by_its_line_and_nothing_is_imported(database_url: str, name: str) -> None:
    value, message = BAD_SUBMISSIONS[name]
    good = [at(AT, change(f"org:{number}")) for number in range(3)]
    with pytest.raises(BadImport) as refused:
        import_lines(database_url, jsonl(*good) + b"\n" + jsonl(value))
    assert refused.value.detail.startswith("line 5: ")
    assert message in refused.value.detail
    assert "SECRET" not in refused.value.detail
    assert is_untouched(database_url)


def test_every_fault_of_a_submission_is_named_with_its_line(tmp_path: Path) -> None:
    lines = jsonl(at(AT, change(value=1)), at(AT, change()), at(AT, change(value=2)))
    with pytest.raises(BadImport) as refused:
        import_lines(f"sqlite:///{tmp_path}/ledger.db", lines)
    assert refused.value.detail == "line 1: /value: the value must be true or false (writable by: admin) (and 1 more)"
    assert [fault.detail.partition(":")[0] for fault in refused.value.faults] == ["line 1", "line 3"]


def test_unsuitable_personal_data_and_origins_are_bad_input(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(BadInput, match="personal data belongs"):
        import_lines(url, jsonl(at(AT, change())), personal=io.BytesIO(b""))
    with pytest.raises(BadInput, match="origin"):
        import_lines(url, jsonl(at(AT, change())), origin="NOT an origin")
    assert is_untouched(url)


def test_a_line_may_be_a_batch_as_submit_takes_it(database_url: str) -> None:
    batch = {"events": [change("org:a"), change("org:b")], "recorded_at": AT, "actor": "alice"}
    summary = import_lines(database_url, jsonl(batch, at(AT, change("org:a")), at(LATER, change("org:b"))))
    assert (summary.events, summary.submissions) == (GENESIS + 4, 3)
    stored = entries(database_url)[GENESIS:]
    assert [(entry.subject, entry.version) for entry in stored] == [
        ("org:a", 1),
        ("org:b", 1),
        ("org:a", 2),
        ("org:b", 2),
    ]
    assert [decode(entry.leaf).actor for entry in stored] == ["alice", "alice", "import", "import"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_may_be_one_document(tmp_path: Path, indent: int | None) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    batch = {"events": [change("org:a"), change("org:b")], "recorded_at": AT}
    for number, body in enumerate((batch, at(AT, change()))):
        text = json.dumps(body, indent=indent).encode()
        assert import_lines(f"{url}.{number}", text).events == GENESIS + (2 if body is batch else 1)


BAD_BATCHES: dict[str, tuple[Any, str]] = {
    "no recorded_at beside events": ({"events": [at(AT, change())]}, "line 2: recorded_at is required, once a line, b"),
    "a recorded_at within events": (
        {"events": [at(AT, change())], "recorded_at": AT},
        "line 2: /events/0/recorded_at: this member does not belong here",
    ),
    "no events": ({"events": [], "recorded_at": AT}, "line 2: /events: events must be an array of 1 to 1000"),
    "a wrong value": (
        {"events": [change(), change(value=1), change(value=2)], "recorded_at": AT},
        "line 2: /events/1/value: the value must be true or false (writable by: admin) (and 1 more)",
    ),
    "a retraction": (
        {"events": [{"type": "change.retracted", "event_id": "x"}], "recorded_at": AT},
        "line 2: an import of submissions gives its events new ids",
    ),
    "an earlier time": (
        {"events": [change()], "recorded_at": "2024-12-31T23:59:59.999999Z"},
        "line 2: recorded_at lies before",
    ),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_a_bad_batch_is_named_by_its_line_and_place(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    body, message = BAD_BATCHES[name]
    with pytest.raises(BadImport) as refused:
        import_lines(url, jsonl(at(AT, change()), body))
    assert refused.value.detail.startswith(message)
    assert is_untouched(url)


@pytest.mark.parametrize("text", ['{\n"a": 1', "{\n}\n{}", "[\n1]", "x\n{}", '{"a":\n1}\n' + "{}\n" * 5])
def test_lines_that_are_no_document_together_are_refused(tmp_path: Path, text: str) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(BadImport, match=r"^line 1: "):
        import_lines(url, text.encode())
    assert is_untouched(url)
