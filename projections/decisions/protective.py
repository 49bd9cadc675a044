"""Handling at the protective values of settings: where a value is not known, or the rules do not speak of it.

Proved by tests/decisions/test_check.py.
"""

from __future__ import annotations

from typing import Any, Final

from projections.decisions.model import Handling
from projections.decisions.rule_settings import CACHING, NETWORK, PASSTHROUGH, RESIDENCY, STORAGE, TRAINING, texts_of
from projections.decisions.states import States
from projections.temporal.changes import JsonValue


def protected(handling: Handling, settings: tuple[str, ...], states: States) -> Handling:
    """`handling` with these settings of the governing subject at their protective values. Where that is no value
    either, nothing is permitted."""
    replaced: dict[str, Any] = {}
    for setting in settings:
        if setting == RESIDENCY:
            replaced["allowed_regions"] = texts_of(_protective(states, setting))
        elif setting == NETWORK:
            replaced["private_network_required"] = _protective(states, setting) is not False
        elif setting in _PERMITS:
            replaced[_PERMITS[setting]] = _protective(states, setting) is True
    return handling._replace(**replaced)


_PERMITS: Final = {
    TRAINING: "may_train",
    STORAGE: "may_store",
    CACHING: "may_cache",
    PASSTHROUGH: "may_leave_platform",
}
"""Setting → the member of handling that it permits."""


def _protective(states: States, setting: str) -> JsonValue:
    definition = states.definition(setting)
    protective: JsonValue = None if definition is None else definition["protective"]
    return protective
