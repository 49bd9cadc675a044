"""`inforce bench`: measures appends, reads and decisions, each beside a baseline of the same run and its mark."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

from scripts.bench.suite import SUITES, Suite, SuiteContext

if TYPE_CHECKING:
    from scripts.bench.report import SuiteReport

Command = TypeVar("Command", bound=Callable[..., Any])
BenchFormat = Literal["table", "json"]

TURNS: Final = 7
QUICK_TURNS: Final = 2
_FOLDER: Final = click.Path(exists=True, file_okay=False, writable=True, path_type=Path)
_OPTIONS: Final = [
    click.option("--db", metavar="URL", help="Create the databases on this PostgreSQL server. Default: SQLite files."),
    click.option(
        "--folder",
        type=_FOLDER,
        default=".",
        show_default=True,
        help="Put SQLite files here, on the disk to be measured, and remove them at the end.",
    ),
    click.option("--turns", type=click.IntRange(1, 1000), default=TURNS, show_default=True, help="Repetitions."),
    click.option("--quick", is_flag=True, help="Try the suite with little work. The figures mean little."),
    click.option(
        "--format",
        "format_",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="json is for programs.",
    ),
]
_SIZED_OPTIONS: Final = [
    click.option(
        "--events",
        type=click.IntRange(1000, 100_000_000),
        help="The size of the large ledger. Most marks that name a size need 10000000 (audit: 5000000).",
    ),
    click.option(
        "--keep",
        type=_FOLDER,
        metavar="DIR",
        help="Keep large SQLite ledgers here, and use those that are already here.",
    ),
]


def _options(sized: bool) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed([*_OPTIONS, *(_SIZED_OPTIONS if sized else [])]):
            command = option(command)
        return command

    return add


@click.group(
    epilog="Every suite takes --db postgresql://… for PostgreSQL, --quick for a try, and --format json.",
)
def bench() -> None:
    """Measure inforce, each figure beside a baseline.

    The baseline runs in the same run, in alternation with the cases that it is compared with. Figures are medians;
    beside each stands its mark, the target of the figure.

    \b
      inforce bench append
      inforce bench http --db postgresql://postgres@localhost/postgres
      inforce bench replay --events 10000000 --keep /var/tmp
      inforce bench all --quick
    """


def _add(name: str, suite: Suite) -> None:
    @bench.command(name, short_help=suite.about, help=f"Measure {suite.about}.\n\nNeeds {suite.needs}.")
    @_options(suite.sized)
    def command(**options: Any) -> None:
        _print([name], **options)


for _name, _suite in SUITES.items():
    _add(_name, _suite)


@bench.command("all")
@_options(sized=True)
def everything(**options: Any) -> None:
    """Run every suite, one after the other."""
    _print(list(SUITES), **options)


def _print(names: list[str], *, format_: BenchFormat, **options: Any) -> None:
    from scripts.bench.report import document, show
    from scripts.cli.output import print_line, write_json

    documents = []
    for number, name in enumerate(names):
        report = _run(name, **options)
        if format_ == "json":
            documents.append(document(report))
            continue
        if number:
            print_line()
        show(report)
    if format_ == "json":
        write_json(documents[0] if len(names) == 1 else documents)


def _run(
    name: str,
    *,
    db: str | None,
    folder: Path,
    turns: int,
    quick: bool,
    events: int | None = None,
    keep: Path | None = None,
) -> SuiteReport:
    from ledger.errors import BadInput
    from scripts.bench.report import SuiteReport
    from scripts.bench.scratch import scratch_databases

    suite = SUITES[name]
    missing = [package for package in suite.packages if find_spec(package) is None]
    if missing:
        raise BadInput(f"this bench needs {' and '.join(missing)}; install inforce and the bench group")
    turns = min(turns, QUICK_TURNS) if quick else turns
    run = import_module(f"scripts.bench.suites.{suite.module}").run
    # The inner stack closes whatever the suite opened before the outer context drops its databases.
    with scratch_databases(db, folder) as databases, ExitStack() as stack:
        result = run(SuiteContext(databases, folder, stack, quick, turns, events, keep))
        return SuiteReport(name, suite.about, databases.described, turns, quick, result)
