"""Decisions as the bytes of their JSON, equal to `decision_json`, joined from parts that many decisions share.

Most of a decision is evidence, and each setting state caches its own JSON; verdicts, handlings and reasons take few
different values. Proved by tests/decisions/test_encoding.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Final

import msgspec

from ledger.times import format_time
from projections.decisions.model import (
    Decision,
    Evidence,
    GovernedBy,
    Handling,
    Hindsight,
    Outcome,
    Reason,
    handling_json,
    hindsight_json,
    state_json,
)
from projections.temporal.coordinates import clock_notice_json
from projections.temporal.effective_state import SettingState

INLINE_BYTES: Final = 1024 * 1024
"""A batch whose JSON is larger gives each piece of evidence once."""
ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A batch ends with the decisions that reach this size."""
_BLOCK: Final = 32
"""Decisions that are encoded before their size is looked at."""
SMALL_SET: Final = 32
SMALL_TEXT: Final = 256
"""Members of a set of regions, and their length, whose JSON the caches hold."""

_encode: Final = msgspec.json.Encoder().encode


def decision_bytes(decision: Decision) -> bytes:
    """`decision_json` as UTF-8."""
    return b"".join(_parts((decision,), None))


def decisions_bytes(decisions: Iterable[Decision], position: int, count: int = 0) -> bytes:
    """`{"decisions": […], "position": …}`, where all decisions are pinned to `position`.

    An answer over `INLINE_BYTES` gives each piece of evidence once, in the member `evidence` of the whole, and the
    decisions name it by its index there. It ends with the decisions that reach `ANSWER_BYTES`: if there are more,
    `next_after` is the number of decisions in it. Takes few more decisions than it answers. `count`: how many there
    are, if known: then a batch that will be large is not begun with all its evidence.
    """
    remaining = iter(decisions)
    held: list[Decision] = []
    parts = [b'{"decisions":[']
    size = 0
    while block := list(islice(remaining, _BLOCK)):
        more = _parts(block, None, b"," if held else b"")
        size += sum(map(len, more))
        held += block
        if size > INLINE_BYTES or size * count > 2 * INLINE_BYTES * len(held):
            return _by_reference(chain(held, remaining), position)
        parts += more
    parts.append(b'],"position":%d}' % position)
    return b"".join(parts)


def _by_reference(decisions: Iterator[Decision], position: int) -> bytes:
    table = _EvidenceTable()
    parts = [b'{"decisions":[']
    held: list[Decision] = []
    size = count = 0
    while size + table.size < ANSWER_BYTES and (block := list(islice(decisions, _BLOCK))):
        more = _parts(block, table, b"," if count else b"")
        size += sum(map(len, more))
        count += len(block)
        parts += more
        if size + table.repeated <= INLINE_BYTES:
            held += block
    if len(held) == count:
        # Not large after all: the first decisions were larger than the others.
        return decisions_bytes(held, position)
    end = b',"next_after":%d' % count if next(decisions, None) is not None else b""
    parts += (b'],"evidence":[', b",".join(table.indexes), b'],"position":%d%b}' % (position, end))
    return b"".join(parts)


class _EvidenceTable:
    """The pieces of evidence of one answer, each once. `size`: of all, in bytes."""

    def __init__(self) -> None:
        self.indexes: dict[bytes, bytes] = {}
        """The JSON of a piece → its index as JSON, in order."""
        self.size = 0
        self.repeated = 0
        """Bytes of the pieces that the decisions would hold. With the bytes that they do hold, at least their size with
        the pieces in place of the indexes."""
        self._written: dict[int, tuple[bytes, int, Evidence]] = {}
        """The id of the evidence that outcomes share → its indexes and the size of its pieces; and the evidence, so
        that it keeps its id."""

    def index(self, state: SettingState) -> bytes:
        piece = state.encoded or _state(state)
        index = self.indexes.get(piece)
        if index is None:
            index = self.indexes[piece] = b"%d" % len(self.indexes)
            self.size += len(piece)
        return index

    def write_outcome(self, outcome: Outcome) -> tuple[bytes, ...]:
        """As `_write_outcome`, with the indexes of the evidence instead of its pieces."""
        evidence = outcome.evidence
        written = self._written.get(id(evidence))
        if written is None:
            indexes = b'"evidence":[%b]' % b",".join(map(self.index, evidence))
            size = sum(len(state.encoded or b"") for state in evidence)
            written = self._written[id(evidence)] = (indexes, size, evidence)
        self.repeated += written[1]
        beginning, handling = (outcome.encoded or _write_outcome(outcome))[:2]
        return beginning, handling, written[0]


