"""The rule about models served as published: what a record observes of a model against what the model's settings say.

Proved by tests/decisions/test_check.py and tests/scenarios/published.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from projections.decisions.directory import plain
from projections.decisions.lag import Breach
from projections.decisions.model import AS_SERVED, Observed
from projections.decisions.states import States
from projections.temporal.changes import JsonValue
from projections.temporal.effective_state import SettingState

PRECISION: Final = "model.precision"
DISTILLED: Final = "model.distilled"
PROMPT_FORCED: Final = "model.system_prompt_forced"
CENSORSHIP: Final = "model.censorship_layer"
REVISION: Final = "model.revision"

MEMBER_OF: Final[Mapping[str, str]] = {
    PRECISION: "precision",
    DISTILLED: "distilled",
    PROMPT_FORCED: "system_prompt_forced",
    CENSORSHIP: "censored",
    REVISION: "revision",
}
"""Setting of a model → the member of the handling that it is compared with."""
PUBLISHED: Final = tuple(MEMBER_OF)
"""In the order in which evidence shows them."""
TEXTS: Final = (PRECISION, REVISION)
"""Compared after trimming and NFC; the others are flags."""

assert tuple(MEMBER_OF.values()) == AS_SERVED

_NOTHING_SERVED: Final = Observed().as_served

Published = tuple[SettingState, ...]
"""The states of all settings of PUBLISHED, or none of them."""


def says_how_served(observed: Observed) -> bool:
    """Whether the record observes anything that is compared with the model's settings."""
    return observed.as_served != _NOTHING_SERVED


def published_of(states: States, model: str) -> Published:
    """`model`: a subject."""
    return tuple(states.setting(model, setting) for setting in PUBLISHED)


def published_facts(observed: Observed, published: Published) -> Published:
    """The settings that the record observes, each with the observed value beside it."""
    if not published:
        return ()
    seen = zip(published, observed.as_served, strict=True)
    return tuple(state._replace(observed=value) for state, value in seen if value is not None)


def undecidable_facts(facts: Published) -> tuple[str, ...]:
    """The settings whose value is of another type than the rule speaks of. `facts`: see `published_facts`."""
    return tuple(state.setting for state in facts if not _is_decidable(state))


def published_breaches(facts: Published) -> Iterator[Breach]:
    """A breach for each setting that states something else than was observed. Null states nothing."""
    for state in facts:
        if state.value is not None and _is_decidable(state) and _compared(state.value) != _compared(state.observed):
            yield Breach("not_as_published", (state,))


def _is_decidable(state: SettingState) -> bool:
    return state.value is None or isinstance(state.value, str if state.setting in TEXTS else bool)


def _compared(value: JsonValue) -> JsonValue:
    return plain(value) if isinstance(value, str) else value
