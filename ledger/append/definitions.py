"""The limits of built-in settings: of their definitions, on which decision rules rest, and of their values. Pure.

A ledger may hold other definitions of an older inforce; decisions then say `undecidable_value` (projections/README.md).
Proved by tests/test_definitions.py and tests/simulation.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ledger.built_in_catalog import BUILT_IN
from ledger.catalog import Definition, ValueType

SHOWN_MAX: Final = 80
_AT_LEAST_0: Final = frozenset(("provider.retention_days",))
_SHA256_OF: Final = {"provider.policy_sha256": "the policy's text"}
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_KEPT: Final = ("value_type", "kinds", "members", "ref_kinds", "protective")


def faults_of_built_in(setting: str, definition: Definition, before: ValueType | None) -> list[tuple[str, str]]:
    """The pointer to each member that a definition of `setting` may not change, and why.

    `before`: the type that the ledger has it with. A setting with another type than the built-in one is the operator's
    own: it was defined before it was built in.
    """
    built_in = BUILT_IN.get(setting)
    if built_in is None or before not in (None, built_in.value_type):
        return []
    faults = []
    for name in _KEPT:
        ours, theirs = getattr(built_in, name), getattr(definition, name)
        if ours != theirs and not (isinstance(ours, tuple) and isinstance(theirs, tuple) and set(ours) == set(theirs)):
            fault = (
                f"decisions rest on the {name} {_shown(ours)} of the built-in setting {setting}, not {_shown(theirs)}; "
                "keep it, and define only default, writable_by, title, description and source anew"
            )
            faults.append((f"/definition/{name}", fault))
    if (of_value := fault_of_built_in_value(setting, definition.value_type, definition.default)) is not None:
        faults.append(("/definition/default", of_value))
    if definition.default is None and built_in.default is not None:
        example = _shown(built_in.default)
        fault = f"decisions need a default of the built-in setting {setting}, such as {example}, not null"
        faults.append(("/definition/default", fault))
    return faults


def fault_of_built_in_value(setting: str, value_type: ValueType, value: object) -> str | None:
    """Why the value of a built-in setting cannot be recorded; None: it can. Values of an older inforce stay readable.

    `value_type`: that of the setting's definition; with another type than the built-in one it is the operator's own.
    """
    built_in = BUILT_IN.get(setting)
    if built_in is None or built_in.value_type != value_type:
        return None
    if setting in _AT_LEAST_0 and isinstance(value, int) and value < 0:
        return f"the value must be 0 or more, and is {value}"
    if setting in _SHA256_OF and isinstance(value, str) and _SHA256.fullmatch(value) is None:
        return f"the value must be the SHA-256 of {_SHA256_OF[setting]} in hex: 64 of 0-9 a-f"
    return None


def _shown(value: Any) -> str:
    """A definition's member as JSON, short enough for a sentence."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]} …"
