"""The day of the last use: kept beside the ledger, the latest one counts, and a failure stops nothing."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.errors import LedgerUnavailable
from ledger.opening import open_ledger
from projections.access.uses import TokenUses


def test_the_latest_day_of_each_token_counts(database_url: str) -> None:
    with open_ledger(database_url, create=True) as ledger, open_ledger(database_url) as other:
        head, events = ledger.head(), ledger.page(0, 1000)
        one, two = TokenUses(ledger), TokenUses(other)
        assert one.days() == {}
        for uses, token, day in ((one, "token:a", 5), (two, "token:a", 7), (one, "token:a", 6), (two, "token:b", 1)):
            uses.note(token, day)
        assert one.days() == two.days() == {"token:a": 7, "token:b": 1}
        # Beside the ledger: it has not grown.
        assert (ledger.head(), ledger.page(0, 1000)) == (head, events)
        assert ledger.recorder.definition_faults() == []


def test_many_servers_at_once(database_url: str) -> None:
    with open_ledger(database_url, create=True) as ledger, ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda day: TokenUses(ledger).note("token:a", day), range(12)))
        assert TokenUses(ledger).days()["token:a"] <= 11


def test_a_use_that_cannot_be_written_is_a_warning(
    database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(database_url, create=True) as ledger:

        def refuse(*, commit: bool) -> None:
            raise LedgerUnavailable("the disk is full")

        monkeypatch.setattr(ledger.recorder, "transaction", refuse)
        TokenUses(ledger).note("token:a", 1)
        assert TokenUses(ledger).days() == {}
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "token:a" not in caplog.text
