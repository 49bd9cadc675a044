"""Full disks: a limit on the size of files, for any process; and a real file system of a few megabytes.

Mounting a file system needs root, or a kernel that allows user namespaces. The mount lives in a mount namespace of the
process that uses it, so that it disappears with that process, however that ends.
"""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.command import CommandResult, run
from tests.support.postgres_restart import RestartablePostgres

MEGABYTE = 1 << 20


@contextmanager
def files_no_larger_than(size: int, pid: int = 0) -> Iterator[None]:
    """Every write beyond `size` bytes of a file fails in process `pid` (0: this one), as on a full disk. Python ignores
    SIGXFSZ, so the write fails and the process goes on."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        # The process may have ended meanwhile.
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def run_limited(size: int, *arguments: str) -> CommandResult:
    """Runs the command while no file can grow beyond `size` bytes."""
    with files_no_larger_than(size):
        return run(*arguments)


def on_small_disk(folder: Path, size: int, owner: int = 0) -> tuple[str, ...]:
    """A prefix of a command line: the command sees a file system of `size` bytes at `folder`."""
    namespaces = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-Urm")
    return (
        *namespaces,
        "sh",
        "-c",
        f'mount -t tmpfs -o size={size},mode=700,uid={owner} tmpfs "$0" && exec "$@"',
        str(folder),
    )


def can_mount_small_disks(folder: Path) -> bool:
    return subprocess.run([*on_small_disk(folder, MEGABYTE), "true"], capture_output=True, check=False).returncode == 0


def restart_on_small_disk(postgres: RestartablePostgres, folder: Path, size: int) -> None:
    """Restarts the server so that `folder` is its own file system of `size` bytes."""
    postgres.stop("fast")
    account = postgres.cluster.as_account
    with (postgres.folder / "log").open("ab") as log:
        postgres._server = subprocess.Popen(
            [
                *on_small_disk(folder, size, account["user"]),
                *("setpriv", "--reuid", str(account["user"]), "--regid", str(account["group"]), "--clear-groups"),
                *postgres.cluster.command(),
            ],
            env=account["env"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    postgres.cluster.wait_until_ready()


def fill(path: Path) -> int:
    """Writes zeros to `path` until the file system is full. Returns the number of bytes."""
    written = 0
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for size in (65_536, 512):
            with suppress(OSError):
                while True:
                    written += file.write(bytes(size))
    return written
