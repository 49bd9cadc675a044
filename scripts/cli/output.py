"""Rows for people and for programs. What programs read is exact UTF-8; what people read obeys no control character."""

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
from scripts.cli.options import Format

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Any], object]]
"""A column's title → what it shows of a row."""

_BEGINNING_TEXT: Final = format_time(BEGINNING)

encode: Final = msgspec.json.Encoder().encode


def show(
    format_: Format, document: object, rows: Sequence[Any], fields: Sequence[str], columns: Columns, title: str = ""
) -> None:
    """Prints `document` (json), `rows` a line each (ndjson, csv with `fields`: paths with dots), or as a table."""
    match format_:
        case "json":
            write_json(document)
        case "ndjson":
            write(b"".join(encode(row) + b"\n" for row in rows))
        case "csv":
            write(csv_bytes([fields, *(csv_row(row, fields) for row in rows)]))
        case "table":
            print_table(columns, rows, title)


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
    """A text as it is, any other value as JSON; null and absent are both empty."""
    value: Any = msgspec.json.decode(row) if isinstance(row, msgspec.Raw) else row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, msgspec.Raw):
            value = msgspec.json.decode(value)
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


def print_table(columns: Columns, rows: Iterable[Any], title: str = "") -> None:
    cells = [[printable(said(of(row))) for of in columns.values()] for row in rows]
    if title:
        print_line(title, "bold")
    if not sys.stdout.isatty():
        # Into a file or a pipe nothing is wrapped, and no line ends in padding.
        text = _table_text(list(columns), cells, 10_000)
        sys.stdout.write("".join(line.rstrip() + "\n" for line in text.splitlines()))
        return
    width = get_terminal_size().columns
    shown = [i for i in range(len(columns)) if not cells or any(row[i] for row in cells)]
    titles, cells = [list(columns)[i] for i in shown], [[row[i] for i in shown] for row in cells]
    if sum(_widest_word(column) for column in zip(titles, *cells, strict=True)) + 3 * (len(titles) - 1) <= width:
        sys.stdout.write(_table_text(titles, cells, width))
    else:
        # Folded within its words a table cannot be read.
        _print_records(titles, cells)


def _table_text(titles: Sequence[str], cells: Iterable[Sequence[str]], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(cells)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in zip(titles, *rows, strict=True):
        table.add_column(column[0], overflow="fold", min_width=_widest_word(column))
    for row in rows:
        # Text, because a value is no markup.
        table.add_row(*map(Text, row))
    screen = Console(file=sys.stdout, width=width, emoji=False)
    with screen.capture() as captured:
        screen.print(table)
    return captured.get()


def _widest_word(texts: Iterable[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=0)


def _print_records(titles: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    """A line a cell, as psql does where a table is too wide."""
    margin = max(map(len, titles)) + 3
    for number, row in enumerate(cells):
        if number:
            print_line()
        for title, text in zip(titles, row, strict=True):
            if text:
                print_line(f"{title:<{margin}}{text}")


def print_line(line: str = "", style: str = "") -> None:
    """`style`: bold, underline and a colour, in any order; for terminals only."""
    words = set(style.split())
    colour = next(iter(words - {"bold", "underline"}), None)
    # Not rich's print, which costs a millisecond a line and ends the process its own way when a reader goes away.
    click.echo(
        click.style(printable(line), fg=colour, bold="bold" in words or None, underline="underline" in words or None)
    )


def said(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return encode(value).decode()


def printable(text: str) -> str:
    """Without control characters, which a terminal obeys: somebody else may have written the text."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def human_time(instant: int | str | None) -> str:
    """`2026-01-03 09:00:00Z`, with its fraction only where there is one; empty for no bound."""
    if instant is None or instant in (BEGINNING, END, _BEGINNING_TEXT):
        return ""
    return human_instant(instant)


def human_instant(instant: int | str) -> str:
    """The same of an instant that was asked about, which is never no bound."""
    text = format_time(instant) if isinstance(instant, int) else instant
    day, _, clock = text.removesuffix("Z").partition("T")
    whole, _, fraction = clock.partition(".")
    fraction = fraction.rstrip("0")
    return f"{day} {whole}{'.' + fraction if fraction else ''}Z"
