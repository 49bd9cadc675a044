"""doctor without a verb: every check on a healthy deployment, and each on one that is broken there."""

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import trustme

from ledger.clock import ManualClock
from ledger.opening import database_file, open_ledger
from ledger.recorders import postgres_schema, sqlite_schema
from ledger.times import DAY
from ledger.transparency.checkpoint_memory import memory_of
from scripts.cli.configuration import Configuration
from tests.contracts.test_read_back import execute
from tests.support.command import CommandResult, Inforce
from tests.support.going_back import delete_tail
from tests.support.ledgers import GENESIS, change, submit

CHECKS = ["configuration", "network", "database", "format", "head", "clock", "timelines", "log", "disk", "permissions"]
NAME = "inforce.example.com"
Usage = namedtuple("Usage", ("total", "used", "free"))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def healthy(inforce_on_both: Inforce) -> Inforce:
    assert inforce_on_both("submit", "org:acme", "training.opt_in", "true").code == 0
    assert inforce_on_both("state", "org:acme").code == 0
    return inforce_on_both


def findings(result: CommandResult) -> dict[str, dict[str, str | None]]:
    """Check → its worst finding."""
    order = ("failed", "warning", "skipped", "ok")
    rows = sorted(result.json()["findings"], key=lambda finding: order.index(finding["status"]), reverse=True)
    return {finding["check"]: finding for finding in rows}


def examine(inforce: Inforce, *options: str) -> tuple[int, dict[str, dict[str, str | None]]]:
    result = inforce("doctor", "--format", "json", *options)
    return result.code, findings(result)


def test_a_healthy_deployment_has_nothing_to_do(healthy: Inforce) -> None:
    code, found_by_check = examine(healthy)
    assert code == 0
    assert set(found_by_check) == set(CHECKS)
    assert {finding["status"] for finding in found_by_check.values()} == {"ok"}, found_by_check
    assert {finding["advice"] for finding in found_by_check.values()} == {None}
    table = healthy("doctor")
    assert table.code == 0
    assert [check for check in CHECKS if check in table.out] == CHECKS
    for format_ in ("csv", "ndjson"):
        assert len(healthy("doctor", "--format", format_).out.splitlines()) >= len(CHECKS)


def test_it_writes_nothing(healthy: Inforce, database_url: str, folder: Path) -> None:
    file = database_file(database_url)
    before = None if file is None else (file.read_bytes(), sorted(os.listdir(file.parent)))
    assert healthy("doctor").code == 0
    assert list(folder.iterdir()) == []
    if file is not None:
        assert (file.read_bytes(), sorted(os.listdir(file.parent))) == before


def test_a_ledger_that_is_not_there_skips_what_rests_on_it(inforce: Inforce, folder: Path) -> None:
    code, by_check = examine(inforce)
    assert code == 3
    assert by_check["database"]["status"] == "failed"
    assert "serve begins one" in str(by_check["database"]["advice"])
    assert {by_check[check]["status"] for check in ("format", "head", "clock", "timelines")} == {"skipped"}
    assert list(folder.iterdir()) == []


def test_a_database_that_cannot_be_reached_is_named_without_its_password(inforce: Inforce) -> None:
    result = inforce("doctor", "--format", "json", "--db", "postgresql://anna:hunter2@127.0.0.1:1/inforce")
    assert (result.code, findings(result)["database"]["status"]) == (3, "failed")
    assert "hunter2" not in result.out + result.err


