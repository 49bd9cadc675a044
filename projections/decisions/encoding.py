"""A decision as the bytes of its JSON: those of `decision_json`, put together from parts that many decisions share.

The evidence is most of it, and each piece keeps its own; verdicts, handlings and reasons come in few kinds.
Proved by tests/test_decision_bytes.py.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    parts: list[bytes] = []
    _write(decision, parts)
    return b"".join(parts)


def decisions_bytes(decisions: Sequence[Decision]) -> bytes:
    """`{"decisions": […], "position": …}`; there is at least one."""
    # All joined at once: some kilobytes each, they would otherwise be copied three times.
    parts: list[bytes] = []
    before = b'{"decisions":['
    for decision in decisions:
        parts.append(before)
        _write(decision, parts)
        before = b","
    parts.append(b'],"position":%d}' % decisions[0].as_of.position)
    return b"".join(parts)


def _write(decision: Decision, parts: list[bytes]) -> None:
    request_id, outcome, as_of, hindsight = decision
    parts.append(b"{")
    if request_id is not None:
        parts.append(request_id_bytes(request_id))
    parts += outcome.written or write_outcome(outcome)
    if outcome.enforcement_lag is not None:
        parts.append(b',"enforcement_lag":%b' % _encode(outcome.enforcement_lag._asdict()))
    at, known_at, position = as_of
    text = format_time(at)
    known = text if known_at == at else format_time(known_at)
    parts.append(f',"as_of":{{"at":"{text}","known_at":"{known}","position":{position}}}'.encode())
    parts.append(b"}" if hindsight is None else b',"hindsight":%b}' % _encode(hindsight_json(hindsight)))


def request_id_bytes(request_id: str) -> bytes:
    return b'"request_id":%b,' % _encode(request_id)


def write_outcome(outcome: Outcome) -> tuple[bytes, ...]:
    """What stands before the lag and the coordinates, in parts; kept as `Outcome.written`."""
    beginning = _beginning(outcome.verdict, outcome.governed_by)
    parts = [beginning, _middle(outcome.handling, outcome.reasons), b'"evidence":[']
    for state in outcome.evidence:
        parts += (state.written or _state(state), b",")
    if outcome.evidence:
        parts.pop()
    written = outcome.written = (*parts, b"]")
    return written


@lru_cache(4096)
def _beginning(verdict: str, governed_by: GovernedBy) -> bytes:
    governed = {"subject": governed_by.subject, "via": governed_by.via}
    return b'"verdict":%b,"governed_by":%b' % (_encode(verdict), _encode(governed))


@lru_cache(4096)
def _middle(handling: Handling, reasons: tuple[Reason, ...]) -> bytes:
    return b',"handling":%b,"reasons":%b,' % (_encode(handling_json(handling)), _encode(reasons))


def _state(state: SettingState) -> bytes:
    written = state.written = _encode(state_json(state))
    return written
