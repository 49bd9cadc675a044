"""A PostgreSQL of a test's own, which the test may stop in the middle of anything and start again.

Its keeper, a small shell, waits on a pipe that this process holds open, as with the server of the whole run
(`tests.support.postgres`): however this process ends, the server is stopped and its folder removed.
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

# The server may be another one by then, or none: its own file says which. Bounded, because where nobody reaps orphans
# its process stays visible for ever.
KEEPER: Final = """
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
    """Durable, as every PostgreSQL of the tests. `settings` are options of the server, such as max_connections.

    Runs from the beginning to `close`. Raises PostgresUnavailableError where no PostgreSQL is to be had.
    """

    def __init__(self, **settings: str) -> None:
        self.folder: Path = private_folder()
        self._settings = settings
        self._server: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        try:
            self.cluster = Cluster.make(self.folder)
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "keeper", self.folder],
                **self.cluster.as_account,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C reaches the tests, which stop the server in their own time.
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
        """The server's URL, the same after every start; databases may be created there."""
        return self.cluster.url

    def start(self) -> None:
        """Returns when it takes connections, and so after its recovery."""
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
        """`smart` waits for the clients to go, `fast` ends them in order, `immediate` leaves all as a crash would."""
        assert self._server is not None, "the server is stopped already"
        self._server.send_signal(_SIGNALS[mode])
        self._server.wait(STOP_SECONDS_MAX)
        self._server = None

    def restart(self, mode: StopMode, *, pause_s: float = 0.0) -> None:
        self.stop(mode)
        time.sleep(pause_s)
        self.start()

    def close(self) -> None:
        """Stops the server, and waits until nothing is left of it."""
        if self._server is not None:
            self.stop("immediate")
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            self._keeper.wait(STOP_SECONDS_MAX)
        shutil.rmtree(self.folder, ignore_errors=True)


def terminate_backends(database_url: str, count: int | None = None) -> int:
    """Ends `count` of the others' connections to the database, as an operator's pg_terminate_backend does; None: all.
    Answers how many there were to end."""
    ended: list[Any] = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() ORDER BY random() LIMIT %s) AS others",
            (count,),
        ).fetchall()
    return len(ended)
