"""Prints the demo: a story for people in lines of up to 80 columns, one document for programs."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ledger.subjects import kind_of
from ledger.times import BEGINNING, DAY, format_time
from projections.audit.summary import VERDICTS, summary_json
from projections.decisions.model import REASONS, Outcome, Reason, RequestRecord, decision_json
from projections.decisions.published import PUBLISHED
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState
from scripts.cli.output import Columns, json_text, print_line, print_table
from scripts.demo.comparison import AuditResult, Example, Mismatch, event_of
from scripts.demo.generator import LEDGER, LOG, DemoData
from scripts.demo.story import CORRECTED_ORG, PASSTHROUGH_OFF_FROM, PASSTHROUGH_OFF_ORG, WITHDRAWN_FROM, when
from scripts.demo.traffic import NOT_PLANTED, Judgement
from scripts.demo.world import PLATFORM

MISMATCHES_SHOWN: Final = 20
_WRONG: Final = ("violation", "indeterminate")
SETTINGS_OF_REASON: Final[Mapping[Reason, tuple[str, ...]]] = {
    "unknown_model": ("model.hosting", "model.provider"),
    "passthrough_not_allowed": ("passthrough.allowed", "model.hosting"),
    "left_platform": ("model.hosting", "passthrough.allowed"),
    "wrong_provider": ("model.provider", "model.hosting"),
    "outside_residency": ("residency.regions", "model.regions"),
    "served_elsewhere": ("model.regions",),
    "not_as_published": PUBLISHED,
    "public_network": ("network.private_only",),
    "stored_against_setting": ("storage.inputs_outputs",),
    "cached_against_setting": ("caching.temporary",),
    "trained_without_opt_in": ("training.opt_in",),
}
"""Reason → the settings that it rests on."""


def show_story(data: DemoData) -> None:
    print_line(f"{PLATFORM}, an invented platform: {data.events:,} events in eighteen months. Some of them:", "bold")
    print_line()
    columns: Columns = {
        "recorded": lambda line: when(line.receipt.recorded_at),
        "#": lambda line: line.receipt.position,
        "what": lambda line: line.text,
    }
    print_table(columns, data.story)
    print_line()


def show_result(data: DemoData, result: AuditResult, seconds: float) -> None:
    summary = result.summary
    print_line(f"Its request log: {summary.rows:,} lines, each checked against the policy in force", "bold")
    print_line()
    verdicts = [verdict for verdict in VERDICTS if summary.verdicts[verdict]]
    counts = {verdict: summary.verdicts[verdict] for verdict in verdicts} | {"(unreadable line)": summary.rejects}
    print_table({"verdict": lambda verdict: verdict, "requests": lambda verdict: f"{counts[verdict]:>8,}"}, counts)
    print_line()
    expected, actual = reason_counts(data.planted), reason_counts(result.judgements)
    print_table(
        {
            "what is wrong": lambda reason: reason,
            "planted": lambda reason: f"{expected[reason]:>7,}",
            "found": lambda reason: f"{actual[reason]:>5,}",
        },
        REASONS,
    )
    print_line()
    if result.violation is not None:
        _print_section(
            "A violation, and the events that prove it (# is their position in the ledger)",
            _violation_lines(result.violation),
        )
    if result.hindsight is not None:
        lines = _hindsight_lines(result.hindsight, result.reasons_given)
        _print_section("A verdict that is different in hindsight", lines)
    _print_section("Did the audit find what was planted?", _conclusion(data, result, seconds))
    if result.mismatches:
        _print_mismatches(result.mismatches)
    print_line("What to try next", "bold")
    for step in next_steps(data.folder):
        print_line(f"# {step.why}")
        print_line(step.command)


def _print_section(title: str, lines: Iterable[str]) -> None:
    print_line(title, "bold")
    for line in lines:
        print_line(line)
    print_line()


def _print_mismatches(mismatches: Sequence[Mismatch]) -> None:
    columns: Columns = {
        "not as planted": lambda mismatch: mismatch.what,
        "planted": lambda mismatch: _in_words(mismatch.expected),
        "found": lambda mismatch: _in_words(mismatch.actual),
    }
    print_table(columns, mismatches[:MISMATCHES_SHOWN])
    more = len(mismatches) - MISMATCHES_SHOWN
    if more > 0:
        print_line(f"and {more} more; --format json lists them all")
    print_line()


def _conclusion(data: DemoData, result: AuditResult, seconds: float) -> list[str]:
    if result.mismatches:
        count = len(result.mismatches)
        return [f"NO: there {'is 1 difference' if count == 1 else f'are {count} differences'}, after {seconds:.1f} s."]
    reasons = sum(reason_counts(data.planted).values())
    requests = sum(judgement.verdict in _WRONG for judgement in data.planted.values())
    return [
        f"Yes, exactly, in {seconds:.1f} s: {reasons:,} reasons in {requests:,} requests,",
        f"{len(result.differ_in_hindsight):,} requests that differ in hindsight, and "
        f"{len(data.unreadable)} unreadable lines.",
    ]


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Judgement):
        return f"{value.verdict}: {', '.join(value.reasons)}"
    return "nothing wrong" if value is None else str(value)


def reason_counts(judgements: dict[str, Judgement]) -> Counter[str]:
    """Reason → how many requests have it. A denied request is left out: there is nothing wrong with it."""
    return Counter(
        reason for judgement in judgements.values() if judgement.verdict in _WRONG for reason in judgement.reasons
    )


def _violation_lines(example: Example) -> Iterator[str]:
    outcome = example.decision.outcome
    yield _request(example.record)
    for reason in outcome.reasons:
        yield f"{outcome.verdict}: {reason}"
        yield f"  {REASONS[reason]}"
    yield f"Governed by {outcome.governed_by.subject}, because of:"
    settings = frozenset(setting for reason in outcome.reasons for setting in SETTINGS_OF_REASON.get(reason, ()))
    for state in outcome.evidence:
        if state.setting in settings or kind_of(state.subject) in ("key", "project", "account"):
            yield from _setting_lines(state)


def _hindsight_lines(example: Example, reasons_given: Mapping[int, str]) -> Iterator[str]:
    hindsight = example.decision.hindsight
    assert hindsight is not None
    yield _request(example.record)
    yield f"In force: {_verdict(example.decision.outcome)}, with what was recorded by then:"
    changed_settings = frozenset(by.setting for by in hindsight.changed_by)
    for state in example.decision.outcome.evidence:
        if state.setting in changed_settings:
            yield from _setting_lines(state)
    yield f"In hindsight: {_verdict(hindsight.outcome)}, with what was recorded later:"
    for by in hindsight.changed_by:
        event = event_of(by)
        if event is None:
            continue
        if isinstance(by, SettingState):
            yield f"  {by.setting} of {by.subject} = {json_text(by.value)}"
        else:
            yield f"  the change {by.retracts} of {by.setting} was retracted"
        yield _event(event)
        if event.position in reasons_given:
            yield f"    reason given: {reasons_given[event.position]}"


def _request(record: RequestRecord) -> str:
    sender = record.key_id or record.project_id or record.org_id or record.account_id
    return f"{record.request_id} of {when(record.at)}: {sender} used {record.model_id}"


def _verdict(outcome: Outcome) -> str:
    return f"{outcome.verdict} ({', '.join(outcome.reasons)})" if outcome.reasons else outcome.verdict


def _setting_lines(state: SettingState) -> Iterator[str]:
    source = "" if state.source == "explicit" else f" ({state.source.replace('_', ' ')})"
    yield f"  {state.setting} of {state.subject} = {json_text(state.value)}{source}"
    if state.newest is not None:
        yield _event(state.newest)


def _event(event: Change | Retraction) -> str:
    start = ""
    if isinstance(event, Change) and event.effective_from != event.recorded_at:
        start = ", from the beginning" if event.effective_from == BEGINNING else f", from {when(event.effective_from)}"
    return f"    #{event.position}, recorded {when(event.recorded_at)} by {event.actor}{start}"


class NextStep(NamedTuple):
    why: str
    command: str


def next_steps(folder: Path) -> list[NextStep]:
    """Commands that work from the current folder, on the ledger that the demo leaves behind."""
    inforce = _command()
    during = format_time(WITHDRAWN_FROM + 7 * DAY)[:10] + "T00:00:00Z"
    after = format_time(PASSTHROUGH_OFF_FROM + 30 * DAY)[:10] + "T12:00:00Z"
    org = PASSTHROUGH_OFF_ORG.partition(":")[2]
    state = f"{inforce} state {CORRECTED_ORG} --at {during}"
    ledger_url = shlex.quote(f"sqlite:///{folder / LEDGER}")
    log = shlex.quote(str(folder / LOG))
    return [
        NextStep("use the demo's ledger", f"export INFORCE_DATABASE={ledger_url}"),
        NextStep(f"the settings of {CORRECTED_ORG} on that day, in hindsight", state),
        NextStep("the same, as known on that day", f"{state} --known-at at"),
        NextStep("every change of its settings", f"{inforce} history {CORRECTED_ORG}"),
        NextStep("may it use this model?", f"{inforce} check --org {org} --model orbital/comet-2 --at {after}"),
        NextStep("audit the log again", f"{inforce} audit {log} --findings 1"),
        NextStep("one subject, event by event", f"{inforce} replay --subject org:tidewater-bank"),
        NextStep("rebuild the stored timelines and compare them", f"{inforce} rebuild"),
        NextStep("serve all of it over HTTP", f"{inforce} serve"),
    ]


def _command() -> str:
    """How to start inforce from here: the checkout's launcher, or the installed command."""
    launcher = Path(__file__).resolve().parents[1] / "inforce"
    if not launcher.is_file():
        return "inforce"
    if not launcher.is_relative_to(Path.cwd().resolve()):
        return shlex.quote(str(launcher))
    return shlex.quote(f"./{os.path.relpath(launcher)}")


