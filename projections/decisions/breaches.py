"""The rules against a request: its model may not be used, or data was handled without permission. Those about regions,
providers and models served as published stand in modules of their own.

Proved by tests/decisions/test_check.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from projections.decisions.lag import Breach
from projections.decisions.model import Observed
from projections.decisions.places import ObservedPlaces
from projections.decisions.providers import Receiver
from projections.decisions.regions import ModelRegions
from projections.decisions.rule_settings import (
    CACHING,
    HOSTING,
    MODEL_REGIONS,
    NETWORK,
    PASSTHROUGH,
    PROVIDER,
    RESIDENCY,
    STORAGE,
    TRAINING,
)
from projections.temporal.effective_state import SettingState


def denials(policy: dict[str, SettingState], model: dict[str, SettingState], regions: ModelRegions) -> Iterable[Breach]:
    """The breaches that lie in using the model at all, whatever was done then."""
    if not model:
        return
    if model[HOSTING].value == "passthrough" and policy[PASSTHROUGH].value is False:
        yield Breach("passthrough_not_allowed", (policy[PASSTHROUGH], model[HOSTING]))
    if regions.meeting == "apart":
        yield Breach("outside_residency", (policy[RESIDENCY], model[MODEL_REGIONS], *regions.facts))


def handling_breaches(
    observed: Observed, policy: dict[str, SettingState], model: dict[str, SettingState], places: ObservedPlaces
) -> Iterable[Breach]:
    """The breaches of a request: handling without permission."""
    if observed.stored and policy[STORAGE].value is False:
        yield Breach("stored_against_setting", (policy[STORAGE],))
    if observed.cached and policy[CACHING].value is False:
        yield Breach("cached_against_setting", (policy[CACHING],))
    if observed.trained and policy[TRAINING].value is False:
        yield Breach("trained_without_opt_in", (policy[TRAINING],))
    region = places.region
    if region is not None and region.outside:
        yield Breach("outside_residency", (policy[RESIDENCY], *region.residency_facts))
    if region is not None and region.elsewhere:
        yield Breach("served_elsewhere", (model[MODEL_REGIONS], *region.model_facts))
    if observed.network == "public" and policy[NETWORK].value is True:
        yield Breach("public_network", (policy[NETWORK],))
    if observed.forwarded_to is not None:
        yield from _forwarding(policy, model, places.receiver)


def _forwarding(
    policy: dict[str, SettingState], model: dict[str, SettingState], receiver: Receiver | None
) -> Iterable[Breach]:
    allowed = policy[PASSTHROUGH].value
    hosting = model[HOSTING] if model else None
    if hosting is not None and hosting.value == "hosted":
        yield Breach("left_platform", (hosting,))
    elif hosting is not None and hosting.value == "passthrough":
        # Without permission, `denials` has yielded a breach already.
        if receiver is not None and receiver.is_provider is False:
            yield Breach("wrong_provider", (model[PROVIDER], hosting, *receiver.facts))
    elif allowed is False:
        yield Breach("left_platform", (policy[PASSTHROUGH],))


def provider_unknown(observed: Observed, policy: dict[str, SettingState], model: dict[str, SettingState]) -> bool:
    """Whether data was forwarded with permission to a receiver that cannot be compared with the provider."""
    if observed.forwarded_to is None or policy[PASSTHROUGH].value is not True:
        return False
    return not model or (model[HOSTING].value == "passthrough" and model[PROVIDER].value is None)
