"""Code is compiled once: other processes and users find it, and nobody loads what others may write."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from projections.audit import numba_support, stored_code
from projections.audit.numba_support import AVAILABLE, compiled
from tests.support.waiting import GIVE_UP_S, until

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")


@pytest.fixture(autouse=True)
def named_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    yield tmp_path / "named" / "inforce"
    stored_code._first_writable.cache_clear()


def twice(number: int) -> int:
    return 2 * number


def misses(function: object) -> int:
    """How often the function was compiled, not loaded."""
    return sum(function.stats.cache_misses.values())  # type: ignore[attr-defined]


def fresh() -> numba_support._Compiled:
    """The same function as a new process would have it."""
    made = compiled(twice)
    assert isinstance(made, numba_support._Compiled)
    return made


def test_a_function_is_ready_once_its_code_is_stored(named_folder: Path) -> None:
    function = fresh()
    assert not function.is_ready()
    assert function(21) == 42
    assert misses(function.dispatcher()) == 1
    other = fresh()
    assert other.is_ready()
    assert other(21) == 42
    assert misses(other.dispatcher()) == 0
    assert other(2.5) == 5.0  # for other types it is compiled, as ever
    assert misses(other.dispatcher()) == 1
    assert not list(named_folder.glob(".*"))


def test_code_of_a_folder_that_this_user_cannot_write_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = stored_code._Folder(tmp_path / "package", 0o755, 0o644)
    user = stored_code._Folder(tmp_path / "user")
    monkeypatch.setattr(stored_code, "_folders", lambda: iter([package, user]))
    old_umask = os.umask(0o077)
    try:
        fresh()(21)
    finally:
        os.umask(old_umask)
    (code,) = [file for file in package.path.iterdir() if file.suffix != ".lock"]
    assert (package.path.stat().st_mode & 0o777, code.stat().st_mode & 0o777) == (0o755, 0o644)
    monkeypatch.setattr(stored_code, "_writable", lambda: user)
    other = fresh()
    assert other.is_ready()
    assert other(21) == 42
    assert misses(other.dispatcher()) == 0
    assert not user.path.exists()


def test_where_the_package_cannot_be_written_the_user_keeps_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    package, user = stored_code._Folder(tmp_path / "file" / "in"), stored_code._Folder(tmp_path / "user")
    monkeypatch.setattr(stored_code, "_folders", lambda: iter([package, user]))
    assert fresh()(21) == 42
    assert fresh().is_ready()
    assert {file.stat().st_mode & 0o777 for file in user.path.iterdir()} == {0o600}
    monkeypatch.setattr(stored_code, "_folders", lambda: iter([package]))
    stored_code._first_writable.cache_clear()
    assert not stored_code.can_store()
    lonely = fresh()
    assert lonely(21) == 42
    assert numba_support.are_ready(fresh(), wait=False), "nobody else can compile it for this process"


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_code_of_a_folder_that_others_may_write_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setattr(stored_code, "_folders", lambda: iter([stored_code._Folder(tmp_path / "shared")]))
    fresh()(21)
    (tmp_path / "shared").chmod(mode)
    stored_code._first_writable.cache_clear()
    other = fresh()
    assert not other.is_ready()
    assert other(21) == 42
    assert misses(other.dispatcher()) == 1


@pytest.mark.parametrize("damage", [b"", b"\x80\x05K\x01.", b"not a pickle"])
def test_damaged_code_is_compiled_again_and_replaced(named_folder: Path, damage: bytes) -> None:
    fresh()(21)
    (code,) = [file for file in named_folder.iterdir() if file.suffix != ".lock"]
    code.write_bytes(damage)
    other = fresh()
    assert other(21) == 42
    assert misses(other.dispatcher()) == 1
    assert len(code.read_bytes()) > 1000


def test_code_of_an_old_version_is_removed_and_that_of_a_recent_one_stays(named_folder: Path) -> None:
    fresh()(21)
    (code,) = [file for file in named_folder.iterdir() if file.suffix != ".lock"]
    function, _, rest = code.name.partition("-")
    recent, old, other = (named_folder / name for name in (f"{function}-a.b", f"{function}-c.d", f"other-c.{rest}"))
    for file in (recent, old, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (0, 0))
    fresh()(2.5)
    assert (recent.exists(), old.exists(), other.exists()) == (True, False, True)


PROGRAM = """
from user import slow
print(slow(1), sum(slow.dispatcher().stats.cache_misses.values()))
"""
USER = """
from numba.core import event
from projections.audit.numba_support import compiled
import time, pathlib, sys

@compiled
def slow(number):
    return number + 1

class Gate(event.Listener):
    # The first process to compile leaves a sign and goes on when the test has seen it.
    def on_start(self, _event):
        pathlib.Path(sys.argv[1]).touch()
        while pathlib.Path(sys.argv[1]).exists():
            time.sleep(0.01)
    def on_end(self, _event):
        pass

event.register("numba:compile", Gate())
"""


def test_two_processes_compile_a_function_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    (tmp_path / "user.py").write_text(USER)
    gates = [tmp_path / "gate-1", tmp_path / "gate-2"]
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(gate)], stdout=subprocess.PIPE, text=True)
        for gate in gates
    ]
    until(lambda: any(gate.exists() for gate in gates))
    for gate in gates:
        gate.unlink(missing_ok=True)
    outputs = [process.communicate(timeout=GIVE_UP_S)[0].split() for process in processes]
    assert sorted(outputs) == [["2", "0"], ["2", "1"]]


AUDIT = """
import io, sys
from pathlib import Path
from projections.audit import numba_support
numba_support.FEW = 0
from projections.audit import compile_ahead
from projections.audit.numba_support import _Compiled
compile_ahead.main()
compiled = [one for module in list(sys.modules.values()) for one in vars(module).values() if isinstance(one, _Compiled)]
print(sum(sum(one._made.stats.cache_misses.values()) for one in compiled if one._stored and one._made is not None))
"""


def test_a_second_process_compiles_nothing_after_the_first_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the package's own folder, which real audits use, too."""
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    outputs = []
    for _run in range(2):
        process = subprocess.run(
            [sys.executable, "-c", AUDIT], capture_output=True, text=True, timeout=GIVE_UP_S, check=True
        )
        outputs.append(process.stdout.strip())
    assert outputs[1] == "0"


def test_small_work_goes_on_without_the_compiler_and_large_work_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def start() -> bool:
        started.append(1)
        return True

    monkeypatch.setattr(numba_support._AHEAD, "start", start)
    function, few = fresh(), numba_support.FEW
    assert not numba_support.worth_compiling(few, function)
    assert started == []
    assert not numba_support.worth_compiling(few + 1, function)
    assert not numba_support.worth_compiling(50 * few, function)
    assert len(started) == 2
    assert numba_support.worth_compiling(50 * few + 1, function)
    function(np.int64(21))
    assert numba_support.worth_compiling(few + 1, function)
    assert numba_support.worth_compiling(few + 1, fresh())
    assert len(started) == 2


def test_a_compiler_that_ended_without_a_result_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = numba_support._Ahead()
    monkeypatch.setattr(numba_support, "_AHEAD", ahead)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    function = fresh()
    numba_support.finish_compiling(function)
    assert numba_support.are_ready(function, wait=False)
    assert not numba_support.is_compiling()
