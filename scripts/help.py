"""`help`: the help of a verb, as `--help` after the verb shows it. Proved by tests/cli/test_help.py."""

from __future__ import annotations

import click

from ledger.near_names import did_you_mean


@click.command("help")
@click.argument("words", nargs=-1, metavar="[VERB [VERB]]")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a verb.

    Without VERB it lists the verbs. A few verbs have verbs of their own.

    \b
      inforce help
      inforce help state
      inforce help doctor clock
    """
    shown = context.find_root()
    for word in words:
        group = shown.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{shown.command_path} has no verbs of its own; write inforce help {words[0]}")
        command = group.get_command(shown, word) if word in group.list_commands(shown) else None
        if command is None:
            near = did_you_mean(word, group.list_commands(shown))
            raise click.UsageError(f"there is no such verb{near}", context)
        shown = click.Context(command, info_name=word, parent=shown)
    click.echo(shown.get_help())
