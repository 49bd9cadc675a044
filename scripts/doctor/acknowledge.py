"""`doctor clock` and `doctor head`: say why nothing is recorded, and record an operator's decision to go on.

`ledger/diagnosis.py` does the work. Proved by tests/cli/test_doctor.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ledger.append.submissions import REASON_LENGTH_MAX
from ledger.diagnosis import ClockReport, HeadReport, acknowledge_clock, acknowledge_head, clock_report, head_report
from ledger.opening import open_ledger
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.subjects import has_words
from ledger.times import SECOND, format_time
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.rebuild.workers import Workers, usual_processes
from projections.timelines.store import open_timelines
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format, actor, clock_behind_max, database, output_format
from scripts.cli.output import print_line, show_record

Command = TypeVar("Command", bound=Callable[..., Any])

_CLOCK_ADVICE: Final = (
    "If this machine's clock is behind, set it right: then the ledger records again. If it is right, the clock was "
    "ahead when the last events were recorded. To go on: inforce doctor clock --acknowledge --reason TEXT. Later "
    "changes are then in force after the last recorded_at, not before"
)
_HEAD_ADVICE: Final = (
    "Stop the servers and bring the newer ledger back. If it is lost, go on from here: inforce doctor head "
    "--acknowledge --reason TEXT. Followers and audits that rest on lost events must then begin anew"
)


def _acknowledgement(command: Command) -> Command:
    for option in (
        click.option("--reason", metavar="TEXT", help="Why. Recorded with the acknowledgement."),
        click.option("--acknowledge", is_flag=True, help="Record that the ledger goes on as it is."),
    ):
        command = option(command)
    return command


@click.command
@_acknowledgement
@actor
@clock_behind_max
@database
@output_format
def clock(
    db: str, format_: Format, *, acknowledge: bool, reason: str | None, actor: str, clock_behind_max: float
) -> int:
    """Compare this machine's clock with the last event.

    Shows the events that were recorded by a clock that was ahead. With --acknowledge the ledger goes on behind them,
    and answers about that stretch of time say so. Exits 1 if nothing is recorded because of the clock.

    \b
      inforce doctor clock
      inforce doctor clock --acknowledge --reason "the clock of node 3 was a year ahead"
    """
    _require_reason(acknowledge, reason)
    with open_ledger(db, clock_behind_max_s=clock_behind_max) as ledger:
        if acknowledge:
            _show_receipt(format_, acknowledge_clock(ledger, reason or "", actor))
            return exits.OK
        report = clock_report(ledger)
    _show(format_, _clock_record(report), "clock")
    return exits.PROBLEM_FOUND if report.is_refused else exits.OK


def _clock_record(report: ClockReport) -> dict[str, Any]:
    stretch, acknowledged = report.stretch, report.acknowledged
    return {
        "records": not report.is_refused,
        "clock": format_time(report.clock),
        "last_position": report.head.position,
        "last_recorded_at": _time(report.head.recorded_at),
        "ahead_s": report.ahead_us / SECOND,
        "behind_max_s": report.behind_max_us / SECOND,
        "poisoned_first_position": None if stretch is None else stretch.first,
        "poisoned_last_position": None if stretch is None else stretch.last,
        "recorded_at_before": None if stretch is None else _time(stretch.before),
        "poisoned_from": None if stretch is None else format_time(stretch.first_recorded_at),
        "poisoned_until": None if stretch is None else format_time(stretch.last_recorded_at),
        "acknowledged_at_position": None if acknowledged is None else acknowledged.position,
        "advice": _CLOCK_ADVICE if report.is_refused else None,
    }


@click.command
@_acknowledgement
@actor
@database
@output_format
def head(db: str, format_: Format, *, acknowledge: bool, reason: str | None, actor: str) -> int:
    """Compare the ledger's last event with the last one that was acknowledged here.

    With --acknowledge the ledger goes on from where it ends now, and the stored timelines are rebuilt. Exits 1 if
    nothing is recorded because the ledger went back.

    \b
      inforce doctor head
      inforce doctor head --acknowledge --reason "restored the backup of Monday, 40 events are lost"
    """
    _require_reason(acknowledge, reason)
    with open_ledger(db) as ledger:
        if acknowledge:
            receipt = acknowledge_head(ledger, reason or "", actor)
            _rebuild(ledger, db)
            _show_receipt(format_, receipt)
            return exits.OK
        report = head_report(ledger)
    record = _head_record(report)
    _show(format_, record, "head")
    return exits.OK if record["records"] else exits.PROBLEM_FOUND


def _head_record(report: HeadReport) -> dict[str, Any]:
    before = report.remembered
    records = before is None or report.is_held or report.generation > before.generation
    return {
        "records": records,
        "last_position": report.head.position,
        "last_recorded_at": _time(report.head.recorded_at),
        "incarnation": report.incarnation,
        "generation": report.generation,
        "acknowledged_position": None if before is None else before.position,
        "acknowledged_event_id": None if before is None else before.event_id,
        "acknowledged_recorded_at": None if before is None else format_time(before.recorded_at),
        "acknowledged_incarnation": None if before is None else before.incarnation,
        "note": report.note,
        "advice": None if records else _HEAD_ADVICE,
    }


def _rebuild(ledger: Ledger, db: str) -> None:
    """The stored timelines may hold events that the ledger has lost."""
    with progress("rebuilding", ledger.head().position) as report:
        rebuild(
            Projector(ledger, open_timelines(ledger)),
            workers=Workers(db, usual_processes()),
            progress=lambda done, _head: report(done, f"{done:,} events"),
        )


def _require_reason(acknowledge: bool, reason: str | None) -> None:
    if acknowledge and (reason is None or not has_words(reason) or len(reason) > REASON_LENGTH_MAX):
        raise click.UsageError(f"--acknowledge needs --reason, a text of at most {REASON_LENGTH_MAX} characters")
    if reason is not None and not acknowledge:
        raise click.UsageError("--reason belongs to --acknowledge")


def _show_receipt(format_: Format, receipt: Receipt) -> None:
    record = {
        "position": receipt.position,
        "event_id": receipt.event_id,
        "recorded_at": format_time(receipt.recorded_at),
    }
    show_record(format_, record, "acknowledged", times=("recorded_at",))


def _show(format_: Format, record: dict[str, Any], title: str) -> None:
    """A table leaves out the facts that do not apply."""
    shown = {name: value for name, value in record.items() if value is not None} if format_ == "table" else record
    advice = shown.pop("advice", None) if format_ == "table" else None
    show_record(format_, shown, title)
    if advice is not None:
        print_line(str(advice))


def _time(instant: int | None) -> str | None:
    return None if instant is None else format_time(instant)
