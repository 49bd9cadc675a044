"""The settings that decisions rest on, and which of their values the rules speak of.

Proved by tests/decisions/test_check.py.
"""

from __future__ import annotations

from typing import Final

from projections.temporal.changes import JsonValue
from projections.temporal.effective_state import SettingState

TRAINING: Final = "training.opt_in"
STORAGE: Final = "storage.inputs_outputs"
CACHING: Final = "caching.temporary"
PASSTHROUGH: Final = "passthrough.allowed"
RESIDENCY: Final = "residency.regions"
NETWORK: Final = "network.private_only"
HOSTING: Final = "model.hosting"
PROVIDER: Final = "model.provider"
POLICY_URL: Final = "model.policy_url"
MODEL_REGIONS: Final = "model.regions"

POLICY: Final = (TRAINING, STORAGE, CACHING, PASSTHROUGH, RESIDENCY, NETWORK)
"""The settings of the governing subject that a decision rests on."""
OF_MODEL: Final = (HOSTING, PROVIDER, POLICY_URL, MODEL_REGIONS)
"""The settings of the model that a decision rests on."""


_FLAGS: Final = frozenset(POLICY) - {RESIDENCY}


def is_decidable(state: SettingState) -> bool:
    """Whether the rules speak of the value. They speak of null only where it says: unknown, or not stated."""
    value, setting = state.value, state.setting
    if setting in _FLAGS:
        return value is True or value is False
    if value is None:
        return setting != RESIDENCY
    if setting == HOSTING:
        return value in ("hosted", "passthrough")
    return isinstance(value, list if setting in (RESIDENCY, MODEL_REGIONS) else str)


def texts_of(value: JsonValue) -> tuple[str, ...]:
    """The members of a set; none of any other value."""
    return tuple(value) if isinstance(value, list) else ()
