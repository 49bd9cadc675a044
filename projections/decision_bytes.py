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
from projections.decision import (
    Decision,
    GovernedBy,
    Handling,
    Reason,
    handling_json,
    hindsight_json,
    state_json,
)
from projections.state import SettingState

_encode: Final = msgspec.json.Encoder().encode


def decision_bytes(decision: Decision) -> bytes:
    """`decision_json` as UTF-8."""
    request_id, outcome, as_of, hindsight = decision
    at = format_time(as_of.at)
    known_at = at if as_of.known_at == as_of.at else format_time(as_of.known_at)
    lag = outcome.enforcement_lag
    return b"".join(
        (
            b"{" if request_id is None else b'{"request_id":%b,' % _encode(request_id),
            _beginning(outcome.verdict, outcome.governed_by),
            _middle(outcome.handling, outcome.reasons),
            b",".join([state.written or _evidence(state) for state in outcome.evidence]),
            b"]" if lag is None else b'],"enforcement_lag":%b' % _encode(lag._asdict()),
            f',"as_of":{{"at":"{at}","known_at":"{known_at}","position":{as_of.position}}}'.encode(),
            b"}" if hindsight is None else b',"hindsight":%b}' % _encode(hindsight_json(hindsight)),
        )
    )


def decisions_bytes(decisions: Sequence[Decision]) -> bytes:
    """`{"decisions": […], "position": …}`; there is at least one."""
    position = decisions[0].as_of.position
    return b'{"decisions":[%b],"position":%d}' % (b",".join(map(decision_bytes, decisions)), position)


@lru_cache(4096)
def _beginning(verdict: str, governed_by: GovernedBy) -> bytes:
    governed = {"subject": governed_by.subject, "via": governed_by.via}
    return b'"verdict":%b,"governed_by":%b' % (_encode(verdict), _encode(governed))


@lru_cache(4096)
def _middle(handling: Handling, reasons: tuple[Reason, ...]) -> bytes:
    return b',"handling":%b,"reasons":%b,"evidence":[' % (_encode(handling_json(handling)), _encode(reasons))


def _evidence(state: SettingState) -> bytes:
    written = state.written
    if written is None:
        written = state.written = _encode(state_json(state))
    return written
