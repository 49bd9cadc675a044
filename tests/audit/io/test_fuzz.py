"""Random logs of every shape: each row that was written is read once, quickly as strictly, and none is invented.

`python -m tests.audit.io.fuzz 20000 7` reads more of them, from another seed on.
"""

import pytest

from tests.audit.io.fuzz import ODD_JSON, PROMPTS, check, random_log

FILES = 200
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_every_row_that_was_written_is_read_once(part: int) -> None:
    rows = sum(check(seed) for seed in range(part, FILES, PARTS))
    assert rows > FILES // PARTS


def test_the_files_differ_and_hold_what_once_was_misread() -> None:
    logs = [random_log(seed) for seed in range(60)]
    assert len({log.body for log in logs}) > 50
    assert any(None in log.rows for log in logs)
    assert len(PROMPTS) > 20
    assert len(ODD_JSON) > 10
