"""A PostgreSQL server for one test, which the test may stop at any moment and start again.

Its guard, a small shell, waits on a pipe that this process holds open, as for the server of the whole run
(`tests.support.postgres`): however this process ends, the guard stops the server and removes its folder.
Proved by tests/test_support.py.
"""

import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import psycopg

from tests.support.postgres import STOP_SECONDS_MAX, Cluster, private_folder

StopMode = Literal["smart", "fast", "immediate"]

_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# The pid comes from the server's own file, because the test may have restarted or stopped the server. The loop is
# bounded, because an orphan that no process reaps stays visible for ever.
GUARD: Final = """
cd /
read -r _
server=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$server" ] && kill -QUIT "$server" 2>/dev/null; then
    turns=0
    while kill -0 "$server" 2>/dev/null && [ "$turns" -lt 100 ]; do
        sleep 0.1
        turns=$((turns + 1))
    done
fi
rm -rf "$1"
"""


class RestartablePostgres:
    """Durable, like every PostgreSQL of the tests. `settings` are options of the server, such as max_connections.

    Runs until `close`. Raises PostgresUnavailableError if there is no PostgreSQL.
    """

    def __init__(self, **settings: str) -> None:
        self.folder: Path = private_folder()
        self._settings = settings
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        try:
            self.cluster = Cluster.make(self.folder)
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", self.folder],
                **self.cluster.as_account,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C reaches only the tests, which stop the server themselves.
                start_new_session=True,
            )
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The server's URL, the same after every start; its user may create databases."""
        return self.cluster.url

    def start(self) -> None:
        """Returns when the server accepts connections, which is after its recovery."""
        assert self._server is None, "the server runs already"
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                self.cluster.command(**self._settings),
                **self.cluster.as_account,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.cluster.wait_until_ready()

    def stop(self, mode: StopMode) -> None:
        """`smart` waits for the clients, `fast` disconnects them, `immediate` leaves everything as a crash would."""
        assert self._server is not None, "the server is stopped already"
        self._server.send_signal(_SIGNALS[mode])
        self._server.wait(STOP_SECONDS_MAX)
        self._server = None

    def restart(self, mode: StopMode, *, pause_s: float = 0.0) -> None:
        self.stop(mode)
        time.sleep(pause_s)
        self.start()

    def close(self) -> None:
        """Stops the server, and waits until its folder is gone."""
        if self._server is not None:
            self.stop("immediate")
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard.wait(STOP_SECONDS_MAX)
        shutil.rmtree(self.folder, ignore_errors=True)


def terminate_backends(database_url: str, count: int | None = None) -> int:
    """Terminates `count` of the other connections to the database (None: all), as an operator does. Returns how many
    there were."""
    ended: list[Any] = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() ORDER BY random() LIMIT %s) AS others",
            (count,),
        ).fetchall()
    return len(ended)
