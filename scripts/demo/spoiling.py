"""How an honest request is spoiled: one way for each reason, so that this and nothing else is wrong with it.

A spoiler says False, and may leave the draft in any state, where this sender's books do not make it wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from ledger.subjects import kind_of
from projections.decisions.model import Reason
from scripts.demo.platform import Platform
from scripts.demo.world import MODELS, REGIONS, UNLISTED_MODELS, Model


class Draft(NamedTuple):
    """A request in the making; `chain` leads from whom it names first to whose settings hold."""

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


Spoiler = Callable[[Draft, Platform, Random], bool]

WITHOUT_GOVERNOR: Final = frozenset({"before_first_record", "scope_conflict", "unknown_owner"})


def _does_against(done: str, setting: str) -> Spoiler:
    def spoil(draft: Draft, platform: Platform, rng: Random) -> bool:
        draft.handling[done] = True
        return platform.value(draft.governing, setting) is not True

    return spoil


def _hosting(platform: Platform, model: Model) -> Any:
    return platform.value(model.subject, "model.hosting")


def _scope_conflict(draft: Draft, platform: Platform, rng: Random) -> bool:
    """Names another organization, or account, than the key or project leads to."""
    first = draft.chain[0]
    if kind_of(first) not in ("key", "project"):
        return False
    kind, _, identifier = draft.governing.partition(":")
    others = [subject.partition(":")[2] for subject in platform.keys if kind_of(subject) == kind]
    others.remove(identifier)
    if not others:
        return False
    draft.record[f"{kind}_id"] = rng.choice(others)
    return True


def _unknown_model(draft: Draft, platform: Platform, rng: Random) -> bool:
    draft.record["model_id"] = rng.choice(UNLISTED_MODELS)
    draft.handling.pop("forwarded_to", None)
    return True


def _passthrough_not_allowed(draft: Draft, platform: Platform, rng: Random) -> bool:
    regions = platform.value(draft.governing, "residency.regions")
    fitting = [
        (model, region)
        for model in MODELS
        for region in model.regions
        if _hosting(platform, model) == "passthrough" and (not regions or region in regions)
    ]
    if not fitting or platform.value(draft.governing, "passthrough.allowed") is True:
        return False
    model, region = rng.choice(fitting)
    draft.record["model_id"] = model.id
    draft.handling.update(forwarded_to=model.author, region=region)
    return True


def _left_platform(draft: Draft, platform: Platform, rng: Random) -> bool:
    draft.handling["forwarded_to"] = draft.model.author
    return bool(_hosting(platform, draft.model) == "hosted")


def _wrong_provider(draft: Draft, platform: Platform, rng: Random) -> bool:
    draft.handling["forwarded_to"] = rng.choice([m.author for m in MODELS if m.author != draft.model.author])
    return bool(_hosting(platform, draft.model) == "passthrough")


def _outside_residency(draft: Draft, platform: Platform, rng: Random) -> bool:
    regions = platform.value(draft.governing, "residency.regions")
    draft.handling["region"] = rng.choice([region for region in REGIONS if region not in regions])
    return bool(regions)


def _public_network(draft: Draft, platform: Platform, rng: Random) -> bool:
    draft.handling["network"] = "public"
    return platform.value(draft.governing, "network.private_only") is True


SPOILERS: Final[dict[Reason, Spoiler]] = {
    "scope_conflict": _scope_conflict,
    "unknown_model": _unknown_model,
    "passthrough_not_allowed": _passthrough_not_allowed,
    "left_platform": _left_platform,
    "wrong_provider": _wrong_provider,
    "outside_residency": _outside_residency,
    "public_network": _public_network,
    "stored_against_setting": _does_against("stored", "storage.inputs_outputs"),
    "cached_against_setting": _does_against("cached", "caching.temporary"),
    "trained_without_opt_in": _does_against("trained", "training.opt_in"),
}
