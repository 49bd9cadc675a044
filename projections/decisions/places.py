"""The regions and the provider of a request, as `check` reads them: only where something is compared, because most
decisions compare nothing, and the directory then need not be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from projections.decisions.directory import EMPTY_DIRECTORY, Directory, Facts, is_recorded
from projections.decisions.providers import ProviderPolicy, Receiver, provider_policy, receiver_of
from projections.decisions.regions import ModelRegions, ObservedRegion, observed_region, regions_of_model
from projections.decisions.states import States
from projections.temporal.effective_state import SettingState

Texts = tuple[str, ...]


class ModelPlaces(NamedTuple):
    """Where data may be handled and who receives it, if the model is used. `provider`: of a passthrough model."""

    directory: Directory
    regions: ModelRegions
    provider: ProviderPolicy | None

    @property
    def facts(self) -> Facts:
        """The settings of providers and regions that are evidence."""
        of_provider = () if self.provider is None else self.provider.facts
        return (*of_provider, *filter(is_recorded, self.regions.facts))


class ObservedPlaces(NamedTuple):
    """The observed region and receiver against what is allowed; None where there is nothing to compare."""

    region: ObservedRegion | None
    receiver: Receiver | None

    @property
    def is_wrong_receiver(self) -> bool:
        return self.receiver is not None and self.receiver.is_provider is False


def places_without_model(states: States, residency: Texts) -> ModelPlaces:
    directory = states.directory() if residency else EMPTY_DIRECTORY
    return ModelPlaces(directory, ModelRegions(residency or None, "meet", ()), None)


def places_of_model(
    states: States, residency: Texts, runs_in: Texts, provider: str | None, url: str | None, *, passed: bool
) -> ModelPlaces:
    """`residency`: the allowed regions, empty for anywhere. `runs_in`: those of the model, empty if not stated.
    `provider`, `url`: of the model. `passed`: whether it is a passthrough model."""
    compares = residency or runs_in or (passed and provider is not None)
    directory = states.directory() if compares else EMPTY_DIRECTORY
    regions = regions_of_model(directory, residency, runs_in)
    return ModelPlaces(directory, regions, provider_policy(directory, provider, url) if passed else None)


def observed_places(
    directory: Directory, residency: Texts, runs_in: Texts, region: str | None, provider: str | None, to: str | None
) -> ObservedPlaces:
    """`region`, `to`: the observed region and receiver. `provider`: of the model, if data may be forwarded to it."""
    seen = receiver = None
    if region is not None and (residency or runs_in):
        seen = observed_region(directory, residency, runs_in, region)
    if to is not None and provider is not None:
        receiver = receiver_of(directory, provider, to)
    return ObservedPlaces(seen, receiver)


def further_facts(evidence: Iterable[SettingState], places: ObservedPlaces) -> Facts:
    """The settings that the observed region and receiver were compared by, each once, without those in `evidence`."""
    if places.receiver is None and places.region is None:
        return ()
    facts: list[SettingState] = []
    if places.receiver is not None:
        facts += places.receiver.facts
    if places.region is not None:
        facts += (*places.region.residency_facts, *places.region.model_facts)
    known = {(state.subject, state.setting) for state in evidence}
    more = {(state.subject, state.setting): state for state in facts if is_recorded(state)}
    return tuple(state for key, state in more.items() if key not in known)
