"""The request records that the suites check.

Their times lie in the last year of a generated ledger, when every subject has an owner, or in the first day of that
year. A check reads six settings of the organization that the key led to at that time, and four of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

import msgspec

from ledger.times import DAY
from projections.audit.report.commands import record_json
from projections.decisions.model import Observed, RequestRecord
from scripts.bench.population import END, MODELS, Population

Window = tuple[int, int]
"""From and until, in µs."""

YEAR: Final[Window] = (END - 365 * DAY, END)
PAST_DAY: Final[Window] = (YEAR[0], YEAR[0] + DAY)


def records_of_keys(families: Sequence[int], count: int, rng: Random, window: Window = PAST_DAY) -> list[RequestRecord]:
    """`count` records of keys of these families: a check resolves key, project and organization."""
    return [_record(rng, window)._replace(key_id=f"k{rng.choice(families)}") for _ in range(count)]


def warm_up_records(families: Sequence[int], rng: Random) -> list[RequestRecord]:
    """Two records of the past day for each of these keys with each model."""
    return [
        _record(rng, PAST_DAY)._replace(key_id=f"k{family}", model_id=f"m{model}")
        for family in families
        for model in range(MODELS)
        for _ in range(2)
    ]


def records_of_orgs(orgs: Sequence[int], rng: Random) -> list[RequestRecord]:
    """A record for each of these organizations, named in the record itself."""
    return [_record(rng, YEAR)._replace(org_id=f"o{number}") for number in orgs]


def random_record(population: Population, rng: Random) -> RequestRecord:
    """A record of any key, account or organization."""
    record = _record(rng, YEAR)
    match rng.randrange(8):
        case 0:
            return record._replace(key_id=f"k{rng.randrange(population.families)}")
        case 1:
            return record._replace(org_id=f"o{rng.randrange(2 * population.families)}")
        case _:
            return record._replace(account_id=f"u{rng.randrange(6 * population.families)}")


def _record(rng: Random, window: Window) -> RequestRecord:
    """A record without an id; callers add one."""
    return RequestRecord(
        at=rng.randrange(*window),
        model_id=f"m{rng.randrange(MODELS)}",
        handling=Observed(stored=rng.random() < 0.5, cached=True, trained=rng.random() < 0.1),
    )


def check_body(*records: RequestRecord) -> bytes:
    """The body of POST /v1/checks (see api/README.md): one record, or several."""
    values = [record_json(record) for record in records]
    return msgspec.json.encode(values[0] if len(values) == 1 else {"requests": values})
