"""The questions about settings: the same documents as over HTTP, near names, and the time before the first event."""

import os

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.command import Inforce

FIRST = "2190-01-01T00:00:00.000000Z"


@pytest.fixture
def schedule(ledger: Inforce) -> Inforce:
    """org:acme, which will opt out in 2190, for a month."""
    period = ("--from", "2190-01-01T00:00:00Z", "--until", "2190-02-01T00:00:00Z")
    assert ledger("submit", "org:acme", "training.opt_in", "false", *period, "--actor", "alice").code == 0
    return ledger


def over_http(path: str) -> object:
    with TestClient(create_app(os.environ["INFORCE_DATABASE"], sign_in=False)) as client:
        return client.get(path).json()


AT = "2190-01-15T00:00:00Z"
EARLY = "2020-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("subjects",), "/v1/subjects"),
        (("subjects", "--limit", "2"), "/v1/subjects?limit=2"),
        (("subjects", "--limit", "2", "--after", "model:m1"), "/v1/subjects?limit=2&after=model:m1"),
        (("subjects", "--kind", "model"), "/v1/subjects?kind=model"),
        (("subjects", "org:ac"), "/v1/subjects?prefix=org:ac"),
        (("subjects", "nosuch"), "/v1/subjects?prefix=nosuch"),
        (("state", "org:acme", "--at", AT), f"/v1/subjects/org:acme/state?at={AT}"),
        (("timeline", "org:acme", "--known-at", "at"), "/v1/subjects/org:acme/timeline?known_at=at"),
        (
            ("timeline", "org:acme", "--known-at", AT, "--setting", "training.opt_in"),
            f"/v1/subjects/org:acme/timeline?known_at={AT}&setting=training.opt_in",
        ),
        (("timeline", "org:acme", "--known-at", EARLY), f"/v1/subjects/org:acme/timeline?known_at={EARLY}"),
        (
            ("diff", "org:acme", "--from", "2025-01-01T00:00:00Z", "--to", AT, "--known-at", "at"),
            f"/v1/subjects/org:acme/diff?from=2025-01-01T00:00:00Z&to={AT}&known_at=at",
        ),
        (
            ("diff", "org:acme", "--from", AT, "--to", "2026-06-01T00:00:00Z"),
            f"/v1/subjects/org:acme/diff?from={AT}&to=2026-06-01T00:00:00Z",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_json_is_what_http_answers(schedule: Inforce, words: tuple[str, ...], path: str) -> None:
    result = schedule(*words, "--format", "json")
    assert result.code == 0, result.err
    document, answer = result.json(), over_http(path)
    assert isinstance(answer, dict)
    if "known_at" in answer and "known_at" not in path:
        # The moments of the two questions.
        assert document.pop("known_at") < answer.pop("known_at")
    if f"known_at={AT}" in path:
        # In the future: the present of each question.
        document.pop("known_at")
        answer.pop("known_at")
    assert document == answer


@pytest.mark.parametrize(
    "words",
    [
        ("subjects",),
        ("timeline", "org:acme"),
        ("diff", "org:acme", "--from", "2025-01-01T00:00:00Z"),
        ("catalog",),
        ("state", "org:acme"),
    ],
    ids=lambda words: words[0],
)
def test_every_format_has_the_same_rows(schedule: Inforce, words: tuple[str, ...]) -> None:
    document = schedule(*words, "--format", "json").json()
    members = next(value for value in document.values() if isinstance(value, list | dict))
    lines = schedule(*words, "--format", "ndjson").lines()
    head, *rows = schedule(*words, "--format", "csv").out.splitlines()
    table = schedule(*words).out.splitlines()
    assert len(lines) == len(rows) == len(members) == len(table) - 3
    assert head.split(",")[0] in lines[0]


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("state", "org:acme", "--setting", "training.optin"), "training.opt_in"),
        (("state", "org:acme", "--setting", "owner", "--setting", "Residency.Regions"), "residency.regions"),
        (("timeline", "org:acme", "--setting", "opt_in"), "training.opt_in"),
        (("catalog", "--setting", "trainig.opt_in", "--setting", "owner"), "training.opt_in"),
        (("history", "org:acme", "--setting", "training-opt-in"), "training.opt_in"),
        (("submit", "org:acme", "training.optin", "true"), "training.opt_in"),
        (("submit", "org:acme", "passthrough", "--clear"), "passthrough.allowed"),
    ],
)
def test_an_unknown_setting_proposes_near_ones(ledger: Inforce, words: tuple[str, ...], near: str) -> None:
    refused = ledger(*words)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"did you mean {near}" in refused.err


def test_http_and_imports_propose_near_settings_too(ledger: Inforce) -> None:
    with TestClient(create_app(os.environ["INFORCE_DATABASE"], sign_in=False)) as client:
        change = {"type": "setting.changed", "subject": "org:acme", "setting": "training.optin", "value": True}
        (fault,) = client.post("/v1/events", json=change).json()["errors"]
        assert "did you mean training.opt_in?" in fault["detail"]
        assert "optin" not in fault["detail"]
        for question in ("state", "timeline", "history"):
            answer = client.get(f"/v1/subjects/org:acme/{question}?setting=training.optin")
            assert (answer.status_code, "did you mean training.opt_in?" in answer.json()["detail"]) == (404, True)
            assert "optin" not in answer.json()["detail"]
    line = '{"type":"setting.cleared","subject":"org:a","setting":"optin","recorded_at":"2026-01-01T00:00:00Z"}'
    refused = ledger("import", "-", "--db", "sqlite:///other.db", stdin=line.replace("optin", "opt_in"))
    assert (refused.code, "did you mean training.opt_in?" in refused.err) == (2, True)


