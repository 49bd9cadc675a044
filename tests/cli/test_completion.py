"""completion: what a shell asks for and gets. bash itself completes where it is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.main import VERBS
from tests.support.command import Inforce
from tests.support.real_data import REPOSITORY

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def answer(*words: str) -> list[str]:
    """The answer that zsh gets for the words before the cursor, the last of them unfinished."""
    environment = ENVIRONMENT | {
        "_INFORCE_COMPLETE": "zsh_complete",
        "COMP_WORDS": " ".join(("inforce", *words)),
        "COMP_CWORD": str(len(words)),
    }
    command = (sys.executable, "-m", "scripts.main")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return done.stdout.splitlines()


def proposals(*words: str) -> list[str]:
    # Of each proposal a line for its type, its text and its help.
    return answer(*words)[1::3]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_inforce(shell: str, inforce: Inforce) -> None:
    result = inforce("completion", shell)
    assert (result.code, result.err) == (0, "")
    assert f"_INFORCE_COMPLETE={shell}_complete" in result.out
    refused = inforce("completion", "csh")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)


def test_verbs_options_and_settings_are_proposed() -> None:
    assert proposals("") == list(VERBS)
    assert proposals("st") == ["state"]
    assert proposals("state", "org:acme", "--kn") == ["--known-at"]
    assert proposals("state", "--setting", "training") == ["training.opt_in"]
    assert proposals("timeline", "or") == ["org:"]
    assert proposals("doctor", "") == ["clock", "head", "log"]
    assert proposals("submit", "or") == ["org:"]
    assert proposals("submit", "org:acme", "training") == ["training.opt_in"]


@pytest.mark.parametrize("words", [("audit",), ("check",), ("import",), ("define", "acme.own"), ("submit",)])
def test_files_are_left_to_the_shell(words: tuple[str, ...]) -> None:
    assert answer(*words, "requests.js")[:2] == ["file", "requests.js"]


def test_proposing_verbs_imports_none() -> None:
    program = "from scripts.main import main; main()"
    environment = ENVIRONMENT | {"_INFORCE_COMPLETE": "bash_complete", "COMP_WORDS": "inforce s", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "plain,state" in done.stdout
    assert "pydantic" not in done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes(tmp_path: Path) -> None:
    launcher = tmp_path / "inforce"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scripts.main "$@"\n', encoding="utf-8")
    launcher.chmod(0o755)
    script = (
        'eval "$(inforce completion bash)"; complete -p inforce >/dev/null || exit 9; '
        "COMP_WORDS=(inforce timel); COMP_CWORD=1; _inforce_completion inforce; echo ${COMPREPLY[@]}"
    )
    environment = ENVIRONMENT | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["timeline"]
