"""Stored compiled code is compiled anew when a constant of another file changes; threads may share a first call."""

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from projections.audit.numba_support import AVAILABLE, constants_key
from tests.support.waiting import GIVE_UP_S

USER = """
from constants import CONSTANT
from projections.audit.numba_support import compiled, constants_key, part

KEY = constants_key(globals())

@part
def inner(number):
    return number + CONSTANT

@compiled
def outer(number, constants=KEY):
    return inner(number)

print(outer(1), sum(outer.stats.cache_hits.values()))
"""


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
def test_compiled_code_follows_a_constant_of_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "user.py").write_text(USER)
    output = []
    for constant in (5, 5, 6, 5):
        (tmp_path / "constants.py").write_text(f"CONSTANT = {constant}\n")
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import user"
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=GIVE_UP_S, check=True
        )
        output.append(process.stdout.split())
    assert output == [["6", "0"], ["6", "1"], ["7", "0"], ["6", "1"]]


THREADS = """
import time
from concurrent.futures import ThreadPoolExecutor
import numba  # now, so that the calls below meet while the functions are made
from projections.audit import numba_support
from projections.audit.numba_support import compiled, part

make = numba_support._Compiled._make

def slowly(self):
    if not self._stored:
        time.sleep(1.0)
    return make(self)

numba_support._Compiled._make = slowly

@part
def first(number):
    return number + 1

@part
def second(number):
    return first(number) + 1

@compiled
def outer(number):
    return second(number)

def call(number):
    time.sleep(number / 200)
    return outer(number)

with ThreadPoolExecutor(20) as pool:
    print(sum(pool.map(call, range(20))))
"""


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
def test_threads_may_share_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    # As a script: while a module is imported, the compiler's own imports in other threads would wait for it.
    (tmp_path / "threads.py").write_text(THREADS)
    command = [sys.executable, str(tmp_path / "threads.py")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=GIVE_UP_S, check=False)
    assert (process.returncode, process.stdout.split()) == (0, ["230"]), process.stderr


def test_the_key_is_another_for_another_constant_or_field() -> None:
    one, other = namedtuple("One", "a b"), namedtuple("One", "b a")  # of one name on purpose
    keys = [constants_key({"A": 1}), constants_key({"A": 2}), constants_key({"B": 1})]
    keys += [constants_key({"A": 1}, one), constants_key({"A": 1}, other)]
    assert len(set(keys)) == len(keys)
    assert constants_key({"A": 1, "a_function": object()}) == keys[0]
