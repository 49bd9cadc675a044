"""The parts that the verbs share that ask about settings: options, the moment of the question, and which settings.

Proved by tests/cli/test_questions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from ledger.errors import BadInput, NotFound
from ledger.near_names import did_you_mean
from ledger.opening import open_ledger
from ledger.store import Ledger
from projections.query.query import IN_FORCE, KnownAt, Query
from scripts.cli import exits
from scripts.cli.instants import timezone
from scripts.cli.options import SETTING_KEY, Format, at, at_least, database, known_at, output_format
from scripts.cli.output import Columns, human_time, print_line, show

Command = TypeVar("Command", bound=Callable[..., Any])

only_settings: Final = click.option(
    "--setting", "settings", type=SETTING_KEY, multiple=True, help="Only this setting. Can be repeated."
)


def _decorated(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def at_a_moment(command: Command) -> Command:
    """--at, --known-at, --timezone, --setting, and the options of `over_time`."""
    return _decorated(command, at, known_at("now"), timezone, only_settings, at_least, database, output_format)


def over_time(command: Command) -> Command:
    """--known-at, --timezone, --at-least, --db and --format."""
    return _decorated(command, known_at("now"), timezone, at_least, database, output_format)


@contextmanager
def open_query(db: str, at_least: int) -> Iterator[Query]:
    """The questions to the ledger, once it has reached the position `at_least`."""
    with open_ledger(db) as ledger:
        ledger.at_least(at_least)
        yield Query(ledger)


def moment(query: Query, instant: int | str) -> int:
    """µs; the word `now` is the ledger's present: not before its last event, because another clock may be ahead."""
    return query.context().now if isinstance(instant, str) else instant


def require_settings(wanted: Iterable[str], existing: Iterable[str], fact: str, others: str) -> list[str]:
    """The wanted settings, sorted. Raises `BadInput`, which proposes near names, if one is not among the `existing`."""
    names = sorted(set(wanted))
    known = list(existing)
    missing = [f"{name}{did_you_mean(name, known)}" for name in names if name not in known]
    if missing:
        raise BadInput(f"{fact}: {', '.join(missing)}; leave --setting out to see {others}")
    return names


def before_the_beginning(ledger: Ledger, at: int, known_at: KnownAt) -> str | None:
    """Why an answer is empty, if the ledger had no event yet by the `known_at` of the question."""
    known_by = at if known_at == IN_FORCE else known_at
    first = ledger.recorder.entry(1)
    if not isinstance(known_by, int) or first is None or known_by >= first.recorded_at:
        return None
    return (
        f"the ledger knew nothing by {human_time(known_by)}: its first event was recorded at "
        f"{human_time(first.recorded_at)}; --known-at now judges in hindsight"
    )


def say_before_first_record(ledger: Ledger, requests: int, of: int) -> None:
    """A line on standard error if requests were made before the ledger's first event."""
    first = ledger.recorder.entry(1)
    if requests and first is not None:
        exits.print_note(
            f"{requests:,} of {of:,} requests were made before the ledger's first event, of "
            f"{human_time(first.recorded_at)}: nothing was in force then; --known-at now judges them in hindsight, and "
            "inforce import fills a ledger with changes that keep an earlier recorded_at"
        )


@contextmanager
def explained(ledger: Ledger, at: int, known_at: KnownAt) -> Iterator[None]:
    """Within the block, what does not exist because the ledger had not begun is explained so. Raises `NotFound`."""
    try:
        yield
    except NotFound:
        why = before_the_beginning(ledger, at, known_at)
        if why is None:
            raise
        raise NotFound(why) from None


def show_answer(
    format_: Format,
    document: object,
    rows: Sequence[Any],
    fields: Sequence[str],
    columns: Columns,
    title: str,
    *,
    why_empty: str | None,
) -> None:
    """As `show`; an answer without rows is explained, in place of a table or as a note."""
    if rows or why_empty is None:
        show(format_, document, rows, fields, columns, title)
    elif format_ == "table":
        print_line(title, "bold")
        print_line(why_empty)
    else:
        show(format_, document, rows, fields, columns, title)
        exits.print_note(why_empty)
