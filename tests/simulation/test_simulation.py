"""Thousands of seeded steps on each database; every answer and receipt is compared with the oracle's.

`--simulation-seed` and `--simulation-steps` repeat a run; `./scripts/test --simulate SECONDS` continues for that long,
one seed after another. The end of the run prints counts of its operations.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from random import SystemRandom
from time import monotonic

import pytest

from tests.simulation.simulation import Simulation
from tests.support.postgres import fresh_database

NewDatabase = Callable[[], str]
SEED = 20260301
STEPS = {"sqlite": 3000, "postgresql": 2000}
"""With each seed."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """Returns the URL of an empty database at each call."""
    with ExitStack() as databases:
        numbers = iter(range(1_000_000_000))

        def sqlite() -> str:
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            return f"sqlite:///{folder}/ledger.db"

        def postgresql() -> str:
            # Only the latest two exist: an export reads the previous one while the next is filled.
            previous = databases.pop_all()
            url = databases.enter_context(fresh_database(request.getfixturevalue("postgres_server_url")))
            databases.push(previous)
            return url

        yield sqlite if request.param == "sqlite" else postgresql


def test_the_ledger_and_the_oracle_agree_at_every_step(
    new_database: NewDatabase, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    seed, steps = request.config.getoption("--simulation-seed"), request.config.getoption("--simulation-steps")
    seconds = request.config.getoption("--simulate")
    if seed is None:
        seed = SystemRandom().randrange(10**9) if seconds else SEED
    began = monotonic()
    counts: Counter[str] = Counter()
    database = request.node.callspec.params["new_database"]
    seeds = 0
    while seeds == 0 or monotonic() - began < seconds:
        with closing(Simulation(new_database, seed + seeds)) as simulation:
            simulation.run(steps or STEPS[database])
            counts += simulation.counts
            counts["steps"] += simulation.step
        seeds += 1
    record_property(
        "figure",
        f"simulation on {database}, {seeds} seeds from {seed} on, {monotonic() - began:.0f} s: {_counts_text(counts)}",
    )


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in sorted(counts))
