from collections.abc import Iterator

import pytest

from tests.support.older_catalog import older_definitions


@pytest.fixture(scope="module", autouse=True)
def definitions_of_any_inforce() -> Iterator[None]:
    """Random worlds and proposals redefine built-in settings in every way."""
    with older_definitions():
        yield
