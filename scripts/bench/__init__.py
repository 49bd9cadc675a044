"""`bench`: what recording, reading and deciding cost, each beside a baseline measured in the same run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from scripts.options import EXAMPLES

if TYPE_CHECKING:
    from scripts.bench.measuring import Bench

Command = TypeVar("Command", bound=Callable[..., Any])
REPETITIONS: Final = 7


def _options(command: Command) -> Command:
    for option in reversed(
        (
            click.option("--db", metavar="URL", help="A PostgreSQL server to make databases on. Left out: SQLite."),
            click.option(
                "--folder",
                type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
                default=".",
                show_default=True,
                help="Whose disk is measured: SQLite files go here, and are taken away again.",
            ),
            click.option(
                "--repetitions", type=click.IntRange(1, 1000), default=REPETITIONS, show_default=True, help="Turns."
            ),
            click.option("--quick", is_flag=True, help="Little work, and figures that mean little."),
            click.option(
                "--format",
                "format_",
                type=click.Choice(["table", "json"]),
                default="table",
                show_default=True,
                help="json is for programs.",
            ),
        )
    ):
        command = option(command)
    return command


@click.group(context_settings=EXAMPLES)
def bench() -> None:
    """Measure, each time beside a baseline.

    The baseline is measured in the same run, in turns with what is compared with it. Medians of wall time, with the
    least and the most, and processor time.
    """


@bench.command()
@_options
def check(**options: Any) -> None:
    """A decision about the past, beside a dict look-up of the present."""
    from scripts.bench.checking import BENCH

    _run(BENCH, **options)


@bench.command()
@_options
def append(**options: Any) -> None:
    """Recording, beside the bare eventsourcing library."""
    from scripts.bench.appending import BENCH

    _run(BENCH, **options)


@bench.command()
@_options
def replay(**options: Any) -> None:
    """Reading and rebuilding, beside a raw cursor over the same rows."""
    from scripts.bench.replaying import BENCH

    _run(BENCH, **options)


def _run(
    measured: Bench,
    *,
    db: str | None,
    folder: Path,
    repetitions: int,
    quick: bool,
    format_: str,
) -> None:
    from scripts.bench import measuring
    from scripts.bench.scratch import scratch
    from scripts.files import progress
    from scripts.output import write_json

    turns = min(repetitions, 2) if quick else repetitions
    with scratch(db, folder) as databases, ExitStack() as stack:
        cases = measured.cases(databases, stack, quick)
        with progress(f"bench {measured.name}", turns + 1) as tell:
            figures = measuring.measure(cases, turns, lambda done: tell(done, ""))
        report = measuring.Report(measured, databases.described, turns, figures)
    if format_ == "json":
        write_json(measuring.document(report) | {"quick": quick})
    else:
        measuring.show(report)
        if quick:
            from scripts.output import print_line

            print_line("--quick: these figures mean little")
