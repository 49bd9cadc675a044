"""The rules about regions: where data may be handled, where a model runs, and where a request was handled.

Each function compares texts as the `Directory` of the question's own (at, known_at) does.
Proved by tests/decisions/test_check.py and tests/scenarios/places.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from projections.decisions.directory import Directory, Facts, Relation

Meeting = Literal["meet", "apart", "untold"]
Texts = Sequence[str]


class ModelRegions(NamedTuple):
    """Where the organization's data may be handled by a model.

    allowed: None is anywhere, empty is nowhere. meeting: of the allowed regions and those in which the model runs;
    `untold` also if the model states none. facts: the settings of regions that this rests on, if anything was compared.
    """

    allowed: tuple[str, ...] | None
    meeting: Meeting
    facts: Facts


def regions_of_model(directory: Directory, residency: Texts, runs_in: Texts) -> ModelRegions:
    """`residency`: the organization's, empty for anywhere. `runs_in`: `model.regions`, empty if not stated."""
    if not residency:
        return ModelRegions(tuple(runs_in) or None, "meet", ())
    if not runs_in:
        return ModelRegions(tuple(residency), "untold", ())
    both: set[str] = set()
    relations: set[Relation] = set()
    for allowed in residency:
        for region in runs_in:
            relation = directory.relation(allowed, region)
            relations.add(relation)
            if relation in ("equal", "within"):
                both.add(allowed)
            elif relation == "contains":
                both.add(region)
    meeting: Meeting = "meet" if both else "untold" if "untold" in relations else "apart"
    return ModelRegions(tuple(sorted(both)), meeting, directory.region_facts((*residency, *runs_in)))


class ObservedRegion(NamedTuple):
    """A region in which a request was handled.

    outside: it lies apart from all allowed regions. elsewhere: it lies apart from all regions in which the model runs.
    untold: neither is so for sure, nor the contrary. settles: it lies within an allowed region, or apart from all, so
    that the regions of the model matter no more. residency_facts, model_facts: the settings of regions behind `outside`
    and `elsewhere`.
    """

    outside: bool
    elsewhere: bool
    untold: bool
    settles: bool
    residency_facts: Facts
    model_facts: Facts


def observed_region(directory: Directory, residency: Texts, runs_in: Texts, region: str) -> ObservedRegion:
    """As for `regions_of_model`."""
    to_allowed = {directory.relation(region, allowed) for allowed in residency}
    to_model = {directory.relation(region, runs) for runs in runs_in}
    inside = bool(to_allowed & {"equal", "within"})
    unclear = bool(to_allowed) and not inside and bool(to_allowed & {"contains", "untold"})
    served_there = bool(to_model & {"equal", "within", "contains"})
    unclear_model = bool(to_model) and not served_there and "untold" in to_model
    return ObservedRegion(
        outside=bool(to_allowed) and not inside and not unclear,
        elsewhere=bool(to_model) and not served_there and not unclear_model,
        untold=unclear or unclear_model,
        settles=bool(to_allowed) and not unclear,
        residency_facts=directory.region_facts((*residency, region)) if residency else (),
        model_facts=directory.region_facts((*runs_in, region)) if runs_in else (),
    )
