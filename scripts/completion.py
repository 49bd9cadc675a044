"""`completion`: what a shell needs to complete verbs, options and setting keys. click makes it, and answers the shell.

Proved by tests/cli/test_completion.py.
"""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

VARIABLE: Final = "_INFORCE_COMPLETE"
"""`main` answers the shell where this is set."""


class _AnyBash(BashComplete):
    """Printed on any machine: bash itself may be another one, or not be found here."""

    @staticmethod
    def _check_version() -> None:
        return


_SHELLS: Final[dict[str, type[ShellComplete]]] = {"bash": _AnyBash, "zsh": ZshComplete, "fish": FishComplete}


@click.command
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete verbs and options.

    Put one of these lines into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish. The shell must find inforce by its
    name: it asks inforce for the verbs, the options and the keys of the built-in settings. bash must be 4.4 or later.

    \b
      eval "$(inforce completion bash)"
      eval "$(inforce completion zsh)"
      inforce completion fish | source
    """
    root = context.find_root()
    click.echo(_SHELLS[shell](root.command, {}, "inforce", VARIABLE).source())
