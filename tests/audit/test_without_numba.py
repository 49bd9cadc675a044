"""Without Numba an audit says once what to install, and writes the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from projections.audit.numba_support import AVAILABLE, MISSING
from scripts.demo.generator import LEDGER, LOG, generate, prepare
from tests.support.command import Inforce, folder, inforce
from tests.support.waiting import GIVE_UP_S

__all__ = ["folder", "inforce"]

REQUESTS = 1500
WITHOUT_NUMBA = """
import sys

sys.modules["numba"] = None
from scripts.main import main

sys.argv[0] = "inforce"
main()
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("demo") / "kept"
    prepare(place)
    generate(place, REQUESTS, 1)
    return place


def without_numba(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMBA, *args], capture_output=True, text=True, timeout=GIVE_UP_S, check=False
    )


def outputs(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


@pytest.mark.skipif(not AVAILABLE, reason="Numba is not installed, so there is nothing to compare with")
@pytest.mark.parametrize("what_if", [False, True])
def test_the_outputs_are_the_same_bytes(
    demo: Path, inforce: Inforce, folder: Path, monkeypatch: pytest.MonkeyPatch, what_if: bool
) -> None:
    db = f"sqlite:///{demo / LEDGER}"
    (folder / "log.jsonl.gz").write_bytes((demo / LOG).read_bytes())
    (folder / "changes.jsonl").write_text(
        '{"type":"setting.changed","subject":"org:harbor-health","setting":"storage.inputs_outputs","value":false,'
        '"effective_from":"2024-09-01T00:00:00Z"}\n'
    )
    args = ["audit", "log.jsonl.gz", "--db", db, "--format", "json", "--findings", "3", "--rejects", "out/rejects"]
    forms = ["verdicts.parquet", "verdicts.csv"]
    written: list[dict[str, bytes]] = []
    shown: list[list[tuple[int, str]]] = []
    for numba in (True, False):
        # Each way compiles an index of its own.
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / f"cache-{numba}"))
        for kept in demo.glob("*.index"):
            kept.rename(folder / f"index-{numba}")
        (folder / "out").mkdir()
        answers = []
        for form in forms:
            rest = ["--what-if", "changes.jsonl"] if what_if else ["--report", "out/report"]
            if numba:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("projections.audit.numba_support.FEW", 0)
                    ran = inforce(*args, "--out", f"out/{form}", *rest)
                answers.append((ran.code, ran.out))
                assert MISSING not in ran.err
            else:
                process = without_numba(*args, "--out", f"out/{form}", *rest)
                answers.append((process.returncode, process.stdout))
                assert process.stderr.count(MISSING) == 1, process.stderr
        shown.append(answers)
        written.append(outputs(folder / "out"))
        os.rename(folder / "out", folder / f"out-{numba}")
    assert shown[0] == shown[1]
    assert {*written[0]} >= {*forms} | (set() if what_if else {"report/report.json"})
    assert written[0].keys() == written[1].keys()
    for name, content in written[0].items():
        assert content == written[1][name], name
