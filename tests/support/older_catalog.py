"""Ledgers whose built-in settings were defined by an older inforce, which let a definition change anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from ledger.append import decide


@contextmanager
def older_definitions() -> Iterator[None]:
    """Within the block, a built-in setting may get other kinds, members or a default of null."""
    with mock.patch.object(decide, "faults_of_built_in", side_effect=lambda *_: []):
        yield
