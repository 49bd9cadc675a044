"""The decisions on many records as bytes, from what is kept: what `Query.check_all` and `decisions_bytes` come to.

For bodies of thousands of records, of which every one pays for each step in between: no decision is made into an
object, and what a record stands on is found without a call. Whatever is not at hand, or is not the same in hindsight,
goes the long way by itself. Proved by tests/query/test_grounds.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

from ledger.times import format_time
from projections.decisions.check import judge
from projections.decisions.encoding import decision_bytes, request_id_bytes, write_outcome
from projections.decisions.model import Decision, RequestRecord
from projections.query.snapshots import ReadContext


def in_force_bytes(
    records: Iterable[RequestRecord], moment: ReadContext, decide: Callable[[RequestRecord], Decision]
) -> bytes:
    """`{"decisions": […], "position": …}` of what was in force; there is at least one record. `decide`: the long way,
    at the same moment."""
    snapshot, now = moment.snapshot, moment.now
    row_of = snapshot.rows_at_once()
    position = snapshot.position
    until_now = format_time(now)
    end = f'","position":{position}}}'
    # All joined at once: some kilobytes each, they would otherwise be copied three times.
    parts: list[bytes] = []
    add = parts.append
    before = b'{"decisions":[{'
    for record in records:
        at = record[0]
        row = row_of(record[1:6])
        span = None
        if row is not None and (index := bisect_right(row[0], at)):
            span = row[1][index - 1]
        if (
            span is None
            or at >= span.until
            or span.position > position
            or span.later is not None
            or record.enforced_position is not None
        ):
            add(before[:-1])
            add(decision_bytes(decide(record)))
            before = b",{"
            continue
        decision_basis, observed = span.decision_basis, record.handling
        outcome = (
            decision_basis.asked
            if observed is None
            else decision_basis.judged.get(observed) or judge(record, decision_basis, None)
        )
        add(before)
        before = b",{"
        if record.request_id is not None:
            add(request_id_bytes(record.request_id))
        parts += outcome.written or write_outcome(outcome)
        text = format_time(at)
        add(f',"as_of":{{"at":"{text}","known_at":"{text if at < now else until_now}{end}}}'.encode())
    add(b'],"position":%d}' % position)
    return b"".join(parts)
