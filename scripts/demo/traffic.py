"""The invented requests, and what must be found about each of them.

Every request is first made as an honest gateway would handle it, with the platform's values of that moment. To plant a
violation, one honest request is made wrong in one known way (`violations.py`). So the demo knows which requests must be
found, and for which reasons, without a ledger, a fold or `check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final, NamedTuple

from ledger.subjects import CATALOG_SUBJECT, MUST_BE_KNOWN, kind_of
from ledger.times import format_time
from projections.decisions.model import Reason, Verdict
from scripts.demo.platform import Platform, SwitchOff
from scripts.demo.violations import ACTIONS, VIOLATIONS, DraftRequest
from scripts.demo.world import MISTYPED_ORGS, MODELS, NAMED_ORGS, PROVIDERS, Model

Reasons = tuple[Reason, ...]

SHARES: Final[dict[Reasons, float]] = {
    ("before_first_record",): 0.20,
    ("scope_conflict",): 0.40,
    ("unknown_owner",): 0.45,
    ("unknown_model",): 0.35,
    ("unknown_subject",): 0.15,
    ("unknown_region",): 0.20,
    ("passthrough_not_allowed",): 0.60,
    ("left_platform",): 0.25,
    ("wrong_provider",): 0.30,
    ("outside_residency",): 0.55,
    ("served_elsewhere",): 0.20,
    ("not_as_published",): 0.25,
    ("public_network",): 0.40,
    ("stored_against_setting",): 0.90,
    ("cached_against_setting",): 0.65,
    ("trained_without_opt_in",): 0.50,
    ("stored_against_setting", "trained_without_opt_in"): 0.15,
    ("public_network", "cached_against_setting"): 0.10,
    ("enforcement_lag",): 0.25,
}
"""Kind of planted request → how many in a thousand requests, but at least `PLANTED_MIN`."""
NOT_PLANTED: Final[frozenset[Reason]] = frozenset({"undecidable_value"})
"""This platform never meets it: the ledger refuses to define what the rules do not speak of."""
PLANTED_MIN: Final = 2
DENIED: Final[Reasons] = ()
"""A request for passthrough that is denied, and not forwarded: there is nothing wrong with it."""
DENIED_SHARE: Final = 0.5
UNOBSERVED_SHARE: Final = 0.03
"""The share of honest requests without a record of their handling."""
AS_SERVED_SHARE: Final = 0.1
"""The share of honest requests that say how their model was served."""
FREQUENT_VIOLATORS: Final = ("org:bluefin", "org:harbor-health", "org:northgate-labs", "org:quill-legal")
"""Half of the violations are planted here, where possible."""
_ATTEMPTS_MAX: Final = 400
_ORG_WEIGHT: Final = 6


def planted_counts(requests: int) -> dict[Reasons, int]:
    """How many of each are planted among so many requests."""
    return {reasons: max(PLANTED_MIN, round(requests * share / 1000)) for reasons, share in SHARES.items()}


class Judgement(NamedTuple):
    """Of a request that is neither compliant nor allowed. Reasons are sorted."""

    verdict: Verdict
    reasons: tuple[str, ...]


class LoggedRequest(NamedTuple):
    """`record`: the request record as JSON; `governing` None: unknown; `expected` None: nothing is wrong."""

    at: int
    record: dict[str, Any]
    governing: str | None
    expected: Judgement | None


_REASON_OF_LAG: Final[dict[str, Reason]] = {
    "passthrough.allowed": "passthrough_not_allowed",
    **dict(ACTIONS.values()),
}

UsableModel = tuple[Model, str | None, list[str]]
"""A model, the provider that it is forwarded to if any, and the regions where it may run."""


class Rules(NamedTuple):
    """The permissions of the governing subject. `actions`: what may be done with the data → whether it may."""

    models: list[UsableModel]
    actions: list[tuple[str, bool]]
    private_network: bool


class Traffic:
    """Makes requests at the platform's present time."""

    def __init__(self, platform: Platform, rng: Random) -> None:
        self.platform = platform
        self.rng = rng
        self.count = 0
        self._senders: list[str] = []
        self._sender_count = 0
        self._rules_of: dict[str, tuple[tuple[int, int], Rules]] = {}

    def early(self, at: int) -> LoggedRequest:
        """A request from before the ledger: the policy in force is unknown."""
        record: dict[str, Any] = {"org_id": self.rng.choice(list(NAMED_ORGS)), "model_id": self.rng.choice(MODELS).id}
        record["handling"] = {"stored": False, "cached": True}
        return self._logged(record, None, _judgement(("before_first_record",)), at)

    def honest(self) -> LoggedRequest:
        draft = self._draft(self._sender())
        while draft is None:
            draft = self._draft(self._sender())
        if self.rng.random() < UNOBSERVED_SHARE:
            del draft.record["handling"]
        return self._request(draft, None)

    def trained(self, subject: str) -> LoggedRequest | None:
        """A request that was used for training, with an opt-in; None if there is none now."""
        draft = self._draft(subject)
        if draft is None or self.platform.value(draft.governing, "training.opt_in") is not True:
            return None
        draft.handling["trained"] = True
        # With an older position, the violation in hindsight would be an enforcement lag.
        draft.record.pop("enforced_position", None)
        return self._request(draft, None)

    def violating(self, reasons: Reasons, senders: Sequence[str] = ()) -> LoggedRequest | None:
        """A request with exactly these things wrong; None if no sender is found for it now."""
        if reasons == ("unknown_owner",):
            return self._without_owner()
        if reasons == ("unknown_subject",):
            return self._without_event()
        wrong = ("passthrough_not_allowed",) if reasons == DENIED else reasons
        for _attempt in range(_ATTEMPTS_MAX):
            draft = self._draft(self.rng.choice(senders) if senders else self._sender())
            if draft is not None and all(VIOLATIONS[reason](draft, self.platform, self.rng) for reason in wrong):
                if reasons == DENIED:
                    del draft.record["handling"]
                    return self._request(draft, Judgement("denied", wrong))
                return self._request(draft, _judgement(reasons))
        return None

    def lagging(self, switch: SwitchOff) -> LoggedRequest | None:
        """A request handled by a gateway that the change has not reached; None if the change no longer holds."""
        if self.platform.value(switch.subject, switch.setting) is not False:
            return None
        draft = self._draft(switch.subject)
        if draft is None or draft.governing != switch.subject:
            return None
        if not VIOLATIONS[_REASON_OF_LAG[switch.setting]](draft, self.platform, self.rng):
            return None
        draft.record["enforced_position"] = switch.position_before
        return self._request(draft, _judgement(("enforcement_lag",)))

    def _without_owner(self) -> LoggedRequest:
        """A request with a key that was revoked, or never given to anybody."""
        revoked = [key for keys in self.platform.keys.values() for key in keys if self._is_revoked(key)]
        unknown = f"lost-{self.rng.randrange(1000):03}"
        key = self.rng.choice(revoked) if revoked and self.rng.random() < 0.5 else unknown
        record = {"key_id": key, "model_id": self.rng.choice(MODELS).id, "handling": {"stored": False}}
        return self._logged(record, None, _judgement(("unknown_owner",)), self.platform.clock.now_us)

    def _without_event(self) -> LoggedRequest | None:
        """A request of an organization that the ledger does not know, once each of them must be known."""
        if "org" not in self.platform.value(CATALOG_SUBJECT, MUST_BE_KNOWN):
            return None
        record = {"org_id": self.rng.choice(MISTYPED_ORGS), "model_id": self.rng.choice(MODELS).id}
        handling = {"stored": False}
        expected = _judgement(("unknown_subject",))
        return self._logged({**record, "handling": handling}, None, expected, self.platform.clock.now_us)

    def _is_revoked(self, key: str) -> bool:
        return (f"key:{key}", "owner") not in self.platform.current

    def _sender(self) -> str:
        """An organization or an account. Organizations send more."""
        if self._sender_count != len(self.platform.keys):
            self._sender_count = len(self.platform.keys)
            self._senders = [
                subject
                for subject in self.platform.keys
                for _ in range(_ORG_WEIGHT if kind_of(subject) == "org" else 1)
            ]
        return self.rng.choice(self._senders)

    def _draft(self, sender: str) -> DraftRequest | None:
        """An honest request; None if it happens to use a key without an owner."""
        rng, platform = self.rng, self.platform
        subject, record = self._name_sender(sender)
        chain = platform.chain(subject)
        governing = chain[-1]
        if kind_of(governing) not in ("org", "account"):
            return None
        self._name_more(record, chain)
        rules = self._rules(governing)
        model, provider, regions = rng.choice(rules.models)
        record["model_id"] = model.id
        handling: dict[str, Any] = {action: allowed and rng.random() < 0.7 for action, allowed in rules.actions}
        if provider is not None:
            handling["forwarded_to"] = rng.choice(PROVIDERS[provider].names)
        if rng.random() < AS_SERVED_SHARE:
            handling["distilled"] = False
        handling["region"] = rng.choice(regions)
        private = rules.private_network or rng.random() < 0.3
        handling["network"] = "private" if private else "public"
        record["handling"] = handling
        if rng.random() < 0.5:
            record["enforced_position"] = platform.position
        return DraftRequest(record, chain, model)

    def _name_sender(self, sender: str) -> tuple[str, dict[str, Any]]:
        """A subject that leads to the sender, usually a key, and a record that names it."""
        kind, _, identifier = sender.partition(":")
        chance = self.rng.random()
        if chance < 0.7:
            key = self.rng.choice(self.platform.keys[sender])
            return f"key:{key}", {"key_id": key}
        if chance < 0.8 and kind == "org":
            project = self.rng.choice(self.platform.projects[sender])
            return f"project:{project}", {"project_id": project}
        return sender, {f"{kind}_id": identifier}

    def _name_more(self, record: dict[str, Any], chain: tuple[str, ...]) -> None:
        """Adds other ids that a gateway logs. None of them contradicts the chain."""
        for subject in chain:
            kind, _, identifier = subject.partition(":")
            if kind != "key" and self.rng.random() < 0.3:
                record[f"{kind}_id"] = identifier
        members = self.platform.members.get(chain[-1])
        if members and not any(kind_of(subject) == "account" for subject in chain) and self.rng.random() < 0.3:
            record["account_id"] = self.rng.choice(members)

    def _rules(self, governing: str) -> Rules:
        """Computed again only after a value of the subject, a model or a default changed."""
        value, revisions = self.platform.value, self.platform.revisions
        revision = (revisions[""], revisions[governing])
        cached = self._rules_of.get(governing)
        if cached is not None and cached[0] == revision:
            return cached[1]
        allowed = self.platform.allowed_regions(governing)
        models: list[UsableModel] = []
        for model in MODELS:
            passthrough = value(model.subject, "model.hosting") == "passthrough"
            regions = [region for region in model.regions if not allowed or region in allowed]
            if regions and (not passthrough or value(governing, "passthrough.allowed") is True):
                models.append((model, model.author if passthrough else None, regions))
        actions = [(action, value(governing, setting) is True) for action, (setting, _) in ACTIONS.items()]
        rules = Rules(models, actions, value(governing, "network.private_only") is True)
        self._rules_of[governing] = revision, rules
        return rules

    def _request(self, draft: DraftRequest, expected: Judgement | None) -> LoggedRequest:
        unknown = expected is not None and "scope_conflict" in expected.reasons
        governing = None if unknown else draft.governing
        return self._logged(draft.record, governing, expected, self.platform.clock.now_us)

    def _logged(
        self, record: dict[str, Any], governing: str | None, expected: Judgement | None, at: int
    ) -> LoggedRequest:
        self.count += 1
        numbered = {"request_id": f"req-{self.count:06}", "at": format_time(at), **record}
        return LoggedRequest(at, numbered, governing, expected)


def _judgement(reasons: Reasons) -> Judgement:
    unknown = {"before_first_record", "scope_conflict", "unknown_owner", "unknown_model"}
    unknown |= {"unknown_subject", "unknown_region"}
    return Judgement("indeterminate" if unknown.issuperset(reasons) else "violation", tuple(sorted(reasons)))
