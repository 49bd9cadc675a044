"""Clients of the application over a real ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """A client over a new ledger, once on SQLite and once on PostgreSQL."""
    with TestClient(create_app(database_url, sign_in=False)) as client:
        yield client


@pytest.fixture
def sqlite_client(tmp_path: Path) -> Iterator[TestClient]:
    """A client over a new ledger on SQLite, for tests that do not depend on the database."""
    with TestClient(create_app(f"sqlite:///{tmp_path}/ledger.db", sign_in=False)) as client:
        yield client


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One client for a whole module: for questions, and for submissions that must not be recorded."""
    with TestClient(create_app(f"sqlite:///{tmp_path_factory.mktemp('shared')}/ledger.db", sign_in=False)) as client:
        yield client
