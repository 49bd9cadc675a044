"""Runs the real server in its own process, and sends it requests over a socket."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from ledger.opening import open_ledger
from tests.support.waiting import GIVE_UP_S

SERVE = (
    "import sys; from api.network import NetworkSettings; from api.server import ServerSettings, serve;"
    "settings = ServerSettings(network=NetworkSettings(signs_in=False));"
    "serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), settings=settings)"
)


def new_ledger(folder: Path) -> str:
    """The URL of a ledger that a server need not begin, which its log would say."""
    url = f"sqlite:///{folder}/ledger.db"
    open_ledger(url, create=True).close()
    return url


@contextmanager
def running(
    url: str, host: str = "127.0.0.1", port: int = 0, *, before: str = ""
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", before + SERVE, url, host, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        listens = re.fullmatch(r"inforce listens on http://(127\.0\.0\.1|\[::1\]):(\d+)\n", line)
        assert listens, line
        assert process.stdout.readline().startswith("WARNING: without sign-in")
        yield process, int(listens[2])
    finally:
        process.kill()
        process.communicate()


def talk(
    port: int, method: str, path: str, body: Any = None, host: str = "127.0.0.1", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(host, port, timeout=GIVE_UP_S)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()
