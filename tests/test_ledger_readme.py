"""Runs the Python example in ledger/README.md and compares its output with the block that follows it."""

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

from ledger.opening import open_ledger
from tests.support.ledgers import GENESIS, change, submit

README = Path(__file__).resolve().parents[1].joinpath("ledger/README.md").read_text(encoding="utf-8")


def test_the_eventsourcing_library_reads_a_ledger_as_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    with open_ledger("sqlite:///ledger.db", create=True) as ledger:
        submit(ledger, change(value=True), change(value=False))
        assert ledger.head().position == GENESIS + 2
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_path(str(script))
    assert output.getvalue() == shown
