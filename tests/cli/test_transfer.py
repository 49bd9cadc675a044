"""export and import: a ledger that is exported and imported has the same bytes."""

import gzip
import json
from pathlib import Path

from tests.support.command import Inforce
from tests.support.ledgers import GENESIS

CHANGE = {"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": True}


def test_an_export_imports_to_the_same_bytes_and_reasons(inforce_on_both: Inforce, folder: Path) -> None:
    inforce = inforce_on_both
    inforce("submit", "org:acme", "training.opt_in", "true", "--reason", "ticket 4711", "--origin", "a.example/x")
    inforce("submit", "org:acme", "training.opt_in", "--clear")
    exported = inforce("export")
    written = inforce("export", "--out", "ledger.jsonl", "--personal", "reasons.jsonl")
    assert (exported.code, written.code, written.out) == (0, 0, "")
    assert (folder / "ledger.jsonl").read_text() == exported.out
    copy = ("--db", "sqlite:///copy.db")
    (folder / "ledger.jsonl.gz").write_bytes(gzip.compress(exported.out.encode()))
    result = inforce("import", "ledger.jsonl.gz", "--personal", "reasons.jsonl", *copy, "--format", "json")
    assert result.code == 0, result.err
    assert (result.json()["origin"], result.json()["events"], result.json()["personal"]) == (
        "a.example/x",
        GENESIS + 2,
        1,
    )
    assert inforce("export", *copy).out == exported.out
    assert "ticket 4711" in inforce("history", "org:acme", *copy).out
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("copy")) == [
        "ledger.jsonl",
        "ledger.jsonl.gz",
        "reasons.jsonl",
    ]


def test_imported_submissions_keep_their_recorded_times(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    lines = [CHANGE | {"recorded_at": f"2025-0{month}-01T00:00:00Z"} for month in (1, 2)]
    result = inforce("import", "-", "--origin", "old.example", stdin="\n".join(map(json.dumps, lines)))
    assert result.code == 0, result.err
    assert "old.example" in result.out
    state = inforce("state", "org:acme", "--known-at", "2025-01-15T00:00:00Z", "--at", "2025-01-15T00:00:00Z")
    assert state.code == 0
    again = inforce("import", "-", stdin="\n".join(map(json.dumps, lines)))
    assert (again.code, again.err.count("\n")) == (2, 1)


def test_an_export_never_replaces_a_ledger(inforce: Inforce, folder: Path) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    (folder / "link.jsonl").symlink_to("inforce.db")
    for args in (("--out", "inforce.db"), ("--personal", "inforce.db"), ("--out", "link.jsonl")):
        result = inforce("export", *args)
        assert (result.code, "is not overwritten" in result.err) == (2, True)
    assert inforce("history", "org:acme").code == 0


def test_events_and_reasons_must_be_two_files(inforce: Inforce, folder: Path) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true", "--reason", "ticket 4711")
    (folder / "out.jsonl").write_text("before")
    for args in (
        ("export", "--out", "out.jsonl", "--personal", "./out.jsonl"),
        ("export", "--personal", "-"),
        ("import", "out.jsonl", "--personal", "./out.jsonl", "--db", "sqlite:///copy.db"),
        ("import", "-", "--personal", "-", "--db", "sqlite:///copy.db"),
    ):
        result = inforce(*args)
        assert (result.code, "two different files" in result.err) == (2, True), args
    assert (folder / "out.jsonl").read_text() == "before"


def test_a_failed_export_leaves_the_last_one_unchanged(inforce: Inforce, folder: Path) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    (folder / "out.jsonl").write_text("before")
    result = inforce("export", "--out", "out.jsonl", "--db", "sqlite:///absent.db")
    assert (result.code, (folder / "out.jsonl").read_text()) == (3, "before")
    result = inforce("export", "--out", "no/such/folder.jsonl")
    assert result.code == 2
    assert "no/such/folder.jsonl: no such file or directory" in result.err


def test_an_export_after_a_position_holds_the_rest_and_never_begins_beyond_the_head(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    for value in ("true", "false"):
        assert inforce("submit", "org:acme", "training.opt_in", value).code == 0
    lines = inforce("export").out.splitlines(keepends=True)
    for after in (0, GENESIS, GENESIS + 1, GENESIS + 2):
        for verb in (("export",), ("replay", "--format", "ndjson")):
            assert inforce(*verb, "--after", str(after)).out == "".join(lines[after:])
    for verb in (("export",), ("replay",), ("replay", "--format", "json"), ("replay", "--subject", "org:acme")):
        refused = inforce(*verb, "--after", str(GENESIS + 3))
        assert (refused.code, refused.out) == (2, "")
        assert f"ends at position {GENESIS + 2}, before position {GENESIS + 3}" in refused.err


def test_an_export_says_how_many_reasons_stay_behind(inforce_on_both: Inforce, folder: Path) -> None:
    inforce = inforce_on_both
    inforce("submit", "org:acme", "training.opt_in", "true")
    assert inforce("export").err == ""
    inforce("submit", "org:acme", "training.opt_in", "false", "--reason", 'a "personal":{"commitment":"x"} reason')
    one = inforce("export")
    assert (one.code, one.err.count("\n"), "1 reason stays behind" in one.err) == (0, 1, True)
    assert "--personal" in one.err
    inforce("submit", "org:acme", "training.opt_in", "true", "--reason", "ticket 4711")
    assert "2 reasons stay behind" in inforce("export", "--out", "out.jsonl").err
    assert "1 reason stays behind" in inforce("export", "--after", str(GENESIS + 2)).err
    assert inforce("export", "--after", str(GENESIS + 3)).err == ""
    assert inforce("export", "--quiet").err == ""
    assert inforce("export", "--personal", "reasons.jsonl").err == ""
    assert len((folder / "reasons.jsonl").read_text().splitlines()) == 2


def test_an_import_takes_the_file_of_a_submit_with_its_times(inforce: Inforce, folder: Path) -> None:
    batch = {"events": [CHANGE, CHANGE | {"subject": "org:b"}]}
    (folder / "changes.json").write_text(json.dumps(batch, indent=2))
    assert inforce("submit", "changes.json", "--db", "sqlite:///now.db").code == 0
    (folder / "past.json").write_text(json.dumps(batch | {"recorded_at": "2025-01-01T00:00:00Z", "actor": "alice"}))
    assert inforce("import", "past.json").code == 0
    history = inforce("history", "org:b", "--format", "json").json()["events"][0]["event"]
    assert (history["time"], history["data"]["actor"]) == ("2025-01-01T00:00:00.000000Z", "alice")
