"""The checks of `inforce doctor` that read the ledger: reachability, format, head, clock, timelines, log.

Nothing is written: a ledger of an older format is not opened for more than its format, because that migrates it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from api.readiness import ledger_figures
from ledger.diagnosis import clock_ahead_warning, clock_report, head_report
from ledger.errors import InforceError, LedgerCorrupt
from ledger.opening import open_for_check, open_ledger
from ledger.store import Ledger
from ledger.times import SECOND, format_time
from ledger.transparency.checkpoint_memory import memory_of
from ledger.transparency.log_check import head_fault, noted_checkpoint
from projections.timelines.contract import NotStored
from projections.timelines.store import timelines_as_stored
from scripts.cli.configuration import Configuration
from scripts.doctor.findings import Finding

AFTER_DATABASE: Final = ("head", "clock", "timelines", "log")


def ledger(keys: Configuration) -> Iterator[Finding]:
    """Every check of the database, in the order in which they make sense."""
    try:
        with open_for_check(keys.database) as stored:
            format_, newest = stored.recorder.formats()
            events = stored.head().position
            yield Finding("database", "ok", f"a ledger {stored.recorder.location} with {events} events")
    except InforceError as error:
        yield _unreachable("database", error)
        yield from _skipped("format", *AFTER_DATABASE)
        return
    if format_ < newest:
        yield Finding(
            "format",
            "warning",
            f"the ledger has format {format_}, and this inforce writes format {newest}",
            "Back it up and stop the old servers; the first verb or server of this version that opens it migrates it",
        )
        yield from _skipped(*AFTER_DATABASE)
        return
    yield Finding("format", "ok", f"the ledger has format {format_}, the newest")
    try:
        with open_ledger(keys.database, clock_behind_max_s=keys.clock_behind_max) as opened:
            yield _head(opened)
            yield _clock(opened, keys)
            yield _timelines(opened, keys)
            yield _log(opened)
    except InforceError as error:
        yield _unreachable("ledger", error)


def _unreachable(check: str, error: InforceError) -> Finding:
    advice = "Start the database, or correct INFORCE_DATABASE; where there is no ledger yet, inforce serve begins one"
    if isinstance(error, LedgerCorrupt):
        advice = "Run inforce backup --check, which names every fault; then restore a backup, or what it says"
    return Finding(check, "failed", error.detail, advice)


def _skipped(*checks: str) -> Iterator[Finding]:
    for check in checks:
        yield Finding(check, "skipped", "not looked at, because of the finding above")


def _head(ledger: Ledger) -> Finding:
    report = head_report(ledger)
    before = report.remembered
    if before is None:
        return Finding("head", "ok", f"position {report.head.position}; no acknowledged event was noted here yet")
    if report.is_held or report.generation > before.generation:
        return Finding("head", "ok", f"position {report.head.position}; the last acknowledged event is held")
    return Finding(
        "head",
        "failed",
        f"the ledger ends at position {report.head.position}, without the event acknowledged at {before.position}",
        "Nothing is recorded: run inforce doctor head, which says how to go on",
    )


def _clock(ledger: Ledger, keys: Configuration) -> Finding:
    report = clock_report(ledger)
    apart = f"this machine's clock shows {format_time(report.clock)}"
    if report.is_refused:
        behind = f"{apart}, {-report.ahead_us / SECOND:.0f} s behind the last event"
        return Finding(
            "clock", "failed", behind, "Nothing is recorded: run inforce doctor clock, which says what to do"
        )
    if warning := clock_ahead_warning(ledger, keys.clock_ahead_warn):
        fact, _, advice = warning.partition(". ")
        return Finding("clock", "warning", fact, advice)
    return Finding("clock", "ok", f"{apart}, {report.ahead_us / SECOND:.0f} s after the last event")


def _timelines(ledger: Ledger, keys: Configuration) -> Finding:
    try:
        figures = ledger_figures(ledger, timelines_as_stored(ledger))
    except NotStored as error:
        return Finding("timelines", "warning", error.detail, "Run inforce rebuild; else the next question makes them")
    fact = f"the stored timelines are {figures.lag} events behind the ledger's head"
    if figures.position < figures.tracked:
        fact = f"the stored timelines are at {figures.tracked}, beyond the ledger's head at {figures.position}"
        return Finding("timelines", "failed", fact, "The ledger went back: run inforce rebuild")
    if figures.lag > keys.projector_lag_max:
        advice = "Run inforce rebuild; else the next question brings them up, and /readyz fails until then"
        return Finding("timelines", "warning", fact, advice)
    return Finding("timelines", "ok", fact)


def _log(ledger: Ledger) -> Finding:
    noted, fault = noted_checkpoint(memory_of(ledger).newest)
    fault = fault or head_fault(ledger.recorder, noted)
    if fault is not None:
        advice = "No checkpoint is signed: run inforce doctor log, and see ledger/transparency/README.md"
        return Finding("log", "failed", fault, advice)
    published = ledger.recorder.log_tables().head("published")
    if published is None:
        return Finding("log", "ok", "no checkpoint was published; without a signing key there is no transparency log")
    behind = ledger.head().position - published.size
    return Finding("log", "ok", f"the published checkpoint has {published.size} events, {behind} fewer than the ledger")
