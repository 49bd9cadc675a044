"""replay tells the story; rebuild finds the stored timelines as they should be, or says where they are not."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.command import Inforce

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
def told(inforce_on_both: Inforce) -> Inforce:
    assert inforce_on_both("import", "-", stdin="\n".join(map(json.dumps, PAST))).code == 0
    events = inforce_on_both("history", "org:acme", "--format", "json").json()["events"]
    backdated = events[1]["event"]["id"]
    assert inforce_on_both("submit", "--retract", backdated, "--reason", "wrong form", "--actor", "bob").code == 0
    return inforce_on_both


def test_the_story_says_what_changed_from_when_by_whom_and_what_became_of_it(told: Inforce) -> None:
    ran = told("replay", "--subject", "org:acme")
    lines = ran.out.splitlines()
    assert (ran.code, len(lines)) == (0, 5)
    assert (
        lines[0] == "2026-01-01 00:00:00Z  #19  org:acme  training.opt_in  default false → true  from now on  (alice)"
    )
    assert lines[1] == (
        "2026-01-02 00:00:00Z  #20  org:acme  training.opt_in  true → false  "
        "from 2026-06-01 00:00:00Z on, scheduled  (import)"
    )
    assert lines[2].startswith(
        "2026-01-03 00:00:00Z  #21  org:acme  training.opt_in  default false → false  "
        'from 2025-12-01 00:00:00Z until 2025-12-15 00:00:00Z, backdated  (import: "ticket 4711")  — taken back by #23'
    )
    assert lines[3] == (
        "2026-02-01 09:30:00.5Z  #22  org:acme  training.opt_in  true → default false (cleared)  "
        "from now until #20 on 2026-06-01 00:00:00Z  (import)"
    )
    assert "takes back #21: false → default false  from 2025-12-01 00:00:00Z on  (bob: " in lines[4]


def test_a_period_is_told_from_its_beginning_to_before_its_end(told: Inforce) -> None:
    period = ("--since", "2026-01-02T00:00:00Z", "--until", "2026-02-01T09:30:00.5Z")
    lines = told("replay", *period).out.splitlines()
    assert [line.split()[2] for line in lines] == ["#20", "#21"]
    assert "taken back" in lines[1]


def test_as_known_at_a_moment_nothing_later_is_known(told: Inforce) -> None:
    lines = told("replay", "--known-at", "2026-02-01T09:30:00.5Z").out.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("2025-12-31 23:59:59.999999Z  #1 to #18  the ledger begins")
    assert "taken back" not in lines[3]
    assert told("replay", "--until", "2020-01-01T00:00:00Z").out == "nothing was recorded in this period\n"


def test_programs_get_the_exact_events(told: Inforce) -> None:
    exported = told("export").out
    assert told("replay", "--format", "ndjson").out == exported
    events = told("replay", "--format", "json").json()["events"]
    assert events == [json.loads(line) for line in exported.splitlines()]
    csv = told("replay", "--subject", "org:acme", "--format", "csv").out.splitlines()
    assert len(csv) == 6
    assert csv[1].startswith(
        "19,2026-01-01T00:00:00.000000Z,org:acme,1,inforce.setting.changed.v1,training.opt_in,true"
    )
    assert told("replay", "--until", "2020-01-01T00:00:00Z", "--format", "json").json() == {"events": []}


def test_a_rebuild_finds_the_live_timelines_equal(told: Inforce) -> None:
    told("state", "org:acme")
    for args in (("--check",), ()):
        ran = told("rebuild", *args, "--format", "json")
        assert (ran.code, ran.json()["live_equal"], ran.json()["swapped"]) == (0, True, args == ())
    assert "equal to the live ones" in told("rebuild").out


def test_a_rebuild_exits_1_where_a_row_differs_and_mends_it(inforce: Inforce, folder: Path) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    inforce("state", "org:acme")
    with closing(sqlite3.connect(folder / "inforce.db")) as connection, connection:
        connection.execute("UPDATE timelines_subjects SET version = version + 1 WHERE subject = 'org:acme'")
    checked = inforce("rebuild", "--check")
    assert (checked.code, "NOT equal" in checked.out) == (1, True)
    assert inforce("rebuild").code == 1
    assert inforce("rebuild", "--check").code == 0
