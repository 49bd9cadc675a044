"""One world for a module of questions and refused submissions, and a fresh one for a test that records."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.access.world import World, new_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with new_world(f"sqlite:///{tmp_path_factory.mktemp('world')}/ledger.db") as world:
        yield world


@pytest.fixture
def fresh_world(tmp_path: Path) -> Iterator[World]:
    with new_world(f"sqlite:///{tmp_path}/ledger.db") as world:
        yield world
