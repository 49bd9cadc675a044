"""doctor: why nothing is recorded, and the operator's acknowledgement that lets the ledger go on."""

import json
import time
from pathlib import Path

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.times import DAY, format_time, parse_time
from tests.support.command import CommandResult, Inforce
from tests.support.going_back import delete_tail
from tests.support.ledgers import GENESIS, change, submit

YEAR = 365 * DAY


@pytest.fixture
def poisoned(inforce_on_both: Inforce, database_url: str) -> Inforce:
    """A ledger with one event of now, and two of a clock that was a year ahead."""
    assert inforce_on_both("submit", "org:acme", "training.opt_in", "true").code == 0
    with open_ledger(database_url, clock=ManualClock(time.time_ns() // 1000 + YEAR)) as ledger:
        submit(ledger, change("org:acme"))
        submit(ledger, change("org:other"))
    return inforce_on_both


def test_a_ledger_in_order(inforce_on_both: Inforce) -> None:
    assert inforce_on_both("submit", "org:acme", "training.opt_in", "true").code == 0
    clock = inforce_on_both("doctor", "clock", "--format", "json")
    assert (clock.code, clock.json()["records"], clock.json()["poisoned_first_position"]) == (0, True, None)
    assert clock.json()["ahead_s"] >= 0
    head = inforce_on_both("doctor", "head", "--format", "json")
    assert (head.code, head.json()["records"], head.json()["generation"]) == (0, True, 1)
    assert head.json()["last_position"] == head.json()["acknowledged_position"] == GENESIS + 1
    for verb in ("clock", "head"):
        assert "records" in inforce_on_both("doctor", verb).out
        refused = inforce_on_both("doctor", verb, "--acknowledge", "--reason", "to be sure")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "nothing to acknowledge" in refused.err


@pytest.mark.parametrize("verb", ["clock", "head"])
@pytest.mark.parametrize("options", [("--acknowledge",), ("--acknowledge", "--reason", " "), ("--reason", "why")])
def test_an_acknowledgement_needs_a_reason(inforce: Inforce, verb: str, options: tuple[str, ...]) -> None:
    assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
    refused = inforce("doctor", verb, *options)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--acknowledge" in refused.err


def test_the_poisoned_stretch_is_shown_and_acknowledged(poisoned: Inforce) -> None:
    refused = poisoned("submit", "org:acme", "training.opt_in", "false")
    assert (refused.code, refused.out, refused.err.count("\n")) == (3, "", 1)
    assert "inforce doctor clock" in refused.err
    shown = poisoned("doctor", "clock", "--format", "json")
    report = shown.json()
    assert (shown.code, report["records"]) == (1, False)
    assert (report["poisoned_first_position"], report["poisoned_last_position"]) == (GENESIS + 2, GENESIS + 3)
    assert parse_time(report["recorded_at_before"]) <= parse_time(report["clock"]) < parse_time(report["poisoned_from"])
    assert report["poisoned_until"] == report["last_recorded_at"]
    assert -YEAR < report["ahead_s"] * 1_000_000 < -YEAR + DAY
    assert report["last_recorded_at"] in refused.err
    assert "--acknowledge --reason" in poisoned("doctor", "clock").out

    acknowledged = poisoned(
        *("doctor", "clock", "--acknowledge", "--reason", "node 3 was a year ahead", "--actor", "alice"),
        *("--format", "json"),
    )
    assert acknowledged.code == 0, acknowledged.err
    assert acknowledged.json()["position"] == GENESIS + 5
    assert poisoned("submit", "org:acme", "training.opt_in", "false").code == 0
    after = poisoned("doctor", "clock", "--format", "json")
    assert (after.code, after.json()["records"]) == (0, True)
    assert after.json()["acknowledged_at_position"] == GENESIS + 5
    (event, *_) = poisoned("history", "ledger:self", "--format", "json").json()["events"]
    assert (event["event"]["data"]["actor"], event["reason"]) == ("alice", "node 3 was a year ahead")
    assert event["event"]["data"]["value"] == report["last_recorded_at"]
    assert "clock.ahead_acknowledged" in poisoned("replay", "--subject", "ledger:self").out


def test_the_bound_is_an_option_and_a_variable(poisoned: Inforce, monkeypatch: pytest.MonkeyPatch) -> None:
    two_years = str(2 * 365 * 86_400)
    assert poisoned("submit", "org:acme", "training.opt_in", "true", "--clock-behind-max", two_years).code == 0
    assert poisoned("submit", "org:acme", "training.opt_in", "true").code == 3
    monkeypatch.setenv("INFORCE_CLOCK_BEHIND_MAX", two_years)
    assert poisoned("submit", "org:acme", "training.opt_in", "true").code == 0
    assert poisoned("doctor", "clock").code == 0
    for bound in ("0", "inf", "nan", "1e300"):
        refused = poisoned("submit", "org:acme", "training.opt_in", "true", "--clock-behind-max", bound)
        assert (refused.code, refused.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(("days", "warns"), [(89, False), (91, True)])
def test_a_clock_far_ahead_of_the_last_event_warns(inforce: Inforce, days: int, warns: bool) -> None:
    then = time.time_ns() // 1000 - days * DAY
    with open_ledger("sqlite:///inforce.db", create=True, clock=ManualClock(then)):
        pass
    quiet = inforce("submit", "org:acme", "training.opt_in", "true", "--clock-ahead-warn", "1000")
    assert (quiet.code, quiet.err) == (0, "")
    with open_ledger("sqlite:///other.db", create=True, clock=ManualClock(then)):
        pass
    loud = inforce("submit", "org:acme", "training.opt_in", "true", "--db", "sqlite:///other.db")
    assert loud.code == 0
    assert (f"{days} days after the last event ({format_time(then)})" in loud.err) is warns


def test_the_loss_of_a_tail_is_shown_and_acknowledged_and_timelines_forget_it(
    inforce_on_both: Inforce, database_url: str
) -> None:
    inforce = inforce_on_both
    for value in ("true", "false", "true"):
        assert inforce("submit", "org:acme", "training.opt_in", value).code == 0
    assert inforce("state", "org:acme").code == 0
    delete_tail(database_url, GENESIS + 1)
    refused = inforce("submit", "org:acme", "training.opt_in", "false")
    assert (refused.code, refused.err.count("\n")) == (3, 1)
    assert f"ends at position {GENESIS + 1}, and position {GENESIS + 3} was acknowledged" in refused.err
    shown = inforce("doctor", "head", "--format", "json")
    report = shown.json()
    assert (shown.code, report["records"]) == (1, False)
    assert (report["last_position"], report["acknowledged_position"]) == (GENESIS + 1, GENESIS + 3)
    assert "--acknowledge --reason" in inforce("doctor", "head").out

    acknowledged = inforce("doctor", "head", "--acknowledge", "--reason", "the disk failed", "--format", "json")
    assert acknowledged.code == 0, acknowledged.err
    assert acknowledged.json()["position"] == GENESIS + 3
    assert inforce("submit", "org:acme", "storage.inputs_outputs", "true").code == 0
    after = inforce("doctor", "head", "--format", "json").json()
    assert (after["records"], after["generation"], after["acknowledged_position"]) == (True, 2, GENESIS + 4)
    state = inforce("state", "org:acme", "--format", "json").json()
    assert state["position"] == GENESIS + 4
    assert state["settings"]["training.opt_in"]["position"] == GENESIS + 1
    assert inforce("rebuild", "--check").code == 0


def test_a_ledger_that_is_only_read_shows_its_loss_too(inforce: Inforce, folder: Path) -> None:
    url = f"sqlite:///{folder}/inforce.db"
    for value in ("true", "false"):
        assert inforce("submit", "org:acme", "training.opt_in", value).code == 0
    (note,) = folder.glob("*-head")
    before = note.read_bytes()
    delete_tail(url, GENESIS + 1)
    shown = inforce("doctor", "head", "--db", f"{url}?mode=ro", "--format", "json")
    assert (shown.code, shown.json()["records"], shown.json()["acknowledged_position"]) == (1, False, GENESIS + 2)
    assert note.read_bytes() == before
    note.unlink()
    assert inforce("doctor", "head", "--db", f"{url}?mode=ro").code == 0
    assert not note.exists()


def test_both_at_once_are_acknowledged_one_after_the_other(poisoned: Inforce, database_url: str) -> None:
    delete_tail(database_url, GENESIS + 2)

    def acknowledge(verb: str) -> int:
        return poisoned("doctor", verb, "--acknowledge", "--reason", "restored").code

    assert acknowledge("clock") == 3
    assert acknowledge("head") == 0
    assert poisoned("submit", "org:acme", "training.opt_in", "false").code == 3
    assert acknowledge("clock") == 0
    assert poisoned("submit", "org:acme", "training.opt_in", "false").code == 0


def test_every_table_and_format_of_an_answer_about_the_acknowledged_stretch_says_so(
    poisoned: Inforce, folder: Path
) -> None:
    words = "rests on a clock that was ahead"
    at = format_time(time.time_ns() // 1000 + 30 * DAY)
    record = json.dumps({"at": at, "org_id": "acme", "model_id": "a/b"})
    (folder / "two.jsonl").write_text(f"{record}\n{record}\n")
    answers = [("state", "org:acme", "--at", at), ("catalog", "--at", at), ("history", "org:acme")]
    for answer in answers:
        assert f"{words}, from" in poisoned(*answer).out
        assert "(see inforce doctor clock)" in poisoned(*answer).out
    assert poisoned("doctor", "clock", "--acknowledge", "--reason", "a year ahead").code == 0
    for answer in answers:
        table = poisoned(*answer)
        assert words in table.out, table
        assert "(acknowledged by #" in table.out
        assert table.err == ""
        for rows in ("csv", "ndjson"):
            of_rows = poisoned(*answer, "--format", rows)
            assert (words in of_rows.err, words in of_rows.out) == (True, False)
        assert "clock_notice" in poisoned(*answer, "--format", "json").json()
    assert "2 requests rest on a clock" in poisoned("check", "two.jsonl").out
    assert "2 requests rest on a clock" in poisoned("check", "two.jsonl", "--format", "csv").err
    assert words not in poisoned("state", "org:acme", "--at", "2020-01-01T00:00:00Z", "--known-at", "at").out


@pytest.mark.parametrize(("days", "rests"), [(-1, False), (30, True)])
def test_an_audit_of_the_acknowledged_stretch_names_it(poisoned: Inforce, folder: Path, days: int, rests: bool) -> None:
    assert poisoned("doctor", "clock", "--acknowledge", "--reason", "a year ahead").code == 0
    at = format_time(time.time_ns() // 1000 + days * DAY)
    long_ago = {"at": "2020-01-01T00:00:00Z", "org_id": "acme", "model_id": "a/b"}
    records = [long_ago, long_ago | {"at": at}, long_ago | {"at": at}]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    audit = ("audit", "log.jsonl", "--out", "verdicts.ndjson", "--report", "report")
    summary = poisoned(*audit, "--format", "json").json()
    assert [notice["rows"] for notice in summary.get("clock_notices", [])] == ([2] if rests else [])
    page = (folder / "report" / "report.html").read_text()
    assert ("The verdicts on 2 requests rest on it" in page) is rests
    text = poisoned("audit", "log.jsonl", "--out", "again.ndjson").out
    assert ("2 requests rest on a clock that was ahead" in text) is rests
    counts = poisoned("audit", "log.jsonl", "--out", "counts.ndjson", "--format", "csv").out
    assert (f"clock_notice,#{GENESIS + 5},2" in counts) is rests, counts
    check = poisoned("check", "--org", "acme", "--model", "a/b", "--at", at)
    assert ("rests on a clock that was ahead" in check.out) is rests, check.err


@pytest.mark.parametrize("options", [(), ("--what-if", "changes.jsonl"), ("--explain", "late")])
@pytest.mark.parametrize(("days", "rests"), [(-1, False), (30, True)])
def test_every_way_to_audit_the_acknowledged_stretch_names_it_in_every_format(
    poisoned: Inforce, folder: Path, days: int, rests: bool, options: tuple[str, ...]
) -> None:
    explains = "--explain" in options
    words = "1 request rests on a clock" if explains else "2 requests rest on a clock"
    assert poisoned("doctor", "clock", "--acknowledge", "--reason", "a year ahead").code == 0
    at = format_time(time.time_ns() // 1000 + days * DAY)
    long_ago = {"at": "2020-01-01T00:00:00Z", "org_id": "acme", "model_id": "a/b", "handling": {"trained": True}}
    records = [long_ago, long_ago | {"at": at, "request_id": "late"}, long_ago | {"at": at}]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    proposal = change(value=False, effective_from="2026-01-01T00:00:00Z")
    (folder / "changes.jsonl").write_text(json.dumps(proposal) + "\n")

    def answer(*more: str) -> CommandResult:
        result = poisoned("audit", "log.jsonl", *options, *more)
        assert result.code == 0, result
        return result

    table = answer()
    # An explanation prints each decision whole.
    stated = "this answer rests on a clock" if explains else words
    assert (stated in table.out, "on a clock" in table.err) == (rests, False), table
    for rows in ("csv", "ndjson"):
        of_rows = answer("--format", rows)
        assert (words in of_rows.err, words in of_rows.out) == (rests, False), of_rows
        assert ("clock_notice" in of_rows.out) is (rests and not explains), of_rows
    document = answer("--format", "json")
    assert "on a clock" not in document.err
    if explains:
        notices = [row["decision"]["as_of"].get("clock_notice") for row in document.json()["rows"]]
        assert [notice is not None for notice in notices] == [rests]
    else:
        assert [notice["rows"] for notice in document.json().get("clock_notices", [])] == ([2] if rests else [])
        of_stream = answer("--out", "-")
        assert (words in of_stream.err, words in of_stream.out) == (rests, False), of_stream
