"""Compiled code travels with the package to the executors, which then compile nothing."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from projections.audit.numba_support import AVAILABLE
from tests.support.waiting import GIVE_UP_S

PROGRAM = """
import sys
from projections.audit import stored_code
from projections.audit.kernel.kernel import COMPILED
from projections.audit.reading import scan_lines

print(stored_code.__file__)
functions = [*COMPILED, scan_lines.scan, scan_lines.gather, scan_lines.times]
print([one.is_ready() for one in functions] == [True] * len(functions))

import numpy as np
from projections.audit.kernel.index_tables import retracted_by
from projections.audit.index.schema import Assertions

function = COMPILED[1].dispatcher()
signature = [np.zeros(1, np.uint32), np.zeros(1, np.uint32), np.zeros(1, np.uint32), np.zeros(1, np.uint32)]
for array in signature:
    array.flags.writeable = False
function(*signature, np.zeros(1, np.int32))
print(sum(function.stats.cache_misses.values()))
"""


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so nothing is compiled")
@pytest.mark.skipif(find_spec("pyspark") is None, reason="pyspark is not installed")
def test_a_worker_finds_the_compiled_code_in_the_shipped_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from projections.audit.spark.session import _code_archive

    archive = _code_archive(tmp_path)
    # A worker has no folders of the driver's.
    for name in ("XDG_CACHE_HOME", "TMPDIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(archive))
    process = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=GIVE_UP_S,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    place, ready, misses = process.stdout.splitlines()
    assert place.startswith(str(archive))
    assert (ready, misses) == ("True", "0")
