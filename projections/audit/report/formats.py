"""Numbers, instants and values as a page writes them. The templates use these functions as filters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

from markupsafe import Markup

from ledger.times import BEGINNING, format_time
from projections.audit.summary import AGAINST
from projections.decisions.model import REASONS
from projections.temporal.changes import JsonValue

EPOCH: Final = date(1970, 1, 1)


def number(count: int) -> str:
    """`2,000`"""
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """`1 request`, `2,000 requests`"""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def percent(part: int, whole: int) -> str:
    """`12.5 %`, `0.47 %`"""
    if not whole:
        return "0 %"
    value = 100 * part / whole
    if part and value < 0.01:
        return "under 0.01 %"
    return f"{value:.2f} %" if value < 10 else f"{value:.1f} %"


def when(instant: int) -> str:
    """`2026-01-03 09:00:00Z`, with a fraction only if there is one."""
    day, _, clock = format_time(instant).removesuffix("Z").partition("T")
    whole, _, fraction = clock.partition(".")
    fraction = fraction.rstrip("0")
    return f"{day} {whole}{'.' + fraction if fraction else ''}Z"


def start(instant: int) -> str:
    """Of a period of validity: an instant, or the beginning of all times."""
    return "the beginning" if instant == BEGINNING else when(instant)


def duration(microseconds: int) -> str:
    """`1.5 s`, `4 min 10 s`, `2 h 5 min`, `3 days 4 h`: the two greatest units, the rest cut off."""
    whole = microseconds // 1_000_000
    if whole < 60:
        return f"{microseconds / 1e6:.6g} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if days:
        parts = (plural(days, "day"), hours % 24 and f"{hours % 24} h")
    elif hours:
        parts = (f"{hours} h", minutes % 60 and f"{minutes % 60} min")
    else:
        parts = (f"{minutes} min", whole % 60 and f"{whole % 60} s")
    return " ".join(part for part in parts if part)


def day_text(day: int) -> str:
    """`YYYY-MM-DD` of a number of days since 1970-01-01."""
    return (EPOCH + timedelta(days=day)).isoformat()


def coordinate(value: float) -> str:
    """A length in an SVG picture, with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def against(verdicts: Mapping[Any, int]) -> int:
    """The rows with a verdict against them."""
    return sum(verdicts.get(verdict, 0) for verdict in AGAINST)


def meaning(reason: str) -> str:
    """The sentence of a reason's code."""
    return next((sentence for code, sentence in REASONS.items() if code == reason), reason)


def setting_value(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none named"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def handling_value(value: object) -> str:
    """A member of `Handling`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "anywhere"
    return ", ".join(str(part) for part in value if part) or "nowhere" if isinstance(value, tuple) else str(value)


def visible(value: object) -> object:
    """Spells characters that a page cannot show, or that turn the direction of text, as `\\x…`.

    The template engine applies it to every expression, before it escapes the result; finished markup passes."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value)


_BREAKS: Final = re.compile(r"(?<=[-/._@,=])(?=[^\W_])")
"""Between a separator and the next word of a name."""
_OPTION: Final = re.compile(r"((?:^|(?<=\s))'?--[a-z-]+=?)")


def breakable(name: str) -> Markup:
    """A name whose line may end between its words, so that none is torn."""
    return Markup("<wbr>").join(_BREAKS.split(str(visible(name))))


def shell_line(command: str) -> Markup:
    """A command whose options are never torn from their dashes."""
    parts = _OPTION.split(str(visible(command)))
    return Markup("").join(
        Markup('<span class="option">{}</span>').format(part) if place % 2 else part for place, part in enumerate(parts)
    )
