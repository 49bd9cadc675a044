"""Decisions told in words: who said what, when, and where in the ledger that stands. Lines of up to 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ledger.subjects import kind_of
from ledger.times import BEGINNING
from projections.decisions.model import REASONS, Outcome, Reason, RequestRecord
from projections.temporal.changes import Change, Retraction
from projections.temporal.effective_state import SettingState
from scripts.cli.output import encode
from scripts.demo.finding import Shown, event_of
from scripts.demo.story import when

RESTS_ON: Final[Mapping[Reason, tuple[str, ...]]] = {
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
"""Reason → the settings worth showing for it."""


def violation_words(shown: Shown) -> Iterator[str]:
    record, outcome = shown.record, shown.decision.outcome
    yield request_words(record)
    for reason in outcome.reasons:
        yield f"{outcome.verdict}: {reason}"
        yield f"  {REASONS[reason]}"
    yield f"Governed by {outcome.governed_by.subject}, by way of:"
    yield from _evidence(outcome)


def hindsight_words(shown: Shown, reasons_given: Mapping[int, str]) -> Iterator[str]:
    hindsight = shown.decision.hindsight
    assert hindsight is not None
    yield request_words(shown.record)
    yield f"In force: {_verdict(shown.decision.outcome)}, by what anyone could have known at that moment."
    yield from _evidence(shown.decision.outcome, _changed_settings(shown))
    yield f"In hindsight: {_verdict(hindsight.outcome)}, by what was recorded later:"
    for by in hindsight.changed_by:
        event = event_of(by)
        if event is None:
            continue
        if isinstance(by, SettingState):
            yield f"  {by.setting} of {by.subject} = {_json(by.value)}"
        else:
            yield f"  the change {by.retracts} of {by.setting} was taken back"
        yield from _event_words(event)
        if event.position in reasons_given:
            yield f"    reason given: {reasons_given[event.position]}"


def request_words(record: RequestRecord) -> str:
    sender = record.key_id or record.project_id or record.org_id or record.account_id
    return f"{record.request_id} of {when(record.at)}: {sender} used {record.model_id}"


def _verdict(outcome: Outcome) -> str:
    return f"{outcome.verdict} ({', '.join(outcome.reasons)})" if outcome.reasons else outcome.verdict


def _changed_settings(shown: Shown) -> frozenset[str]:
    hindsight = shown.decision.hindsight
    return frozenset(by.setting for by in hindsight.changed_by) if hindsight else frozenset()


def _evidence(outcome: Outcome, settings: frozenset[str] | None = None) -> Iterator[str]:
    if settings is None:
        settings = frozenset(setting for reason in outcome.reasons for setting in RESTS_ON.get(reason, ()))
    for state in outcome.evidence:
        owned = outcome.reasons and kind_of(state.subject) in ("key", "project", "account")
        if state.setting not in settings and not owned:
            continue
        source = "" if state.source == "explicit" else f" ({state.source.replace('_', ' ')})"
        yield f"  {state.setting} of {state.subject} = {_json(state.value)}{source}"
        if state.newest is not None:
            yield from _event_words(state.newest)


def _event_words(event: Change | Retraction) -> Iterator[str]:
    yield f"    said by {event.actor} on {when(event.recorded_at)}{_period(event)}"
    yield f"    position {event.position}, event {event.event_id}"


def _period(event: Change | Retraction) -> str:
    if isinstance(event, Retraction) or event.effective_from == event.recorded_at:
        return ""
    start = event.effective_from
    return ", effective from the beginning" if start == BEGINNING else f", effective from {when(start)}"


def _json(value: object) -> str:
    return encode(value).decode()
