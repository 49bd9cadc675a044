"""Real input, too large for the repository: `INFORCE_REAL_DATA`, or the folder `shared/data` beside the checkout."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def real_data_file(name: str) -> Path:
    """The path of `name` (such as `bitemporal/cases.json`). Skips where it is absent, fails if the folder was named."""
    named = os.environ.get("INFORCE_REAL_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    path = folder / name
    if path.exists():
        return path
    if named:
        pytest.fail(f"INFORCE_REAL_DATA={named} has no {name}", pytrace=False)
    pytest.skip(f"real data absent: no {name} in {folder}; INFORCE_REAL_DATA can name its folder")
