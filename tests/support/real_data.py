"""Finds real data, too large for the repository: in `INFORCE_REAL_DATA`, or in `shared/data` beside the checkout."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def real_data_file(name: str) -> Path:
    """The path of `name` (such as `bitemporal/cases.json`). Skips if it is absent; fails if the variable is set."""
    named = os.environ.get("INFORCE_REAL_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    path = folder / name
    if path.exists():
        return path
    if named:
        pytest.fail(f"INFORCE_REAL_DATA={named} has no {name}", pytrace=False)
    pytest.skip(f"no real data: {folder} has no {name}; INFORCE_REAL_DATA can name another folder")
