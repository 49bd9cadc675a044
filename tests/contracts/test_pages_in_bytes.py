"""Pages of entries end with the entry that reaches a size, on every database, so that no large page is ever read."""

import pytest

from ledger.store import Ledger
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
