"""The built-in catalog as events: all of it in a new ledger, and in an older one the definitions that it never had.

A new ledger's definitions are effective from the beginning of time. A definition that is added later is effective from
its recording on, so that no answer about the time before changes. Pure. Proved by tests/contracts/test_built_in.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ledger.built_in_catalog import BUILT_IN
from ledger.catalog import Catalog, Definition, ValueType
from ledger.codec import id_tail
from ledger.drafts import AT_RECORDING, AppendPlan, Draft
from ledger.entropy import EntropySource
from ledger.events import SettingDefined
from ledger.subjects import CATALOG_SUBJECT
from ledger.times import BEGINNING

ACTOR = "inforce"


class TypeConflict(NamedTuple):
    """A setting that the ledger defined with another type before it was built in. It keeps its own type."""

    setting: str
    own: ValueType
    built_in: ValueType


def genesis(entropy: EntropySource) -> tuple[Draft, ...]:
    """The built-in catalog as the first events of a ledger, effective from the beginning of time."""
    return _drafts(BUILT_IN.items(), 0, BEGINNING, entropy)


def additions(catalog: Catalog, entropy: EntropySource) -> AppendPlan:
    """The built-in definitions of settings that `catalog` never defined, effective from their recording on."""
    missing = [(setting, definition) for setting, definition in BUILT_IN.items() if setting not in catalog]
    drafts = _drafts(missing, catalog.version, AT_RECORDING, entropy)
    return AppendPlan(drafts, {CATALOG_SUBJECT: catalog.version}, None)


def type_conflicts(catalog: Catalog) -> list[TypeConflict]:
    conflicts = []
    for setting, definition in BUILT_IN.items():
        own = catalog.value_type(setting)
        if own is not None and own != definition.value_type:
            conflicts.append(TypeConflict(setting, own, definition.value_type))
    return conflicts


def _drafts(
    definitions: Iterable[tuple[str, Definition]], version: int, effective_from: int | str, entropy: EntropySource
) -> tuple[Draft, ...]:
    """`version`: of the catalog before them."""
    return tuple(
        Draft(
            topic=SettingDefined.TOPIC,
            subject=CATALOG_SUBJECT,
            version=number,
            body={"setting": setting, "definition": definition.as_json(), "effective_from": effective_from},
            actor=ACTOR,
            id_tail=id_tail(entropy(10)),
        )
        for number, (setting, definition) in enumerate(definitions, version + 1)
    )
