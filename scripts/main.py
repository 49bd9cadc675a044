"""`inforce`: lists its verbs without importing any, runs one, and turns whatever goes wrong into a line and an exit.

Exit: 0 done and holds · 1 a violation or a failed verification was found · 2 usage or bad input · 3 ledger
unavailable or corrupt · 70 a fault of inforce itself · 130 interrupted · 141 the reader of the output went away ·
143 terminated.
Proved by tests/cli/test_main.py; `inforce --help` answers in under 300 ms, so nothing but click is imported here.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, Final, NamedTuple, NoReturn

import click

from scripts.cli.exits import BAD_INPUT, INTERRUPTED, OK, OUR_FAULT, READER_GONE, TERMINATED, UNAVAILABLE, say


class Verb(NamedTuple):
    module: str
    attribute: str
    help: str


VERBS: Final[dict[str, Verb]] = {
    "demo": Verb("scripts.demo", "demo", "Show the whole road on an invented platform."),
    "serve": Verb("scripts.serve", "serve", "Answer over HTTP."),
    "submit": Verb("scripts.submit", "submit", "Record a change, a clear, a retraction or a definition."),
    "state": Verb("scripts.ask", "state", "Show a subject's settings at any moment, as known at any moment."),
    "history": Verb("scripts.ask", "history", "Show who changed what about a subject, newest first."),
    "check": Verb("scripts.ask", "check", "Decide on a request: what was in force when it was made?"),
    "audit": Verb("scripts.audit.command", "audit", "Check every request of a log."),
    "replay": Verb("scripts.replay", "replay", "Tell the ledger's story, event by event."),
    "rebuild": Verb("scripts.rebuild", "rebuild", "Make the stored timelines anew from the events."),
    "export": Verb("scripts.transfer", "export", "Write every event, exactly as it was recorded."),
    "import": Verb("scripts.transfer", "import_", "Fill an empty ledger from an export or from submissions."),
    "backup": Verb("scripts.backup", "backup", "Copy the whole ledger into a file, while others write to it."),
    "bench": Verb("scripts.bench", "bench", "Measure, each time beside a baseline."),
}


class LazyGroup(click.Group):
    """Knows its verbs by name, and imports the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command: click.Command = getattr(import_module(verb.module), verb.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError("there is no such verb", ctx)
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
        """Runs and exits. Never returns, never raises but `SystemExit`."""
        if "_INFORCE_COMPLETE" in os.environ:
            super().main(args, prog_name="inforce", **extra)
        sys.exit(_run(self, list(sys.argv[1:] if args is None else args), extra))


def _run(group: click.Group, args: list[str], extra: dict[str, Any]) -> int:
    for stream in (sys.stdout, sys.stderr):
        # Where a terminal cannot show a character, it shows its number.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _invoke(group, args, extra)
        # Here, where a reader that went away or a full disk can still be told of.
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # What is left in the buffer would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return INTERRUPTED
    except click.UsageError as error:
        say(_usage(error))
        return BAD_INPUT
    except Exception as error:
        return _failed(error)


def _invoke(group: click.Group, args: list[str], extra: dict[str, Any]) -> int:
    try:
        with group.make_context("inforce", args, **extra) as context:
            code = group.invoke(context)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return BAD_INPUT
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    return code if isinstance(code, int) else OK


def _usage(error: click.UsageError) -> str:
    message = error.format_message().replace("\n", " ").strip()
    verb = error.ctx.command_path if error.ctx is not None else "inforce"
    return f"{message.rstrip('.')}; see {verb} --help"


def _failed(error: Exception) -> int:
    from ledger.errors import InforceError, LedgerCorrupt, LedgerUnavailable

    if isinstance(error, InforceError):
        say(error.detail)
        return UNAVAILABLE if isinstance(error, LedgerUnavailable | LedgerCorrupt) else BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        what = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        say(f"{what}{error.strerror[0].lower()}{error.strerror[1:]}")
        return BAD_INPUT
    import traceback

    traceback.print_exception(error)
    say("this is a fault of inforce itself, not of what you asked; the lines above say where")
    return OUR_FAULT


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"inforce {version('inforce')}")
        except PackageNotFoundError:
            click.echo("inforce (not installed)")
        context.exit()


@click.command(
    cls=LazyGroup,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="inforce VERB --help tells more. The ledger is named by --db or INFORCE_DATABASE: sqlite:///path "
    "(sqlite:///inforce.db if neither is there) or postgresql://user@host/name.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version and exit."
)
def cli() -> None:
    """Which privacy policy was in force when that request was made?"""


def main() -> NoReturn:
    """The entry point."""
    # As an exception, so that half-written files and imports are cleared away.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(TERMINATED))
    try:
        cli.main()
    finally:
        # Or else the interpreter looks for garbage in all that was imported, which takes a quarter of a second.
        gc.freeze()


if __name__ == "__main__":
    main()
