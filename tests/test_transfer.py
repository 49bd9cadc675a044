"""Export and import: the same bytes again, or a clear refusal and nothing left behind."""

import gzip
import io
import json
import os
import random
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger import transfer
from ledger.clock import ManualClock
from ledger.codec import decode, encode, parse_leaf
from ledger.errors import BadImport, BadInput, LedgerUnavailable
from ledger.events import SettingChanged
from ledger.opening import open_ledger, open_recorder
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.times import format_time, parse_time
from ledger.transfer import ImportSummary, export_lines, export_personal, import_ledger
from tests.support.ledgers import NOW, ORIGIN, change, define, definition, opened, submit
from tests.support.writers import started


def imported(url: str, lines: bytes, **more: Any) -> ImportSummary:
    return import_ledger(url, io.BytesIO(lines), clock=ManualClock(NOW), **more)


def jsonl(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def entries(url: str) -> list[Entry]:
    with open_ledger(url) as ledger:
        return ledger.page(0, 1_000_000)


def is_untouched(url: str) -> bool:
    """Whether there is no file, or no table of ours in the database."""
    if url.startswith("sqlite"):
        return not list(Path(url.removeprefix("sqlite:///")).parent.glob("ledger.db*"))
    with closing(open_recorder(url)) as recorder:
        return recorder.meta() == {}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger with every kind of event, several events to a moment, and characters of all sorts."""
    ledger, clock = opened(f"sqlite:///{tmp_path_factory.mktemp('original')}/original.db")
    with ledger:
        clock.now_us += 10
        receipts = submit(
            ledger,
            change(reason='spoken "aloud" – 🙂 \x01T \x00'),
            change(value=False, effective_from="2027-01-01T00:00:00Z", effective_until="2027-02-01T00:00:00Z"),
            change("account:ü".replace("ü", "u"), reason="two"),
        )
        clock.now_us += 10
        submit(ledger, {"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in"})
        submit(ledger, {"type": "change.retracted", "event_id": receipts[0].event_id, "reason": "entered twice"})
        submit(ledger, define(), {**change(), "setting": "beta.search"})
        submit(
            ledger,
            {**change("model:a/b", "É\x01P\u2028\x7f🙂"), "setting": "model.author"},
            {**change("org:acme", ["eu", "ap", "us"]), "setting": "residency.regions"},
            {**change("key:k", "org:acme"), "setting": "owner"},
        )
        submit(ledger, define(definition=definition(kinds=["account", "org"]), effective_from="2027-01-01T00:00:00Z"))
        yield ledger


@pytest.fixture(scope="module")
def exported(original: Ledger) -> bytes:
    return b"".join(export_lines(original))


@pytest.fixture(scope="module")
def personal(original: Ledger) -> bytes:
    return b"".join(export_personal(original))


# Export


def test_an_export_is_the_exact_bytes_of_every_leaf(original: Ledger, exported: bytes) -> None:
    assert exported.endswith(b"\n")
    assert exported.split(b"\n")[:-1] == [entry.leaf for entry in original.page(0)]


def test_a_part_can_be_exported(original: Ledger) -> None:
    lines = list(export_lines(original, after=3, until=5))
    assert [parse_leaf(line).data.position for line in lines] == [4, 5]


def test_an_export_ends_where_the_head_was_when_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH", 5)
    ledger, _ = opened(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        head = ledger.head().position
        lines = export_lines(ledger)
        got = [next(lines)]
        submit(ledger, change())
        got += lines
    assert len(got) == head


# Events, restored


@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_what_was_exported_is_restored_byte_for_byte(
    database_url: str, original: Ledger, exported: bytes, personal: bytes, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", batch)
    summary = imported(database_url, exported, personal=io.BytesIO(personal))
    assert entries(database_url) == original.page(0)
    with open_ledger(database_url) as restored:
        assert restored.origin == ORIGIN
        assert restored.reasons(range(100)) == original.reasons(range(100))
        assert b"".join(export_lines(restored)) == exported
        assert b"".join(export_personal(restored)) == personal
    assert summary == ImportSummary(
        source="events",
        origin=ORIGIN,
        events=original.head().position,
        submissions=len({entry.recorded_at for entry in original.page(0)}),
        first=NOW,
        last=original.head().recorded_at or 0,
        personal=3,
    )


def test_from_sqlite_to_postgresql_and_back_nothing_changes(
    postgres_url: str, tmp_path: Path, original: Ledger, exported: bytes, personal: bytes
) -> None:
    back = f"sqlite:///{tmp_path}/back.db"
    imported(postgres_url, exported, personal=io.BytesIO(personal))
    with open_ledger(postgres_url) as between:
        lines, kept = b"".join(export_lines(between)), b"".join(export_personal(between))
    imported(back, lines, personal=io.BytesIO(kept))
    assert entries(back) == entries(postgres_url) == original.page(0)
    assert (lines, kept) == (exported, personal)


def test_a_restored_ledger_goes_on_from_there(database_url: str, original: Ledger, exported: bytes) -> None:
    imported(database_url, exported)
    with open_ledger(database_url, create=True, clock=ManualClock(NOW - 10**9)) as restored:
        (receipt,) = submit(restored, change())
        head = original.head()
        assert head.recorded_at is not None
        assert (receipt.position, receipt.recorded_at) == (head.position + 1, head.recorded_at + 1)
        assert receipt.version == len(original.stream("org:acme")) + 1


def test_without_the_personal_data_the_events_are_the_same_and_their_reasons_are_gone(
    database_url: str, original: Ledger, exported: bytes
) -> None:
    assert imported(database_url, exported).personal == 0
    assert entries(database_url) == original.page(0)
    with open_ledger(database_url) as restored:
        assert restored.reasons(range(100)) == {}


@pytest.mark.parametrize(
    "disguise",
    [
        gzip.compress,
        lambda lines: gzip.compress(lines[:50]) + gzip.compress(lines[50:]),
        lambda lines: lines.replace(b"\n", b"\r\n"),
        lambda lines: b"\n  \n" + lines.replace(b"\n", b"\n\n\t\r\n"),
        lambda lines: lines.removesuffix(b"\n"),
    ],
    ids=["gzip", "two gzip members", "CRLF", "blank lines", "no last newline"],
)
def test_gzip_crlf_and_blank_lines_make_no_difference(
    tmp_path: Path, original: Ledger, exported: bytes, disguise: Any
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    imported(url, disguise(exported))
    assert entries(url) == original.page(0)


def test_a_pipe_can_be_imported(tmp_path: Path, original: Ledger, exported: bytes) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    read, write = os.pipe()
    os.write(write, gzip.compress(exported))
    os.close(write)
    with os.fdopen(read, "rb", 0) as stream:
        import_ledger(url, stream, clock=ManualClock(NOW))
        assert not stream.closed
    assert entries(url) == original.page(0)


def test_progress_counts_events_and_the_bytes_of_the_file(
    tmp_path: Path, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 10)
    seen: list[tuple[int, int]] = []
    zipped = gzip.compress(exported)
    summary = imported(f"sqlite:///{tmp_path}/ledger.db", zipped, progress=lambda *told: seen.append(told))
    assert [events for events, _ in seen] == [10, 20, summary.events]
    assert seen[-1][1] == len(zipped)


def line_changed(exported: bytes, number: int, old: bytes, new: bytes) -> bytes:
    lines = exported.split(b"\n")
    assert lines[number - 1].count(old) >= 1
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    return b"\n".join(lines)


def rewritten(exported: bytes, number: int, **changed: Any) -> bytes:
    """The line as the ledger itself would have written it, had it recorded something else."""
    lines = exported.split(b"\n")
    event = decode(lines[number - 1]).model_copy(update=changed)
    lines[number - 1] = encode(event, f"urn:inforce:{ORIGIN}")
    return b"\n".join(lines)


def without(exported: bytes, number: int) -> bytes:
    lines = exported.split(b"\n")
    return b"\n".join(lines[: number - 1] + lines[number:])


FIRST_CHANGE = 19
RETRACTION = 23
ABSURD = parse_time("1899-12-31T23:59:59.999999Z")
TAMPERED: dict[str, Any] = {
    "a line is missing": (lambda lines: without(lines, 5), 5, "position 5 must come here"),
    "the beginning is missing": (lambda lines: without(lines, 1), 1, "position 1 must come here"),
    "two lines changed places": (
        lambda lines: b"\n".join([*lines.split(b"\n")[:3], lines.split(b"\n")[4], lines.split(b"\n")[3]]),
        4,
        "position 4 must come here",
    ),
    "a line occurs twice": (lambda lines: lines + lines.split(b"\n")[-2], 30, "position 30 must come here"),
    "white space": (lambda lines: line_changed(lines, 7, b'":', b'": '), 7, "not the bytes"),
    "a value that is another": (
        lambda lines: line_changed(lines, FIRST_CHANGE, b"true", b"1"),
        FIRST_CHANGE,
        "true or false",
    ),
    "an unknown member": (lambda lines: line_changed(lines, 3, b'"data":{', b'"data":{"x":1,'), 3, "no event"),
    "a member twice": (lambda lines: line_changed(lines, 3, b'"data":{', b'"data":{"version":3,'), 3, "not the bytes"),
    "an unknown type": (lambda lines: line_changed(lines, 3, b"defined.v1", b"defined.v9"), 3, "no event"),
    "another source": (lambda lines: line_changed(lines, 3, b"test.example", b"fake.example"), 3, "not the bytes"),
    "another sequence": (lambda lines: line_changed(lines, 3, b'"000', b'"100'), 3, "not the bytes"),
    "the id of another position": (
        lambda lines: line_changed(lines, 3, b"00000000-0003", b"00000000-0004"),
        3,
        "not the bytes",
    ),
    "an id that is none": (lambda lines: rewritten(lines, 3, event_id="00000000-0003-nonsense"), 3, "id"),
    "not UTF-8": (lambda lines: line_changed(lines, 3, b"aching", b"\xff\xfe"), 3, "no event"),
    "no JSON": (lambda lines: line_changed(lines, 3, b"{", b"["), 3, "no event"),
    "a version that skips": (lambda lines: rewritten(lines, 20, version=3), 20, "version"),
    "a version that repeats": (lambda lines: rewritten(lines, 20, version=1), 20, "version"),
    "time runs backwards": (lambda lines: rewritten(lines, 20, recorded_at=NOW - 1), 20, "before"),
    "a commitment that is none": (lambda lines: rewritten(lines, FIRST_CHANGE, commitment="abc"), FIRST_CHANGE, "SHA"),
    "a value that the definition refuses": (
        lambda lines: rewritten(lines, FIRST_CHANGE, value="yes"),
        FIRST_CHANGE,
        "true or false",
    ),
    "a set that is not sorted": (lambda lines: rewritten(lines, 27, value=("us", "eu")), 27, "sorted"),
    "a setting that is unknown": (
        lambda lines: rewritten(lines, FIRST_CHANGE, setting="no.such"),
        FIRST_CHANGE,
        "defined",
    ),
    "a kind that may not have it": (
        lambda lines: rewritten(lines, FIRST_CHANGE, subject="model:m"),
        FIRST_CHANGE,
        "defined",
    ),
    "a subject that is none": (
        lambda lines: rewritten(lines, FIRST_CHANGE, subject="planet:earth"),
        FIRST_CHANGE,
        "kind of subject",
    ),
    "an absurd effective time": (
        lambda lines: rewritten(lines, FIRST_CHANGE, effective_from=ABSURD),
        FIRST_CHANGE,
        "1900",
    ),
    "an empty period": (
        lambda lines: rewritten(lines, FIRST_CHANGE, effective_from=NOW, effective_until=NOW),
        FIRST_CHANGE,
        "later",
    ),
    "a retraction of what comes later": (
        lambda lines: rewritten(lines, RETRACTION, retracts="00000000-0099-8000-8000-000000000000"),
        RETRACTION,
        "not among",
    ),
    "a retraction of another subject's change": (
        lambda lines: rewritten(lines, RETRACTION, retracts=decode(lines.split(b"\n")[20]).event_id),
        RETRACTION,
        "no change of this subject",
    ),
    "a setting that changes its type": (
        lambda lines: lines.replace(
            b'"kinds":["account","org"],"value_type":"bool","default":false,"protective":false,'
            b'"writable_by":"admin","title":"Beta',
            b'"kinds":["account","org"],"value_type":"text","default":null,"protective":null,'
            b'"writable_by":"admin","title":"Beta',
        ),
        29,
        "keeps its type",
    ),
    "no catalog at the beginning": (
        lambda lines: rewritten(
            lines.split(b"\n")[FIRST_CHANGE - 1], 1, position=1, event_id="00000000-0001-8000-8000-000000000000"
        ),
        1,
        "begins with the definitions",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_line_that_is_not_what_was_exported_is_refused_by_number_and_nothing_is_kept(
    database_url: str, exported: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 2)
    tamper, number, said = TAMPERED[name]
    lines = tamper(exported)
    assert lines != exported
    with pytest.raises(BadImport, match=said) as refused:
        imported(database_url, lines)
    assert refused.value.detail.startswith(f"line {number}: ")
    assert is_untouched(database_url)


def test_a_second_retraction_of_the_same_change_is_refused(tmp_path: Path, exported: bytes) -> None:
    lines = exported.split(b"\n")[:RETRACTION]
    second = decode(lines[-1])
    position = RETRACTION + 1
    again = second.model_copy(
        update={
            "position": position,
            "version": second.version + 1,
            "event_id": f"00000000-{position:04x}{second.event_id[13:]}",
        }
    )
    lines.append(encode(again, f"urn:inforce:{ORIGIN}"))
    with pytest.raises(BadImport, match=f"line {position}: .*retracted already"):
        imported(f"sqlite:///{tmp_path}/ledger.db", b"\n".join(lines))


def test_the_origin_of_exported_events_is_kept(tmp_path: Path, exported: bytes) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(BadInput, match="keep the origin"):
        imported(url, exported, origin="other.example")
    assert imported(url, exported, origin=ORIGIN).origin == ORIGIN


# Personal data


PERSONAL_TAMPERED: dict[str, Any] = {
    "another reason": lambda rows: rows[0].update(content='{"reason":"invented"}'),
    "another salt": lambda rows: rows[0].update(salt="00" * 32),
    "another event": lambda rows: rows[0].update(position=20),
    "a position beyond": lambda rows: rows[2].update(position=99),
    "out of order": lambda rows: rows.reverse(),
    "twice": lambda rows: rows.insert(0, rows[0]),
    "an odd salt": lambda rows: rows[0].update(salt="0"),
    "content that is no reason": lambda rows: rows[0].update(content="[]"),
    "an unknown member": lambda rows: rows[0].update(name="x"),
    "not an object": lambda rows: rows.insert(0, 1),
}


@pytest.mark.parametrize("name", PERSONAL_TAMPERED)
def test_personal_data_that_its_event_does_not_commit_to_is_refused(
    database_url: str, exported: bytes, personal: bytes, name: str
) -> None:
    rows = [json.loads(line) for line in personal.splitlines()]
    PERSONAL_TAMPERED[name](rows)
    with pytest.raises(BadImport, match=r"line of personal data \d+: "):
        imported(database_url, exported, personal=io.BytesIO(jsonl(*rows)))
    assert is_untouched(database_url)


def test_personal_data_of_some_events_is_taken(tmp_path: Path, exported: bytes, personal: bytes) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    some = b"".join(personal.splitlines(keepends=True)[1:])
    assert imported(url, exported, personal=io.BytesIO(gzip.compress(some))).personal == 2


# Submissions

AT = "2025-01-01T00:00:00Z"
LATER = "2025-01-01T00:00:01.5Z"
AT_US = 1_735_689_600_000_000


def at(recorded_at: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"recorded_at": recorded_at, **body}


def test_submissions_keep_the_times_they_were_recorded_at(database_url: str) -> None:
    lines = jsonl(
        at(AT, change("org:a")),
        at("2025-01-01T01:00:00+01:00", change("org:a", False, reason="one moment, two offsets")),
        at(LATER, change("org:b", effective_from="2024-06-01T00:00:00Z", reason="known late")),
    )
    summary = imported(database_url, lines, origin="imported.example")
    assert summary == ImportSummary("submissions", "imported.example", 21, 3, AT_US - 1, AT_US + 1_500_000, 2)
    stored = entries(database_url)
    assert [entry.recorded_at for entry in stored] == [AT_US - 1] * 18 + [AT_US] * 2 + [AT_US + 1_500_000]
    assert [(entry.position, entry.version) for entry in stored[18:]] == [(19, 1), (20, 2), (21, 1)]
    events = [decode(entry.leaf) for entry in stored]
    assert {event.imported for event in events[:18]} == {False}
    changes = [event for event in events[18:] if isinstance(event, SettingChanged)]
    assert [event.effective_from for event in changes] == [AT_US, AT_US, AT_US - 214 * 86_400_000_000]
    assert {(event.imported, event.actor) for event in changes} == {(True, "import")}
    with open_ledger(database_url) as ledger:
        assert ledger.reasons(range(30)) == {20: "one moment, two offsets", 21: "known late"}


def test_an_import_of_submissions_can_be_exported_and_restored(database_url: str, tmp_path: Path) -> None:
    imported(database_url, jsonl(at(AT, change(reason="why")), at(AT, define()), at(LATER, change())))
    with open_ledger(database_url) as ledger:
        lines, kept = b"".join(export_lines(ledger)), b"".join(export_personal(ledger))
    copy = f"sqlite:///{tmp_path}/copy.db"
    imported(copy, lines, personal=io.BytesIO(kept))
    assert entries(copy) == entries(database_url)


def test_a_line_may_say_who_spoke(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    imported(url, jsonl(at(AT, change(actor="alice")), at(AT, change()), at(AT, change(actor='b"ø\x01T'))))
    assert [decode(entry.leaf).actor for entry in entries(url)[18:]] == ["alice", "import", 'b"ø\x01T']


def test_a_definition_holds_for_the_changes_of_its_own_moment_and_later_ones(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    beta = {**change(), "setting": "beta.search"}
    imported(url, jsonl(at(AT, define()), at(AT, beta), at(LATER, beta)))
    assert len(entries(url)) == 21


def test_one_submission_may_have_more_lines_than_a_request_could(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    summary = imported(url, jsonl(*(at(AT, change(f"org:{number % 7}")) for number in range(2500))))
    assert (summary.events, summary.submissions) == (2518, 2)


def test_an_expected_version_is_held_against_the_subject_before_the_moment(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    first = at(AT, change(expected_version=0))
    imported(url, jsonl(first, first, at(LATER, change(expected_version=2))))
    with pytest.raises(BadImport, match="line 3: the subject is at version 2 here"):
        imported(f"{url}.other", jsonl(first, first, at(LATER, change(expected_version=1))))


@pytest.mark.parametrize(("step", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_time_that_this_machine_has_not_reached_is_refused(tmp_path: Path, step: int, accepted: bool) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    lines = jsonl(at(format_time(NOW + step), change()))
    if accepted:
        assert imported(url, lines).last == NOW + step
    else:
        with pytest.raises(BadImport, match="line 1: recorded_at lies in the future"):
            imported(url, lines)
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
    "an actor that is none": (at(AT, change(actor=7)), "/actor"),
    "an empty actor": (at(AT, change(actor="")), "/actor"),
    "a retraction": (at(AT, {"type": "change.retracted", "event_id": "SECRET"}), "new ids"),
    "an array": ([at(AT, change())], "one submission"),
    "an exported event": ({"specversion": "1.0"}, "exported event among submissions"),
}


@pytest.mark.parametrize("name", BAD_SUBMISSIONS)
def test_a_bad_submission_is_named_by_its_line_and_nothing_is_kept(database_url: str, name: str) -> None:
    value, said = BAD_SUBMISSIONS[name]
    good = [at(AT, change(f"org:{number}")) for number in range(3)]
    with pytest.raises(BadImport) as refused:
        imported(database_url, jsonl(*good) + b"\n" + jsonl(value))
    assert refused.value.detail.startswith("line 5: ")
    assert said in refused.value.detail
    assert "SECRET" not in refused.value.detail
    assert is_untouched(database_url)


def test_every_fault_of_a_moment_is_told_with_its_line(tmp_path: Path) -> None:
    lines = jsonl(at(AT, change(value=1)), at(AT, change()), at(AT, change(value=2)))
    with pytest.raises(BadImport) as refused:
        imported(f"sqlite:///{tmp_path}/ledger.db", lines)
    assert refused.value.detail == "line 1: /value: the value must be true or false (and 1 more)"
    assert [fault.detail.partition(":")[0] for fault in refused.value.faults] == ["line 1", "line 3"]


def test_personal_data_and_origins_that_do_not_fit_are_bad_input(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(BadInput, match="personal data belongs"):
        imported(url, jsonl(at(AT, change())), personal=io.BytesIO(b""))
    with pytest.raises(BadInput, match="origin"):
        imported(url, jsonl(at(AT, change())), origin="NOT an origin")
    assert is_untouched(url)


# Files of every kind

UNREADABLE: dict[str, Any] = {
    "nothing": (b"", "there is no line"),
    "only blank lines": (b"\n \n\r\n", "there is no line"),
    "no JSON": (b"hello\n", "line 1: the line is not JSON"),
    "an array": (b"[]\n", "line 1: each line must be one submission"),
    "a byte order mark": (b"\xef\xbb\xbf{}\n", "line 1: the line begins with a byte order mark"),
    "UTF-16": ('{"type":1}\n'.encode("utf-16"), "line 1: the line is not UTF-8"),
    "NaN": (b'{"type":NaN}\n', "line 1: the line holds NaN"),
    "a member twice": (b'{"type":1,"type":1}\n', "line 1: an object of the line has the same member twice"),
    "deep nesting": (b'{"a":' * 99 + b"1" + b"}" * 99, "line 1: the line is nested deeper"),
    "deepest nesting": (b"[" * 100_000, "line 1: the line is nested deeper"),
    "a line that is too long": (b'{"a":"' + b"x" * 2**20 + b'"}\n', "line 1: the line has more than 1048576 bytes"),
    "an endless line of zeros": (gzip.compress(bytes(2**23)), "line 1: the line has more than 1048576 bytes"),
    "gzip cut off": (gzip.compress(jsonl(at(AT, change())) * 999)[:200], "the gzip data ends here, too early"),
    "gzip with a wrong checksum": (gzip.compress(jsonl(at(AT, change())))[:-8] + bytes(8), "damaged"),
    "no gzip after its magic": (b"\x1f\x8b" + bytes(100), "line 1: the gzip data is damaged"),
    "half a surrogate pair": (b'{"actor":"\\ud800"}\n', "line 1: a text of the line holds half of a surrogate pair"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_refused_and_nothing_is_kept(tmp_path: Path, name: str) -> None:
    content, said = UNREADABLE[name]
    url = f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(BadImport) as refused:
        imported(url, content)
    assert said in refused.value.detail
    assert "\n" not in refused.value.detail
    assert is_untouched(url)


def test_any_damaged_file_is_either_refused_or_restored_exactly(tmp_path: Path, exported: bytes) -> None:
    chance = random.Random(7)
    before = exported.splitlines()
    for attempt in range(60):
        damaged = bytearray(exported)
        for _ in range(chance.choice((1, 1, 1, 5))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        url = f"sqlite:///{tmp_path}/{attempt}.db"
        try:
            imported(url, bytes(damaged))
        except BadImport:
            continue
        # What passes is what a ledger would have written: the bytes that came in.
        assert [entry.leaf for entry in entries(url)] == bytes(damaged).splitlines()
    assert exported.splitlines() == before


# Only into an empty ledger, and whole or not at all


def test_a_ledger_that_holds_events_is_left_alone(database_url: str, exported: bytes) -> None:
    ledger, _ = opened(database_url)
    with ledger:
        submit(ledger, change())
        before = ledger.page(0)
    with pytest.raises(BadImport, match="this ledger holds 19 events"):
        imported(database_url, exported)
    assert entries(database_url) == before


def test_a_ledger_that_was_made_and_never_begun_is_filled(database_url: str, exported: bytes) -> None:
    with closing(open_recorder(database_url)) as recorder:
        recorder.create({"origin": "never.begun"})
    assert imported(database_url, exported).origin == ORIGIN


def test_an_interrupted_import_leaves_nothing(
    database_url: str, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 5)

    def interrupt(events: int, _bytes: int) -> None:
        if events >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(database_url, exported, progress=interrupt)
    assert is_untouched(database_url)
    imported(database_url, exported)


def test_while_an_import_is_at_work_nobody_else_opens_the_ledger(
    database_url: str, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 5)
    refusals: list[str] = []

    def try_to_open(_events: int, _bytes: int) -> None:
        try:
            open_ledger(database_url, create=True).close()
        except LedgerUnavailable as error:
            refusals.append(error.detail)

    summary = imported(database_url, exported, progress=try_to_open)
    # Told once more after the last batch, when it is done.
    assert len(refusals) == summary.events // 5
    assert "import" in refusals[0]


def test_an_import_that_another_one_overtook_gives_up_and_harms_nothing(
    database_url: str, original: Ledger, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 5)
    overtaken = False

    def overtake(_events: int, _bytes: int) -> None:
        nonlocal overtaken
        if not overtaken:
            overtaken = True
            imported(database_url, exported)

    with pytest.raises(LedgerUnavailable, match="another import"):
        imported(database_url, exported, progress=overtake)
    assert entries(database_url) == original.page(0)


def test_an_import_killed_in_the_middle_is_refused_and_starts_over(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "submissions.jsonl"
    lines = [jsonl(at(format_time(AT_US + number), change(f"org:{number % 99}"))) for number in range(30_000)]
    file.write_bytes(b"".join(lines))
    with started(("import", database_url, file)) as (process,):
        assert process.stdout is not None
        assert process.stdout.readline() == "10000\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    for create in (False, True):
        with pytest.raises(LedgerUnavailable, match="import into this ledger is running or was cut off"):
            open_ledger(database_url, create=create)
    assert held(database_url) >= 10_000
    assert imported(database_url, b"".join(lines[:50])).events == 68
    assert len(entries(database_url)) == 68


def held(url: str) -> int:
    connection: Any = (
        sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)
    )
    with closing(connection):
        (count,) = connection.execute(f"SELECT count(*) FROM {'' if 'sqlite' in url else 'inforce.'}events").fetchone()
        return int(count)


def test_a_failure_of_the_database_leaves_nothing(
    database_url: str, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 5)
    real = open_recorder

    def failing(url: str) -> Any:
        recorder = real(url)
        restore = recorder.restore
        calls: list[int] = []

        def fails_the_third_time(*arguments: Any, **more: Any) -> None:
            calls.append(1)
            if len(calls) == 3:
                raise LedgerUnavailable("the disk is full")
            restore(*arguments, **more)

        monkeypatch.setattr(recorder, "restore", fails_the_third_time)
        return recorder

    monkeypatch.setattr(transfer, "open_recorder", failing)
    with pytest.raises(LedgerUnavailable, match="disk is full"):
        imported(database_url, exported)
    monkeypatch.undo()
    assert is_untouched(database_url)
