"""Decisions for people: one with all its evidence, or a line each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from projections.decisions.model import REASONS, Decision, Handling, Outcome
from projections.temporal.changes import Retraction
from projections.temporal.effective_state import SettingState
from scripts.cli.output import Columns, encode, human_instant, human_time, print_line, print_table

CSV_FIELDS: Final = (
    "request_id",
    "as_of.at",
    "verdict",
    "reasons",
    "governed_by.subject",
    "handling.may_store",
    "handling.may_cache",
    "handling.may_train",
    "handling.may_leave_platform",
    "handling.allowed_regions",
    "handling.private_network_required",
    "handling.data_policy.by",
    "handling.data_policy.name",
    "handling.data_policy.url",
    "hindsight.verdict",
    "hindsight.reasons",
    "as_of.known_at",
    "as_of.position",
)

_STYLES: Final = {"violation": "bold red", "denied": "bold red", "indeterminate": "bold yellow"}

EVIDENCE_COLUMNS: Final[Columns] = {
    "subject": lambda state: state.subject,
    "setting": lambda state: state.setting,
    "value": lambda state: encode(state.value).decode(),
    "source": lambda state: state.source + (" (cleared)" if state.cleared_by else ""),
    "#": lambda state: state.change.position if state.change else None,
    "recorded at": lambda state: human_time(state.change.recorded_at) if state.change else None,
    "effective from": lambda state: human_time(state.change.effective_from) if state.change else None,
    "until": lambda state: human_time(state.change.effective_until) if state.change else None,
    "actor": lambda state: state.change.actor if state.change else None,
}


def print_decision(decision: Decision) -> None:
    outcome, as_of = decision.outcome, decision.as_of
    print_line(outcome.verdict, _STYLES.get(outcome.verdict, "bold green"))
    for reason in outcome.reasons:
        print_line(f"  {reason}: {REASONS[reason]}")
    lag = outcome.enforcement_lag
    if lag is not None:
        print_line(
            f"  the gateway enforced position {lag.enforced_position}; #{lag.deciding_position} had been in force for "
            f"{lag.lag_us / 1e6:.6g} s"
        )
    print_line(f"governed by  {governed(outcome)}")
    print_handling(outcome.handling)
    known = human_instant(as_of.known_at)
    print_line(f"as of        {human_instant(as_of.at)}, known at {known}, position {as_of.position}")
    if outcome.evidence:
        print_line()
        print_table(EVIDENCE_COLUMNS, outcome.evidence)
    if decision.hindsight is not None:
        _print_hindsight(decision.hindsight.outcome, decision.hindsight.changed_by)


def _print_hindsight(later: Outcome, changed_by: Iterable[SettingState | Retraction]) -> None:
    print_line()
    print_line(f"in hindsight: {later.verdict}", _STYLES.get(later.verdict, "bold green"))
    for reason in later.reasons:
        print_line(f"  {reason}: {REASONS[reason]}")
    print_handling(later.handling)
    for by in changed_by:
        if isinstance(by, Retraction):
            print_line(
                f"because      #{by.position} of {human_time(by.recorded_at)} by {by.actor} took back "
                f"{by.setting} ({by.retracts})"
            )
        elif by.change is not None:
            start = "by default" if by.source == "default" else f"from {human_time(by.change.effective_from)}"
            print_line(
                f"because      #{by.change.position} of {human_time(by.change.recorded_at)} by {by.change.actor}: "
                f"{by.subject} {by.setting} = {encode(by.value).decode()} {start}"
            )


def print_decisions(decisions: Iterable[Decision]) -> None:
    columns: Columns = {
        "request": lambda decision: decision.request_id,
        "at": lambda decision: human_instant(decision.as_of.at),
        "verdict": lambda decision: decision.outcome.verdict,
        "reasons": lambda decision: ", ".join(decision.outcome.reasons),
        "governed by": lambda decision: decision.outcome.governed_by.subject,
        "in hindsight": lambda decision: decision.hindsight.outcome.verdict if decision.hindsight else "",
    }
    print_table(columns, decisions)


def governed(outcome: Outcome) -> str:
    subject, via = outcome.governed_by
    way = f" (by way of {' → '.join(via)})" if len(via) > 1 else ""
    return f"{subject or 'nobody that can be told'}{way}"


def print_handling(handling: Handling) -> None:
    """What may be done with the data, and what not, in words."""
    deeds = {
        "store": handling.may_store,
        "cache": handling.may_cache,
        "train": handling.may_train,
        "leave the platform": handling.may_leave_platform,
    }
    for permitted, heading in ((True, "may"), (False, "may not")):
        named = [deed for deed, yes in deeds.items() if yes is permitted]
        if named:
            print_line(f"{heading:<13}{', '.join(named)}")
    regions = handling.allowed_regions
    if regions is not None:
        print_line(f"regions      {', '.join(regions) if regions else 'none'}")
    if handling.private_network_required:
        print_line("network      private only")
    policy = handling.data_policy
    if policy.by == "provider":
        print_line(f"data policy  of {policy.name or 'an unknown provider'} {policy.url or ''}".rstrip())