def document(data: DemoData, result: AuditResult, seconds: dict[str, float]) -> dict[str, Any]:
    """The whole demo for programs."""
    expected, actual = reason_counts(data.planted), reason_counts(result.judgements)
    return {
        "exact": not result.mismatches,
        "differences": [
            {"what": one.what, "planted": _as_json(one.expected), "found": _as_json(one.actual)}
            for one in result.mismatches
        ],
        "folder": str(data.folder),
        "ledger": {"events": data.events, "submissions": data.submissions, "subjects": data.subjects},
        "audit": summary_json(result.summary),
        "reasons": {
            reason: {"planted": expected[reason], "found": actual[reason]}
            for reason in REASONS
            if reason not in NOT_PLANTED
        },
        "hindsight": {"planted": len(data.differ_in_hindsight), "found": len(result.differ_in_hindsight)},
        "unreadable_lines": sorted(data.unreadable),
        "violation": _decision_json(result.violation),
        "verdict_changed_by_hindsight": _decision_json(result.hindsight),
        "next_steps": [step._asdict() for step in next_steps(data.folder)],
        "seconds": seconds,
    }


def _as_json(value: Any) -> Any:
    return value._asdict() if isinstance(value, Judgement) else value


def _decision_json(example: Example | None) -> dict[str, Any] | None:
    return None if example is None else decision_json(example.decision)
