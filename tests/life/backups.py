"""Shared by tests of backups."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.errors import InforceError


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def refused(kind: type[InforceError], act: Callable[[], object]) -> str:
    with pytest.raises(kind) as refusal:
        act()
    assert "\n" not in refusal.value.detail
    return refusal.value.detail
