"""The rules about providers: who receives passthrough traffic, and under which data policy.

Proved by tests/decisions/test_check.py and tests/scenarios/places.yaml.
"""

from __future__ import annotations

from typing import NamedTuple

from projections.decisions.directory import (
    PROVIDER_REGIONS,
    PROVIDER_SHA256,
    PROVIDER_URL,
    RETENTION,
    STORES,
    TRAINS,
    Directory,
    Facts,
    is_recorded,
)
from projections.decisions.model import DataPolicy
from projections.temporal.changes import JsonValue


class ProviderPolicy(NamedTuple):
    """A data policy, and the settings of providers that it rests on."""

    policy: DataPolicy
    facts: Facts


def provider_policy(directory: Directory, name: str | None, url: str | None) -> ProviderPolicy:
    """The policy of the provider that a model names, as it is at this moment. `name`, `url`: of the model."""
    claimants = () if name is None else directory.providers(name)
    if len(claimants) != 1:
        facts = directory.naming_facts(() if name is None else (name,))
        return ProviderPolicy(DataPolicy("provider", name, url), tuple(filter(is_recorded, facts)))
    (provider,) = claimants
    facts = directory.provider_facts(provider)
    values = {state.setting: state.value for state in facts}
    policy = DataPolicy(
        by="provider",
        name=name,
        url=_text(values[PROVIDER_URL]) if url is None else url,
        provider=provider,
        policy_sha256=_text(values[PROVIDER_SHA256]),
        trains=_flag(values[TRAINS]),
        stores=_flag(values[STORES]),
        retention_days=_number(values[RETENTION]),
        regions=_regions(values[PROVIDER_REGIONS]),
    )
    return ProviderPolicy(policy, facts)


class Receiver(NamedTuple):
    """Whether a receiver is the model's provider (None: it cannot be told), and the settings that this rests on."""

    is_provider: bool | None
    facts: Facts


def receiver_of(directory: Directory, provider: str, receiver: str) -> Receiver:
    return Receiver(directory.same_provider(provider, receiver), directory.naming_facts((provider, receiver)))


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: JsonValue) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: JsonValue) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _regions(value: JsonValue) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and value else None
