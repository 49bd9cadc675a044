"""The template engine of HTML pages: the templates in `templates/`, their filters, and the escaping of all text.

Autoescape holds for every template, and an undefined name is an error. Before a text is escaped, `visible` spells out
the characters that a page cannot show. Proved by tests/audit/report/test_templating.py.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from projections.audit.report.formats import coordinate, number, plural, seconds, visible, when


@cache
def environment() -> Environment:
    """Shared by all pages. Other pages extend `base.html.jinja` and import `macros.html.jinja`."""
    engine = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        loader=PackageLoader("projections.audit.report"),
    )
    engine.filters |= {"coordinate": coordinate, "number": number, "plural": plural, "seconds": seconds, "when": when}
    return engine
