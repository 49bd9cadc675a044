"""Prints rows: as tables for people, as JSON, NDJSON or CSV for programs.

Programs get exact UTF-8. People get control characters as numbers, because a terminal would obey them.
Proved by tests/cli/test_output.py and tests/cli/test_main.py.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from shutil import get_terminal_size
from typing import Any, Final

import click
import msgspec

from ledger.times import BEGINNING, END, format_time
from projections.temporal.coordinates import ClockNotice
from scripts.cli.exits import print_note
from scripts.cli.options import Format

Columns = Mapping[str, Callable[[Any], object]]
"""A column's title → what the column shows of a row."""

_BEGINNING_TEXT: Final = format_time(BEGINNING)

encode: Final = msgspec.json.Encoder().encode


def json_text(value: object) -> str:
    return encode(value).decode()


def show(
    format_: Format, document: object, rows: Sequence[Any], fields: Sequence[str], columns: Columns, title: str = ""
) -> None:
    """Prints `document` (json), `rows` one per line (ndjson, csv), or `rows` as a table with `columns`.

    `fields` are the columns of the CSV: paths with dots.
    """
    match format_:
        case "json":
            write_json(document)
        case "ndjson":
            write(b"".join(encode(row) + b"\n" for row in rows))
        case "csv":
            write(csv_bytes([fields, *(csv_row(row, fields) for row in rows)]))
        case "table":
            print_table(columns, rows, title)


def show_record(format_: Format, record: Mapping[str, Any], title: str, times: Sequence[str] = ()) -> None:
    """Prints one object. A table shows a member per line; `times` names the members that are RFC 3339 times."""
    if format_ != "table":
        show(format_, record, [record], tuple(record), {})
        return
    members = [(name, human_bound(value) if name in times else value) for name, value in record.items()]
    print_table({"": lambda member: member[0].replace("_", " "), title: lambda member: member[1]}, members)


def print_clock_notice(notice: ClockNotice | None, rows: int | None = None) -> None:
    """Says that an answer rests on a clock that was ahead, or so many requests of it."""
    if notice is not None:
        print_line(f"clock        {clock_sentence(notice, rows)}")


def clock_sentence(notice: ClockNotice, rows: int | None = None) -> str:
    what = "this answer rests" if rows is None else "1 request rests" if rows == 1 else f"{rows:,} requests rest"
    acknowledged = "see inforce doctor clock" if notice.position is None else f"acknowledged by #{notice.position}"
    return (
        f"{what} on a clock that was ahead, from {human_time(notice.start)} until {human_time(notice.until)} "
        f"({acknowledged}): changes made by then may be missing"
    )


def show_clock_notice(format_: Format, notice: ClockNotice | None) -> None:
    """Says so beside an answer of rows, on standard error if the rows are for programs; JSON has it as a member."""
    if format_ == "table":
        print_clock_notice(notice)
    elif format_ != "json" and notice is not None:
        print_note(clock_sentence(notice))


def show_clock_notices(format_: Format, notices: Iterable[tuple[ClockNotice, int]]) -> None:
    """Says how many requests rest on each stretch, where `show_clock_notice` says it of one answer."""
    for notice, rows in notices:
        if format_ == "table":
            print_clock_notice(notice, rows)
        elif format_ != "json":
            print_note(clock_sentence(notice, rows))


def write(content: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(content)


def write_json(document: object) -> None:
    write(msgspec.json.format(encode(document), indent=2) + b"\n")


def csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def csv_row(row: Any, fields: Sequence[str]) -> list[str]:
    return [_cell(row, field) for field in fields]


def _cell(row: Any, field: str) -> str:
    value: Any = msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, msgspec.Raw):
            value = msgspec.json.decode(value)
    return _plain_text(value)


