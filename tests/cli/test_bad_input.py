"""Bad input on the command line: one line on standard error, exit 2 or 3, and nothing written."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ledger.opening import open_recorder
from tests.support.command import CommandResult, Inforce

CHANGE: dict[str, Any] = {
    "type": "setting.changed",
    "subject": "org:acme",
    "setting": "training.opt_in",
    "value": True,
}


def must_refuse(result: CommandResult, code: int = 2) -> None:
    assert (result.code, result.out) == (code, ""), result
    assert result.err.startswith("inforce: ")
    assert result.err.count("\n") == 1
    assert len(result.err) > 20


DEEP = '{"a":' * 40 + "1" + "}" * 40
BAD_BODIES = {
    "unknown setting": CHANGE | {"setting": "nosuch.setting"},
    "unknown kind": CHANGE | {"subject": "team:acme"},
    "unknown type": CHANGE | {"type": "setting.moved"},
    "1 for a bool": CHANGE | {"value": 1},
    "yes for a bool": CHANGE | {"value": "yes"},
    "a setting of another kind": CHANGE | {"subject": "account:u1", "setting": "passthrough.allowed"},
    "a naive time": CHANGE | {"effective_from": "2027-01-01T00:00:00"},
    "an absurd time": CHANGE | {"effective_from": "9026-01-01T00:00:00Z"},
    "a numeric time": CHANGE | {"effective_from": 1800000000},
    "an end not after its start": CHANGE
    | {"effective_from": "2027-01-01T00:00:00Z", "effective_until": "2027-01-01T00:00:00Z"},
    "backdating without a reason": CHANGE | {"effective_from": "2020-01-01T00:00:00Z"},
    "retracting something unknown": {"type": "change.retracted", "event_id": "nosuch"},
    "an id outside the grammar": CHANGE | {"subject": "org:a b"},
    "a key outside the grammar": CHANGE | {"setting": "training/opt"},
    "an unknown member": CHANGE | {"valeu": True},
    "a bad one among good ones": {"events": [CHANGE] * 9 + [CHANGE | {"value": 1}]},
    "over 1000 events": {"events": [CHANGE] * 1001},
    "no events": {"events": []},
    "a version that is not there": CHANGE | {"expected_version": 7},
}
BAD_TEXTS: dict[str, str | bytes] = {
    "not JSON": "{nonsense",
    "nothing": "",
    "not UTF-8": json.dumps(CHANGE).encode()[:-2] + b"\xff}",
    "deeply nested": DEEP,
    "over 1 MiB": json.dumps(CHANGE | {"reason": "x" * 1_100_000}),
    "NaN": json.dumps(CHANGE)[:-1] + ',"expected_version":NaN}',
    "a duplicate member": json.dumps(CHANGE)[:-1] + ',"value":false}',
    "not an object": "[1]",
    "a bad line": f"{json.dumps(CHANGE)}\nnonsense\n",
    "over 1000 lines": f"{json.dumps(CHANGE)}\n" * 1001,
    "a byte order mark": "\ufeff" + json.dumps(CHANGE),
}
BAD = {name: json.dumps(body) for name, body in BAD_BODIES.items()} | BAD_TEXTS


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_a_refused_submission_creates_no_ledger(body: str | bytes, inforce: Inforce, folder: Path) -> None:
    must_refuse(inforce("submit", "-", stdin=body))
    assert list(folder.iterdir()) == []


def test_a_refused_submission_writes_nothing(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
    before = inforce("export").out
    for body in BAD.values():
        must_refuse(inforce("submit", "-", stdin=body))
    assert inforce("export").out == before


@pytest.mark.parametrize(
    "args",
    [
        ("org:acme", "training.opt_in", "1"),
        ("org:acme", "training.opt_in", "yes"),
        ("org:acme", "training.opt_in", "TRUE"),
        ("org:acme", "nosuch.setting", "true"),
        ("team:acme", "training.opt_in", "true"),
        ("account:u1", "passthrough.allowed", "true"),
        ("model:m", "model.hosting", "rented"),
        ("org:acme", "residency.regions", "eu,eu"),
        ("org:acme", "residency.regions", '["eu"'),
        ("org:acme", "training.opt_in", "true", "--from", "2027-01-01"),
        ("org:acme", "training.opt_in", "true", "--from", "1800000000"),
        ("org:acme", "training.opt_in", "true", "--from", "2020-01-01T00:00:00Z"),
        ("org:acme", "training.opt_in", "true", "--until", "2020-01-01T00:00:00Z"),
        ("org:acme", "training.opt_in", "true", "--expected-version", "1"),
        ("org:acme", "training.opt_in", "true", "--reason", ""),
        ("org:acme", "training.opt_in", "true", "--origin", "Not An Origin"),
        ("org:acme", "training.opt_in", "true", "--actor", ""),
        ("org:acme", "training.opt_in", "true", "--idempotency-key", ""),
        ("org:acme", "training.opt_in", "true", "--actor", "\udcff"),
        ("org:acme", "training.opt_in", "true", "--idempotency-key", "\udcff"),
        ("org:acme", "training.opt_in"),
        ("org:acme", "training.opt_in", "true", "--clear"),
        ("--retract", "00000000-0001-8000-8000-000000000000", "--reason", "x"),
        ("--retract", "x", "--from", "2027-01-01T00:00:00Z"),
        ("--retract", "x", "--cancel-scheduled"),
        ("org:acme", "training.opt_in", "true", "--reason", " "),
        ("nosuch.json",),
        (".",),
        ("-", "--reason", "x"),
        (),
    ],
)
def test_refused_options_create_no_ledger(args: tuple[str, ...], inforce: Inforce, folder: Path) -> None:
    must_refuse(inforce("submit", *args))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("model:m", "model.author", "\udcff"), ("org:acme", "residency.regions", '["\udcff"]')]
)
def test_a_value_that_is_not_utf_8_writes_nothing(words: tuple[str, ...], inforce: Inforce) -> None:
    assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
    before = inforce("export").out
    must_refuse(inforce("submit", *words, "--idempotency-key", "k"))
    assert inforce("export").out == before


def test_a_ledger_whose_creation_was_cut_off_is_completed(inforce_on_both: Inforce, database_url: str) -> None:
    recorder = open_recorder(database_url)
    recorder.create({"origin": "a.example"})
    recorder.close()
    change = ("submit", "org:acme", "training.opt_in", "true")
    must_refuse(inforce_on_both("state", "org:acme"), 3)
    must_refuse(inforce_on_both(*change, "--origin", "b.example"))
    assert inforce_on_both(*change, "--origin", "a.example").code == 0


def test_a_change_can_be_retracted_once_and_a_retraction_never(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    change = inforce("submit", "org:acme", "training.opt_in", "true", "--format", "json").json()["receipts"][0]
    take_back = ("submit", "--reason", "x", "--format", "json", "--retract")
    retraction = inforce(*take_back, change["event_id"]).json()["receipts"][0]
    before = inforce("export").out
    must_refuse(inforce(*take_back, change["event_id"]))
    must_refuse(inforce(*take_back, retraction["event_id"]))
    must_refuse(inforce(*take_back, json.loads(before.splitlines()[0])["id"]))
    assert inforce("export").out == before


@pytest.mark.parametrize(
    "args",
    [
        ("state", "org:nosuch"),
        ("state", "org:acme", "--setting", "nosuch"),
        ("state", "org:acme", "--setting", "model.hosting"),
        ("state", "org:acme", "--setting", "a b"),
        ("state", "org:acme", "--at", "2026-01-01T00:00:00"),
        ("history", "org:nosuch"),
        ("catalog", "--setting", "nosuch"),
        ("catalog", "--setting", "a b"),
        ("catalog", "--at", "2026-01-01T00:00:00"),
        ("catalog", "org:acme"),
        ("replay", "--subject", "org:nosuch"),
        ("check",),
        ("check", "--org", "not an id"),
        ("check", "--model", "m"),
        ("check", "--org", "acme", "--handling", "stored=yes"),
        ("check", "--org", "acme", "--handling", "kept=true"),
        ("check", "--org", "acme", "--handling", "stored"),
        ("check", "--org", "acme", "--handling", "stored=1", "--handling", "stored=0"),
        ("check", "--org", "acme", "--enforced-position", "-1"),
        ("check", "nosuch.json"),
        ("check", "-", "--org", "acme"),
    ],
)
def test_a_question_with_bad_arguments_is_refused(args: tuple[str, ...], inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    must_refuse(inforce(*args))


@pytest.mark.parametrize(
    "stdin",
    ["", "nonsense", "[]", '{"requests":[]}', '{"requests":1}', '{"org_id":"acme","model":"m"}', '{"org_id":"a"}\n{}'],
)
def test_a_bad_file_of_request_records_is_refused(stdin: str, inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    must_refuse(inforce("check", "-", stdin=stdin))


@pytest.mark.parametrize("stdin", ["", "nonsense\n", "[]\n", "{}\n", json.dumps(CHANGE), '{"specversion":"1.0"}'])
def test_a_bad_import_file_creates_no_ledger(stdin: str, inforce: Inforce, folder: Path) -> None:
    must_refuse(inforce("import", "-", stdin=stdin))
    assert list(folder.iterdir()) == []


READING = [
    ("state", "org:acme"),
    ("history", "org:acme"),
    ("catalog",),
    ("check", "--org", "acme"),
    ("audit", "-"),
    ("replay",),
    ("rebuild",),
    ("export",),
]
ALL = [*READING, ("submit", "org:acme", "training.opt_in", "true"), ("import", "-")]
LINE = json.dumps({"at": "2026-01-01T00:00:00Z", "org_id": "acme"})
SUBMISSION = json.dumps(CHANGE | {"recorded_at": "2026-01-01T00:00:00Z"})


def run_on(inforce: Inforce, args: tuple[str, ...], db: str) -> CommandResult:
    return inforce(*args, "--db", db, stdin=SUBMISSION if args[0] == "import" else LINE)


@pytest.mark.parametrize("args", READING, ids=lambda args: args[0])
def test_reading_a_missing_ledger_does_not_create_it(args: tuple[str, ...], inforce: Inforce, folder: Path) -> None:
    must_refuse(run_on(inforce, args, "sqlite:///nosuch.db"), 3)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("args", ALL, ids=lambda args: args[0])
def test_a_file_that_is_not_a_ledger_stays_unchanged(args: tuple[str, ...], inforce: Inforce, folder: Path) -> None:
    text, other, newer = folder / "text.db", folder / "other.db", folder / "newer.db"
    text.write_text("not a database, but long enough to be taken for one " * 10)
    for path, pragma in ((other, "CREATE TABLE mine (x)"), (newer, "PRAGMA user_version=99")):
        if path == newer:
            inforce("submit", "org:acme", "training.opt_in", "true", "--db", "sqlite:///newer.db")
        with sqlite3.connect(path) as connection:
            connection.execute(pragma)
        connection.close()
    for path in (text, other, newer):
        before = path.read_bytes()
        must_refuse(run_on(inforce, args, f"sqlite:///{path.name}"), 3)
        assert path.read_bytes() == before


@pytest.mark.parametrize("args", ALL, ids=lambda args: args[0])
def test_a_missing_postgresql_is_reported_in_one_line(args: tuple[str, ...], inforce: Inforce, folder: Path) -> None:
    must_refuse(run_on(inforce, args, f"postgresql:///nosuch?host={folder}"), 3)


@pytest.mark.parametrize("db", ["nosuch", "mysql://x/y", "sqlite://x", "sqlite:///x?mode=w", "sqlite:///"])
def test_a_bad_database_url_is_refused(db: str, inforce: Inforce, folder: Path) -> None:
    for args in ALL:
        must_refuse(run_on(inforce, args, db), 2)
    assert list(folder.iterdir()) == []


def test_a_read_only_ledger_answers_and_refuses_submissions(inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    inforce("state", "org:acme")
    read_only = "sqlite:///inforce.db?mode=ro"
    assert run_on(inforce, ("state", "org:acme"), read_only).code == 0
    must_refuse(run_on(inforce, ALL[-2], read_only), 3)


def test_a_locked_ledger_is_reported_with_advice(inforce: Inforce, folder: Path) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    holder = sqlite3.connect(folder / "inforce.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        result = inforce("submit", "org:acme", "training.opt_in", "false")
    finally:
        holder.close()
    must_refuse(result, 3)
    assert "try again" in result.err


def test_a_missing_folder_is_reported_in_one_line(inforce: Inforce) -> None:
    must_refuse(inforce("submit", "org:acme", "training.opt_in", "true", "--db", "sqlite:///no/such/ledger.db"), 3)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", ""])  # noqa: S104 - it is refused
def test_the_server_listens_on_this_machine_only(host: str, inforce: Inforce, folder: Path) -> None:
    must_refuse(inforce("serve", "--host", host))
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_reported_in_one_line(inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    must_refuse(inforce("export", "--out", "/dev/full"))
