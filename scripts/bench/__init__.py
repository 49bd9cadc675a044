"""`bench`: what recording, reading and deciding cost, each beside a baseline of the same run and the mark it has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

from scripts.bench.suites import SUITES, Setting
from scripts.cli.options import EXAMPLES

if TYPE_CHECKING:
    from scripts.bench.reporting import Report

Command = TypeVar("Command", bound=Callable[..., Any])
BenchFormat = Literal["table", "json"]

TURNS: Final = 7
QUICK_TURNS: Final = 2
ALL: Final = "all"


def _options(sized: bool) -> Callable[[Command], Command]:
    options = [
        click.option("--db", metavar="URL", help="A PostgreSQL server to make databases on. Left out: SQLite."),
        click.option(
            "--folder",
            type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
            default=".",
            show_default=True,
            help="Whose disk is measured: SQLite files go here, and are taken away again.",
        ),
        click.option("--turns", type=click.IntRange(1, 1000), default=TURNS, show_default=True, help="Repetitions."),
        click.option("--quick", is_flag=True, help="Little work, and figures that mean little."),
        click.option(
            "--format",
            "format_",
            type=click.Choice(["table", "json"]),
            default="table",
            show_default=True,
            help="json is for programs.",
        ),
    ]
    if sized:
        options += [
            click.option(
                "--events",
                type=click.IntRange(1000, 100_000_000),
                help="The size of the large ledger, ten for each subject; the marks speak of 10000000.",
            ),
            click.option(
                "--keep",
                type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
                metavar="DIR",
                help="Keep large SQLite ledgers here, and use those that are here.",
            ),
        ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group(
    context_settings=EXAMPLES,
    epilog="Every suite takes --db postgresql://… for PostgreSQL, --quick for a try, and --format json.",
)
def bench() -> None:
    """Measure, each time beside a baseline.

    The baseline is measured in the same run, in turns with what is compared with it. Figures are medians; beside each
    stands the mark that it has to come to.

    \b
      inforce bench append
      inforce bench http --db postgresql://postgres@localhost/postgres
      inforce bench replay --events 10000000 --keep /var/tmp
      inforce bench all --quick
    """


def _add(name: str) -> None:
    suite = SUITES[name]

    @bench.command(name, short_help=suite.about, help=f"Measure {suite.about}.\n\nNeeds {suite.needs}.")
    @_options(suite.sized)
    def command(**options: Any) -> None:
        _print([name], **options)


for _name in SUITES:
    _add(_name)


@bench.command(ALL)
@_options(sized=True)
def everything(**options: Any) -> None:
    """Run every suite, one after the other."""
    _print(list(SUITES), **options)


def _print(
    names: list[str],
    *,
    format_: BenchFormat,
    **options: Any,
) -> None:
    from scripts.bench import reporting
    from scripts.cli.output import print_line, write_json

    reports = []
    for number, name in enumerate(names):
        report = _run(name, **options)
        if format_ == "json":
            reports.append(reporting.document(report))
            continue
        if number:
            print_line()
        reporting.show(report)
    if format_ == "json":
        write_json(reports[0] if len(names) == 1 else reports)


def _run(
    name: str,
    *,
    db: str | None,
    folder: Path,
    turns: int,
    quick: bool,
    events: int | None = None,
    keep: Path | None = None,
) -> Report:
    from scripts.bench.reporting import Report
    from scripts.bench.scratch import scratch

    suite = SUITES[name]
    turns = min(turns, QUICK_TURNS) if quick else turns
    run = import_module(f"scripts.bench.{suite.module}").run
    # The stack within: what a suite opened is closed before its databases are taken away.
    with scratch(db, folder) as databases, ExitStack() as stack:
        result = run(Setting(databases, folder, stack, quick, turns, events, keep))
        return Report(name, suite.about, databases.described, turns, quick, result)
