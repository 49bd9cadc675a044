"""A ledger and its export, made once for each module."""

from collections.abc import Iterator

import pytest

from ledger.store import Ledger
from ledger.transfer.export import export_lines, export_personal
from tests.support.ledgers import change, define, definition, open_with_clock, submit


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger with every kind of event, several events in a submission, and unusual characters."""
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path_factory.mktemp('original')}/original.db")
    with ledger:
        clock.now_us += 10
        receipts = submit(
            ledger,
            change(reason='spoken "aloud" – 🙂 \x01T \x00'),
            change(value=False, effective_from="2027-01-01T00:00:00Z", effective_until="2027-02-01T00:00:00Z"),
            change("account:ü".replace("ü", "u"), reason="two"),
        )
        clock.now_us += 10
        submit(ledger, {"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in"})
        submit(ledger, {"type": "change.retracted", "event_id": receipts[0].event_id, "reason": "entered twice"})
        submit(ledger, define(), {**change(), "setting": "beta.search"})
        submit(
            ledger,
            {**change("model:a/b", "É\x01P\u2028\x7f🙂"), "setting": "model.author"},
            {**change("org:acme", ["eu", "ap", "us"]), "setting": "residency.regions"},
            {**change("key:k", "org:acme"), "setting": "owner"},
        )
        submit(ledger, define(definition=definition(kinds=["account", "org"]), effective_from="2027-01-01T00:00:00Z"))
        yield ledger


@pytest.fixture(scope="module")
def exported(original: Ledger) -> bytes:
    return b"".join(export_lines(original))


@pytest.fixture(scope="module")
def personal(original: Ledger) -> bytes:
    return b"".join(export_personal(original))
