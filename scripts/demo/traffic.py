"""The invented requests, and the bookkeeping of what is wrong with some of them.

Every request is first handled as an honest gateway would: it looks into the platform's books of that moment and keeps
to them. Where something is planted, one honest request is spoiled in one known way. So which lines must be found, and
for which reason, is known without a ledger, a fold or `check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final, NamedTuple

from ledger.subjects import kind_of
from ledger.times import format_time
from projections.decisions.model import Reason, Verdict
from scripts.demo.platform import Narrowed, Platform
from scripts.demo.spoiling import SPOILERS, WITHOUT_GOVERNOR, Draft
from scripts.demo.world import MODELS, NAMED_ORGS, Model

Reasons = tuple[Reason, ...]

SHARES: Final[dict[Reasons, float]] = {
    ("before_first_record",): 0.20,
    ("scope_conflict",): 0.40,
    ("unknown_owner",): 0.45,
    ("unknown_model",): 0.35,
    ("passthrough_not_allowed",): 0.60,
    ("left_platform",): 0.25,
    ("wrong_provider",): 0.30,
    ("outside_residency",): 0.55,
    ("public_network",): 0.40,
    ("stored_against_setting",): 0.90,
    ("cached_against_setting",): 0.65,
    ("trained_without_opt_in",): 0.50,
    ("stored_against_setting", "trained_without_opt_in"): 0.15,
    ("public_network", "cached_against_setting"): 0.10,
    ("enforcement_lag",): 0.25,
}
"""What is planted → how many in a thousand requests, but never fewer than `PLANTED_MIN`."""
PLANTED_MIN: Final = 2
TURNED_AWAY: Final[Reasons] = ()
TURNED_AWAY_SHARE: Final = 0.5
"""As many in a thousand ask for passthrough where it is not allowed, and do not get it: nothing is wrong with that."""
UNOBSERVED_SHARE: Final = 0.03
CARELESS: Final = ("org:bluefin", "org:harbor-health", "org:northgate-labs", "org:quill-legal")
"""Half of what is planted is planted here, where it can be."""
_ATTEMPTS_MAX: Final = 400
_ORG_WEIGHT: Final = 6
_SETTING_OF_LAG: Final[dict[str, Reason]] = {
    "training.opt_in": "trained_without_opt_in",
    "storage.inputs_outputs": "stored_against_setting",
    "caching.temporary": "cached_against_setting",
    "passthrough.allowed": "passthrough_not_allowed",
}


def wanted(requests: int) -> dict[Reasons, int]:
    """How many of each are planted among so many requests."""
    return {reasons: max(PLANTED_MIN, round(requests * share / 1000)) for reasons, share in SHARES.items()}


class Truth(NamedTuple):
    """What must be found about a request that is neither compliant nor simply allowed. Reasons sorted."""

    verdict: Verdict
    reasons: tuple[str, ...]


class Request(NamedTuple):
    """`record` is the request record as JSON; `governing` None: it cannot be told; `truth` None: nothing is wrong."""

    at: int
    record: dict[str, Any]
    governing: str | None
    truth: Truth | None


Usable = tuple[Model, str | None, list[str]]
"""A model that may be used, to whom it is forwarded if at all, and where."""


class Rules(NamedTuple):
    usable: list[Usable]
    may: list[tuple[str, bool]]
    private: bool


class Traffic:
    """Makes requests as of the platform's present."""

    def __init__(self, platform: Platform, rng: Random) -> None:
        self.platform = platform
        self.rng = rng
        self.made = 0
        self._senders: list[str] = []
        self._senders_known = 0
        self._known_rules: dict[str, tuple[tuple[int, int], Rules]] = {}

    def early(self, at: int) -> Request:
        """From before the ledger: nobody can say what was in force."""
        record: dict[str, Any] = {"org_id": self.rng.choice(list(NAMED_ORGS)), "model_id": self.rng.choice(MODELS).id}
        record["handling"] = {"stored": False, "cached": True}
        return Request(at, self._numbered(record, at), None, Truth("indeterminate", ("before_first_record",)))

    def honest(self) -> Request:
        draft = self._draft(self._sender())
        while draft is None:
            draft = self._draft(self._sender())
        if self.rng.random() < UNOBSERVED_SHARE:
            del draft.record["handling"]
        return self._finished(draft, draft.governing, None)

    def trained(self, subject: str) -> Request | None:
        """Honestly used for training, by someone who has opted in."""
        draft = self._draft(subject)
        if draft is None or self.platform.value(draft.governing, "training.opt_in") is not True:
            return None
        draft.handling["trained"] = True
        # An older position would turn the violation of hindsight into a lag.
        draft.record.pop("enforced_position", None)
        return self._finished(draft, draft.governing, None)

    def spoiled(self, reasons: Reasons, senders: Sequence[str] = ()) -> Request | None:
        """A request with exactly these things wrong; None where the platform has nobody for it at present."""
        if reasons == ("unknown_owner",):
            return self._orphan()
        for _attempt in range(_ATTEMPTS_MAX):
            draft = self._draft(self.rng.choice(senders) if senders else self._sender())
            if draft is not None and all(SPOILERS[reason](draft, self.platform, self.rng) for reason in reasons):
                return self._finished(draft, draft.governing, _truth(reasons))
        return None

    def turned_away(self) -> Request | None:
        """Passthrough asked for, not allowed, and not done: denied, and nothing is wrong with it."""
        for _attempt in range(_ATTEMPTS_MAX):
            draft = self._draft(self._sender())
            if draft is not None and SPOILERS["passthrough_not_allowed"](draft, self.platform, self.rng):
                del draft.record["handling"]
                return self._finished(draft, draft.governing, Truth("denied", ("passthrough_not_allowed",)))
        return None

    def late(self, narrowed: Narrowed) -> Request | None:
        """Handled by a gateway that has not heard of the change yet. None where it no longer holds."""
        if self.platform.value(narrowed.subject, narrowed.setting) is not False:
            return None
        draft = self._draft(narrowed.subject)
        if draft is None or draft.governing != narrowed.subject:
            return None
        if not SPOILERS[_SETTING_OF_LAG[narrowed.setting]](draft, self.platform, self.rng):
            return None
        draft.record["enforced_position"] = narrowed.position_before
        return self._finished(draft, draft.governing, _truth(("enforcement_lag",)))

    def _orphan(self) -> Request:
        """Of a key that nobody owns: it was never handed out, or it was revoked."""
        revoked = [key for keys in self.platform.keys.values() for key in keys if self._revoked(key)]
        made_up = f"lost-{self.rng.randrange(1000):03}"
        key = self.rng.choice(revoked) if revoked and self.rng.random() < 0.5 else made_up
        record = {"key_id": key, "model_id": self.rng.choice(MODELS).id, "handling": {"stored": False}}
        return self._finished(Draft(record, (f"key:{key}",), MODELS[0]), None, _truth(("unknown_owner",)))

    def _revoked(self, key: str) -> bool:
        return (f"key:{key}", "owner") not in self.platform.books

    def _sender(self) -> str:
        """An organization or account; organizations send more."""
        if self._senders_known != len(self.platform.keys):
            self._senders_known = len(self.platform.keys)
            self._senders = [
                subject
                for subject in self.platform.keys
                for _ in range(_ORG_WEIGHT if kind_of(subject) == "org" else 1)
            ]
        return self.rng.choice(self._senders)

    def _draft(self, sender: str) -> Draft | None:
        """An honest request; None where the key that was drawn belongs to nobody."""
        rng, platform = self.rng, self.platform
        named, record = self._named(sender)
        chain = platform.chain(named)
        governing = chain[-1]
        if kind_of(governing) not in ("org", "account"):
            return None
        self._name_more(record, chain)
        rules = self._rules(governing)
        model, provider, regions = rng.choice(rules.usable)
        record["model_id"] = model.id
        handling: dict[str, Any] = {name: allowed and rng.random() < 0.7 for name, allowed in rules.may}
        if provider is not None:
            handling["forwarded_to"] = provider
        handling["region"] = rng.choice(regions)
        private = rules.private or rng.random() < 0.3
        handling["network"] = "private" if private else "public"
        record["handling"] = handling
        if rng.random() < 0.5:
            record["enforced_position"] = platform.position
        return Draft(record, chain, model)

    def _named(self, sender: str) -> tuple[str, dict[str, Any]]:
        """A reference that leads to the sender, most often by a key, and the record that names it."""
        kind, _, identifier = sender.partition(":")
        drawn = self.rng.random()
        if drawn < 0.7:
            key = self.rng.choice(self.platform.keys[sender])
            return f"key:{key}", {"key_id": key}
        if drawn < 0.8 and kind == "org":
            project = self.rng.choice(self.platform.projects[sender])
            return f"project:{project}", {"project_id": project}
        return sender, {f"{kind}_id": identifier}

    def _name_more(self, record: dict[str, Any], chain: tuple[str, ...]) -> None:
        """What gateways log besides; it contradicts nothing."""
        for subject in chain:
            kind, _, identifier = subject.partition(":")
            if kind != "key" and self.rng.random() < 0.3:
                record[f"{kind}_id"] = identifier
        members = self.platform.members.get(chain[-1])
        if members and not any(kind_of(subject) == "account" for subject in chain) and self.rng.random() < 0.3:
            record["account_id"] = self.rng.choice(members)

    def _rules(self, governing: str) -> Rules:
        """What the books say of who governs; looked up again where something was written since."""
        pages = self.platform.pages
        stamp = (pages[""], pages[governing])
        known = self._known_rules.get(governing)
        if known is None or known[0] != stamp:
            known = self._known_rules[governing] = stamp, self._look_up(governing)
        return known[1]

    def _look_up(self, governing: str) -> Rules:
        value = self.platform.value
        allowed = value(governing, "residency.regions")
        usable: list[Usable] = []
        for model in MODELS:
            passthrough = value(model.subject, "model.hosting") == "passthrough"
            regions = [region for region in model.regions if not allowed or region in allowed]
            if regions and (not passthrough or value(governing, "passthrough.allowed") is True):
                usable.append((model, model.author if passthrough else None, regions))
        may = [(name, value(governing, setting) is True) for name, setting in _DONE.items()]
        return Rules(usable, may, value(governing, "network.private_only") is True)

    def _finished(self, draft: Draft, governing: str | None, truth: Truth | None) -> Request:
        at = self.platform.clock.now_us
        unknown = truth is not None and not WITHOUT_GOVERNOR.isdisjoint(truth.reasons)
        return Request(at, self._numbered(draft.record, at), None if unknown else governing, truth)

    def _numbered(self, record: dict[str, Any], at: int) -> dict[str, Any]:
        self.made += 1
        return {"request_id": f"req-{self.made:06}", "at": format_time(at), **record}


_DONE: Final = {
    "stored": "storage.inputs_outputs",
    "cached": "caching.temporary",
    "trained": "training.opt_in",
}
"""What is done with the data → the setting that permits it."""


def _truth(reasons: Reasons) -> Truth:
    unknown = {"scope_conflict", "unknown_owner", "unknown_model"}
    return Truth("indeterminate" if unknown.issuperset(reasons) else "violation", tuple(sorted(reasons)))