def _plain_text(value: object) -> str:
    """A text unchanged, None as empty, any other value as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json_text(value)


def print_table(columns: Columns, rows: Iterable[Any], title: str = "") -> None:
    cells = [[printable(_plain_text(show_cell(row))) for show_cell in columns.values()] for row in rows]
    if title:
        print_line(title, "bold")
    if not sys.stdout.isatty():
        # Into a file or a pipe nothing is wrapped, and no line ends in padding.
        text = _table_text(list(columns), cells, 10_000)
        sys.stdout.write("".join(line.rstrip() + "\n" for line in text.splitlines()))
        return
    width = get_terminal_size().columns
    used = [i for i in range(len(columns)) if not cells or any(row[i] for row in cells)]
    titles, cells = [list(columns)[i] for i in used], [[row[i] for i in used] for row in cells]
    if sum(_widest_word(column) for column in zip(titles, *cells, strict=True)) + 3 * (len(titles) - 1) <= width:
        sys.stdout.write(_table_text(titles, cells, width))
    else:
        # A table whose words are broken cannot be read.
        _print_records(titles, cells)


def _table_text(titles: Sequence[str], cells: Iterable[Sequence[str]], width: int) -> str:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(cells)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    columns = list(zip(titles, *rows, strict=True))
    narrowest = [_widest_word(column) for column in columns]
    widest = [max(map(cell_len, column)) for column in columns]
    fitting = _fitting_widths(narrowest, widest, width - 3 * (len(columns) - 1))
    for column, least, exact in zip(columns, narrowest, fitting, strict=True):
        table.add_column(column[0], overflow="fold", min_width=least, width=exact)
    for row in rows:
        # As Text, so that rich does not read a value as markup.
        table.add_row(*map(Text, row))
    screen = Console(file=sys.stdout, width=width, emoji=False)
    with screen.capture() as captured:
        screen.print(table)
    return captured.get()


def _fitting_widths(narrowest: Sequence[int], widest: Sequence[int], room: int) -> Sequence[int | None]:
    """The widths of columns that are too wide together: the widest ones that can wrap become narrower.

    None where rich may decide: if everything fits, or nothing can. rich itself narrows columns whose words it must not
    break, and then cuts off the table's right edge.
    """
    if sum(widest) <= room or sum(narrowest) > room:
        return [None] * len(widest)
    widths = [min(width, room) for width in widest]
    while sum(widths) > room:
        widths[max((i for i in range(len(widths)) if widths[i] > narrowest[i]), key=widths.__getitem__)] -= 1
    return widths


def _widest_word(texts: Iterable[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=0)


def _print_records(titles: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    """Prints a line per cell, as psql does if a table is too wide."""
    margin = max(map(len, titles)) + 3
    for number, row in enumerate(cells):
        if number:
            print_line()
        for title, text in zip(titles, row, strict=True):
            if text:
                print_line(f"{title:<{margin}}{text}")


def print_line(line: str = "", style: str = "") -> None:
    """`style`: bold, underline and a colour, in any order. Only terminals get it."""
    words = set(style.split())
    colour = next(iter(words - {"bold", "underline"}), None)
    # Not rich's print: it costs a millisecond per line, and exits by itself if the reader closes the pipe.
    click.echo(
        click.style(printable(line), fg=colour, bold="bold" in words or None, underline="underline" in words or None)
    )


def printable(text: str) -> str:
    """The text with control characters as numbers."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def human_bound(instant: int | str | None) -> str:
    """The bound of a period: empty if the period has no bound on this side."""
    if instant is None or instant in (BEGINNING, END, _BEGINNING_TEXT):
        return ""
    return human_time(instant)


def human_time(instant: int | str) -> str:
    """`2026-01-03 09:00:00Z`; a fraction of a second is shown only if it is not zero."""
    text = format_time(instant) if isinstance(instant, int) else instant
    day, _, clock = text.removesuffix("Z").partition("T")
    whole, _, fraction = clock.partition(".")
    fraction = fraction.rstrip("0")
    return f"{day} {whole}{'.' + fraction if fraction else ''}Z"
