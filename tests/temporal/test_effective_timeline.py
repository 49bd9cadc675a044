"""An effective timeline is effective state in force at every instant, and marks where hindsight agrees."""

from pathlib import Path

import pytest

from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING, END
from projections.decisions.model import RequestRecord
from projections.query.query import Query
from projections.temporal.effective_state import effective
from projections.temporal.effective_timeline import NO_TIMELINES, effective_timeline
from projections.temporal.fold import Timeline
from tests.support.ledgers import change, open_with_clock, submit
from tests.support.random_history import SUBJECTS, RandomHistory, expected_timelines

SETTINGS = (
    "training.opt_in",
    "caching.temporary",
    "residency.regions",
    "model.hosting",
    "beta.search",
    "never.defined",
)


def _position(timeline: Timeline, instant: int) -> int | None:
    change = timeline.at(instant)
    return None if change is None else change.position


@pytest.mark.parametrize("seed", range(5))
def test_an_effective_timeline_is_effective_state_at_every_instant(seed: int, tmp_path: Path) -> None:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        RandomHistory(ledger, clock, seed).extend(120)
        folded = expected_timelines(ledger)
    differing = 0
    for subject in (*SUBJECTS, "org:silent"):
        for setting in SETTINGS:
            changes = folded.get(subject, {}).get(setting, NO_TIMELINES)
            definitions = folded[CATALOG_SUBJECT].get(setting, NO_TIMELINES)
            timeline = effective_timeline(subject, setting, changes, definitions)
            edges = {start for both in (changes, definitions) for each in both for start in each.starts}
            for instant in {edge + step for edge in edges for step in (-1, 0, 1)} | {BEGINNING, END - 1}:
                if instant < BEGINNING:
                    continue
                step = timeline.step(instant)
                same = timeline.same_in_hindsight[step]
                assert timeline.states[step] == effective(
                    subject, setting, changes.in_force.at(instant), definitions.in_force.at(instant)
                ), f"{subject} {setting} at {instant}"
                assert same == all(
                    _position(both.in_force, instant) == _position(both.current, instant)
                    for both in (changes, definitions)
                )
                differing += not same
    assert differing, "the histories hold corrections"


def test_the_shared_empty_timelines_stay_empty() -> None:
    assert all(timeline == Timeline() for timeline in NO_TIMELINES)


def test_a_change_and_a_new_default_reach_effective_timelines_that_are_cached(tmp_path: Path) -> None:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        query = Query(ledger)

        def may() -> tuple[bool, bool]:
            clock.now_us += 1000
            outcome = query.check(RequestRecord(at=clock.now_us, org_id="acme")).outcome
            return outcome.handling.may_train, outcome.handling.may_cache

        assert may() == (False, True)
        submit(ledger, change(value=True))
        assert may() == (True, True)
        definition = dict(query.catalog(at=clock.now_us).definitions["caching.temporary"].value)  # type: ignore[arg-type]  # a definition is an object
        redefined = {"type": "setting.defined", "setting": "caching.temporary", "definition": definition}
        submit(ledger, redefined | {"definition": definition | {"default": False}})
        assert may() == (True, False)
