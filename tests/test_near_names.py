"""Names near a mistyped one."""

import pytest

from ledger.built_in_catalog import BUILT_IN
from ledger.near_names import COMPARED_MAX, SHOWN_MAX, did_you_mean, near_names


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("training.optin", "training.opt_in"),
        ("training_opt_in", "training.opt_in"),
        ("Training.Opt_In", "training.opt_in"),
        ("opt_in", "training.opt_in"),
        ("trainig.opt_in", "training.opt_in"),
        ("storage", "storage.inputs_outputs"),
        ("residency.region", "residency.regions"),
        ("retention_days", "provider.retention_days"),
    ],
)
def test_the_nearest_name_is_the_first(wrong: str, right: str) -> None:
    near = near_names(wrong, BUILT_IN)
    assert near[0] == right
    assert len(near) <= SHOWN_MAX


@pytest.mark.parametrize("far", ["", "x", "zzzzzzzz", "nosuch", "a b", "\ud800", "ß" * 128])
def test_a_name_that_resembles_none_gets_no_proposal(far: str) -> None:
    assert near_names(far, BUILT_IN) == []
    assert did_you_mean(far, BUILT_IN) == ""


def test_the_proposal_is_part_of_a_sentence() -> None:
    assert did_you_mean("stat", ["state"]) == " (did you mean state?)"
    assert did_you_mean("ab1", ["ab2", "ab3"]) == " (did you mean ab3 or ab2?)"
    assert did_you_mean("ab1", ["ab2", "ab3", "ab4", "ab5"]) == " (did you mean ab5, ab4 or ab3?)"


def test_only_names_that_exist_are_shown_and_only_so_many_are_compared() -> None:
    names = [f"own.setting.{number}" for number in range(COMPARED_MAX + 50)]
    assert set(near_names("own.settin.7", names)) <= set(names[:COMPARED_MAX])
    assert near_names(names[-1], [*["x"] * COMPARED_MAX, names[-1]]) == []
