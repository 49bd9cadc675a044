"""The submissions by which an operator acknowledges a fact about the ledger itself (see `ledger.acknowledgements`).

Nobody can send them: a submission from outside cannot name the subject `ledger:self`. Pure.
Proved by tests/test_acknowledgements.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from ledger.acknowledgements import CLOCK_AHEAD, GENERATION
from ledger.append.submissions import ChangeSetting, DefineSetting, Submission
from ledger.catalog import Catalog, Definition
from ledger.subjects import LEDGER_SUBJECT
from ledger.times import BEGINNING, format_time

_of_ledger: Final = partial(
    Definition,
    kinds=("ledger",),
    default=None,
    protective=None,
    writable_by="operator",
    source="ledger/README.md, When the clock or the ledger went back",
)
DEFINITIONS: Final = {
    CLOCK_AHEAD: _of_ledger(
        value_type="text",
        title="Clock was ahead, acknowledged",
        description="The recorded_at that the ledger had reached by a clock that was ahead. In this period answers in "
        "force rest on that clock.",
    ),
    GENERATION: _of_ledger(
        value_type="integer",
        title="Generation",
        description="Rises by one each time that an operator lets the ledger go on from an older head.",
    ),
}


def clock_acknowledgement(catalog: Catalog, start: int, head_recorded_at: int, reason: str) -> tuple[Submission, ...]:
    """`start`, `head_recorded_at` (µs): the poisoned stretch, from the last recorded_at before it to its last one."""
    period = {"effective_from": start, "effective_until": max(head_recorded_at, start) + 1}
    return _change(catalog, CLOCK_AHEAD, format_time(head_recorded_at), reason, period)


def generation_acknowledgement(catalog: Catalog, generation: int, reason: str) -> tuple[Submission, ...]:
    return _change(catalog, GENERATION, generation, reason, {})


def _change(
    catalog: Catalog, setting: str, value: str | int, reason: str, period: dict[str, Any]
) -> tuple[Submission, ...]:
    # Without validation, which refuses the subject.
    change = ChangeSetting.model_construct(
        type="setting.changed", subject=LEDGER_SUBJECT, setting=setting, value=value, reason=reason, **period
    )
    if setting in catalog:
        return (change,)
    definition = DefineSetting.model_construct(
        type="setting.defined",
        setting=setting,
        definition=DEFINITIONS[setting],
        effective_from=BEGINNING,
        reason=reason,
    )
    return definition, change
