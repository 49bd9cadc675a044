"""replay: the ledger as sentences for people, and as exact events for programs."""

import json

import pytest

from tests.support.command import Inforce
from tests.support.ledgers import GENESIS

ACME = {"subject": "org:acme", "setting": "training.opt_in"}


PAST = [
    {"type": "setting.changed", **ACME, "value": True, "recorded_at": "2026-01-01T00:00:00Z", "actor": "alice"},
    {
        "type": "setting.changed",
        **ACME,
        "value": False,
        "effective_from": "2026-06-01T00:00:00Z",
        "recorded_at": "2026-01-02T00:00:00Z",
    },
    {
        "type": "setting.changed",
        **ACME,
        "value": False,
        "effective_from": "2025-12-01T00:00:00Z",
        "effective_until": "2025-12-15T00:00:00Z",
        "reason": "ticket 4711",
        "recorded_at": "2026-01-03T00:00:00Z",
    },
    {"type": "setting.cleared", **ACME, "recorded_at": "2026-02-01T09:30:00.5Z"},
]


@pytest.fixture
def story(inforce_on_both: Inforce) -> Inforce:
    assert inforce_on_both("import", "-", stdin="\n".join(map(json.dumps, PAST))).code == 0
    events = inforce_on_both("history", "org:acme", "--format", "json").json()["events"]
    backdated = events[1]["event"]["id"]
    assert inforce_on_both("submit", "--retract", backdated, "--reason", "wrong form", "--actor", "bob").code == 0
    return inforce_on_both


def test_a_sentence_says_what_changed_from_when_by_whom_and_whether_it_was_retracted(story: Inforce) -> None:
    result = story("replay", "--subject", "org:acme")
    lines = result.out.splitlines()
    assert (result.code, len(lines)) == (0, 5)
    assert lines[0] == (
        f"2026-01-01 00:00:00Z  #{GENESIS + 1}  org:acme  training.opt_in  default false → true  from now on  (alice)"
    )
    assert lines[1] == (
        f"2026-01-02 00:00:00Z  #{GENESIS + 2}  org:acme  training.opt_in  true → false  "
        "from 2026-06-01 00:00:00Z on, scheduled  (import)"
    )
    assert lines[2].startswith(
        f"2026-01-03 00:00:00Z  #{GENESIS + 3}  org:acme  training.opt_in  default false → false  "
        'from 2025-12-01 00:00:00Z until 2025-12-15 00:00:00Z, backdated  (import: "ticket 4711")  '
        f"— retracted by #{GENESIS + 5}"
    )
    assert lines[3] == (
        f"2026-02-01 09:30:00.5Z  #{GENESIS + 4}  org:acme  training.opt_in  true → default false (cleared)  "
        f"from now until #{GENESIS + 2} on 2026-06-01 00:00:00Z  (import)"
    )
    assert f"retracts #{GENESIS + 3}: false → default false  from 2025-12-01 00:00:00Z on  (bob: " in lines[4]


def test_an_opt_out_without_an_end_ends_the_pause_in_which_it_begins(inforce_on_both: Inforce) -> None:
    def line(day: str, value: bool, **more: str) -> dict[str, object]:
        return {"type": "setting.changed", **ACME, "value": value, "recorded_at": f"2026-{day}T00:00:00Z", **more}

    pause = {"effective_from": "2026-03-01T00:00:00Z", "effective_until": "2026-04-01T00:00:00Z"}
    past = [line("01-01", True), line("01-02", False, **pause), line("02-15", False), line("03-15", False)]
    assert inforce_on_both("import", "-", stdin="\n".join(map(json.dumps, past))).code == 0
    lines = inforce_on_both("replay", "--subject", "org:acme").out.splitlines()
    assert "from 2026-03-01 00:00:00Z until 2026-04-01 00:00:00Z, scheduled" in lines[1]
    assert f"true → false  from now until #{GENESIS + 2} on 2026-03-01 00:00:00Z  (import)" in lines[2]
    assert lines[3].endswith(
        f"still false  from now on, ends #{GENESIS + 2}, which was to hold until 2026-04-01 00:00:00Z  (import)"
    )
    table = inforce_on_both("history", "org:acme").out.splitlines()
    (row,) = [line for line in table if line.startswith("2 ")]
    assert "2026-04-01 00:00:00Z   2026-03-15 00:00:00Z" in row
    assert row.endswith("cut: recorded until 2026-04-01 00:00:00Z")


def test_a_period_includes_its_start_and_excludes_its_end(story: Inforce) -> None:
    period = ("--since", "2026-01-02T00:00:00Z", "--until", "2026-02-01T09:30:00.5Z")
    lines = story("replay", *period).out.splitlines()
    assert [line.split()[2] for line in lines] == [f"#{GENESIS + 2}", f"#{GENESIS + 3}"]
    assert "retracted by" in lines[1]


def test_known_at_ignores_everything_recorded_later(story: Inforce) -> None:
    lines = story("replay", "--known-at", "2026-02-01T09:30:00.5Z").out.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(f"2025-12-31 23:59:59.999999Z  #1 to #{GENESIS}  the ledger begins")
    assert "retracted by" not in lines[3]
    assert story("replay", "--until", "2020-01-01T00:00:00Z").out == "nothing was recorded in this period\n"


def test_programs_get_the_exact_events(story: Inforce) -> None:
    exported = story("export").out
    assert story("replay", "--format", "ndjson").out == exported
    events = story("replay", "--format", "json").json()["events"]
    assert events == [json.loads(line) for line in exported.splitlines()]
    csv = story("replay", "--subject", "org:acme", "--format", "csv").out.splitlines()
    assert len(csv) == 6
    assert csv[1].startswith(
        f"{GENESIS + 1},2026-01-01T00:00:00.000000Z,org:acme,1,inforce.setting.changed.v1,training.opt_in,true"
    )
    assert story("replay", "--until", "2020-01-01T00:00:00Z", "--format", "json").json() == {"events": []}
