"""The simulation finds bugs: each mutation breaks one rule, and a run finds it in fewer steps than CI takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import ledger.append.decide
import ledger.recorders.assign_positions
import projections.temporal.changes
from ledger.store import Ledger
from ledger.times import END
from projections.decisions import check, directory
from projections.decisions.directory import Directory
from projections.query.query import Query
from projections.query.snapshots import ReadContext
from projections.temporal.changes import Retraction
from projections.temporal.fold import Timeline
from tests.simulation.compare import Mismatch
from tests.simulation.simulation import Simulation

Mutation = Callable[[pytest.MonkeyPatch], None]
STEPS = 1000
"""Fewer than CI takes."""


def boundary_one_microsecond_late(patch: pytest.MonkeyPatch) -> None:
    at = Timeline.at
    patch.setattr(Timeline, "at", lambda self, instant: at(self, instant - 1))


def open_change_covers_what_was_scheduled_after_it(patch: pytest.MonkeyPatch) -> None:
    def apply(self: Timeline, change: Any) -> bool:
        self._overwrite(change.effective_from, change.effective_until or END, change)
        return True

    patch.setattr(Timeline, "apply", apply)


def exception_goes_on_after_a_standing_change(patch: pytest.MonkeyPatch) -> None:
    def begin_regime(self: Timeline, change: Any) -> bool:
        self._overwrite(change.effective_from, self.step(change.effective_from).until, change)
        return True

    patch.setattr(Timeline, "_begin_regime", begin_regime)


def retraction_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        projections.temporal.changes,
        "Retraction",
        lambda *members: msgspec.structs.replace(Retraction(*members), retracts=""),
    )


def recorded_at_not_held_above_the_last(patch: pytest.MonkeyPatch) -> None:
    # Shadows the built-in `max`, which clamps recorded_at in an append.
    patch.setattr(ledger.recorders.assign_positions, "max", lambda now, _floor: now, raising=False)


def idempotency_key_ignored(patch: pytest.MonkeyPatch) -> None:
    submit = Ledger.submit

    def without_key(self: Ledger, submissions: Any, *, idempotency: Any = None, **more: Any) -> Any:
        return submit(self, submissions, **more)

    patch.setattr(Ledger, "submit", without_key)


def expected_version_ignored(patch: pytest.MonkeyPatch) -> None:
    draft = ledger.append.decide._BatchDecider._draft

    def without(self: Any, topic: str, subject: str, body: Any, submission: Any) -> None:
        draft(self, topic, subject, body, submission.model_copy(update={"expected_version": None}))

    patch.setattr(ledger.append.decide._BatchDecider, "_draft", without)


def answer_from_an_older_snapshot(patch: pytest.MonkeyPatch) -> None:
    context = Query.context

    def older(self: Query) -> ReadContext:
        now = context(self)
        stale: ReadContext = self.__dict__.setdefault("stale", now)
        if now.position > stale.position + 3:
            self.__dict__["stale"] = now
        return stale

    patch.setattr(Query, "context", older)


def hindsight_taken_for_what_was_in_force(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReadContext, "cheapest", lambda self, at, known_at: None)


def regions_contain_no_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Directory, "around", lambda self, region: (region,))


def region_that_two_names_claim_is_the_first(patch: pytest.MonkeyPatch) -> None:
    def region(self: Directory, text: str) -> str:
        claims = self._regions.get(directory.plain(text))
        return directory.plain(text) if claims is None else claims[0]

    patch.setattr(Directory, "region", region)


def case_of_a_provider_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(directory, "folded", directory.plain)


def demand_that_a_kind_be_known_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(check, "_missing", lambda via, states: None)


def reference_to_an_unknown_subject_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger.append.decide._BatchDecider, "_require_known", lambda self, subject: None)


MUTATIONS: tuple[Mutation, ...] = (
    boundary_one_microsecond_late,
    open_change_covers_what_was_scheduled_after_it,
    exception_goes_on_after_a_standing_change,
    retraction_ignored,
    recorded_at_not_held_above_the_last,
    idempotency_key_ignored,
    expected_version_ignored,
    answer_from_an_older_snapshot,
    hindsight_taken_for_what_was_in_force,
    regions_contain_no_others,
    region_that_two_names_claim_is_the_first,
    case_of_a_provider_counts,
    demand_that_a_kind_be_known_ignored,
    reference_to_an_unknown_subject_accepted,
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_run_finds_the_broken_rule_and_names_the_command_that_repeats_it(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    mutation(monkeypatch)
    folders = iter(range(STEPS))

    def new_database() -> str:
        folder = tmp_path / str(next(folders))
        folder.mkdir()
        return f"sqlite:///{folder}/ledger.db"

    simulation = Simulation(new_database, seed=1)
    try:
        with pytest.raises(Mismatch, match=r"seed 1, step \d+: (?s:.*)--simulation-seed 1 --simulation-steps \d+"):
            simulation.run(STEPS)
    finally:
        simulation.close()
    record_property("figure", f"simulation finds {mutation.__name__.replace('_', ' ')} at step {simulation.step}")
