"""serve: creates a ledger, prints where it listens, answers, and ends on SIGTERM."""

import json
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.cli.test_main import COMMAND, ENVIRONMENT
from tests.support.command import Inforce


def test_a_server_prints_where_it_listens_and_exits_0_on_sigterm(inforce: Inforce, folder: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "serve", "--no-auth", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=folder, env=ENVIRONMENT
    ) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split()[-1]
            with urlopen(f"{url}/healthz", timeout=10) as answer:  # noqa: S310 - the server's own address
                assert answer.status == 200
            assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
            with urlopen(f"{url}/v1/subjects/org:acme/state", timeout=10) as answer:  # noqa: S310 - our own server
                document = json.load(answer)
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
    by_verb = inforce("state", "org:acme", "--format", "json").json()
    assert document["settings"] == by_verb["settings"]


@pytest.mark.parametrize(("option", "is_loud"), [("--quiet", False), ("--verbose", True)])
def test_a_server_is_as_loud_as_it_is_started(option: str, is_loud: bool, folder: Path) -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "INFORCE_DATABASE"}
    with subprocess.Popen(
        [*COMMAND, "serve", "--no-auth", "--port", "0", option],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        assert server.stdout.readline().startswith("inforce listens on ")
        server.send_signal(signal.SIGTERM)
        log = server.stderr.read()
    assert ("began a new ledger" in log) == is_loud
    assert ("DEBUG inforce.ledger opened the ledger" in log) == is_loud
