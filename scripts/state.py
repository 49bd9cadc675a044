"""`state`: the settings of a subject at a moment."""

from __future__ import annotations

from typing import Any, Final

import click

from api.responses import state_json
from ledger.subjects import KINDS
from projections.query.query import KnownAt
from scripts.cli.options import Format, subject_ref
from scripts.cli.output import Columns, human_bound, human_time, json_text, show_clock_notice
from scripts.cli.questions import (
    at_a_moment,
    before_the_beginning,
    explained,
    moment,
    open_query,
    require_settings,
    show_answer,
)

_FIELDS: Final = (
    "setting",
    "value",
    "source",
    "event_id",
    "position",
    "version",
    "recorded_at",
    "effective_from",
    "effective_until",
    "actor",
    "next.position",
    "next.effective_from",
    "next.value",
    "next.source",
)
_COLUMNS: Final[Columns] = {
    "setting": lambda row: row["setting"],
    "value": lambda row: json_text(row["value"]),
    "source": lambda row: row["source"],
    "effective from": lambda row: human_bound(row["effective_from"]),
    "until": lambda row: human_bound(row["effective_until"]),
    "next": lambda row: _next(row["next"]),
    "recorded at": lambda row: human_bound(row["recorded_at"]),
    "#": lambda row: row["position"],
    "actor": lambda row: row["actor"],
}


def _next(following: dict[str, Any] | None) -> str:
    if following is None:
        return ""
    default = "default " if following["source"] == "default" else ""
    start = human_time(following["effective_from"])
    return f"{default}{json_text(following['value'])} from {start} (#{following['position']})"


@click.command
@click.argument("subject", type=subject_ref(*KINDS))
@at_a_moment
def state(
    subject: str,
    db: str,
    format_: Format,
    *,
    settings: tuple[str, ...],
    at: int | str,
    known_at: KnownAt,
    at_least: int,
) -> None:
    """Show a subject's settings at any moment, as known at any moment.

    Shows every setting that the subject's kind has, and where its value comes from: "explicit" is the subject's own
    value, "default" the catalog's. # is the position of the event that decided it; inforce submit --retract takes it.
    "next" is the next change of the setting after that moment, as known at --known-at: what is scheduled.
    inforce submit --expected-version takes the subject's version.

    \b
      inforce state org:acme
      inforce state org:acme --at 2026-03-01T12:00:00Z --known-at at
      inforce state org:acme --at 2026-03-01 --timezone Europe/Berlin
      inforce state org:acme --setting training.opt_in --format json
    """
    with open_query(db, at_least) as query:
        instant = moment(query, at)
        with explained(query.ledger, instant, known_at):
            answer = query.state(subject, at=instant, known_at=known_at, settings=sorted(set(settings)) or None)
        why_empty = before_the_beginning(query.ledger, instant, known_at)
    require_settings(settings, answer.settings, f"{subject} had no such setting then", "those it had")
    document = state_json(answer)
    rows = [{"setting": setting} | members for setting, members in document["settings"].items()]
    known = human_time(answer.known_at)
    title = (
        f"{subject} at {human_time(answer.at)}, known at {known}, position {answer.position}, version {answer.version}"
    )
    show_answer(format_, document, rows, _FIELDS, _COLUMNS, title, why_empty=why_empty)
    show_clock_notice(format_, answer.clock_notice)
