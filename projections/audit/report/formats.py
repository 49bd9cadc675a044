"""What several sections of the page are made of: numbers, instants, tables, legends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ledger.times import format_time
from projections.audit.report.page.markup import Markup, join, tag, text
from projections.audit.report.page.plots import bar

VERDICTS: Final = ("violation", "denied", "indeterminate", "compliant", "allowed")
BAD: Final = ("violation", "denied", "indeterminate")
"""In the order in which they are stacked, from below."""

Cell = Markup | str | int | None


def section(id_: str, title: str, *content: str) -> Markup:
    return tag("section", tag("h2", title, id=f"{id_}-title"), *content, id=id_, aria_labelledby=f"{id_}-title")


def paragraph(*content: str, class_: str | None = None) -> Markup:
    return tag("p", *content, class_=class_)


def number(count: int) -> str:
    return f"{count:,}"


def many(count: int, one: str, more: str | None = None) -> str:
    """`1 request`, `2,000 requests`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def share_text(part: int, whole: int) -> str:
    if not whole:
        return "0 %"
    percent = 100 * part / whole
    if part and percent < 0.01:
        return "under 0.01 %"
    return f"{percent:.2f} %" if percent < 10 else f"{percent:.1f} %"


def when(instant: int) -> str:
    """`2026-01-03 09:00:00Z`, with its fraction only where there is one."""
    day, _, clock = format_time(instant).removesuffix("Z").partition("T")
    whole, _, fraction = clock.partition(".")
    fraction = fraction.rstrip("0")
    return f"{day} {whole}{'.' + fraction if fraction else ''}Z"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]], kinds: Sequence[str]) -> Markup:
    """kinds: a column's class: n (a number), id, code, when, bar, or "" for words. A row's first cell heads it."""
    head = [
        # A column without a title is for eyes only, and heads nothing.
        tag("th", title, scope="col", class_="n" if kind == "n" else None) if title else tag("td")
        for title, kind in zip(heads, kinds, strict=True)
    ]
    body = []
    for row in rows:
        cells = []
        for place, (cell, kind) in enumerate(zip(row, kinds, strict=True)):
            said = number(cell) if isinstance(cell, int) else cell or ""
            if place == 0:
                cells.append(tag("th", said, scope="row", class_=kind or None))
            else:
                cells.append(tag("td", said, class_=kind or None))
        body.append(tag("tr", *cells))
    made = tag("table", tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *body))
    # What can be scrolled must be reached by the keyboard, too.
    return tag("div", made, class_="scroll", tabindex="0", role="group", aria_label=caption)


def verdict_bar(verdicts: Mapping[Any, int], longest: int) -> Markup:
    return bar([(verdict, verdicts.get(verdict, 0)) for verdict in BAD[:2]], longest)


def legend(classes: Iterable[tuple[str, str]]) -> Markup:
    """(class, words) of each colour."""
    items = []
    for class_, words in classes:
        square = tag("rect", width=11, height=11, rx=2, class_=class_)
        items.append(tag("li", tag("svg", square, viewBox="0 0 11 11", aria_hidden="true"), words))
    return tag("ul", *items, class_="legend")


def definitions(pairs: Iterable[tuple[str, str]]) -> Markup:
    return tag("dl", *(join(tag("dt", name), tag("dd", said)) for name, said in pairs))


def command(*lines: str) -> Markup:
    written = [text(line) for line in lines]
    return tag("pre", tag("code", Markup("\n".join(written))))


def code(words: str) -> Markup:
    return tag("code", words)


def verdict_words(verdict: str) -> Markup:
    return tag("span", verdict, class_=f"verdict {verdict}")
