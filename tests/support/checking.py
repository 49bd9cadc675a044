"""The faults that `inforce backup --check` names."""

from ledger.check import faults
from ledger.opening import open_for_check
from projections.timelines.check import timeline_faults
from projections.timelines.store import timelines_as_stored


def all_faults(url: str) -> list[str]:
    with open_for_check(url) as ledger:
        return [*faults(ledger.recorder), *timeline_faults(ledger, timelines_as_stored(ledger))]
