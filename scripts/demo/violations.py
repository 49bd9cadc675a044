"""How an honest request is made wrong, for one reason and no other."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from ledger.subjects import kind_of
from projections.decisions.model import Reason
from scripts.demo.platform import Platform
from scripts.demo.world import MODELS, REGIONS, UNLISTED_MODELS, UNPLACED_MODEL, Model

ACTIONS: Final[dict[str, tuple[str, Reason]]] = {
    "stored": ("storage.inputs_outputs", "stored_against_setting"),
    "cached": ("caching.temporary", "cached_against_setting"),
    "trained": ("training.opt_in", "trained_without_opt_in"),
}
"""Member of handling → the setting that permits it, and the reason without its permission."""


class DraftRequest(NamedTuple):
    """A request that is not written yet. `chain`: from the subject that it names to the governing subject."""

    record: dict[str, Any]
    chain: tuple[str, ...]
    model: Model

    @property
    def governing(self) -> str:
        return self.chain[-1]

    @property
    def handling(self) -> dict[str, Any]:
        handling: dict[str, Any] = self.record["handling"]
        return handling


Violation = Callable[[DraftRequest, Platform, Random], bool]
"""Makes an honest request wrong for one reason and no other. False: it cannot make this sender's request wrong, and has
left the draft in any state."""


def _against_setting(action: str, setting: str) -> Violation:
    def violate(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
        draft.handling[action] = True
        return platform.value(draft.governing, setting) is not True

    return violate


def _hosting(platform: Platform, model: Model) -> Any:
    return platform.value(model.subject, "model.hosting")


def _scope_conflict(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    """Names another organization, or account, than the key or project leads to."""
    if kind_of(draft.chain[0]) not in ("key", "project"):
        return False
    kind, _, identifier = draft.governing.partition(":")
    others = [subject.partition(":")[2] for subject in platform.keys if kind_of(subject) == kind]
    others.remove(identifier)
    if not others:
        return False
    draft.record[f"{kind}_id"] = rng.choice(others)
    return True


def _unknown_model(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    draft.record["model_id"] = rng.choice(UNLISTED_MODELS)
    draft.handling.pop("forwarded_to", None)
    return True


def _passthrough_not_allowed(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    allowed = platform.allowed_regions(draft.governing)
    choices = [
        (model, region)
        for model in MODELS
        for region in model.regions
        if _hosting(platform, model) == "passthrough" and (not allowed or region in allowed)
    ]
    if not choices or platform.value(draft.governing, "passthrough.allowed") is True:
        return False
    model, region = rng.choice(choices)
    draft.record["model_id"] = model.id
    draft.handling.update(forwarded_to=model.author, region=region)
    return True


def _left_platform(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    draft.handling["forwarded_to"] = draft.model.author
    return bool(_hosting(platform, draft.model) == "hosted")


def _wrong_provider(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    draft.handling["forwarded_to"] = rng.choice([m.author for m in MODELS if m.author != draft.model.author])
    return bool(_hosting(platform, draft.model) == "passthrough")


def _outside_residency(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    allowed = platform.allowed_regions(draft.governing)
    outside = [region for region in draft.model.regions if region not in allowed]
    if not allowed or not outside:
        return False
    draft.handling["region"] = rng.choice(outside)
    return True


def _served_elsewhere(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    """In a region in which the model does not run, but in which the data may be handled."""
    allowed = platform.allowed_regions(draft.governing) or REGIONS
    elsewhere = [region for region in allowed if region not in draft.model.regions]
    if not elsewhere:
        return False
    draft.handling["region"] = rng.choice(elsewhere)
    return True


def _unknown_region(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    """With a model that states no region, and without an observed one."""
    draft.record["model_id"] = UNPLACED_MODEL.id
    draft.handling.pop("forwarded_to", None)
    draft.handling.pop("distilled", None)
    del draft.handling["region"]
    return bool(platform.allowed_regions(draft.governing))


def _not_as_published(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    draft.handling["distilled"] = True
    return True


def _public_network(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    draft.handling["network"] = "public"
    return platform.value(draft.governing, "network.private_only") is True


VIOLATIONS: Final[dict[Reason, Violation]] = {
    "scope_conflict": _scope_conflict,
    "unknown_model": _unknown_model,
    "unknown_region": _unknown_region,
    "passthrough_not_allowed": _passthrough_not_allowed,
    "left_platform": _left_platform,
    "wrong_provider": _wrong_provider,
    "outside_residency": _outside_residency,
    "served_elsewhere": _served_elsewhere,
    "not_as_published": _not_as_published,
    "public_network": _public_network,
    **{reason: _against_setting(action, setting) for action, (setting, reason) in ACTIONS.items()},
}
