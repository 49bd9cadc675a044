"""`history`: every event about a subject, newest first."""

from __future__ import annotations

from typing import Any, Final

import click
import msgspec

from api.responses import history_json
from ledger.codec import parse_leaf, position_of
from ledger.opening import open_ledger
from ledger.subjects import KINDS, RESERVED_KINDS
from ledger.times import format_time
from projections.query.history import HistoryRow
from projections.query.history import history as read_history
from scripts.cli import exits
from scripts.cli.options import SETTING_KEY, Format, at_least, database, output_format, subject_ref
from scripts.cli.output import Columns, human_bound, human_time, json_text, show, show_clock_notice

_FIELDS: Final = (
    "event.data.position",
    "event.data.version",
    "event.time",
    "event.type",
    "event.data.setting",
    "event.data.value",
    "event.data.effective_from",
    "event.data.effective_until",
    "event.data.retracts",
    "event.data.actor",
    "reason",
    "retracted_by",
    "holds_until",
    "holds_until_at_recording",
    "event.id",
)


@click.command
@click.argument("subject", type=subject_ref(*KINDS, *RESERVED_KINDS))
@click.option("--setting", type=SETTING_KEY, help="Only events about this setting.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Show at most this many.")
@click.option("--after", type=click.IntRange(min=1), metavar="VERSION", help="Show the events older than this version.")
@at_least
@database
@output_format
def history(
    subject: str, db: str, format_: Format, *, setting: str | None, limit: int, after: int | None, at_least: int
) -> None:
    """Show who changed what about a subject, newest first.

    Shows everything that was ever recorded. "holds until" is when a change first stops deciding, as known now. Changes
    that are retracted, that never decide, or that another change cut or prolonged since, are marked. inforce submit
    --retract takes a position from the column #.

    \b
      inforce history org:acme
      inforce history org:acme --setting training.opt_in --format ndjson
    """
    with open_ledger(db) as ledger:
        ledger.at_least(at_least)
        answer = read_history(ledger, subject, setting=setting, after=after, limit=limit)
    document = history_json(answer)
    columns: Columns = {
        "version": lambda row: row.entry.version,
        "#": lambda row: row.entry.position,
        "recorded at": lambda row: human_time(row.entry.recorded_at),
        "what": _what,
        "effective from": lambda row: _bound(row, "effective_from"),
        "until": lambda row: _bound(row, "effective_until"),
        "holds until": lambda row: "" if row.holding is None else human_bound(row.holding.now),
        "actor": lambda row: parse_leaf(row.entry.leaf).data.actor,
        "reason": lambda row: row.reason,
        "": _remark,
    }
    title = f"{subject}, position {answer.position}"
    show(format_, document, answer.rows if format_ == "table" else document["events"], _FIELDS, columns, title)
    if answer.next_after is not None and format_ != "json":
        exits.print_note(f"there are more: --after {answer.next_after}")
    show_clock_notice(format_, answer.clock_notice)


def _remark(row: HistoryRow) -> str:
    """How the change fared otherwise than it was recorded."""
    if row.retracted_by:
        return "retracted"
    if row.holding is None:
        return ""
    now, then = row.holding
    start = parse_leaf(row.entry.leaf).data.effective_from
    if now is not None and start == format_time(now):
        return "never decides"
    if now == then:
        return ""
    sooner = now is not None and (then is None or now < then)
    known = f"until {human_bound(then)}" if then is not None else "without end"
    return f"{'cut' if sooner else 'prolonged'}: recorded {known}"


def _what(row: Any) -> str:
    data = parse_leaf(row.entry.leaf).data
    match row.entry.topic:
        case "setting.changed":
            return f"{data.setting} = {json_text(data.value)}"
        case "setting.cleared":
            return f"{data.setting} cleared"
        case "change.retracted":
            return f"{data.setting}: #{position_of(str(data.retracts))} retracted"
    return f"{data.setting} defined"


def _bound(row: Any, name: str) -> str:
    text = getattr(parse_leaf(row.entry.leaf).data, name)
    return "" if text is msgspec.UNSET else human_bound(text)
