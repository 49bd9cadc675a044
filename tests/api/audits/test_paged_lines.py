"""Pages hold the written lines, however they were written and wherever a page begins."""

from io import BytesIO
from pathlib import Path

import pytest

from api.audits.paged_lines import EVERY, OFFSETS_SUFFIX, PagedLines, read_page


@pytest.fixture(params=[1, 7, 100_000])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of lines 0, 1, …, written `request.param` at a time."""
    path = tmp_path / "lines"
    with path.open("wb") as lines, (tmp_path / f"lines{OFFSETS_SUFFIX}").open("wb") as offsets:
        paged = PagedLines(lines, offsets)
        texts = [b"%d\n" % number for number in range(3 * EVERY + 5)]
        for start in range(0, len(texts), request.param):
            paged.write(b"".join(texts[start : start + request.param]))
        assert paged.count == len(texts)
    return path


@pytest.mark.parametrize("after", [0, 1, EVERY - 1, EVERY, EVERY + 1, 3 * EVERY + 4, 3 * EVERY + 5, 10**17])
@pytest.mark.parametrize("limit", [1, EVERY, 1000])
def test_a_page_holds_the_lines_of_its_range(file: Path, after: int, limit: int) -> None:
    texts = [b"%d" % number for number in range(3 * EVERY + 5)]
    assert read_page(file, after, limit, 2**30) == texts[after : after + limit]


@pytest.mark.parametrize(("bytes_max", "lines"), [(1, 1), (10, 10), (11, 11), (12, 11), (13, 12)])
def test_a_page_ends_with_the_line_that_reaches_its_size(file: Path, bytes_max: int, lines: int) -> None:
    # Ten lines of one digit, then lines of two.
    assert len(read_page(file, 0, 1000, bytes_max)) == lines


def test_writing_no_lines_writes_nothing() -> None:
    lines, offsets = BytesIO(), BytesIO()
    assert PagedLines(lines, offsets).write(b"") == 0
    assert (lines.getvalue(), offsets.getvalue()) == (b"", b"")