@pytest.mark.parametrize("more", ["", "&limit=1", "&after=1"])
def test_a_history_without_events_about_a_setting_that_is_defined_is_empty(ledger: Inforce, more: str) -> None:
    path = f"/v1/subjects/org:acme/history?setting=network.private_only{more}"
    document = over_http(path)
    assert isinstance(document, dict)
    assert (document["events"], document["next_after"]) == ([], None)


def test_a_submission_expects_the_version_that_a_state_shows(ledger: Inforce) -> None:
    for value in ("false", "true"):
        question = ("state", "org:acme", "--at", EARLY)
        version = ledger(*question, "--format", "json").json()["version"]
        assert ledger(*question).out.splitlines()[0].endswith(f", version {version}")
        submission = ("submit", "org:acme", "training.opt_in", value, "--expected-version")
        for other in (version - 1, version + 1):
            assert ledger(*submission, str(other)).code == 2
        assert ledger(*submission, str(version)).code == 0


BEFORE = (
    ("state", "org:acme", "--at", EARLY, "--known-at", "at"),
    ("state", "org:acme", "--at", "2026-03-01T00:00:00Z", "--known-at", EARLY),
    ("catalog", "--at", EARLY, "--known-at", "at"),
    ("timeline", "org:acme", "--known-at", EARLY),
    ("diff", "org:acme", "--from", "2019-01-01T00:00:00Z", "--to", EARLY, "--known-at", "at"),
)


@pytest.mark.parametrize("words", BEFORE, ids=[str(number) for number in range(len(BEFORE))])
def test_before_its_first_event_the_ledger_says_so_instead_of_an_empty_table(
    ledger: Inforce, words: tuple[str, ...]
) -> None:
    table = ledger(*words)
    title, sentence = table.out.splitlines()
    assert (table.code, table.err) == (0, "")
    assert "position" in title
    assert sentence.startswith(f"the ledger knew nothing by {EARLY[:10]} 00:00:00Z: its first event was recorded at 2")
    assert sentence.endswith("--known-at now judges in hindsight")
    csv = ledger(*words, "--format", "csv")
    assert (csv.code, csv.out.count("\n"), csv.err) == (0, 1, f"inforce: {sentence}\n")
    assert ledger(*words, "--format", "csv", "--quiet").err == ""
    document = ledger(*words, "--format", "json").json()
    assert not next(value for value in document.values() if isinstance(value, list | dict))


@pytest.mark.parametrize("verb", ["state", "timeline"])
def test_a_setting_of_that_time_is_explained_in_the_same_way(ledger: Inforce, verb: str) -> None:
    refused = ledger(verb, "org:acme", "--setting", "training.opt_in", "--known-at", EARLY)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "the ledger knew nothing by 2020-01-01 00:00:00Z" in refused.err


def test_at_the_first_event_the_ledger_begins_to_answer(inforce: Inforce) -> None:
    line = (
        '{"type":"setting.cleared","subject":"org:a","setting":"training.opt_in","recorded_at":"2026-01-01T00:00:00Z"}'
    )
    assert inforce("import", "-", stdin=line).code == 0
    # The built-in catalog is recorded one microsecond before the first line.
    for at, knows in (
        ("2025-12-31T23:59:59.999998Z", False),
        ("2025-12-31T23:59:59.999999Z", True),
        ("2026-01-01T00:00:00.000000Z", True),
    ):
        out = inforce("state", "org:a", "--at", at, "--known-at", "at").out
        assert ("training.opt_in" in out, "knew nothing" in out) == (knows, not knows)


def test_a_list_that_goes_on_says_where(schedule: Inforce) -> None:
    for format_ in ("table", "ndjson", "csv"):
        result = schedule("subjects", "--limit", "1", "--format", format_)
        assert result.err == "inforce: there may be more: --after catalog:settings\n"
        history = schedule("history", "org:acme", "--limit", "1", "--format", format_)
        assert "more: --after 2" in history.err
        assert schedule("history", "org:acme", "--limit", "1", "--format", format_, "--quiet").err == ""


def test_a_diff_names_the_events_and_their_actors(schedule: Inforce) -> None:
    table = schedule("diff", "org:acme", "--from", "2026-06-01T00:00:00Z", "--to", AT).out.splitlines()
    assert table[-1].split() == ["training.opt_in", "true", "false", f"#{position(schedule)}", "by", "alice"]
    same = schedule("diff", "org:acme", "--from", AT, "--to", AT).out.splitlines()
    assert same[1:] == ["no setting has another value at the second moment than at the first"]
    assert schedule("submit", "--retract", str(position(schedule)), "--reason", "x", "--actor", "bob").code == 0


def position(inforce: Inforce) -> int:
    return int(inforce("history", "org:acme", "--limit", "1", "--format", "json").json()["position"])


def test_a_timeline_shows_positions_that_submit_can_retract(schedule: Inforce) -> None:
    rows = schedule("timeline", "org:acme", "--setting", "training.opt_in").out.splitlines()[3:]
    scheduled = next(row for row in rows if row.split()[1:3] == ["2190-01-01", "00:00:00Z"])
    assert scheduled.split()[-1] == str(position(schedule))
    assert schedule("submit", "--retract", scheduled.split()[-1], "--reason", "a mistake").code == 0
    assert "2190" not in schedule("timeline", "org:acme", "--setting", "training.opt_in").out
