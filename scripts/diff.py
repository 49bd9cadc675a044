"""`diff`: the settings whose value differs between two moments, and the events that did it.

Proved by tests/cli/test_diff.py.
"""

from __future__ import annotations

from typing import Any, Final

import click

from api.responses import diff_json
from ledger.codec import position_of
from ledger.subjects import KINDS
from projections.query.query import IN_FORCE, KnownAt
from scripts.cli.instants import Instant
from scripts.cli.options import Format, subject_ref
from scripts.cli.output import Columns, human_time, json_text, show_clock_notice
from scripts.cli.questions import before_the_beginning, moment, open_query, over_time, show_answer

_FIELDS: Final = (
    "setting",
    "before.value",
    "before.source",
    "before.position",
    "after.value",
    "after.source",
    "after.position",
    "changed_by",
)


def _value(state: dict[str, Any]) -> str:
    if state["source"] == "undefined":
        return "not defined"
    return json_text(state["value"]) + (" (default)" if state["source"] == "default" else "")


def _changed_by(row: dict[str, Any]) -> str:
    """Each event as `#41 by alice`; a retraction names what it retracted."""
    return "; ".join(
        f"#{event['position']} by {event['actor']}"
        + (f" retracted #{position_of(event['retracts'])}" if "retracts" in event else "")
        for event in row["changed_by"]
    )


_COLUMNS: Final[Columns] = {
    "setting": lambda row: row["setting"],
    "before": lambda row: _value(row["before"]),
    "after": lambda row: _value(row["after"]),
    "changed by": _changed_by,
}


@click.command
@click.argument("subject", type=subject_ref(*KINDS))
@click.option("--from", "start", type=Instant("now"), required=True, metavar="TIME", help="The first moment.")
@click.option(
    "--to", "end", type=Instant("now"), default="now", show_default=True, metavar="TIME", help="The second moment."
)
@over_time
def diff(
    subject: str, db: str, format_: Format, *, start: int | str, end: int | str, known_at: KnownAt, at_least: int
) -> None:
    """Show which settings differ between two moments, and why.

    Shows the events that made the difference. With --known-at at, compares the policies that were in force at the two
    moments: a later correction does not count. Without it, compares them with everything known now.

    \b
      inforce diff org:acme --from 2026-01-01T00:00:00Z
      inforce diff org:acme --from 2026-01-01 --to 2026-02-01 --timezone Europe/Berlin
      inforce diff org:acme --from 2026-01-01T00:00:00Z --known-at at --format json
    """
    with open_query(db, at_least) as query:
        first, second = moment(query, start), moment(query, end)
        answer = query.diff(subject, start=first, end=second, known_at=known_at)
        why_empty = before_the_beginning(query.ledger, max(first, second), known_at)
    document = diff_json(subject, first, second, answer)
    known = "in force" if answer.known_at is None or known_at == IN_FORCE else f"known at {human_time(answer.known_at)}"
    title = f"{subject} from {human_time(first)} to {human_time(second)}, {known}, position {answer.position}"
    same = "no setting has another value at the second moment than at the first"
    show_answer(format_, document, document["differences"], _FIELDS, _COLUMNS, title, why_empty=why_empty or same)
    show_clock_notice(format_, answer.clock_notice)
