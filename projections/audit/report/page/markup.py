"""Elements and texts, written so that a text can never become an element.

Whatever is no `Markup` is text from anywhere, a log above all: it is escaped, and characters that cannot be seen, or
that turn the direction of what can, stand as `\\x…`.
"""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = frozenset(("meta", "br", "rect", "line"))


class Markup(str):
    """HTML that was put together by `tag` and `join`, or stands in this package's own code."""

    __slots__ = ()


def tag(element: str, /, *content: str, **attributes: str | int | float | None) -> Markup:
    """The element. Attributes: `class_` is class, `_` within a name a dash; None leaves it out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in _VOID:
        assert not content, "nothing can be within it"
        # HTML ignores the slash, and SVG within it needs one.
        return Markup(f"<{element}{written}/>")
    return Markup(f"<{element}{written}>{join(*content)}</{element}>")


def join(*content: str) -> Markup:
    return Markup("".join(part if isinstance(part, Markup) else text(part) for part in content))


def text(content: str) -> Markup:
    if not content.isprintable():
        content = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in content)
    return Markup(escape(content))
