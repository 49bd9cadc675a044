"""state, history and check, for people and for programs."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ledger.following import AT_LEAST_SECONDS_MAX
from tests.support.command import Inforce

REPOSITORY = str(Path(__file__).resolve().parents[2])
PAST = ("--from", "2026-01-01T00:00:00Z", "--reason", "filed late")


@pytest.fixture
def filled(inforce_on_both: Inforce) -> Inforce:
    """org:acme opted in for 2026, said so late; m1 is hosted, m2 passthrough."""
    for args in (
        ("org:acme", "training.opt_in", "true", *PAST),
        ("model:m1", "model.hosting", "hosted"),
        ("model:m2", "model.hosting", "passthrough"),
    ):
        assert inforce_on_both("submit", *args).code == 0
    return inforce_on_both


def test_a_state_answers_what_is_known_now_and_on_request_what_was_in_force(filled: Inforce) -> None:
    asked = ("state", "org:acme", "--at", "2026-02-01T00:00:00Z", "--setting", "training.opt_in", "--format", "json")
    now = filled(*asked).json()
    assert (now["subject"], now["at"]) == ("org:acme", "2026-02-01T00:00:00.000000Z")
    (setting,) = now["settings"].values()
    assert (setting["value"], setting["source"]) == (True, "explicit")
    in_force = filled(*asked, "--known-at", "at")
    assert in_force.code == 2
    assert "then" in in_force.err or "not defined" in in_force.err


def test_a_state_names_every_setting_of_the_kind_in_every_format(filled: Inforce) -> None:
    document = filled("state", "org:acme", "--format", "json").json()
    table = filled("state", "org:acme").out
    lines = filled("state", "org:acme", "--format", "ndjson").lines()
    csv = filled("state", "org:acme", "--format", "csv").out.splitlines()
    assert [line["setting"] for line in lines] == list(document["settings"])
    assert [row.split(",")[0] for row in csv[1:]] == list(document["settings"])
    assert all(setting in table for setting in document["settings"])
    assert "residency.regions" in document["settings"]
    assert "model.hosting" not in document["settings"]
    assert max(map(len, table.splitlines())) < 200
    assert all(line == line.rstrip() for line in table.splitlines())
    assert "0001-01-01" not in table, "the beginning of time is no time that a person asked for"


def test_a_history_goes_on_where_it_ended(inforce: Inforce) -> None:
    for value in ("true", "false", "true"):
        inforce("submit", "org:acme", "training.opt_in", value)
    first = inforce("history", "org:acme", "--limit", "2", "--format", "json").json()
    assert [event["event"]["data"]["version"] for event in first["events"]] == [3, 2]
    rest = inforce("history", "org:acme", "--after", str(first["next_after"]), "--format", "csv").out.splitlines()
    assert rest[1].split(",")[1:6:2] == ["1", "inforce.setting.changed.v1", "true"]
    assert "more: --after 2" in inforce("history", "org:acme", "--limit", "2").out


@pytest.mark.parametrize(
    ("options", "verdict", "code"),
    [
        (("--model", "m1"), "allowed", 0),
        (("--model", "m2"), "denied", 1),
        (("--model", "m3"), "indeterminate", 0),
        (("--model", "m1", "--handling", "trained=true"), "compliant", 0),
        (("--model", "m1", "--handling", "trained=true", "--handling", "stored=1"), "violation", 1),
        (("--handling", "forwarded_to=Else", "--enforced-position", "2"), "violation", 1),
    ],
)
def test_a_check_exits_1_when_the_verdict_speaks_against_the_request(
    options: tuple[str, ...], verdict: str, code: int, filled: Inforce
) -> None:
    as_json = filled("check", "--org", "acme", *options, "--format", "json")
    as_table = filled("check", "--org", "acme", *options)
    assert (as_json.code, as_table.code) == (code, code)
    assert as_json.json()["verdict"] == verdict
    assert as_table.out.startswith(f"{verdict}\n")
    assert "governed by  org:acme" in as_table.out


def test_hindsight_is_told_with_the_events_that_made_it(inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "false")
    at = inforce("history", "org:acme", "--format", "json").json()["events"][0]["event"]["time"]
    inforce("submit", "org:acme", "training.opt_in", "true", "--from", at, "--reason", "misread")
    asked = ("check", "--org", "acme", "--handling", "trained=true", "--at", at)
    in_force = inforce(*asked)
    assert in_force.code == 1
    assert "in hindsight: compliant" in in_force.out
    assert "because      #20" in in_force.out
    assert inforce(*asked, "--known-at", "now").code == 0
    assert inforce(*asked, "--format", "json").json()["hindsight"]["verdict"] == "compliant"


def test_records_come_from_a_file_or_a_pipe_one_or_many(filled: Inforce) -> None:
    records: list[dict[str, Any]] = [{"request_id": "r1", "org_id": "acme", "model_id": m} for m in ("m1", "m2")]
    lines = "\n".join(map(json.dumps, records))
    many = filled("check", "-", "--format", "ndjson", stdin=lines)
    batch = filled("check", "-", "--format", "json", stdin=json.dumps({"requests": records}, indent=1))
    one = filled("check", "-", "--format", "csv", stdin=json.dumps(records[0], indent=1))
    table = filled("check", "-", stdin=lines)
    assert [line["verdict"] for line in many.lines()] == ["allowed", "denied"]
    assert [decision["verdict"] for decision in batch.json()["decisions"]] == ["allowed", "denied"]
    assert one.out.splitlines()[1].startswith("r1,")
    assert (many.code, batch.code, one.code, table.code) == (1, 1, 0, 1)
    assert "denied" in table.out


def test_an_id_with_its_kind_before_it_is_not_taken_for_another_subject(filled: Inforce) -> None:
    refused = filled("check", "--org", "org:acme")
    assert (refused.code, refused.out) == (2, "")
    assert "--org takes the bare id" in refused.err


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_narrow_terminal_no_word_of_a_table_is_broken(filled: Inforce, width: int) -> None:
    filled("submit", "org:acme", "storage.inputs_outputs", "true")
    asked = [sys.executable, "-m", "scripts.main", "state", "org:acme"]
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        asked, stdout=terminal, env=environment | {"TERM": "xterm", "PYTHONPATH": REPOSITORY}
    ) as running:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # The terminal is gone when its last user is.
            while chunk := os.read(screen, 65_536):
                shown += chunk
    os.close(screen)
    assert running.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    words = text.split()
    for word in ("storage.inputs_outputs", "training.opt_in", "explicit", "residency.regions"):
        assert word in words
    assert max(map(len, text.splitlines()[1:])) <= width


def test_the_instant_that_was_asked_about_is_shown_even_where_it_is_the_first(filled: Inforce) -> None:
    state = filled("state", "org:acme", "--at", "0001-01-01T00:00:00Z", "--known-at", "at")
    assert state.out.startswith("org:acme at 0001-01-01 00:00:00Z, known at 0001-01-01 00:00:00Z,")


QUESTIONS = (("state", "org:acme"), ("history", "org:acme"), ("check", "--org", "acme"))


@pytest.mark.parametrize("question", QUESTIONS, ids=[question[0] for question in QUESTIONS])
def test_a_question_is_answered_from_a_position_or_later(filled: Inforce, question: tuple[str, ...]) -> None:
    head = filled("history", "model:m2", "--format", "json").json()["position"]
    for position in (0, 1, head):
        assert filled(*question, "--at-least", str(position)).code == 0
    for wrong in ("-1", "x", "1.5", str(10**18)):
        refused = filled(*question, "--at-least", wrong)
        assert (refused.code, refused.out) == (2, "")


def test_a_position_that_is_not_reached_in_time_is_one_line(filled: Inforce) -> None:
    head = filled("history", "model:m2", "--format", "json").json()["position"]
    began = time.monotonic()
    late = filled("state", "org:acme", "--at-least", str(head + 1))
    assert AT_LEAST_SECONDS_MAX <= time.monotonic() - began < AT_LEAST_SECONDS_MAX + 5
    assert (late.code, late.out, late.err.count("\n")) == (3, "", 1)
    assert f"position {head} " in late.err
    assert f" {head + 1} " in late.err
