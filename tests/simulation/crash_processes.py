"""Servers and other `inforce` processes to kill.

A nursery, `python -m tests.simulation.crash_processes`, imports the command once and forks it for every start: what is
killed is a process of its own that runs `scripts.main` with its arguments, as `python -m scripts.main` does, without
the seconds of imports that twenty rounds would pay twenty times. `is_new` pays them: a program from its beginning.
The nursery ends when its standard input does, and kills what it started: nothing outlives the test.
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

REPOSITORY: Final = Path(__file__).resolve().parents[2]
START_SECONDS_MAX: Final = 60.0
_LISTENS: Final = re.compile(r"listens on http://127\.0\.0\.1:(\d+)\n")


class Process:
    """One run of the command. `log` holds its output, errors too."""

    def __init__(self, pid: int, log: Path, poll: Callable[[], int | None]) -> None:
        self.pid = pid
        self.log = log
        self._poll = poll
        self._status: int | None = None

    def status(self) -> int | None:
        """Its exit status, negative for a signal's number; None: it runs."""
        if self._status is None:
            self._status = self._poll()
        return self._status

    def kill(self) -> None:
        """SIGKILL, now; returns when there is nothing left of it."""
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
        """Where a server listens, once it says so."""
        deadline = time.monotonic() + START_SECONDS_MAX
        for turn in itertools.count(1):
            said = _LISTENS.search(self.log.read_text())
            if said is not None:
                return int(said[1])
            # Asking the nursery costs more than reading a file.
            assert turn % 20 or self.status() is None, f"the server ended with {self.status()}: {self.log.read_text()}"
            assert time.monotonic() < deadline, (
                f"the server did not listen within {START_SECONDS_MAX} s; see {self.log}"
            )
            time.sleep(0.01)
        raise AssertionError  # The loop has no end.


class Processes:
    """The nursery, and every process of one campaign. `folder` gets their logs."""

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
            # Ctrl-C reaches the test, which ends everything in its own time.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._started:
            process.kill()
        self._fork_server.communicate()

    def serve(self, url: str, *, is_new: bool = False) -> Process:
        return self.run("serve", "--db", url, "--port", "0", is_new=is_new)

    def run(self, *args: str, is_new: bool = False) -> Process:
        """`inforce ARGS`, begun."""
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
        assert answer, "the nursery ended; what it said stands above"
        return json.loads(answer)


def fork_server() -> None:
    # Imported here: the harness's own process has no use for the server.
    for module in ("api.server", "ledger.recorders.postgres", "scripts.rebuild", "scripts.serve"):
        import_module(module)
    # So that the children's collectors leave the pages that they share with this process alone.
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
    # In place of the nursery's pipes, whose ends this process must not hold.
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
        # Without the interpreter's farewell, which would read the nursery's standard input on.
        os._exit(code)


if __name__ == "__main__":
    fork_server()
