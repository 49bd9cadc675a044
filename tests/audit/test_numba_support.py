"""Compiled code that is stored is compiled anew when a constant of another file changes."""

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from projections.audit.numba_support import AVAILABLE, constants_key

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
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        output.append(process.stdout.split())
    assert output == [["6", "0"], ["6", "1"], ["7", "0"], ["6", "1"]]


def test_the_key_is_another_for_another_constant_or_field() -> None:
    one, other = namedtuple("One", "a b"), namedtuple("One", "b a")  # of one name on purpose
    keys = [constants_key({"A": 1}), constants_key({"A": 2}), constants_key({"B": 1})]
    keys += [constants_key({"A": 1}, one), constants_key({"A": 1}, other)]
    assert len(set(keys)) == len(keys)
    assert constants_key({"A": 1, "a_function": object()}) == keys[0]
