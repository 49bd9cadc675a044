"""Prints decisions for people: one decision with its evidence, or several as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from ledger.codec import position_of
from projections.decisions.causes import Cause, because
from projections.decisions.model import REASONS, DataPolicy, Decision, Handling, Outcome
from projections.temporal.changes import Retraction
from projections.temporal.coordinates import ClockNotice
from projections.temporal.effective_state import SettingState
from scripts.cli.output import Columns, human_bound, human_time, json_text, print_clock_notice, print_line, print_table

UNKNOWN_SUBJECT: Final = "(unknown)"
CSV_FIELDS: Final = (
    "request_id",
    "as_of.at",
    "verdict",
    "reasons",
    "governed_by.subject",
    "governed_by.known",
    *(f"handling.{name}" for name in Handling._fields if name != "data_policy"),
    *(f"handling.data_policy.{name}" for name in DataPolicy._fields),
    "hindsight.verdict",
    "hindsight.reasons",
    "as_of.known_at",
    "as_of.position",
)

_STYLES: Final = {"violation": "bold red", "denied": "bold red", "indeterminate": "bold yellow"}

_EVIDENCE_COLUMNS: Final[Columns] = {
    "subject": lambda state: state.subject,
    "setting": lambda state: state.setting,
    "value": lambda state: json_text(state.value),
    "source": lambda state: state.source + (" (cleared)" if state.cleared_by else ""),
    "#": lambda state: state.change.position if state.change else None,
    "recorded at": lambda state: human_time(state.change.recorded_at) if state.change else None,
    "effective from": lambda state: human_bound(state.change.effective_from) if state.change else None,
    "until": lambda state: human_bound(state.change.effective_until) if state.change else None,
    "actor": lambda state: state.change.actor if state.change else None,
}


def _evidence_columns(outcome: Outcome) -> Columns:
    """With what the record says in place of a value, if it says so of any."""
    if all(state.observed is None for state in outcome.evidence):
        return _EVIDENCE_COLUMNS
    columns = list(_EVIDENCE_COLUMNS.items())
    behind_value = 1 + list(_EVIDENCE_COLUMNS).index("value")
    columns.insert(behind_value, ("observed", _observed))
    return dict(columns)


def _observed(state: SettingState) -> str | None:
    return None if state.observed is None else json_text(state.observed)


def print_decision(decision: Decision, causes: Iterable[Cause] = ()) -> None:
    """Prints the verdict, its causes if they are given, and everything that the decision says."""
    outcome, as_of = decision.outcome, decision.as_of
    _print_verdict(outcome, causes=causes)
    lag = outcome.enforcement_lag
    if lag is not None:
        print_line(
            f"  The gateway enforced position {lag.enforced_position}, but #{lag.deciding_position} had been in force "
            f"for {lag.lag_us / 1e6:.6g} s."
        )
    print_line(f"governed by  {_governed_by(outcome)}")
    _print_unknown(outcome)
    _print_handling(outcome.handling)
    known = human_time(as_of.known_at)
    print_line(f"as of        {human_time(as_of.at)}, known at {known}, position {as_of.position}")
    print_clock_notice(as_of.clock_notice)
    if outcome.evidence:
        print_line()
        print_table(_evidence_columns(outcome), outcome.evidence)
    if decision.hindsight is not None:
        print_line()
        _print_verdict(decision.hindsight.outcome, "in hindsight: ")
        _print_handling(decision.hindsight.outcome.handling)
        _print_changed_by(decision.hindsight.changed_by)


def _print_verdict(outcome: Outcome, label: str = "", causes: Iterable[Cause] = ()) -> None:
    print_line(f"{label}{outcome.verdict}", _STYLES.get(outcome.verdict, "bold green"))
    for clause in filter(None, map(because, causes)):
        print_line(f"  {clause}")
    for reason in outcome.reasons:
        print_line(f"  {reason}: {REASONS[reason]}")
    if outcome.undecidable:
        print_line(f"  undecidable: {', '.join(outcome.undecidable)}")


def _print_changed_by(events: Iterable[SettingState | Retraction]) -> None:
    for event in events:
        if isinstance(event, Retraction):
            print_line(
                f"because      #{event.position} of {human_time(event.recorded_at)} by {event.actor} retracted a "
                f"change of {event.setting} (#{position_of(event.retracts)})"
            )
        elif event.change is not None:
            change = event.change
            start = "by default" if event.source == "default" else f"from {human_bound(change.effective_from)}"
            print_line(
                f"because      #{change.position} of {human_time(change.recorded_at)} by {change.actor}: "
                f"{event.subject} {event.setting} = {json_text(event.value)} {start}"
            )


def notices_of(decisions: Iterable[Decision]) -> list[tuple[ClockNotice, int]]:
    """The stretches of a clock that was ahead, and the decisions that rest on each."""
    notices = (decision.as_of.clock_notice for decision in decisions)
    return list(Counter(notice for notice in notices if notice is not None).items())


def print_decisions(decisions: Iterable[Decision]) -> None:
    columns: Columns = {
        "request": lambda decision: decision.request_id,
        "at": lambda decision: human_time(decision.as_of.at),
        "verdict": lambda decision: decision.outcome.verdict,
        "reasons": lambda decision: ", ".join(decision.outcome.reasons),
        "governed by": lambda decision: decision.outcome.governed_by.subject,
        "known": lambda decision: "" if decision.outcome.governed_by.known else "no",
        "in hindsight": lambda decision: decision.hindsight.outcome.verdict if decision.hindsight else "",
    }
    print_table(columns, decisions)


def _governed_by(outcome: Outcome) -> str:
    subject, via, _ = outcome.governed_by
    path = f" (through {' → '.join(via)})" if len(via) > 1 else ""
    return f"{subject or UNKNOWN_SUBJECT}{path}"


def _print_unknown(outcome: Outcome) -> None:
    subject, _, known = outcome.governed_by
    if subject is None or known:
        return
    rests = "nothing is decided" if "unknown_subject" in outcome.reasons else "this answer rests on defaults"
    print_line(f"unknown      the ledger has no event of {subject}; {rests}", "bold yellow")


def _print_handling(handling: Handling) -> None:
    """Prints what may be done with the data, and what not."""
    permissions = {
        "store": handling.may_store,
        "cache": handling.may_cache,
        "train": handling.may_train,
        "leave the platform": handling.may_leave_platform,
    }
    for permitted, heading in ((True, "may"), (False, "may not")):
        actions = [action for action, allowed in permissions.items() if allowed is permitted]
        if actions:
            print_line(f"{heading:<13}{', '.join(actions)}")
    regions = handling.allowed_regions
    if regions is not None:
        print_line(f"regions      {', '.join(regions) if regions else 'none'}")
    if handling.private_network_required:
        print_line("network      private only")
    policy = handling.data_policy
    if policy.by == "provider":
        print_line(f"data policy  of {policy.name or 'an unknown provider'} {policy.url or ''}".rstrip())
        print_line(f"             {policy_words(policy)}")


def policy_words(policy: DataPolicy) -> str:
    """The provider's policy as it was recorded."""
    words = [
        f"{'' if flag else 'does not '}{verb if not flag else verb + 's'}" if flag is not None else f"{verb}s: unknown"
        for verb, flag in (("train", policy.trains), ("store", policy.stores))
    ]
    if policy.retention_days is not None:
        words.append(f"keeps data for {policy.retention_days} days")
    if policy.regions:
        words.append(f"in {', '.join(policy.regions)}")
    return "; ".join(words)
