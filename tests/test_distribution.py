"""The tests of a module run on one process, those of Spark share one, and the longest begin first."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.distribution import APART, FIRST, TOGETHER, unit_of

ROOT = Path(__file__).parents[1]
TESTS = "import pytest\n@pytest.mark.parametrize('n', range({count}))\ndef test_it(n): pass\n"


def test_units_stay_whole_and_begin_in_their_order(tmp_path: Path) -> None:
    names = ("faults/test_a", "a/test_a", "audit/spark/test_a", "audit/spark/test_b")
    early, late, *spark = (f"tests/{name}.py" for name in names)
    counts = {late: 20, early: 5, spark[0]: 5, spark[1]: 5}
    for module, count in counts.items():
        file = tmp_path / module
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TESTS.format(count=count))
    command = [sys.executable, "-m", "pytest", "-v", "-n", "2", "-p", "tests.support.distribution"]
    options = ["--import-mode=importlib", "--rootdir", str(tmp_path), "-c", os.devnull]
    ran = subprocess.run(
        [*command, *options, "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = re.findall(r"^\[(gw\d)\] .*PASSED (\S+)::test_it", ran.stdout, re.MULTILINE)
    assert len(passed) == sum(counts.values())
    workers = {module: {worker for worker, name in passed if name == module} for module in counts}
    assert all(len(names) == 1 for names in workers.values())
    assert workers[spark[0]] == workers[spark[1]]
    first = {next(name for worker, name in passed if worker == each) for each in ("gw0", "gw1")}
    assert first == {spark[0], early}


@pytest.mark.parametrize("module", APART)
def test_the_same_test_runs_on_two_databases_at_once(module: str) -> None:
    units = {unit_of(f"{module}::test_it[{database}]") for database in ("sqlite", "postgresql")}
    assert len(units) == 2


def test_every_folder_and_module_that_is_named_exists() -> None:
    assert [name for name in (*FIRST, *TOGETHER, *APART) if not (ROOT / name).exists()] == []
