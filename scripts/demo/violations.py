"""Ways to make an honest request wrong: one for each reason, so that this reason and no other applies.

A way returns False if it cannot make this sender's request wrong. The draft may then be in any state.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from ledger.subjects import kind_of
from projections.decisions.model import Reason
from scripts.demo.platform import Platform
from scripts.demo.world import MODELS, REGIONS, UNLISTED_MODELS, Model


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
    allowed = platform.value(draft.governing, "residency.regions")
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
    allowed = platform.value(draft.governing, "residency.regions")
    draft.handling["region"] = rng.choice([region for region in REGIONS if region not in allowed])
    return bool(allowed)


def _public_network(draft: DraftRequest, platform: Platform, rng: Random) -> bool:
    draft.handling["network"] = "public"
    return platform.value(draft.governing, "network.private_only") is True


VIOLATIONS: Final[dict[Reason, Violation]] = {
    "scope_conflict": _scope_conflict,
    "unknown_model": _unknown_model,
    "passthrough_not_allowed": _passthrough_not_allowed,
    "left_platform": _left_platform,
    "wrong_provider": _wrong_provider,
    "outside_residency": _outside_residency,
    "public_network": _public_network,
    "stored_against_setting": _against_setting("stored", "storage.inputs_outputs"),
    "cached_against_setting": _against_setting("cached", "caching.temporary"),
    "trained_without_opt_in": _against_setting("trained", "training.opt_in"),
}
