"""The limits of a definition of a built-in setting: the decision rules rest on the rest of it. Pure.

A ledger may hold other definitions of an older inforce; decisions then say `undecidable_value` (projections/README.md).
Proved by tests/test_submissions.py and tests/simulation.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ledger.built_in_catalog import BUILT_IN
from ledger.catalog import Definition, ValueType

SHOWN_MAX: Final = 80
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
    if definition.default is None and built_in.default is not None:
        example = _shown(built_in.default)
        fault = f"decisions need a default of the built-in setting {setting}, such as {example}, not null"
        faults.append(("/definition/default", fault))
    return faults


def _shown(value: Any) -> str:
    """A definition's member as JSON, short enough for a sentence."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]} …"
