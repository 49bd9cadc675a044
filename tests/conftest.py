"""Fixtures for every test: a fresh database on SQLite and on a real PostgreSQL, and the real data sets."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.postgres import PostgresRun, fresh_database
from tests.support.real_data import real_data_file

pytest_plugins = ["tests.support.distribution"]

# No deadline: shared cores stall for longer than any example takes.
# The same examples on every run: a failure comes from the change, not from chance. `--search` draws new ones.
hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True, print_blob=True)
# Both profiles state it: where the variable CI is set, Hypothesis fixes its examples by itself.
hypothesis.settings.register_profile("search", deadline=None, derandomize=False, print_blob=True)

# A shell without job control starts background jobs with SIGINT ignored, and their children inherit that: a test that
# interrupts a program would wait for ever. A handler, in contrast, is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

POSTGRES_RUN = pytest.StashKey[PostgresRun]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--search", action="store_true", help="draw new examples for properties, not the fixed ones")
    simulation = parser.getgroup("simulation", "tests/simulation")
    simulation.addoption("--simulation-seed", type=int, metavar="SEED", help="start with this seed")
    simulation.addoption("--simulation-steps", type=int, metavar="STEPS", help="the number of steps with each seed")
    simulation.addoption(
        "--simulate", type=int, default=0, metavar="SECONDS", help="continue for so long, seed after seed"
    )
    simulation.addoption("--crash", type=int, metavar="ROUNDS", help="the number of crash rounds on each database")
    simulation.addoption("--crash-seed", type=int, metavar="SEED", help="the seed of the crash rounds")
    simulation.addoption("--corruptions", type=int, metavar="COPIES", help="the number of damaged copies of each kind")
    simulation.addoption("--corruption-seed", type=int, metavar="SEED", help="the seed of the damage")


def pytest_configure(config: pytest.Config) -> None:
    # Before any test is imported, whose settings build on this profile.
    hypothesis.settings.load_profile("search" if config.getoption("--search") else "fixed")
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    config.stash[POSTGRES_RUN] = PostgresRun(Path(worker["postgres_folder"])) if worker else PostgresRun.begin()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["postgres_folder"] = str(node.config.stash[POSTGRES_RUN].folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and POSTGRES_RUN in config.stash:
        config.stash[POSTGRES_RUN].end()


def pytest_itemcollected(item: pytest.Item) -> None:
    if "postgres_url" in getattr(item, "fixturenames", ()):
        item.add_marker("postgres")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints each `figure` that a passed test recorded: counts that show what the test covered."""
    reports = terminalreporter.stats.get("passed", [])
    figures = sorted(str(value) for report in reports for name, value in report.user_properties if name == "figure")
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write("".join(f"{figure}\n" for figure in figures))


@pytest.fixture(scope="session")
def postgres_server_url(pytestconfig: pytest.Config) -> str:
    """A PostgreSQL server whose user may create databases."""
    return os.environ.get("INFORCE_TEST_POSTGRES") or pytestconfig.stash[POSTGRES_RUN].url()


@pytest.fixture(autouse=True)
def user_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moves the user's folders, in which a PostgreSQL ledger keeps indexes and audits, below pytest's own."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / name.lower()))


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """An empty PostgreSQL database for this test."""
    with fresh_database(postgres_server_url) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database for this test, which runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """`real_data("bitemporal/cases.json")`: the path of a real data set; the test skips if it is absent."""
    return real_data_file
