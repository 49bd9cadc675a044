"""The command: its verbs, its exit codes, its start-up time."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from scripts.main import VERBS, cli
from tests.support.command import Inforce
from tests.support.real_data import REPOSITORY
from tests.support.waiting import GIVE_UP_S

COMMAND = (sys.executable, "-m", "scripts.main")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def test_help_lists_every_verb_and_imports_none() -> None:
    program = (
        "import sys\nfrom scripts.main import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'ledger', 'projections', 'api', 'pydantic', 'fastapi', 'rich', 'msgspec', 'eventsourcing'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ENVIRONMENT, timeout=GIVE_UP_S
    )
    for name, verb in VERBS.items():
        assert f"  {name}" in result.stdout
        assert verb.help in result.stdout


def test_help_takes_under_300_ms_of_cpu() -> None:
    cpu_seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], capture_output=True, check=True, env=ENVIRONMENT, timeout=GIVE_UP_S)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(cpu_seconds) < 0.3


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_with_examples_and_the_line_that_lists_it(name: str, inforce: Inforce) -> None:
    result = inforce(name, "--help")
    assert (result.code, result.err) == (0, "")
    command = cli.get_command(None, name)  # type: ignore[arg-type]  # the group needs no context for it
    assert command is not None
    # A group's examples are in the help of its verbs.
    if not isinstance(command, click.Group):
        assert f"inforce {name}" in result.out.split("Usage:", 1)[1].split("\n", 1)[1]
    assert (command.help or "").partition("\n")[0] == VERBS[name].help


@pytest.mark.parametrize(
    "args",
    [
        ("nosuch",),
        ("--nosuch",),
        ("state",),
        ("state", "--format", "yaml", "org:acme"),
        ("state", "acme"),
        ("state", "org:acme", "--at", "yesterday"),
        ("history", "org:acme", "--limit", "0"),
        ("serve", "--port", "x"),
    ],
)
def test_a_mistake_in_the_command_is_one_line_and_exit_2(args: tuple[str, ...], inforce: Inforce, folder: Path) -> None:
    result = inforce(*args)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("inforce: ")
    assert result.err.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_version_prints_the_version() -> None:
    result = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert result.stdout.startswith("inforce ")


def test_a_command_without_a_verb_prints_help_and_exits_2(inforce: Inforce) -> None:
    result = inforce()
    assert (result.code, result.out) == (2, "")
    assert "Verbs:" in result.err


def test_a_closed_pipe_prints_no_error(inforce: Inforce, folder: Path) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    script = f"{sys.executable} -m scripts.main export | head -c 1 > first; echo ${{PIPESTATUS[0]}}"
    env = {**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    for verb in ("export", "replay", "history catalog:settings"):
        result = subprocess.run(
            ["bash", "-c", script.replace("export", verb)],
            check=True,
            capture_output=True,
            text=True,
            cwd=folder,
            env=env,
        )
        assert result.stderr == ""
        assert result.stdout.strip() in ("0", "141")


def test_an_interrupt_is_one_line_and_exit_130(inforce: Inforce, monkeypatch: pytest.MonkeyPatch) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scripts.history.read_history", interrupted)
    result = inforce("history", "org:acme")
    assert (result.code, result.err) == (130, "inforce: interrupted\n")


def test_an_internal_error_exits_70(inforce: Inforce, monkeypatch: pytest.MonkeyPatch) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true")
    monkeypatch.setattr("scripts.history.read_history", lambda *_, **__: 1 / 0)
    result = inforce("history", "org:acme")
    assert result.code == 70
    assert "fault of inforce itself" in result.err


def test_control_characters_in_a_reason_do_not_reach_the_terminal(inforce: Inforce) -> None:
    inforce("submit", "org:acme", "training.opt_in", "true", "--reason", "\x1b[2Jgone[bold]")
    for verb in (("history", "org:acme"), ("replay",)):
        out = inforce(*verb).out
        assert "\x1b" not in out
        assert "\\x1b[2Jgone[bold]" in out


@pytest.mark.parametrize(("option", "more"), [("--quiet", ()), ("--db", ("sqlite:///x.db",)), ("-f", ())])
def test_an_option_before_the_verb_is_told_its_place(option: str, more: tuple[str, ...], inforce: Inforce) -> None:
    refused = inforce(option, *more, "state", "org:acme")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        f"inforce: no option {option} stands before the verb; write it after, as in inforce state {option}; "
        "see inforce --help\n"
    )
    assert inforce("--nosuch").err == "inforce: No such option '--nosuch'; see inforce --help\n"
