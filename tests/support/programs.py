"""Programs for tests with several processes: `python -m tests.support.programs TASK URL …`.

Each prints `ready` and waits for a line, so that all of them start together.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def start_programs(*programs: tuple[object, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts the programs together. Kills those that still run at the end."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.programs", *map(str, program)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for program in programs
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def main(task: str, url: str, *arguments: str) -> None:
    from ledger.opening import open_ledger
    from ledger.transfer.import_ledger import import_ledger
    from tests.support.ledgers import change, submit

    print("ready", flush=True)
    sys.stdin.readline()
    match task:
        case "begin":
            with open_ledger(url, create=True) as ledger:
                print(ledger.origin, ledger.head().position, flush=True)
        case "write":
            writer, count = arguments
            with open_ledger(url) as ledger:
                for number in range(int(count)):
                    body = change("org:shared", reason=f"{writer}.{number}")
                    submit(ledger, change(f"org:{writer}", number % 2 == 0), body)
        case "many":
            writer, threads, count = arguments
            with open_ledger(url) as ledger, ThreadPoolExecutor(int(threads)) as pool:
                body = change("org:shared", reason=writer)
                for future in [pool.submit(submit, ledger, body) for _ in range(int(threads) * int(count))]:
                    future.result()
        case "import":
            with Path(arguments[0]).open("rb") as stream:
                import_ledger(url, stream, progress=lambda events, _bytes: print(events, flush=True))
        case "hold":
            with open_ledger(url) as ledger, ledger.recorder.transaction(commit=True):
                print("holding", flush=True)
                sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