def _parts(decisions: Iterable[Decision], table: _EvidenceTable | None, comma: bytes = b"") -> list[bytes]:
    """Objects with commas between them, and `comma` before them. `table`: gives their evidence by reference."""
    parts: list[bytes] = []
    add = parts.append
    begin = comma + b"{"
    for request_id, outcome, (at, known_at, position, notice), hindsight in decisions:
        add(begin)
        begin = b",{"
        if request_id is not None:
            add(b'"request_id":%b,' % _encode(request_id))
        if table is None:
            parts += outcome.encoded or _write_outcome(outcome)
        else:
            parts += table.write_outcome(outcome)
        if outcome.enforcement_lag is not None:
            add(b',"enforcement_lag":%b' % _encode(outcome.enforcement_lag._asdict()))
        text = format_time(at)
        known = text if known_at == at else format_time(known_at)
        end = "}" if hindsight is None else f',"hindsight":{_hindsight(hindsight, table)}}}'
        clock = "" if notice is None else f',"clock_notice":{_encode(clock_notice_json(notice)).decode()}'
        add(f',"as_of":{{"at":"{text}","known_at":"{known}","position":{position}{clock}}}{end}'.encode())
    return parts


def _hindsight(hindsight: Hindsight, table: _EvidenceTable | None) -> str:
    document = hindsight_json(hindsight)
    if table is not None:
        states = [*hindsight.outcome.evidence, *(by for by in hindsight.changed_by if isinstance(by, SettingState))]
        table.repeated += sum(len(state.encoded or _state(state)) for state in states)
        document["evidence"] = [int(table.index(state)) for state in hindsight.outcome.evidence]
        document["changed_by"] = [
            int(table.index(by)) if isinstance(by, SettingState) else by_json
            for by, by_json in zip(hindsight.changed_by, document["changed_by"], strict=True)
        ]
    return _encode(document).decode()


def _write_outcome(outcome: Outcome) -> tuple[bytes, ...]:
    """The members before the lag and the coordinates, in parts; cached as `Outcome.encoded`."""
    beginning = _beginning(outcome.verdict, outcome.governed_by)
    parts = [beginning, _handling(outcome), b'"evidence":[']
    for state in outcome.evidence:
        parts += (state.encoded or _state(state), b",")
    if outcome.evidence:
        parts.pop()
    encoded = (*parts, b"]")
    if not _is_large(outcome.handling):
        outcome.encoded = encoded
    return encoded


def _handling(outcome: Outcome) -> bytes:
    write = _middle.__wrapped__ if _is_large(outcome.handling) else _middle
    return write(outcome.handling, outcome.reasons, outcome.undecidable)


def _is_large(handling: Handling) -> bool:
    """Whether the JSON may have many kilobytes, which no cache may hold once for each outcome."""
    regions = handling.allowed_regions
    return regions is not None and (len(regions) > SMALL_SET or max(map(len, regions), default=0) > SMALL_TEXT)


@lru_cache(4096)
def _beginning(verdict: str, governed_by: GovernedBy) -> bytes:
    return b'"verdict":%b,"governed_by":%b' % (_encode(verdict), _encode(governed_by._asdict()))


@lru_cache(4096)
def _middle(handling: Handling, reasons: tuple[Reason, ...], undecidable: tuple[str, ...]) -> bytes:
    named = b'"undecidable":%b,' % _encode(undecidable) if undecidable else b""
    return b',"handling":%b,"reasons":%b,%b' % (_encode(handling_json(handling)), _encode(reasons), named)


def _state(state: SettingState) -> bytes:
    state.encoded = _encode(state_json(state))
    return state.encoded
