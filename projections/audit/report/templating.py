"""The template engine of HTML pages: loads `templates/`, makes `formats` their filters, and escapes all text.

Autoescape holds for every template, and an undefined name is an error. Before a text is escaped, `visible` spells out
the characters that a page cannot show. Proved by tests/audit/report/test_templating.py.
"""

from __future__ import annotations

from functools import cache
from inspect import isfunction

from jinja2 import Environment, PackageLoader, StrictUndefined

from projections.audit.report import formats
from projections.audit.report.plots import stacked_bar
from projections.decisions.causes import because


@cache
def environment() -> Environment:
    """Shared by all pages. Other pages extend `base.html.jinja` and import `macros.html.jinja`."""
    engine = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=formats.visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        loader=PackageLoader("projections.audit.report"),
    )
    engine.filters |= {name: value for name, value in vars(formats).items() if isfunction(value)}
    engine.filters |= {"stacked_bar": stacked_bar, "because": because}
    return engine
