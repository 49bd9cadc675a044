"""How a run in several processes (`-n auto`) shares out the tests: a plugin of pytest.

A module stays whole, on one process, so that what its tests share is made once; so do the tests of Spark, which share
a cluster. The longest modules begin first: otherwise a run ends with one process at work and the others idle. The
groups of pytest-xdist itself (`--dist loadgroup`) have no effect under pytest 9.2, see its issue 1386.
Proved by tests/test_distribution.py.
"""

import os
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER: Final = ("tests/audit/spark/",)
"""Folders of which all tests run on one process."""
APART: Final = ("tests/simulation/test_simulation.py", "tests/simulation/test_crash.py")
"""Modules whose tests share nothing and may take hours (`--simulate`): each goes to any process."""
FIRST: Final = (
    "tests/audit/spark/",
    "tests/query/test_settings_history.py",
    "tests/bench/test_suites.py",
    "tests/api/audits/test_scheduler.py",
    "tests/simulation/",
    "tests/faults/",
    "tests/audit/kernel/",
    "tests/audit/index/",
    "tests/api/audits/",
    "tests/contracts/",
)
"""The folders and modules that take longest. Their order decides about speed only."""
PROCESSES_MAX: Final = 6
"""A process, with what its tests start, takes up to a gigabyte."""


def unit_of(test: str) -> str:
    """The folder, module or test that stays on one process; `test` is a node id."""
    module = test.partition("::")[0]
    if module in APART:
        return test
    return next((folder for folder in TOGETHER if module.startswith(folder)), module)


def rank_of(test: str) -> int:
    """The lower, the earlier the test begins."""
    return next((rank for rank, name in enumerate(FIRST) if test.startswith(name)), len(FIRST))


class UnitScheduling(LoadScopeScheduling):  # type: ignore[misc] # untyped there
    """Gives the next unit, in the order of collection, to a process that has at most two tests left."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        # By default the unit with the most tests would begin first, however short they are.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for a server, a disk or a time-out."""
    return min((os.cpu_count() or 1) + 1, PROCESSES_MAX)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> UnitScheduling | None:
    # Another `--dist` keeps its meaning.
    return UnitScheduling(config, log) if config.getoption("dist") == "load" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank_of(item.nodeid))
