"""The compiled kernel finds what took a decision back as `fold.retraction_of_decided` does, whatever was said when."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.times import END
from projections.audit.index.schema import Said
from projections.audit.kernel import compiled_rules, tables
from projections.audit.numba_support import AVAILABLE
from projections.temporal.changes import Assertion, Change, Retraction
from projections.temporal.fold import retraction_of_decided

SETTINGS = ("training.opt_in", "storage.inputs_outputs")
LAST = 8


@st.composite
def timeline_cache(draw: st.DrawFn) -> list[Assertion]:
    """Of one subject, at instants 0 to LAST; positions have gaps, as others are spoken of in between."""
    said: list[Assertion] = []
    standing: list[Change] = []
    position = 0
    for version in range(draw(st.integers(1, 12))):
        position += draw(st.integers(1, 2))
        if standing and draw(st.integers(0, 3)) == 0:
            change = standing.pop(draw(st.integers(0, len(standing) - 1)))
            said.append(Retraction(position, version, f"e{position}", position, "a", change.setting, change.event_id))
            continue
        start = draw(st.integers(0, LAST))
        until = draw(st.none() | st.integers(start + 1, LAST + 1))
        setting = draw(st.sampled_from(SETTINGS))
        made = Change(position, version, f"e{position}", position, "a", setting, True, start, until)
        said.append(made)
        standing.append(made)
    return said


def indexed(said: list[Assertion], before: int) -> Any:
    """As `_Index` has it; `before` rows of no meaning stand in front."""
    position_of = {one.event_id: one.position for one in said}
    columns: dict[str, list[int]] = {
        name: [7] * before for name in ("position", "at", "setting", "from", "until", "by")
    }
    for one in said:
        change = one if isinstance(one, Change) else None
        columns["position"].append(one.position)
        columns["at"].append(one.recorded_at)
        columns["setting"].append(SETTINGS.index(one.setting))
        columns["from"].append(0 if change is None else change.effective_from)
        until = None if change is None else change.effective_until
        columns["until"].append(0 if change is None else END if until is None else until)
        columns["by"].append(0 if isinstance(one, Change) else position_of[one.retracts])
    table = Said(
        np.array([before], np.uint32),
        np.array([len(said)], np.uint32),
        np.array(columns["position"], np.uint32),
        np.array(columns["at"], np.int64),
        np.array(columns["setting"], np.uint8),
        np.array(columns["from"], np.int64),
        np.array(columns["until"], np.int64),
        np.array(columns["by"], np.uint32),
    )
    return SimpleNamespace(
        packed=np.zeros((1, 8), np.int32),
        said_start=table.start,
        said_count=table.count,
        said_position=table.position,
        said_recorded_at=table.recorded_at,
        said_setting=table.setting,
        said_from=table.effective_from,
        said_until=table.effective_until,
        said_retracts=table.retracts,
        said_taken_by=tables.taken_by(table),
    )


@pytest.mark.skipif(not AVAILABLE, reason="needs Numba")
@settings(max_examples=400)
@given(said=timeline_cache(), before=st.integers(0, 2))
def test_at_every_instant_and_position_it_is_what_the_fold_comes_to(said: list[Assertion], before: int) -> None:
    index = indexed(said, before)
    find = compiled_rules._taken_back.py_func  # type: ignore[attr-defined]  # what is compiled
    for code, setting in enumerate(SETTINGS):
        for known in {one.recorded_at for one in said}:
            told = [one for one in said if one.recorded_at <= known]
            for enforced in range(said[-1].position + 1):
                for instant in range(-1, LAST + 2):
                    expected = retraction_of_decided(told, setting, instant, enforced)
                    found = find(index, 0, code, enforced, instant, known)
                    assert found == (0 if expected is None else expected.position)
