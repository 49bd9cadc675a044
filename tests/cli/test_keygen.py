"""keygen, export --log, doctor log: a key, a signed log as files, and what differs in it."""

import json
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from ledger.transparency.keys import KEY_VARIABLE, read_key_file
from ledger.transparency.note import VerifierKey
from ledger.transparency.tlog_proof import TlogProof
from tests.cli.test_main import COMMAND, ENVIRONMENT
from tests.support.command import Inforce

ORIGIN = "log.example/eu"


@pytest.fixture
def keyed(inforce: Inforce) -> Inforce:
    """With a key in log.key, and a ledger of its origin."""
    assert inforce("keygen", "log.key", "--origin", ORIGIN).code == 0
    assert inforce("submit", "org:acme", "training.opt_in", "true", "--origin", ORIGIN).code == 0
    return inforce


def test_the_key_is_in_the_file_and_only_the_verifier_key_is_printed(inforce: Inforce, folder: Path) -> None:
    made = inforce("keygen", "log.key", "--origin", ORIGIN, "--format", "json")
    assert made.code == 0, made.err
    file = folder / "log.key"
    (key,) = read_key_file(file)
    assert VerifierKey.parse(made.json()["verifier_key"]) == key.verifier
    assert key.verifier.name == made.json()["origin"] == ORIGIN
    assert file.stat().st_mode & 0o777 == 0o600
    secret = key.secret_text().split("+")[-1]
    assert secret not in made.out + made.err
    again = inforce("keygen", "log.key", "--origin", ORIGIN)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "a key that is overwritten is lost" in again.err
    assert read_key_file(file)[0].verifier == key.verifier


def test_a_second_key_is_added_and_both_sign(keyed: Inforce, folder: Path) -> None:
    assert keyed("keygen", "log.key", "--add", "--format", "json").json()["keys"] == 2
    first, second = read_key_file(folder / "log.key")
    exported = keyed("export", "--log", "out", "--signing-key-file", "log.key")
    assert exported.code == 0, exported.err
    checkpoint = (folder / "out" / "checkpoint").read_text()
    assert checkpoint.count(f"— {ORIGIN} ") == 2
    assert set((folder / "out" / "vkeys").read_text().split()) == {str(first.verifier), str(second.verifier)}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("keygen", "-", "--origin", ORIGIN), "a secret key is not printed"),
        (("keygen", "other.key"), "--origin must name it"),
        (("keygen", "other.key", "--origin", "Not An Origin"), "an origin is written like a host"),
        (("keygen", "no/such/folder.key", "--origin", ORIGIN), "no such file or directory"),
        (("keygen",), "Missing argument"),
    ],
)
def test_wrong_input_is_one_line(inforce: Inforce, args: tuple[str, ...], words: str) -> None:
    result = inforce(*args)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert words in result.err


def test_the_origin_of_a_ledger_never_changes(keyed: Inforce, folder: Path) -> None:
    refused = keyed("keygen", "other.key", "--origin", "log.example/us")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"this ledger has the origin {ORIGIN} for ever" in refused.err
    keyed("submit", "org:acme", "training.opt_in", "true", "--db", "sqlite:///us.db", "--origin", "log.example/us")
    for args in (
        ("export", "--log", "out", "--signing-key-file", "log.key"),
        ("serve", "--port", "0", "--signing-key-file", "log.key"),
    ):
        refused = keyed(*args, "--db", "sqlite:///us.db")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert f"the key is of the log {ORIGIN}, and this ledger is log.example/us" in refused.err
    added = keyed("keygen", "log.key", "--add", "--db", "sqlite:///us.db")
    assert (added.code, len(read_key_file(folder / "log.key"))) == (2, 1)


def test_the_key_may_come_from_the_environment(keyed: Inforce, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, read_key_file(folder / "log.key")[0].secret_text())
    assert keyed("export", "--log", "out").code == 0
    assert (folder / "out" / "checkpoint").exists()
    both = keyed("export", "--log", "out", "--signing-key-file", "log.key")
    assert (both.code, both.err.count("\n")) == (2, 1)


def test_a_log_without_a_key_is_not_exported(inforce: Inforce, folder: Path) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    refused = inforce("export", "--log", "out")
    assert (refused.code, refused.err.count("\n")) == (3, 1)
    assert "make a key with inforce keygen" in refused.err
    for more in (("--out", "x"), ("--personal", "x"), ("--after", "3")):
        wrong = inforce("export", "--log", "out", *more)
        assert (wrong.code, "leave out --out, --personal and --after" in wrong.err) == (2, True)
    assert not (folder / "out").exists()


def test_a_server_with_a_key_publishes_what_it_records(keyed: Inforce, folder: Path) -> None:
    """The real command, over a socket, with a key in a file."""
    command = [*COMMAND, "serve", "--no-auth", "--port", "0", "--signing-key-file", "log.key"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=ENVIRONMENT) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split()[-1]
            body = {"type": "setting.changed", "subject": "org:acme", "setting": "training.opt_in", "value": False}
            submission = Request(  # noqa: S310 - the server's own address
                f"{url}/v1/events?wait=checkpoint", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urlopen(submission, timeout=60) as answer:  # noqa: S310 - the server's own address
                (receipt,) = json.load(answer)["receipts"]
            with urlopen(f"{url}/v1/events/{receipt['event_id']}", timeout=60) as answer:  # noqa: S310 - as above
                leaf = answer.read()
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
    (key,) = read_key_file(folder / "log.key")
    proof = TlogProof.parse(receipt["proof"].encode())
    assert proof.verify(leaf, ORIGIN, [key.verifier]).head.size == receipt["position"] == proof.leaf_index + 1
    # A static export without a key writes the checkpoint that the server published.
    assert keyed("export", "--log", "out").code == 0
    assert (folder / "out" / "checkpoint").read_bytes() == proof.checkpoint


def test_doctor_compares_the_log_with_the_events(keyed: Inforce, folder: Path) -> None:
    assert keyed("doctor", "log", "--format", "json").json()["faults"] == []
    keyed("export", "--log", "out", "--signing-key-file", "log.key")
    whole = keyed("doctor", "log", "--format", "json")
    record = whole.json()
    assert (whole.code, record["faults"]) == (0, [])
    assert record["events"] == record["integrated"] == record["published"] == record["noted"]
    with closing(sqlite3.connect(folder / "inforce.db", isolation_level=None)) as database:
        database.execute("UPDATE log_tiles SET hashes = zeroblob(length(hashes))")
    damaged = keyed("doctor", "log")
    assert damaged.code == 1
    assert "is not that of the events" in damaged.out
    keyed("submit", "org:acme", "training.opt_in", "false")
    refused = keyed("export", "--log", "out", "--signing-key-file", "log.key")
    assert (refused.code, refused.err.count("\n")) == (3, 1)
    assert "right edge" in refused.err
    assert keyed("doctor", "log", "--rebuild").code == 0
    assert keyed("export", "--log", "out", "--signing-key-file", "log.key").code == 0
    assert keyed("doctor", "log").code == 0
