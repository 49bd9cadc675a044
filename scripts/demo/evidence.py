"""The evidence of a decision in words: who recorded what, when, and at which position. Lines of up to 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ledger.subjects import kind_of
from ledger.times import BEGINNING
from projections.decisions.model import REASONS, Outcome, Reason, RequestRecord
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState
from scripts.cli.output import json_text
from scripts.demo.comparison import Example, event_of
from scripts.demo.story import when

SETTINGS_OF_REASON: Final[Mapping[Reason, tuple[str, ...]]] = {
    "unknown_model": ("model.hosting", "model.provider"),
    "passthrough_not_allowed": ("passthrough.allowed", "model.hosting"),
    "left_platform": ("model.hosting", "passthrough.allowed"),
    "wrong_provider": ("model.provider", "model.hosting"),
    "outside_residency": ("residency.regions", "model.regions"),
    "public_network": ("network.private_only",),
    "stored_against_setting": ("storage.inputs_outputs",),
    "cached_against_setting": ("caching.temporary",),
    "trained_without_opt_in": ("training.opt_in",),
}
"""Reason → the settings that it rests on."""


def violation_lines(example: Example) -> Iterator[str]:
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


def hindsight_lines(example: Example, reasons_given: Mapping[int, str]) -> Iterator[str]:
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
