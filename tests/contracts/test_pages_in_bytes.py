"""Pages of entries end with the entry that reaches a size, on every database, so that no large page is ever read."""

import io
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from ledger.opening import open_ledger
from ledger.opening import open_recorder as _open_recorder
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.transfer import import_ledger as importing
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from tests.support.ledgers import change, open_with_clock, submit

COUNT = 12


@pytest.fixture
def ledger(database_url: str) -> Ledger:
    ledger, _ = open_with_clock(database_url)
    for number in range(COUNT):
        submit(ledger, {**change("org:acme", ["x" * 100 * (number % 4 + 1)]), "setting": "residency.regions"})
        submit(ledger, change(f"org:o{number}"))
    return ledger


def test_a_page_ends_with_the_entry_that_reaches_the_size(ledger: Ledger) -> None:
    with ledger:
        whole = ledger.page(0)
        sizes = [len(entry.leaf) for entry in whole]
        for after in (0, 1, len(whole) - 1, len(whole)):
            for limit in (1, 3, 1000):
                expected = whole[after : after + limit]
                for count in range(1, min(4, len(expected) + 1)):
                    reach = sum(sizes[after : after + count])
                    assert ledger.page(after, limit, None, reach) == expected[:count]
                    assert ledger.page(after, limit, None, reach + 1) == expected[: count + 1]
                    assert ledger.page(after, limit, None, reach - 1) == expected[:count]
                assert ledger.page(after, limit, None, 2**40) == expected
        assert ledger.page(0, 1000, until=4, bytes_max=2**40) == whole[:4]


def test_a_page_of_a_subject_ends_likewise_in_both_directions(ledger: Ledger) -> None:
    with ledger:
        stream = ledger.stream("org:acme")
        for newest_first in (False, True):
            ordered = stream[::-1] if newest_first else stream
            sizes = [len(entry.leaf) for entry in ordered]
            for count in range(1, COUNT):
                for surplus, more in ((-1, 0), (0, 0), (1, 1)):
                    size = sum(sizes[:count]) + surplus
                    length = ledger.recorder.stream_length("org:acme", 0, None, 99, size, newest_first=newest_first)
                    assert length == count + more
        assert ledger.recorder.stream_length("org:acme", 2, 4, 99, 2**40) == 99
        assert ledger.recorder.stream_length("org:none", 0, None, 99, 1) == 99
        assert ledger.recorder.page_length(COUNT**2, 99, None, 1) == 99
        after = stream[3].position
        assert ledger.subject_page("org:acme", after, 5, None, 1) == stream[4:5]
        assert ledger.subject_page("org:acme", after, 5, None, 2**40) == stream[4:9]


def test_a_reader_of_many_pages_holds_no_more_than_the_size(ledger: Ledger) -> None:
    with ledger:
        whole, head = ledger.page(0), ledger.head().position
        for size in (1, 700, 2**40):
            pages = list(ledger.pages(0, head, bytes_max=size))
            assert list(itertools.chain.from_iterable(pages)) == whole
            assert all(sum(len(entry.leaf) for entry in page[:-1]) < size for page in pages)
        assert [entry.position for page in ledger.pages(3, 5, bytes_max=1) for entry in page] == [4, 5]


def test_an_export_and_an_import_of_large_events_hold_a_few_at_a_time(
    database_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were bounded by a count of events: 10,000 of the largest have 650 MB."""
    large = ["x" * 3800 + str(number) for number in range(16)]
    ledger, _ = open_with_clock(database_url)
    with ledger:
        before = ledger.head().position
        for _ in range(4):
            events = [
                {**change(f"org:o{n}", large, reason="y" * 2000), "setting": "residency.regions"} for n in range(30)
            ]
            submit(ledger, *events)
        sizes: list[int] = []
        read = ledger.recorder.page

        def page(*bounds: Any) -> list[Entry]:
            entries = read(*bounds)
            sizes.append(sum(len(entry.leaf) for entry in entries))
            return entries

        monkeypatch.setattr(ledger.recorder, "page", page)
        lines = b"".join(export_lines(ledger))
        personal = b"".join(export_personal(ledger))
    assert len(lines) > 7_300_000
    assert max(sizes) < 4_300_000
    commits: list[tuple[int, int]] = []
    monkeypatch.setattr(importing, "BATCH_BYTES", 1_000_000)
    url = f"sqlite:///{tmp_path}/copy.db"

    def open_recorder(url: str) -> Any:
        recorder = _open_recorder(url)
        keep = recorder.restore

        def counted(entries: Sequence[Entry], *arguments: Any, **more: Any) -> None:
            commits.append((len(entries), sum(len(entry.leaf) for entry in entries)))
            keep(entries, *arguments, **more)

        recorder.restore = counted  # type: ignore[method-assign]  # counts, and passes on
        return recorder

    monkeypatch.setattr(importing, "open_recorder", open_recorder)
    import_ledger(url, io.BytesIO(lines), personal=io.BytesIO(personal))
    assert sum(count for count, _ in commits) == before + 120
    assert len(commits) > 7
    assert max(size for _, size in commits) < 1_070_000
    with open_ledger(url) as copy:
        assert b"".join(export_lines(copy)) == lines
        assert b"".join(export_personal(copy)) == personal
