"""The command `inforce`: lists its verbs without importing them, runs one, and turns every error into a line and an
exit code (see the table in scripts/README.md).

`inforce --help` answers in under 300 ms, so this module imports nothing but click. Proved by tests/cli/test_main.py.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import click

from scripts.cli import exits

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


FAULTS_SHOWN_MAX: Final = 20
"""Of one body: lines on standard error."""


class Verb(NamedTuple):
    module: str
    attribute: str
    help: str


VERBS: Final[dict[str, Verb]] = {
    "demo": Verb("scripts.demo", "demo", "Try inforce on an invented platform."),
    "serve": Verb("scripts.serve", "serve", "Serve the ledger over HTTP."),
    "token": Verb("scripts.token", "token", "Make, list and revoke the tokens that callers sign in with."),
    "submit": Verb("scripts.submit", "submit", "Record a change, a clear, a retraction or a definition."),
    "define": Verb("scripts.define", "define", "Define a setting of your own, or redefine a setting."),
    "subjects": Verb("scripts.subjects", "subjects", "List the subjects that have a history."),
    "state": Verb("scripts.state", "state", "Show a subject's settings at any moment, as known at any moment."),
    "timeline": Verb("scripts.timeline", "timeline", "Show from when until when each value of a setting holds."),
    "diff": Verb("scripts.diff", "diff", "Show which settings differ between two moments, and why."),
    "history": Verb("scripts.history", "history", "Show who changed what about a subject, newest first."),
    "catalog": Verb("scripts.catalog", "catalog", "Show which settings exist at any moment, and who may write them."),
    "check": Verb("scripts.check", "check", "Check a request, or a file of them, against the policy in force."),
    "audit": Verb("scripts.audit.command", "audit", "Check every request of a log against the policy in force."),
    "replay": Verb("scripts.replay", "replay", "Print the ledger event by event."),
    "rebuild": Verb("scripts.rebuild", "rebuild", "Rebuild the stored timelines from the events."),
    "export": Verb("scripts.transfer", "export", "Write every event to a file, byte for byte as recorded."),
    "import": Verb("scripts.transfer", "import_", "Fill an empty ledger from an export or from submissions."),
    "backup": Verb("scripts.backup", "backup", "Copy a ledger in SQLite into a file while others write to it."),
    "keygen": Verb("scripts.keygen", "keygen", "Make a key that signs the checkpoints of the transparency log."),
    "doctor": Verb("scripts.doctor.command", "doctor", "Look at what a deployment rests on, and say what to do."),
    "bench": Verb("scripts.bench", "bench", "Measure inforce, each figure beside a baseline."),
    "completion": Verb("scripts.completion", "completion", "Print what makes a shell complete verbs and options."),
    "help": Verb("scripts.help", "help_", "Show the help of a verb."),
}


class LazyGroup(click.Group):
    """Lists the verbs by name, and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command: click.Command = getattr(import_module(verb.module), verb.attribute)
        _add_loudness(command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            verb = next((word for word in words if word in VERBS), None)
            if error.possibilities or verb is None:
                raise
            raise click.UsageError(
                f"no option {error.option_name} stands before the verb; write it after, as in inforce {verb} "
                f"{error.option_name}",
                ctx,
            ) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs, without importing any, and the options of `inforce` itself."""
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(name, help=verb.help) for name, verb in VERBS.items() if name.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from ledger.near_names import did_you_mean

            raise click.UsageError(f"there is no such verb{did_you_mean(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Runs and exits. Raises nothing but `SystemExit`."""
        if "_INFORCE_COMPLETE" in os.environ:
            super().main(args, prog_name="inforce", **extra)
        sys.exit(_run(self, list(sys.argv[1:] if args is None else args), extra))


def _add_loudness(command: click.Command) -> None:
    """Gives the verb, and each of its own verbs, --quiet and --verbose, and --config if it has options of keys."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            if inner is not None:
                _add_loudness(inner)
        if not command.invoke_without_command:
            return
    if any(parameter.name == "quiet" for parameter in command.params):
        return
    for name, help_ in (
        ("quiet", "Print on standard error only errors, and how much could not be read."),
        ("verbose", "Also print on standard error what is done, and how long it took."),
    ):
        option = click.Option(
            [f"--{name}"], is_flag=True, is_eager=True, expose_value=False, callback=exits.choose, help=help_
        )
        command.params.append(option)
    from scripts.cli.settings import config_option, has_settings

    if has_settings(command):
        command.params.append(config_option())


def _run(group: click.Group, args: list[str], extra: dict[str, Any]) -> int:
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows its number.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _invoke(group, args, extra)
        # Here an output that was closed, or a full disk, can still be reported.
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The rest of the buffer would raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OUTPUT_CLOSED
    except (KeyboardInterrupt, click.Abort):
        exits.print_message("interrupted")
        return exits.INTERRUPTED
    except click.UsageError as error:
        exits.print_message(_usage(error))
        return exits.BAD_INPUT
    except Exception as error:
        return _failed(error)


def _invoke(group: click.Group, args: list[str], extra: dict[str, Any]) -> int:
    try:
        with group.make_context("inforce", args, **extra) as context:
            # The server has a log of its own.
            if "serve" not in args[:1]:
                context.call_on_close(exits.print_log_messages())
            began = perf_counter()
            code = group.invoke(context)
            exits.print_detail(lambda: f"finished in {perf_counter() - began:.3f} s")
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return exits.BAD_INPUT
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    return code if isinstance(code, int) else exits.OK


def _usage(error: click.UsageError) -> str:
    message = error.format_message().replace("\n", " ").strip()
    verb = error.ctx.command_path if error.ctx is not None else "inforce"
    return f"{message.rstrip('.')}; see {verb} --help"


def _failed(error: Exception) -> int:
    from ledger.errors import BadInput, InforceError, LedgerCorrupt, LedgerUnavailable

    if isinstance(error, InforceError):
        # Each fault on a line, so that one reading mends them all.
        sentences = error.sentences() if isinstance(error, BadInput) else [error.detail]
        for sentence in sentences[:FAULTS_SHOWN_MAX] if len(sentences) > 1 else [error.detail]:
            exits.print_message(sentence)
        if len(sentences) > FAULTS_SHOWN_MAX:
            exits.print_message(f"and {len(sentences) - FAULTS_SHOWN_MAX} more")
        return exits.UNAVAILABLE if isinstance(error, LedgerUnavailable | LedgerCorrupt) else exits.BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        exits.print_message(f"{name}{error.strerror[0].lower()}{error.strerror[1:]}")
        return exits.BAD_INPUT
    import traceback

    traceback.print_exception(error)
    exits.print_message("this is a fault of inforce itself, not of your input; please report the lines above")
    return exits.INTERNAL_ERROR


def _version(context: click.Context, _parameter: click.Parameter, requested: bool) -> None:
    if requested and not context.resilient_parsing:
        click.echo(f"inforce {exits.installed_version() or '(not installed)'}")
        context.exit()


@click.command(
    cls=LazyGroup,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="inforce VERB --help shows the options of a verb, with examples. --db or INFORCE_DATABASE names the ledger: "
    "sqlite:///path or postgresql://user@host/name. Without them it is sqlite:///inforce.db.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version and exit."
)
def cli() -> None:
    """Which privacy policy was in force when that request was made?"""


def main() -> NoReturn:
    """The entry point of the installed command."""
    # For the files of other libraries, and of processes that this one starts; ours are private in any case.
    os.umask(0o077)
    # As an exception, so that half-written files and imports are removed.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(exits.TERMINATED))
    try:
        cli.main()
    finally:
        # Without this, the interpreter's exit searches all imported modules for garbage, for a quarter of a second.
        gc.freeze()


if __name__ == "__main__":
    main()
