"""A server that is killed at any moment under load loses no acknowledged event.

`./scripts/test --crash 500` runs 500 rounds with a new seed; `--crash-seed` repeats a seed.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import randbelow
from typing import Final

import pytest

from tests.simulation.crash_content_checks import DatabaseContent
from tests.simulation.crash_damage import without_last
from tests.simulation.crash_databases import Database, PostgresDatabase, SQLiteDatabase
from tests.simulation.crash_processes import Processes
from tests.simulation.crash_rounds import Campaign, CrashFailure
from tests.support.postgres_restart import RestartablePostgres

ROUNDS: Final = 20
SEED: Final = 1


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The same on every ordinary run, so that a failure comes from the change, as far as a crash can be repeated."""
    named: int | None = request.config.getoption("--crash-seed")
    if named is not None:
        return named
    return SEED if request.config.getoption("--crash") is None else randbelow(1_000_000)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield SQLiteDatabase(tmp_path)
        return
    named = os.environ.get("INFORCE_TEST_POSTGRES")
    if named is not None:
        yield from _on(PostgresDatabase(named))
        return
    with RestartablePostgres() as server:
        yield from _on(PostgresDatabase(server))


def _on(database: PostgresDatabase) -> Iterator[Database]:
    try:
        yield database
    finally:
        database.close()


def test_a_server_killed_at_any_moment_keeps_every_acknowledged_event_and_no_half_submission(
    request: pytest.FixtureRequest,
    database: Database,
    seed: int,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    rounds = request.config.getoption("--crash") or ROUNDS
    print(f"crash, {database.name}: {rounds} rounds, seed {seed}", flush=True)
    logs = tmp_path / "logs"
    logs.mkdir()
    with Processes(logs) as processes:
        counts = Campaign(database, processes, seed).run(rounds)
    assert counts.acknowledged > rounds
    record_property("figure", counts.figure(database.name, seed))


class LossyDatabase(SQLiteDatabase):
    """Pretends to have lost the later half of its events: more than one group, so also acknowledged ones."""

    def content(self) -> DatabaseContent:
        content = super().content()
        return without_last(content, len(content.rows) // 2)


def test_a_campaign_that_finds_damage_names_seed_and_round_and_keeps_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, logs = tmp_path / "saved", tmp_path / "logs"
    saved.mkdir()
    logs.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(saved))
    # With this seed the kill comes after some acknowledgements, so that events can be lost.
    with Processes(logs) as processes, pytest.raises(CrashFailure) as failure:
        Campaign(LossyDatabase(tmp_path), processes, seed=9).run(1)
    message = str(failure.value)
    assert "crash, SQLite: round 0 of seed 9 (commits)" in message
    assert "./scripts/test --crash 1 --crash-seed 9" in message
    (folder,) = saved.iterdir()
    assert str(folder / "ledger-1.db") in message
    names = {path.name for path in folder.iterdir()}
    assert names >= {"ledger-1.db", "sent.jsonl", "findings.txt"}
    findings = (folder / "findings.txt").read_text().splitlines()
    assert f"{len(findings)} findings" in message
    assert findings[0] in message
    assert [line for line in findings if "(acknowledged) at position" in line and line.endswith("is lost")]
    assert (folder / "sent.jsonl").read_text().count('"acknowledged"') >= 1
