"""submit: a change, a clear, a retraction, a batch; and its receipts."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Inforce
from tests.support.ledgers import GENESIS

JSON = ("--format", "json")
CHANGE = {"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": True}


def receipt(result: Any) -> dict[str, Any]:
    assert result.code == 0, result.err
    (only,) = result.json()["receipts"]
    return dict(only)


def test_a_change_a_schedule_a_clear_and_a_retraction(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    first = receipt(inforce("submit", "org:acme", "training.opt_in", "true", "--format", "json"))
    assert (first["subject"], first["version"]) == ("org:acme", 1)
    assert first["effective_from"] == first["recorded_at"]
    period = ("--from", "2026-01-01T00:00:00Z", "--until", "2026-02-01T00:00:00+00:00", "--reason", "late")
    bounded = receipt(inforce("submit", "org:acme", "training.opt_in", "false", *period, "--format", "json"))
    assert bounded["effective_until"] == "2026-02-01T00:00:00.000000Z"
    cleared = receipt(inforce("submit", "org:acme", "training.opt_in", "--clear", "--format", "json"))
    retraction = ("--retract", bounded["event_id"], "--reason", "wrong org", "--format", "json")
    retracted = receipt(inforce("submit", *retraction, "--actor", "alice", "--expected-version", "3"))
    assert (cleared["version"], retracted["version"]) == (3, 4)
    history = inforce("history", "org:acme", "--format", "json").json()["events"]
    assert [event["event"]["data"]["actor"] for event in history] == ["alice", "cli", "cli", "cli"]
    assert [event["reason"] for event in history] == ["wrong org", None, "late", None]
    assert [event["retracted_by"] for event in history] == [None, None, retracted["event_id"], None]


def test_never_again_is_one_step(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    opt_in = receipt(inforce("submit", "org:acme", "training.opt_in", "true", "--from", "2190-01-01T00:00:00Z", *JSON))
    words = ("submit", "org:acme", "training.opt_in", "false", "--cancel-scheduled", *JSON)
    change, retraction = inforce(*words).json()["receipts"]
    assert (change["version"], retraction["version"], retraction["effective_from"]) == (2, 3, None)
    history = inforce("history", "org:acme", *JSON).json()["events"]
    assert history[-1]["event"]["id"] == opt_in["event_id"]
    assert history[-1]["retracted_by"] == retraction["event_id"]
    assert history[0]["event"]["data"]["retracts"] == opt_in["event_id"]


@pytest.mark.parametrize(
    ("subject", "setting", "word", "value"),
    [
        ("org:acme", "residency.regions", "eu-west,eu-north", ["eu-north", "eu-west"]),
        ("org:acme", "residency.regions", "eu-west, eu-north", ["eu-north", "eu-west"]),
        ("region:na", "region.names", " North America ,NA", ["NA", "North America"]),
        ("org:acme", "residency.regions", '["eu, west"]', ["eu, west"]),
        ("org:acme", "residency.regions", "", []),
        ("model:a/b", "model.hosting", "hosted", "hosted"),
        ("model:a/b", "model.revision", "17", "17"),
        ("key:k1", "owner", "org:acme", "org:acme"),
        ("org:acme", "passthrough.allowed", "false", False),
    ],
)
def test_a_value_is_parsed_by_the_type_of_its_setting(
    subject: str, setting: str, word: str, value: object, inforce: Inforce
) -> None:
    assert inforce("submit", subject, setting, word).code == 0
    state = inforce("state", subject, "--setting", setting, "--format", "json").json()
    assert state["settings"][setting]["value"] == value


def test_a_file_holds_one_submission_or_a_batch_or_one_per_line(inforce: Inforce, folder: Path) -> None:
    other = CHANGE | {"subject": "org:beta"}
    bodies = {
        "one.json": json.dumps(CHANGE, indent=2),
        "batch.json": json.dumps({"events": [CHANGE, other]}, indent=1),
        "lines.jsonl": f"{json.dumps(CHANGE)}\r\n\n{json.dumps(other)}\n",
    }
    for name, body in bodies.items():
        (folder / name).write_text(body)
        by_name = inforce("submit", name, "--format", "ndjson")
        by_pipe = inforce("submit", "-", "--format", "ndjson", stdin=body)
        assert (by_name.code, by_pipe.code) == (0, 0), by_name.err + by_pipe.err
        assert len(by_name.lines()) == len(by_pipe.lines()) == (1 if name == "one.json" else 2)
        assert len({line["recorded_at"] for line in by_name.lines()}) == 1


def test_a_retry_with_the_same_key_gets_the_same_receipts_and_records_nothing(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    command = ("submit", "org:acme", "training.opt_in", "true", "--idempotency-key", "k", "--format", "json")
    assert inforce(*command).json() == inforce(*command).json()
    other = inforce("submit", "org:acme", "training.opt_in", "false", "--idempotency-key", "k")
    assert other.code == 2
    assert "used for another body" in other.err
    assert inforce("export").out.count("org:acme") == 1


def test_receipts_in_every_format(inforce: Inforce) -> None:
    table = inforce("submit", "org:acme", "training.opt_in", "true")
    assert "org:acme" in table.out
    assert table.err == "inforce: began a new ledger at inforce.db\n"
    csv = inforce("submit", "org:acme", "training.opt_in", "true", "--format", "csv").out.splitlines()
    assert csv[0] == (
        "event_id,position,subject,version,recorded_at,effective_from,effective_until,holds_until,still_scheduled,"
        "still_scheduled_left_out,retracts,warnings"
    )
    assert csv[1].split(",")[1:4] == [str(GENESIS + 2), "org:acme", "2"]


def test_a_ledger_keeps_its_origin(inforce: Inforce) -> None:
    assert inforce("submit", "org:acme", "training.opt_in", "true", "--origin", "a.example").code == 0
    assert inforce("submit", "org:acme", "training.opt_in", "true", "--origin", "a.example").code == 0
    assert inforce("submit", "org:acme", "training.opt_in", "true", "--origin", "b.example").code == 2


def test_an_opt_out_beside_a_scheduled_opt_in_prints_a_line_that_says_so(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    inforce("submit", "org:acme", "training.opt_in", "true", "--from", "2190-01-01T00:00:00Z")
    table = inforce("submit", "org:acme", "training.opt_in", "false").out.splitlines()
    assert "holds until" in table[0]
    assert table[-1] == (f"still scheduled beside #{GENESIS + 2}: #{GENESIS + 1} true from 2190-01-01 00:00:00Z")
    retry = ("submit", "org:acme", "training.opt_in", "true", "--idempotency-key", "k", "--format", "json")
    first = inforce(*retry).out
    inforce("submit", "org:acme", "training.opt_in", "false", "--cancel-scheduled")
    assert inforce(*retry).out == first
    assert "still scheduled" not in inforce("submit", "org:acme", "training.opt_in", "false").out


def test_a_doubt_and_a_change_without_effect_are_said(inforce: Inforce) -> None:
    doubtful = inforce("submit", "key:k1", "owner", "org:typo").out.splitlines()
    assert doubtful[-1].startswith(f"warning about #{GENESIS + 1}: the ledger has no event of org:typo")
    changes = json.dumps({"events": [CHANGE, CHANGE | {"value": False}]})
    lines = inforce("submit", "-", stdin=changes).out.splitlines()
    assert lines[-1].startswith(f"#{GENESIS + 2} never decides: ")


def test_a_change_is_retracted_by_its_position(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    for value in ("true", "false"):
        assert inforce("submit", "org:acme", "training.opt_in", value).code == 0
    for position in (str(GENESIS + 1), f"#{GENESIS + 2}"):
        assert inforce("submit", "--retract", position, "--reason", "wrong org", *JSON).code == 0
    history = inforce("history", "org:acme", *JSON).json()["events"]
    assert [event["retracted_by"] is None for event in history] == [True, True, False, False]
    assert f"#{GENESIS + 1} retracted" in inforce("history", "org:acme").out
    before = inforce("export").out
    for place, words in (
        (0, "there is no event at position 0"),
        (GENESIS + 5, f"the ledger ends at position {GENESIS + 4}"),
        (10**17, "there is no event"),
        (1, "only changes can be retracted"),
        (GENESIS + 1, "retracted already"),
        (GENESIS + 3, "a retraction cannot be retracted"),
    ):
        refused = inforce("submit", "--retract", str(place), "--reason", "x")
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert words in refused.err
    assert inforce("export").out == before


def test_a_position_without_a_ledger_creates_none(inforce: Inforce, folder: Path) -> None:
    refused = inforce("submit", "--retract", "41", "--reason", "x")
    assert (refused.code, refused.err.count("\n"), list(folder.iterdir())) == (2, 1, [])


@pytest.mark.parametrize("text", ["-7", "x", "org:acme", "00000000-0001"])
def test_what_is_neither_a_position_nor_an_id_is_no_retraction(text: str, inforce: Inforce) -> None:
    assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
    refused = inforce("submit", "--retract", text, "--reason", "x")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "takes a position, such as 41, or the id of an event" in refused.err


@pytest.mark.parametrize("words", [("-7",), ("--", "-7")])
def test_a_negative_number_is_a_value(words: tuple[str, ...], inforce: Inforce) -> None:
    texts = ("--title", "Offset", "--description", "Hours from UTC", "--source", "Contract")
    defined = inforce("define", "acme.offset", "--kinds", "org", "--type", "integer", "--writable-by", "admin", *texts)
    assert defined.code == 0, defined.err
    result = inforce("submit", *JSON, "org:acme", "acme.offset", *words)
    assert result.code == 0, result.err
    state = inforce("state", "org:acme", *JSON).json()["settings"]["acme.offset"]
    assert state["value"] == -7
    with_options = inforce("submit", "org:acme", "acme.offset", "-12", "--reason", "-3")
    assert with_options.code == 0, with_options.err


def test_another_value_with_a_dash_is_explained(inforce: Inforce, folder: Path) -> None:
    refused = inforce("submit", "model:m", "model.author", "-x")
    assert (refused.code, refused.err.count("\n"), "write -- before SUBJECT" in refused.err) == (2, 1, True)
    assert list(folder.iterdir()) == []
    assert inforce("submit", "--", "model:m", "model.author", "-x").code == 0
    near = inforce("submit", "model:m", "model.author", "x", "--resaon", "y")
    assert (near.code, "--reason" in near.err) == (2, True)
