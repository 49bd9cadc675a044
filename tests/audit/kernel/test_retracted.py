"""The compiled rules find the retraction of a deciding change as `fold.deciding_retraction` does."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.times import END
from projections.audit.index.schema import Assertions
from projections.audit.kernel import compiled_rules
from projections.audit.kernel.index_tables import retracted_by
from projections.audit.numba_support import AVAILABLE
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.fold import deciding_retraction

SETTINGS = ("training.opt_in", "storage.inputs_outputs")
LAST = 8


@st.composite
def histories(draw: st.DrawFn) -> list[Assertion]:
    """The assertions about one subject, at instants 0 to LAST. Positions have gaps, for other subjects."""
    assertions: list[Assertion] = []
    unretracted: list[Change] = []
    position = 0
    for version in range(draw(st.integers(1, 12))):
        position += draw(st.integers(1, 2))
        if unretracted and draw(st.integers(0, 3)) == 0:
            change = unretracted.pop(draw(st.integers(0, len(unretracted) - 1)))
            assertions.append(
                Retraction(position, version, f"e{position}", position, "a", change.setting, change.event_id)
            )
            continue
        start = draw(st.integers(0, LAST))
        until = draw(st.none() | st.integers(start + 1, LAST + 1))
        setting = draw(st.sampled_from(SETTINGS))
        change = Change(position, version, f"e{position}", position, "a", setting, True, start, until)
        assertions.append(change)
        unretracted.append(change)
    return assertions


def index_of(assertions: list[Assertion], before: int) -> Any:
    """The assertions in `IndexTables`, after `before` rows without meaning."""
    position_of = {one.event_id: one.position for one in assertions}
    columns: dict[str, list[int]] = {
        name: [7] * before for name in ("position", "at", "setting", "from", "until", "by")
    }
    for one in assertions:
        change = one if isinstance(one, Change) else None
        columns["position"].append(one.position)
        columns["at"].append(one.recorded_at)
        columns["setting"].append(SETTINGS.index(one.setting))
        columns["from"].append(0 if change is None else change.effective_from)
        until = None if change is None else change.effective_until
        columns["until"].append(0 if change is None else END if until is None else until)
        columns["by"].append(0 if isinstance(one, Change) else position_of[one.retracts])
    table = Assertions(
        np.array([before], np.uint32),
        np.array([len(assertions)], np.uint32),
        np.array(columns["position"], np.uint32),
        np.array(columns["at"], np.int64),
        np.array(columns["setting"], np.uint8),
        np.array(columns["from"], np.int64),
        np.array(columns["until"], np.int64),
        np.array(columns["by"], np.uint32),
    )
    return SimpleNamespace(
        packed=np.zeros((1, 8), np.int32),
        assertions_start=table.start,
        assertions_count=table.count,
        assertion_position=table.position,
        assertion_recorded_at=table.recorded_at,
        assertion_setting=table.setting,
        assertion_from=table.effective_from,
        assertion_until=table.effective_until,
        assertion_retracts=table.retracts,
        retracted_by=retracted_by(table),
    )


@pytest.mark.skipif(not AVAILABLE, reason="needs Numba")
@settings(max_examples=400)
@given(assertions=histories(), before=st.integers(0, 2))
def test_it_equals_the_fold_at_every_instant_and_position(assertions: list[Assertion], before: int) -> None:
    index = index_of(assertions, before)
    find = compiled_rules._taken_back.py_func  # type: ignore[attr-defined]  # the function before it is compiled
    for code, setting in enumerate(SETTINGS):
        for known in {one.recorded_at for one in assertions}:
            known_ones = [one for one in assertions if one.recorded_at <= known]
            for enforced in range(assertions[-1].position + 1):
                for instant in range(-1, LAST + 2):
                    expected = deciding_retraction(known_ones, setting, instant, enforced)
                    position = find(index, 0, code, enforced, instant, known)
                    assert position == (0 if expected is None else expected.position)
