"""Servers and other `inforce` processes to kill.

A fork server, `python -m tests.simulation.crash_processes`, imports the command once and forks for every start. The
killed process is a separate one that runs `scripts.main` with its arguments, as `python -m scripts.main` does, but
without seconds of imports in every round. With `is_new` the process starts from nothing.
The fork server ends with its standard input and kills all its children, so that nothing outlives the test.
"""

import gc
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from scripts.main import main
from tests.support.waiting import GIVE_UP_S

REPOSITORY: Final = Path(__file__).resolve().parents[2]
START_SECONDS_MAX: Final = GIVE_UP_S
_LISTENS: Final = re.compile(r"listens on http://127\.0\.0\.1:(\d+)\n")


class Process:
    """One run of the command. `log` gets its output and errors."""

    def __init__(self, pid: int, log: Path, poll: Callable[[], int | None]) -> None:
        self.pid = pid
        self.log = log
        self._poll = poll
        self._status: int | None = None

    def status(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        if self._status is None:
            self._status = self._poll()
        return self._status

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        self.send(signal.SIGKILL)
        self.wait()

    def send(self, number: signal.Signals) -> None:
        if self.status() is None:
            os.kill(self.pid, number)

    def wait(self, seconds_max: float = START_SECONDS_MAX) -> int:
        deadline = time.monotonic() + seconds_max
        pause = 0.001
        while (status := self.status()) is None:
            assert time.monotonic() < deadline, f"process {self.pid} did not end within {seconds_max} s; see {self.log}"
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return status

    def port(self) -> int:
        """The port of a server, once its log has it."""
        deadline = time.monotonic() + START_SECONDS_MAX
        for turn in itertools.count(1):
            match = _LISTENS.search(self.log.read_text())
            if match is not None:
                return int(match[1])
            # A question to the fork server costs more than reading a file.
            assert turn % 20 or self.status() is None, f"the server ended with {self.status()}: {self.log.read_text()}"
            assert time.monotonic() < deadline, (
                f"the server did not listen within {START_SECONDS_MAX} s; see {self.log}"
            )
            time.sleep(0.01)
        raise AssertionError  # The loop has no end.


class Processes:
    """The fork server, and every process of one campaign. `folder` gets their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self._started: list[Process] = []
        self._fork_server = subprocess.Popen(
            [sys.executable, "-m", "tests.simulation.crash_processes"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C reaches only the test, which ends the processes itself.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._started:
            process.kill()
        self._fork_server.communicate()

    def serve(self, url: str, *, is_new: bool = False) -> Process:
        return self.run("serve", "--no-auth", "--db", url, "--port", "0", is_new=is_new)

    def run(self, *args: str, is_new: bool = False) -> Process:
        """Starts `inforce ARGS`."""
        self._count += 1
        log = self.folder / f"{self._count:04}-{args[0]}.log"
        log.touch()
        pid = self._ask({"run": args, "log": str(log), "is_new": is_new})
        process = Process(pid, log, lambda: self._ask({"status": pid}))
        self._started = [*(one for one in self._started if one.status() is None), process]
        return process

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._fork_server.stdin is not None
        assert self._fork_server.stdout is not None
        self._fork_server.stdin.write(json.dumps(question) + "\n")
        self._fork_server.stdin.flush()
        answer = self._fork_server.stdout.readline()
        assert answer, "the fork server ended; its own error is above"
        return json.loads(answer)


def fork_server() -> None:
    # Imported here: the test's own process does not need the server.
    for module in ("api.server", "ledger.recorders.postgres", "scripts.rebuild", "scripts.serve"):
        import_module(module)
    # The garbage collectors of the children must not touch pages shared with this process.
    gc.freeze()
    children: set[int] = set()
    for line in sys.stdin:
        match json.loads(line):
            case {"run": args, "log": log, "is_new": is_new}:
                pid = os.fork()
                if pid == 0:
                    _run_command(args, log, is_new)
                children.add(pid)
                answer: int | None = pid
            case {"status": pid}:
                ended, status = os.waitpid(pid, os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if ended else None
                if ended:
                    children.discard(pid)
            case question:
                raise AssertionError(question)
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _run_command(args: list[str], log: str, is_new: bool) -> NoReturn:
    # Replaces the fork server's pipes, which this process must not keep open.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if is_new:
        os.execv(sys.executable, [sys.executable, "-m", "scripts.main", *args])  # noqa: S606 - no shell is wanted
    sys.argv = ["inforce", *args]
    code = 70
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        # Not sys.exit: the end of the interpreter would read from the fork server's standard input.
        os._exit(code)


if __name__ == "__main__":
    fork_server()
