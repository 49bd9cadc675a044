"""An audit's process needs little memory: it does not load pandas, and Arrow returns freed memory."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

_PROGRAM = """
import sys
from projections.audit.run import limit_memory
limit_memory()
import numpy as np
import pyarrow as pa
from projections.audit.kernel import kernel as deciding
pa.array(np.zeros(3))
pa.array(["a", None])
print("pandas" in sys.modules, pa.default_memory_pool().backend_name)
import pandas
"""


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed, so nothing would import it")
def test_arrow_does_not_import_pandas_but_other_code_can() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert output[0] == "False"
    assert output[1] in ("jemalloc", "mimalloc", "system")
