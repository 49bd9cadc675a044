"""state: the settings of a subject, in force or in hindsight."""

from tests.support.command import Inforce


def test_a_state_is_in_hindsight_by_default_and_in_force_on_request(ledger: Inforce) -> None:
    question = ("state", "org:acme", "--at", "2026-02-01T00:00:00Z", "--setting", "training.opt_in", "--format", "json")
    now = ledger(*question).json()
    assert (now["subject"], now["at"]) == ("org:acme", "2026-02-01T00:00:00.000000Z")
    (setting,) = now["settings"].values()
    assert (setting["value"], setting["source"]) == (True, "explicit")
    in_force = ledger(*question, "--known-at", "at")
    assert in_force.code == 2
    assert "then" in in_force.err or "not defined" in in_force.err


def test_a_state_names_every_setting_of_the_kind_in_every_format(ledger: Inforce) -> None:
    document = ledger("state", "org:acme", "--format", "json").json()
    table = ledger("state", "org:acme").out
    lines = ledger("state", "org:acme", "--format", "ndjson").lines()
    csv = ledger("state", "org:acme", "--format", "csv").out.splitlines()
    assert [line["setting"] for line in lines] == list(document["settings"])
    assert [row.split(",")[0] for row in csv[1:]] == list(document["settings"])
    assert all(setting in table for setting in document["settings"])
    assert "residency.regions" in document["settings"]
    assert "model.hosting" not in document["settings"]
    assert max(map(len, table.splitlines())) < 200
    assert all(line == line.rstrip() for line in table.splitlines())
    assert "0001-01-01" not in table, "the beginning of time is not shown as a bound"


def test_the_first_instant_of_all_is_shown_if_the_question_names_it(ledger: Inforce) -> None:
    state = ledger("state", "org:acme", "--at", "0001-01-01T00:00:00Z", "--known-at", "at")
    assert state.out.startswith("org:acme at 0001-01-01 00:00:00Z, known at 0001-01-01 00:00:00Z,")


def test_a_state_shows_the_next_change(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    inforce("submit", "org:acme", "training.opt_in", "true")
    period = ("--from", "2190-01-01T00:00:00Z", "--until", "2190-02-01T00:00:00Z")
    position = inforce("submit", "org:acme", "training.opt_in", "false", *period, "--format", "json").json()["position"]
    document = inforce("state", "org:acme", "--format", "json").json()["settings"]
    assert document["training.opt_in"]["next"] == {
        "position": position,
        "effective_from": "2190-01-01T00:00:00.000000Z",
        "value": False,
        "source": "explicit",
    }
    assert document["caching.temporary"]["next"] is None
    table = inforce("state", "org:acme", "--setting", "training.opt_in").out
    assert f"false from 2190-01-01 00:00:00Z (#{position})" in table
    during = inforce("state", "org:acme", "--at", "2190-01-15T00:00:00Z", "--setting", "training.opt_in").out
    assert f"true from 2190-02-01 00:00:00Z (#{position - 1})" in during
    inforce("submit", "org:acme", "training.opt_in", "--clear", "--from", "2190-01-20T00:00:00Z")
    cleared = inforce("state", "org:acme", "--at", "2190-01-15T00:00:00Z", "--setting", "training.opt_in").out
    assert f"default false from 2190-01-20 00:00:00Z (#{position + 1})" in cleared
    csv = inforce("state", "org:acme", "--setting", "training.opt_in", "--format", "csv").out.splitlines()
    assert csv[0].endswith("next.position,next.effective_from,next.value,next.source")
    assert csv[1].endswith(f"{position},2190-01-01T00:00:00.000000Z,false,explicit")