def test_an_older_format_is_reported_and_not_migrated(healthy: Inforce, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        newest = sqlite_schema.FORMAT
        execute(database_url, f"PRAGMA user_version = {newest - 1}")
    else:
        newest = postgres_schema.FORMAT
        older = f"UPDATE inforce.ledger_meta SET value = '{newest - 1}' WHERE value = '{newest}'"
        with psycopg.connect(database_url) as server:
            server.execute("ALTER TABLE inforce.ledger_meta DISABLE TRIGGER ALL")
            server.execute(older.encode())
    for _ in range(2):
        code, by_check = examine(healthy)
        assert code == 0
        assert by_check["format"]["status"] == "warning"
        assert f"format {newest - 1}, and this inforce writes format {newest}" in str(by_check["format"]["detail"])
        assert by_check["clock"]["status"] == "skipped"


def test_a_ledger_that_went_back(healthy: Inforce, database_url: str) -> None:
    delete_tail(database_url, 1)
    code, by_check = examine(healthy)
    assert (code, by_check["head"]["status"]) == (1, "failed")
    assert "inforce doctor head" in str(by_check["head"]["advice"])


def test_a_clock_that_is_behind_and_one_that_is_ahead(
    healthy: Inforce, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFORCE_CLOCK_AHEAD_WARN", "0")
    code, by_check = examine(healthy)
    assert (code, by_check["clock"]["status"]) == (0, "warning")
    ahead = int(datetime.now(UTC).timestamp() * 1_000_000) + DAY
    with open_ledger(database_url, clock=ManualClock(ahead)) as ledger:
        submit(ledger, change("org:acme"))
    code, by_check = examine(healthy)
    assert (code, by_check["clock"]["status"]) == (1, "failed")
    assert "inforce doctor clock" in str(by_check["clock"]["advice"])


def test_timelines_that_are_far_behind_or_missing(
    healthy: Inforce, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFORCE_PROJECTOR_LAG_MAX", "1")
    for lag, status in ((1, "ok"), (2, "warning")):
        assert healthy("submit", "org:acme", "training.opt_in", "true").code == 0
        code, by_check = examine(healthy)
        assert (code, by_check["timelines"]["status"]) == (0, status)
        assert f"{lag} events behind" in str(by_check["timelines"]["detail"])
    schema = "" if database_url.startswith("sqlite") else "inforce."
    execute(database_url, f"DROP TABLE {schema}timelines_subjects")
    code, by_check = examine(healthy)
    assert (code, by_check["timelines"]["status"]) == (0, "warning")
    assert "inforce rebuild" in str(by_check["timelines"]["advice"])


def test_a_disk_with_little_room(healthy: Inforce, monkeypatch: pytest.MonkeyPatch) -> None:
    total = 100 * 1024**3
    least = Configuration.model_fields["disk_free_min"].default
    for free, code, status in ((least, 0, "ok"), (least - 1, 1, "failed")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _folder, free=free: Usage(total, total - free, free))
        result, by_check = examine(healthy)
        assert (result, by_check["disk"]["status"]) == (code, status)


def test_files_that_others_may_read(
    healthy: Inforce, database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "c.toml").write_text("port = 8001\n", encoding="utf-8")
    (folder / "c.toml").chmod(0o640)
    audits = folder / "audits"
    audits.mkdir(mode=0o750)
    audits.chmod(0o750)
    monkeypatch.setenv("INFORCE_AUDITS_FOLDER", str(audits))
    file = database_file(database_url)
    if file is not None:
        file.chmod(0o604)
    result = healthy("doctor", "--config", "c.toml", "--format", "json")
    warned = [finding for finding in result.json()["findings"] if finding["check"] == "permissions"]
    assert (result.code, {finding["status"] for finding in warned}) == (0, {"warning"})
    advice = " ".join(finding["advice"] for finding in warned)
    assert "chmod 600 c.toml" in advice
    assert f"chmod 700 {audits}" in advice
    assert file is None or f"chmod 600 {file}," in advice


def test_a_wrong_configuration_is_a_finding_and_the_rest_is_still_looked_at(
    healthy: Inforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFORCE_PORT", "x")
    monkeypatch.setenv("INFORCE_AUDITS_MAX", "0")
    result = healthy("doctor", "--format", "json")
    wrong = [finding for finding in result.json()["findings"] if finding["check"] == "configuration"]
    assert (result.code, [finding["status"] for finding in wrong]) == (2, ["failed", "failed"])
    assert "INFORCE_PORT: x is not allowed" in wrong[0]["detail"]
    assert len(findings(result)) == len(CHECKS)


@pytest.fixture
def certificate(folder: Path) -> Callable[..., tuple[str, ...]]:
    """Makes files of TLS with an end, for a name, and sets the keys."""

    def make(monkeypatch: pytest.MonkeyPatch, days: float, name: str = NAME) -> tuple[str, ...]:
        authority = trustme.CA()
        issued = authority.issue_cert(name, not_before=None, not_after=datetime.now(UTC) + timedelta(days=days))
        cert, key = folder / "cert.pem", folder / "key.pem"
        cert.write_bytes(issued.cert_chain_pems[0].bytes())
        key.write_bytes(issued.private_key_pem.bytes())
        key.chmod(0o600)
        monkeypatch.setenv("INFORCE_TLS_CERT", str(cert))
        monkeypatch.setenv("INFORCE_TLS_KEY", str(key))
        return str(cert), str(key)

    return make


@pytest.mark.parametrize(("days", "code", "status"), [(60, 0, "ok"), (20, 0, "warning"), (-1, 1, "failed")])
def test_a_certificate_that_ends_soon_or_has_ended(
    days: float,
    code: int,
    status: str,
    healthy: Inforce,
    certificate: Callable[..., tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate(monkeypatch, days)
    result, by_check = examine(healthy)
    assert (result, by_check["certificate"]["status"]) == (code, status), by_check["certificate"]


def test_tls_files_that_serve_refuses(
    healthy: Inforce, certificate: Callable[..., tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(monkeypatch, 60)
    Path(key).chmod(0o644)
    code, by_check = examine(healthy)
    assert (code, by_check["permissions"]["status"]) == (0, "warning")
    assert f"chmod 600 {key}" in str(by_check["permissions"]["advice"]) or "chmod 600" in str(by_check["permissions"])
    monkeypatch.delenv("INFORCE_TLS_KEY")
    code, by_check = examine(healthy)
    assert (code, by_check["network"]["status"]) == (1, "failed")
    assert cert not in json.dumps(by_check["database"])


@pytest.mark.parametrize("verb", ["clock", "head"])
def test_options_before_a_verb_of_its_own_are_refused_and_behind_it_taken(healthy: Inforce, verb: str) -> None:
    refused = healthy("doctor", "--format", "json", verb)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"--format belongs behind {verb}" in refused.err
    assert healthy("doctor", verb, "--format", "json").code == 0


def test_a_file_named_behind_a_verb_of_its_own_counts(healthy: Inforce, database_url: str, folder: Path) -> None:
    (folder / "c.toml").write_text("clock_behind_max = 0\n", encoding="utf-8")
    refused = healthy("doctor", "clock", "--config", "c.toml")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "c.toml: clock_behind_max: 0 is not allowed" in refused.err
    with closing(open_ledger(database_url)) as ledger:
        assert ledger.recorder.formats()[0] == ledger.recorder.formats()[1]


def test_a_log_that_went_back_or_whose_note_is_damaged_fails(healthy: Inforce, database_url: str) -> None:
    assert "without a signing key" in str(examine(healthy)[1]["log"]["detail"])
    with open_ledger(database_url) as ledger:
        origin = ledger.origin
    assert healthy("keygen", "log.key", "--origin", origin).code == 0
    assert healthy("export", "--log", "out", "--signing-key-file", "log.key").code == 0
    code, by_check = examine(healthy)
    assert (code, by_check["log"]["status"]) == (0, "ok")
    assert "0 fewer than the ledger" in str(by_check["log"]["detail"])
    with open_ledger(database_url) as ledger:
        note = memory_of(ledger).path
        assert note is not None
    whole = note.read_bytes()
    note.write_bytes(b"nonsense")
    code, by_check = examine(healthy)
    assert (code, by_check["log"]["status"]) == (1, "failed")
    assert "a fork could be signed" in str(by_check["log"]["detail"])
    note.write_bytes(whole)
    execute(database_url, f"DELETE FROM {_schema(database_url)}log_tiles")
    code, by_check = examine(healthy)
    assert (code, by_check["log"]["status"]) == (1, "failed")
    assert "is missing" in str(by_check["log"]["detail"])
    delete_tail(database_url, GENESIS)
    assert "the ledger ends at position" in str(examine(healthy)[1]["log"]["detail"])


def _schema(url: str) -> str:
    return "" if url.startswith("sqlite") else "inforce."
