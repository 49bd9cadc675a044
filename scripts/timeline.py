"""`timeline`: from when until when each value of a setting holds. Proved by tests/cli/test_timeline.py."""

from __future__ import annotations

from typing import Any, Final

import click

from api.responses import timeline_json
from ledger.codec import position_of
from ledger.subjects import KINDS
from ledger.times import BEGINNING, END
from projections.query.query import IN_FORCE, KnownAt
from scripts.cli.options import SETTING_KEY, Format, subject_ref
from scripts.cli.output import Columns, human_bound, human_time, json_text, show_clock_notice
from scripts.cli.questions import before_the_beginning, explained, open_query, over_time, show_answer

_FIELDS: Final = ("setting", "value", "source", "from", "until", "event_id")


def _position(row: dict[str, Any]) -> int | None:
    return None if row["event_id"] is None else position_of(row["event_id"])


_COLUMNS: Final[Columns] = {
    "setting": lambda row: row["setting"],
    "from": lambda row: human_bound(row["from"]),
    "until": lambda row: human_bound(row["until"]),
    "value": lambda row: "" if row["source"] == "undefined" else json_text(row["value"]),
    "source": lambda row: row["source"],
    "#": _position,
}


@click.command
@click.argument("subject", type=subject_ref(*KINDS))
@click.option("--setting", type=SETTING_KEY, help="Only this setting. Without it: each one that the subject ever had.")
@over_time
def timeline(subject: str, db: str, format_: Format, *, setting: str | None, known_at: KnownAt, at_least: int) -> None:
    """Show from when until when each value of a setting holds.

    Shows the whole of valid time without gaps, what is scheduled included: from a moment on, until another one. An
    empty bound means that there is none. # is the position of the event that decides, which inforce submit --retract
    takes if it is a change. With --known-at at, each moment shows what could be known then: the policy in force.

    \b
      inforce timeline org:acme --setting training.opt_in
      inforce timeline org:acme --known-at at
      inforce timeline org:acme --known-at 2026-03-01 --timezone UTC --format csv
    """
    with open_query(db, at_least) as query:
        # In force, a timeline spans all of time.
        at = END if known_at == IN_FORCE else BEGINNING
        with explained(query.ledger, at, known_at):
            answer = query.timeline(subject, setting=setting, known_at=known_at)
        why_empty = before_the_beginning(query.ledger, at, known_at)
    document = timeline_json(answer)
    known = "in force" if answer.known_at is None else f"known at {human_time(answer.known_at)}"
    title = f"{subject}, {known}, position {answer.position}"
    show_answer(format_, document, document["intervals"], _FIELDS, _COLUMNS, title, why_empty=why_empty)
    show_clock_notice(format_, answer.clock_notice)
