"""Decisions as the bytes of their JSON, equal to `decision_json`, joined from parts that many decisions share.

Most of a decision is evidence, and each setting state caches its own JSON; verdicts, handlings and reasons take few
different values. Proved by tests/decisions/test_encoding.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from ledger.times import format_time
from projections.decisions.model import (
    Decision,
    GovernedBy,
    Handling,
    Outcome,
    Reason,
    handling_json,
    hindsight_json,
    state_json,
)
from projections.temporal.effective_state import SettingState

_encode: Final = msgspec.json.Encoder().encode


def decision_bytes(decision: Decision) -> bytes:
    """`decision_json` as UTF-8."""
    return b"".join(_parts([decision]))


def decisions_bytes(decisions: Iterable[Decision], position: int) -> bytes:
    """`{"decisions": […], "position": …}`, where all decisions are pinned to `position`."""
    return b"".join([b'{"decisions":[', *_parts(decisions), b'],"position":%d}' % position])


def _parts(decisions: Iterable[Decision]) -> list[bytes]:
    """Objects with commas between them. Joined once by the caller: one decision is some kilobytes."""
    parts: list[bytes] = []
    add = parts.append
    begin = b"{"
    for request_id, outcome, (at, known_at, position), hindsight in decisions:
        add(begin)
        begin = b",{"
        if request_id is not None:
            add(b'"request_id":%b,' % _encode(request_id))
        parts += outcome.encoded or _write_outcome(outcome)
        if outcome.enforcement_lag is not None:
            add(b',"enforcement_lag":%b' % _encode(outcome.enforcement_lag._asdict()))
        text = format_time(at)
        known = text if known_at == at else format_time(known_at)
        end = "}" if hindsight is None else f',"hindsight":{_encode(hindsight_json(hindsight)).decode()}}}'
        add(f',"as_of":{{"at":"{text}","known_at":"{known}","position":{position}}}{end}'.encode())
    return parts


def _write_outcome(outcome: Outcome) -> tuple[bytes, ...]:
    """The members before the lag and the coordinates, in parts; cached as `Outcome.encoded`."""
    beginning = _beginning(outcome.verdict, outcome.governed_by)
    parts = [beginning, _middle(outcome.handling, outcome.reasons, outcome.undecidable), b'"evidence":[']
    for state in outcome.evidence:
        parts += (state.encoded or _state(state), b",")
    if outcome.evidence:
        parts.pop()
    outcome.encoded = (*parts, b"]")
    return outcome.encoded


@lru_cache(4096)
def _beginning(verdict: str, governed_by: GovernedBy) -> bytes:
    governed = {"subject": governed_by.subject, "via": governed_by.via}
    return b'"verdict":%b,"governed_by":%b' % (_encode(verdict), _encode(governed))


@lru_cache(4096)
def _middle(handling: Handling, reasons: tuple[Reason, ...], undecidable: tuple[str, ...]) -> bytes:
    named = b'"undecidable":%b,' % _encode(undecidable) if undecidable else b""
    return b',"handling":%b,"reasons":%b,%b' % (_encode(handling_json(handling)), _encode(reasons), named)


def _state(state: SettingState) -> bytes:
    state.encoded = _encode(state_json(state))
    return state.encoded
