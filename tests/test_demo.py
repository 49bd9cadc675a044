"""The demo finds exactly what it planted, exits 1 otherwise, and the commands in its last lines work."""

import gzip
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.codec import leaf_hash
from ledger.opening import open_ledger
from ledger.times import format_time
from projections.audit.reading.fields import NO_MAPPING
from projections.audit.reading.files import log_files
from projections.audit.reading.logs import LogReader
from projections.audit.run import index_decider, run
from projections.audit.summary import Summary
from projections.decisions.model import REASONS
from projections.query.query import IN_FORCE, PinnedQuery, Query
from scripts.demo import generator, show
from scripts.demo.comparison import audit_and_compare
from scripts.demo.generator import DemoData, generate
from scripts.demo.traffic import NOT_PLANTED
from scripts.demo.world import FINISH
from scripts.main import VERBS, cli
from tests.support.ledgers import GENESIS

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = 3000


def run_cli(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(args))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def in_process_of_its_own(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.main", *args],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def generate_in(place: Path, seed: int = 1, requests: int = SMALL) -> DemoData:
    generator.prepare(place)
    return generate(place, requests, seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    """A small platform for reading only; a test that changes one generates its own."""
    return generate_in(tmp_path_factory.mktemp("demo") / "kept")


def test_the_full_demo_finds_exactly_what_was_planted(tmp_path: Path) -> None:
    run = in_process_of_its_own("demo", "--format", "json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["exact"] is True
    assert result["differences"] == []
    assert result["audit"]["rows"] - result["audit"]["rejects"] == 100_000
    assert set(result["reasons"]) == REASONS.keys() - NOT_PLANTED
    assert all(counts["planted"] == counts["found"] > 0 for counts in result["reasons"].values())


def test_an_interrupted_demo_leaves_no_half_of_a_ledger_or_log(tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done >= 1000:
            raise KeyboardInterrupt

    generator.prepare(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "kept", SMALL, 1, interrupt)
    assert os.listdir(tmp_path / "kept") == [generator.ABOUT]
    assert audit_and_compare(generate_in(tmp_path / "kept")).mismatches == []


def test_an_audit_with_its_best_examples_decides_on_no_row_again(data: DemoData) -> None:
    result = audit_and_compare(data)
    examples = result.violation, result.hindsight
    assert all(example is not None and all(example.rank) for example in examples)
    decided: list[int] = []

    def decide(_requests: object, rows: list[int]) -> Iterator[Any]:
        decided.extend(rows)
        return iter(())

    result._decide = decide  # type: ignore[assignment,method-assign]
    with open_ledger(f"sqlite:///{data.folder / generator.LEDGER}") as ledger:
        pinned = PinnedQuery(Query(ledger)).pinned
        logs = LogReader(log_files([str(data.folder / generator.LOG)], NO_MAPPING))
        run(logs, index_decider(ledger, pinned, IN_FORCE), Summary(pinned, IN_FORCE), sinks=[result])
    assert decided == []
    assert (result.violation, result.hindsight) == examples


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_any_seed_and_size_is_exact(seed: int, tmp_path: Path) -> None:
    result = audit_and_compare(generate_in(tmp_path / "kept", seed, 1000 * seed))
    assert result.mismatches == []
    assert result.violation is not None
    assert result.hindsight is not None


def test_every_reason_and_verdict_is_planted(data: DemoData) -> None:
    assert {
        reason for judgement in data.planted.values() for reason in judgement.reasons
    } == REASONS.keys() - NOT_PLANTED
    assert {judgement.verdict for judgement in data.planted.values()} == {"violation", "indeterminate", "denied"}


def test_the_same_seed_gives_the_same_events_and_the_same_log(data: DemoData, tmp_path: Path) -> None:
    other = generate_in(tmp_path / "again")
    leaves = []
    for one in (data, other):
        with open_ledger(f"sqlite:///{one.folder / generator.LEDGER}") as ledger:
            leaves.append([entry.leaf for entry in ledger.page(0, 100_000)])
    assert leaves[0] == leaves[1]
    assert (data.folder / generator.LOG).read_bytes() == (other.folder / generator.LOG).read_bytes()


def test_the_story_has_one_of_everything(data: DemoData) -> None:
    with open_ledger(f"sqlite:///{data.folder / generator.LEDGER}") as ledger:
        events = [json.loads(entry.leaf) for entry in ledger.page(0, 100_000)]
    topics = {event["type"] for event in events}
    assert topics == {
        f"inforce.{topic}.v1" for topic in ("setting.changed", "setting.cleared", "change.retracted", "setting.defined")
    }
    changes = [event["data"] | {"time": event["time"]} for event in events if "effective_from" in event["data"]]
    assert any(data["effective_from"] > data["time"] for data in changes), "a scheduled change"
    assert any(data.get("effective_until") for data in changes), "a bounded change"
    assert any(data["setting"] == "attached_to" for data in changes), "an attachment"
    backdated = [d for d in changes if d["effective_from"] < d["time"] and d["position"] > GENESIS]
    assert backdated, "a backdated correction"
    assert all("personal" in data for data in backdated), "with its reason"
    assert events[-1]["time"] < format_time(FINISH)


def test_the_table_shows_the_story_the_counts_and_the_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("demo", "--keep", str(tmp_path / "kept"), "--requests", str(SMALL)) == 0
    output = capsys.readouterr()
    assert output.err == "", "no progress bar without a terminal"
    assert "\x1b" not in output.out, "no colour in a pipe"
    for reason in REASONS:
        assert reason in output.out
    for words in (
        "bluefin withdraws its opt-in, backdated",
        "Yes, exactly, in ",
        "violation: passthrough_not_allowed",
        "recorded 2025-03-10 16:45 by quill-legal/ines",
        "In hindsight: violation (trained_without_opt_in)",
        "reason given: withdrawn by letter of 3 February",
    ):
        assert words in output.out
    shown, _, steps = output.out.partition("What to try next")
    assert max(map(len, shown.splitlines())) <= 80
    assert "export INFORCE_DATABASE=" in steps


def test_the_commands_to_try_next_work(data: DemoData) -> None:
    steps = [shlex.split(step.command) for step in show.next_steps(data.folder)]
    assert steps[0][0] == "export"
    name, _, url = steps[0][1].partition("=")
    ended: dict[str, int] = {}
    for _launcher, verb, *args in steps[1:]:
        assert verb in VERBS
        if verb == "serve":
            continue
        run = in_process_of_its_own(verb, *args, cwd=data.folder, **{name: url})
        ended[verb] = run.returncode
        assert run.stdout, f"{verb}: {run.stderr}"
    assert ended == {"state": 0, "history": 0, "check": 1, "audit": 1, "replay": 0, "rebuild": 0}


def test_the_commands_start_with_the_launcher_as_seen_from_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert show.next_steps(tmp_path)[1].command.startswith("./scripts/inforce state ")
    monkeypatch.chdir(tmp_path)
    assert shlex.split(show.next_steps(tmp_path)[1].command)[0] == str(REPOSITORY / "scripts" / "inforce")


def _rewrite_log(data: DemoData, change: Any) -> None:
    path = data.folder / generator.LOG
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(change(lines))))


def _spoil_an_honest_request(data: DemoData) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        for number, line in enumerate(lines):
            if b'"stored":false' in line and json.loads(line)["request_id"] not in data.planted:
                lines[number] = line.replace(b'"stored":false', b'"stored":true')
                return lines
        raise AssertionError("no honest request")

    _rewrite_log(data, change)


def _lose_a_request(data: DemoData) -> None:
    _rewrite_log(data, lambda lines: lines[:-1])


def _repeat_a_request(data: DemoData) -> None:
    _rewrite_log(data, lambda lines: [*lines, lines[-1]])


def _mend_a_line(data: DemoData) -> None:
    line = min(data.unreadable) - 1
    _rewrite_log(
        data, lambda lines: [*lines[:line], b'{"at":"2025-01-01T00:00:00Z","org_id":"x"}\n', *lines[line + 1 :]]
    )


def _forge_an_event(data: DemoData) -> None:
    """Bypasses the trigger: in this ledger harbor-health never switched storage off."""
    with sqlite3.connect(data.folder / generator.LEDGER, isolation_level=None) as raw:
        raw.execute("DROP TRIGGER events_no_update")
        switched_off = '%"setting":"storage.inputs_outputs","value":false%"actor":"harbor-health/omar"%'
        forged = raw.execute(
            "UPDATE events SET state = CAST(replace(CAST(state AS TEXT), '\"value\":false', '\"value\":true') AS BLOB)"
            " WHERE CAST(state AS TEXT) LIKE ?",
            (switched_off,),
        )
        assert forged.rowcount == 1
        # With its hash, because an event whose bytes do not match it is refused.
        raw.create_function("leaf_hash", 1, leaf_hash)
        raw.execute("UPDATE events SET leaf_hash = leaf_hash(state)")
    raw.close()


@pytest.mark.parametrize(
    "tamper", [_spoil_an_honest_request, _lose_a_request, _repeat_a_request, _mend_a_line, _forge_an_event]
)
def test_a_tampered_log_or_ledger_exits_1(
    tamper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make_and_tamper(*args: Any) -> DemoData:
        data = generate(*args)
        tamper(data)
        return data

    monkeypatch.setattr(generator, "generate", make_and_tamper)
    assert run_cli("demo", "--keep", str(tmp_path / "kept"), "--requests", str(SMALL)) == 1
    output = capsys.readouterr().out
    assert "NO: there " in output
    assert "not as planted" in output


def test_a_ledger_with_a_forged_event_without_its_hash_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make_and_tamper(*args: Any) -> DemoData:
        data = generate(*args)
        with sqlite3.connect(data.folder / generator.LEDGER, isolation_level=None) as raw:
            raw.execute("DROP TRIGGER events_no_update")
            raw.execute("UPDATE events SET state = CAST(state || ' ' AS BLOB) WHERE position = 99")
        raw.close()
        return data

    monkeypatch.setattr(generator, "generate", make_and_tamper)
    assert run_cli("demo", "--keep", str(tmp_path / "kept"), "--requests", str(SMALL)) == 3
    assert "the event at position 99 is not as it was recorded" in capsys.readouterr().err


def test_the_json_of_a_tampered_demo_names_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make_and_tamper(*args: Any) -> DemoData:
        data = generate(*args)
        _spoil_an_honest_request(data)
        return data

    monkeypatch.setattr(generator, "generate", make_and_tamper)
    assert run_cli("demo", "--keep", str(tmp_path / "kept"), "--requests", str(SMALL), "--format", "json") == 1
    result = json.loads(capsys.readouterr().out)
    assert result["exact"] is False
    assert [difference["planted"] for difference in result["differences"]] == [None]
    assert result["differences"][0]["found"]["verdict"] == "violation"


def test_a_demo_replaces_the_last_one(tmp_path: Path) -> None:
    place = tmp_path / "kept"
    first = generate_in(place, seed=1, requests=1000)
    (place / "notes.txt").write_text("mine")
    second = generate_in(place, seed=2, requests=1000)
    assert first.events != second.events
    assert (place / "notes.txt").read_text() == "mine"
    assert audit_and_compare(second).mismatches == []


@pytest.mark.parametrize("name", [generator.LEDGER, "notes.txt", generator.ABOUT])
def test_files_of_anybody_else_stay_unchanged(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_text("mine")
    assert run_cli("demo", "--keep", str(tmp_path)) == 2
    assert "--keep" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_keep_must_not_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").write_text("mine")
    assert run_cli("demo", "--keep", str(tmp_path / "kept")) == 2
    assert (tmp_path / "kept").read_text() == "mine"
    assert len(capsys.readouterr().err.splitlines()) == 1
