"""Fixtures for every test of this folder."""

import pytest

from tests.support.command import Inforce, folder, inforce, inforce_on_both

__all__ = ["folder", "inforce", "inforce_on_both"]

PAST = ("--from", "2026-01-01T00:00:00Z", "--reason", "filed late")


@pytest.fixture
def ledger(inforce_on_both: Inforce) -> Inforce:
    """org:acme opted in for 2026, recorded late; m1 is hosted, m2 passthrough."""
    for args in (
        ("org:acme", "training.opt_in", "true", *PAST),
        ("model:m1", "model.hosting", "hosted"),
        ("model:m2", "model.hosting", "passthrough"),
    ):
        assert inforce_on_both("submit", *args).code == 0
    return inforce_on_both
