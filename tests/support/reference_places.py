"""Regions and providers, slowly and obviously, from projections/README.md, "Regions" and "Providers": see
`tests.support.reference`."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from tests.support.reference_time import Breach, Json, ReferenceLedger, ReferenceState, kind_of

HOPS_FOLLOWED_MAX = 8
OF_REGION = ("region.names", "region.within")
OF_PROVIDER = (
    "provider.names",
    "provider.policy_url",
    "provider.policy_sha256",
    "provider.trains",
    "provider.stores",
    "provider.retention_days",
    "provider.regions",
)


def trimmed(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip())


def without_case(text: str) -> str:
    return trimmed(text).casefold()


class Places:
    """The regions and providers of a ledger at one (at, known_at)."""

    def __init__(self, ledger: ReferenceLedger, at: int, known_at: int | None) -> None:
        self._ledger, self._at, self._known_at = ledger, at, known_at
        # A subject counts while it has a value of its own.
        self.regions = self._with_a_value("region", OF_REGION)
        self.providers = self._with_a_value("provider", OF_PROVIDER)

    def state(self, subject: str, setting: str) -> ReferenceState:
        return self._ledger.setting_state(subject, setting, self._at, self._known_at)

    def _with_a_value(self, kind: str, settings: tuple[str, ...]) -> list[str]:
        subjects = sorted({event["subject"] for event in self._ledger.events if kind_of(event["subject"]) == kind})
        return [one for one in subjects if any(self.state(one, s).source == "explicit" for s in settings)]

    # Regions are named by their ids here.

    def outer(self, region: str) -> str | None:
        if f"region:{region}" not in self.regions:
            return None
        within = self.state(f"region:{region}", "region.within").value
        return None if within is None else str(within).removeprefix("region:")

    def claiming(self, text: str) -> list[str]:
        """The ids of the regions that the text names."""
        bare = trimmed(text)
        named = [
            subject.removeprefix("region:")
            for subject in self.regions
            if bare in map(trimmed, self.state(subject, "region.names").value or [])
        ]
        ids = {subject.removeprefix("region:") for subject in self.regions}
        contains_one = bare in [self.outer(region) for region in ids]
        if (bare in ids or contains_one) and bare not in named:
            named.append(bare)
        return sorted(named)

    def place(self, text: str) -> str | None:
        claiming = self.claiming(text)
        if len(claiming) > 1:
            return None
        return claiming[0] if claiming else trimmed(text)

    def containers(self, region: str) -> list[str]:
        """The regions around a region, from the inside to the outside."""
        around: list[str] = []
        outer = self.outer(region)
        while outer is not None and outer != region and outer not in around and len(around) < HOPS_FOLLOWED_MAX:
            around.append(outer)
            outer = self.outer(outer)
        return around

    def how(self, one: str, other: str) -> str:
        """`same`, `in`, `around` or `apart`: how the first text's region lies to the other's; `?` if nobody can say."""
        first, second = self.place(one), self.place(other)
        if first is None or second is None:
            return "?"
        if first == second:
            return "same"
        inside, outside = second in self.containers(first), first in self.containers(second)
        if inside and outside:
            return "?"
        if not inside and not outside and (self.is_too_deep(first) or self.is_too_deep(second)):
            return "?"
        return "in" if inside else "around" if outside else "apart"

    def is_too_deep(self, region: str) -> bool:
        """Whether there are more regions around this one than are followed, without a circle."""
        around = self.containers(region)
        following = self.outer(around[-1]) if len(around) == HOPS_FOLLOWED_MAX else None
        return following is not None and following != region and following not in around

    def facts_of_regions(self, texts: Iterable[str]) -> list[ReferenceState]:
        facts: list[ReferenceState] = []
        for text in texts:
            claiming = self.claiming(text) or [trimmed(text)]
            settings = [(region, "region.names") for region in claiming]
            if len(claiming) == 1:
                settings += [(region, "region.within") for region in [claiming[0], *self.containers(claiming[0])]]
            facts += [self._fact(f"region:{region}", setting) for region, setting in settings]
        return once(facts)

    def _fact(self, subject: str, setting: str) -> ReferenceState:
        state = self.state(subject, setting)
        return state if was_recorded(state) else state._replace(event=None)

    # Providers are subjects here.

    def named(self, text: str) -> list[str]:
        bare = without_case(text)
        named = []
        for subject in self.providers:
            names = [subject.removeprefix("provider:"), *(self.state(subject, "provider.names").value or [])]
            if bare in map(without_case, names):
                named.append(subject)
        return named

    def facts_of_names(self, texts: Iterable[str]) -> list[ReferenceState]:
        return once(self._fact(subject, "provider.names") for text in texts for subject in self.named(text))

    def same_provider(self, one: str, other: str) -> bool | None:
        if without_case(one) == without_case(other):
            return True
        first, second = self.named(one), self.named(other)
        if not [subject for subject in first if subject in second]:
            return False
        return True if first == second and len(first) == 1 else None

    def data_policy(self, name: Any, url: Any) -> tuple[Json, list[ReferenceState]]:
        """The data policy of a passthrough model that names this provider and this URL, and what it rests on."""
        policy: Json = {"by": "provider", "name": name, "url": url, "provider": None}
        policy |= dict.fromkeys(("policy_sha256", "trains", "stores", "retention_days", "regions"))
        named = [] if name is None else self.named(name)
        if len(named) != 1:
            facts = self.facts_of_names([] if name is None else [name])
            return policy, [fact for fact in facts if was_recorded(fact)]
        states = [self.state(named[0], setting) for setting in OF_PROVIDER]
        values = {state.setting.removeprefix("provider."): state.value for state in states}
        policy["provider"] = named[0]
        policy["url"] = values["policy_url"] if url is None else url
        for member in ("policy_sha256", "trains", "stores", "retention_days"):
            policy[member] = values[member]
        policy["regions"] = values["regions"] or None
        return policy, states


def once(facts: Iterable[ReferenceState]) -> list[ReferenceState]:
    return list({(fact.subject, fact.setting): fact for fact in facts}.values())


def was_recorded(state: ReferenceState) -> bool:
    """Whether somebody recorded it: it has a value, or a clear ended one."""
    return state.value not in (None, []) or state.cleared_by is not None or state.source == "explicit"


class RegionsOfRequest:
    """How a request's regions lie to those in which its organization's data may be handled."""

    def __init__(
        self,
        places: Places,
        policy: dict[str, ReferenceState],
        model: dict[str, ReferenceState],
        observed: Json,
    ) -> None:
        self.places = places
        self.residency = policy["residency.regions"]
        self.of = model.get("model.regions")
        self.allowed_texts: list[str] = _list(self.residency)
        self.runs_in: list[str] = [] if self.of is None else _list(self.of)
        self.region: str | None = observed.get("region")

    def _pairs(self) -> list[tuple[str, str, str]]:
        return [(a, m, self.places.how(a, m)) for a in self.allowed_texts for m in self.runs_in]

    def allowed(self) -> list[str] | None:
        if not self.allowed_texts:
            return self.runs_in or None
        if not self.runs_in:
            return self.allowed_texts
        narrower = {a if how in ("same", "in") else m for a, m, how in self._pairs() if how in ("same", "in", "around")}
        return sorted(narrower)

    def _observed(self) -> tuple[set[str], set[str]]:
        assert self.region is not None
        to_allowed = {self.places.how(self.region, a) for a in self.allowed_texts}
        return to_allowed, {self.places.how(self.region, m) for m in self.runs_in}

    def unknown(self) -> bool:
        # The region in which the request was handled counts more than those in which the model may run.
        if self.region is not None:
            to_allowed, to_model = self._observed()
            if not to_allowed & {"same", "in"} and to_allowed & {"around", "?"}:
                return True
            return not to_model & {"same", "in", "around"} and "?" in to_model
        if self.of is None or not self.allowed_texts:
            return False
        hows = {how for _, _, how in self._pairs()}
        return not self.runs_in or (not hows & {"same", "in", "around"} and "?" in hows)

    def breaches(self) -> Iterable[Breach]:
        of = self.of
        hows = {how for _, _, how in self._pairs()}
        if of is not None and hows == {"apart"}:
            yield Breach("outside_residency", [self.residency, of, *self.of_model()])
        if self.region is None:
            return
        to_allowed, to_model = self._observed()
        if to_allowed == {"apart"}:
            facts = self.places.facts_of_regions([*self.allowed_texts, self.region])
            yield Breach("outside_residency", [self.residency, *facts])
        if of is not None and to_model == {"apart"}:
            yield Breach("served_elsewhere", [of, *self.places.facts_of_regions([*self.runs_in, self.region])])

    def of_model(self) -> list[ReferenceState]:
        """The facts behind the comparison of the two sets of regions."""
        if not self.allowed_texts or not self.runs_in:
            return []
        return self.places.facts_of_regions([*self.allowed_texts, *self.runs_in])

    def facts(self) -> list[ReferenceState]:
        """The facts behind the comparison with the observed region."""
        if self.region is None or not (self.allowed_texts or self.runs_in):
            return []
        with_allowed = [*self.allowed_texts, self.region] if self.allowed_texts else []
        with_model = [*self.runs_in, self.region] if self.runs_in else []
        return self.places.facts_of_regions([*with_allowed, *with_model])


class ReceiverOfRequest:
    """Whether data was forwarded to the model's provider, if it was permitted to go there. None: nobody can say."""

    def __init__(
        self,
        places: Places,
        policy: dict[str, ReferenceState],
        model: dict[str, ReferenceState],
        observed: Json,
    ) -> None:
        self.is_provider: bool | None = True
        self.facts: list[ReferenceState] = []
        self.model = model
        self.receiver = observed.get("forwarded_to")
        if self.receiver is None or not model or policy["passthrough.allowed"].value is not True:
            return
        provider = model["model.provider"].value
        if model["model.hosting"].value == "passthrough" and isinstance(provider, str):
            self.is_provider = places.same_provider(provider, self.receiver)
            self.facts = places.facts_of_names([provider, self.receiver])

    def breaches(self) -> Iterable[Breach]:
        if self.is_provider is False:
            yield Breach("wrong_provider", [self.model["model.provider"], self.model["model.hosting"], *self.facts])

    def observed(self, state: ReferenceState) -> Json:
        """Beside the model's provider, the other receiver."""
        if self.is_provider is False and state.setting == "model.provider":
            return {"observed": self.receiver}
        return {}


def _list(state: ReferenceState) -> list[str]:
    return state.value if isinstance(state.value, list) else []
