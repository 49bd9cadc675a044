"""`catalog`: the settings that are defined at a moment, and who may write them.

Proved by tests/cli/test_catalog.py.
"""

from __future__ import annotations

import json
from typing import Any, Final

import click

from api.responses import catalog_json
from projections.query.query import KnownAt
from scripts.cli.options import Format
from scripts.cli.output import Columns, human_bound, human_time, show_clock_notice
from scripts.cli.questions import at_a_moment, before_the_beginning, moment, open_query, require_settings, show_answer

_FIELDS: Final = (
    "setting",
    "kinds",
    "value_type",
    "members",
    "ref_kinds",
    "default",
    "protective",
    "writable_by",
    "title",
    "description",
    "source",
    "event_id",
    "position",
    "version",
    "recorded_at",
    "effective_from",
    "actor",
)


def _type(row: dict[str, Any]) -> str:
    """The type in words, with what a value may name: `set of account, org`, `subject ref org`."""
    words = str(row.get("value_type", "")).replace("_", " ")
    return f"{words} {', '.join(row.get('members') or row.get('ref_kinds') or ())}".strip()


def _value(value: object) -> str:
    """A value as JSON, with spaces at which a narrow table can break it; empty if there is none."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)


_COLUMNS: Final[Columns] = {
    "setting": lambda row: row["setting"],
    "kinds": lambda row: ", ".join(row.get("kinds", ())),
    "type": _type,
    "default": lambda row: _value(row.get("default")),
    "protective": lambda row: _value(row.get("protective")),
    "writable by": lambda row: row.get("writable_by"),
    "since": lambda row: human_bound(row["effective_from"]),
    "#": lambda row: row["position"],
}


@click.command
@at_a_moment
def catalog(
    db: str,
    format_: Format,
    *,
    settings: tuple[str, ...],
    at: int | str,
    known_at: KnownAt,
    at_least: int,
) -> None:
    """Show which settings exist at any moment, and who may write them.

    Shows which kinds of subject have a setting, the type of its values, and who may write it: "owner", "admin" or
    "operator". "default" is the value of a subject without one of its own. "protective" is the value that decisions
    assume if they cannot resolve the setting; without one they permit nothing then. # is the position of the event
    that defined the setting, and "since" the moment from which this definition holds: empty if it holds from the
    beginning of time.

    \b
      inforce catalog
      inforce catalog --at 2026-03-01T12:00:00Z --known-at at
      inforce catalog --at 2026-03-01 --timezone UTC
      inforce catalog --setting training.opt_in --format json
    """
    with open_query(db, at_least) as query:
        instant = moment(query, at)
        answer = query.catalog(at=instant, known_at=known_at)
        why_empty = before_the_beginning(query.ledger, instant, known_at)
    document = catalog_json(instant, answer)
    wanted = require_settings(settings, document["settings"], "no such setting was defined then", "those that were")
    if wanted:
        document["settings"] = {key: document["settings"][key] for key in wanted}
    rows = [{"setting": setting} | members for setting, members in document["settings"].items()]
    known = human_time(answer.known_at)
    title = f"catalog at {human_time(instant)}, known at {known}, position {answer.position}"
    show_answer(format_, document, rows, _FIELDS, _COLUMNS, title, why_empty=why_empty)
    show_clock_notice(format_, answer.clock_notice)
