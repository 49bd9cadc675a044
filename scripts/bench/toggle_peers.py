"""The peers of `bench check`: each decides whether one toggle of an organization is on, in its cheapest set-up.

All preparation is done ahead: policies and entities are parsed, flags are in memory, and each organization has its own
toggle where that saves the peer a rule. No peer starts a thread or opens a connection. `set_up_peers` verifies every
toggle of every peer before a measurement. Proved by tests/bench/test_measure.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

IsOn = Callable[[str], bool]


class TogglePeer(NamedTuple):
    name: str
    is_on: IsOn


def set_up_peers(toggles: Mapping[str, bool]) -> tuple[list[TogglePeer], list[str]]:
    """(the peers, the names of those that are not installed). `toggles`: organization → on or off."""
    peers: list[TogglePeer] = []
    missing: list[str] = []
    for name, set_up in _PEERS.items():
        try:
            is_on = set_up(toggles)
        except ModuleNotFoundError:
            missing.append(name)
            continue
        wrong = [org for org, on in toggles.items() if is_on(org) is not on]
        if wrong:
            raise AssertionError(f"{name} is set up wrongly: {len(wrong)} of {len(toggles)} toggles differ")
        peers.append(TogglePeer(name, is_on))
    return peers, missing


def _cedar(toggles: Mapping[str, bool]) -> IsOn:
    cedar: Any = import_module("cedarpy")
    policies = cedar.PolicySet.from_str("permit (principal, action, resource) when { principal.training_opt_in };")
    entities = cedar.Entities.from_json_str(
        json.dumps(
            [
                {"uid": {"type": "Org", "id": org}, "attrs": {"training_opt_in": on}, "parents": []}
                for org, on in toggles.items()
            ]
        )
    )
    requests = {
        org: {"principal": f'Org::"{org}"', "action": 'Action::"train"', "resource": 'Data::"prompt"'}
        for org in toggles
    }

    def is_on(org: str) -> bool:
        allowed: bool = cedar.is_authorized(requests[org], policies, entities).allowed
        return allowed

    return is_on


_CASBIN_MODEL: Final = """
[request_definition]
r = sub, act
[policy_definition]
p = sub, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.act == p.act
"""


def _casbin(toggles: Mapping[str, bool]) -> IsOn:
    casbin: Any = import_module("casbin")
    # FastModel indexes rules by subject; the plain model reads the rules of every organization.
    model = import_module("casbin.model").FastModel([0])
    model.load_model_from_text(_CASBIN_MODEL)
    enforcer = casbin.FastEnforcer(model, cache_key_order=[0])
    enforcer.add_policies([[org, "train"] for org, on in toggles.items() if on])

    def is_on(org: str) -> bool:
        allowed: bool = enforcer.enforce(org, "train")
        return allowed

    return is_on


def _unleash(toggles: Mapping[str, bool]) -> IsOn:
    unleash: Any = import_module("UnleashClient")
    caching: Any = import_module("UnleashClient.cache")
    constants: Any = import_module("UnleashClient.constants")
    features = {
        "version": 2,
        "features": [
            {"name": org, "enabled": on, "strategies": [{"name": "default", "parameters": {}}]}
            for org, on in toggles.items()
        ],
    }

    class Memory(caching.BaseCache):  # type: ignore[misc]  # the package may be missing where types are checked
        """The client's own cache writes to the user's folders."""

        bootstrapped = True

        def __init__(self) -> None:
            self.values: dict[str, Any] = {constants.FEATURES_URL: json.dumps(features)}

        def set(self, key: str, value: Any) -> None:
            self.values[key] = value

        def mset(self, data: dict[str, Any]) -> None:
            self.values.update(data)

        def get(self, key: str, default: Any = None) -> Any:
            return self.values.get(key, default)

        def exists(self, key: str) -> bool:
            return key in self.values

        def destroy(self) -> None:
            self.values.clear()

    # The bootstrap is enough: never call initialize_client, which registers, fetches and starts threads.
    client = unleash.UnleashClient(
        "http://127.0.0.1:1/api", "bench", cache=Memory(), disable_metrics=True, disable_registration=True
    )

    def is_on(org: str) -> bool:
        on: bool = client.is_enabled(org)
        return on

    return is_on


def _openfeature(toggles: Mapping[str, bool]) -> IsOn:
    api: Any = import_module("openfeature.api")
    memory: Any = import_module("openfeature.provider.in_memory_provider")
    variants = {"on": True, "off": False}
    flags = {org: memory.InMemoryFlag("on" if on else "off", variants) for org, on in toggles.items()}
    api.set_provider_and_wait(memory.InMemoryProvider(flags), "bench")
    client = api.get_client("bench")

    def is_on(org: str) -> bool:
        on: bool = client.get_boolean_value(org, False)
        return on

    return is_on


_PEERS: Final[Mapping[str, Callable[[Mapping[str, bool]], IsOn]]] = {
    "cedarpy": _cedar,
    "casbin": _casbin,
    "UnleashClient": _unleash,
    "OpenFeature, in memory": _openfeature,
}
