"""The day of each token's last use: beside the ledger, in a table of its own, because nobody keeps a use for ever.

To the day, so that a token costs one write a day on each server. A use that cannot be written is lost, and a restored
backup has older ones. Proved by tests/access/test_uses.py.
"""

from __future__ import annotations

import logging
from typing import Final

from ledger.errors import LedgerUnavailable
from ledger.store import Ledger

_TABLE: Final = "token_uses"
_log = logging.getLogger("inforce.access")


class TokenUses:
    """Safe to use from many threads. Nothing is read or written before the first call."""

    def __init__(self, ledger: Ledger) -> None:
        self._recorder = ledger.recorder
        self._table = ledger.recorder.table_beside(_TABLE)
        self._made = False

    def note(self, token: str, day: int) -> None:
        """`day`: since 1970, UTC. Logs a failure, because the request that used the token goes on."""
        try:
            self._make()
            place = self._recorder.PLACEHOLDER
            with self._recorder.transaction(commit=True) as cursor:
                cursor.execute(
                    f"INSERT INTO {self._table} (token, day) VALUES ({place}, {place})"  # noqa: S608 - our own name
                    f" ON CONFLICT (token) DO UPDATE SET day = excluded.day WHERE {_TABLE}.day < excluded.day",
                    (token, day),
                )
        except LedgerUnavailable as error:
            _log.warning("the day of a token's use was not noted: %s", error.detail)

    def days(self) -> dict[str, int]:
        """Token → the day of its last use; empty where uses cannot be read."""
        try:
            self._make()
            with self._recorder.transaction(commit=False) as cursor:
                cursor.execute(f"SELECT token, day FROM {self._table}")  # noqa: S608 - our own name
                return dict(cursor.fetchall())
        except LedgerUnavailable as error:
            _log.warning("the days of the tokens' uses cannot be read: %s", error.detail)
            return {}

    def _make(self) -> None:
        if not self._made:
            # Under the append lock: two servers that make a table at the same moment would fail.
            with self._recorder.exclusive(), self._recorder.transaction(commit=True) as cursor:
                cursor.execute(
                    f"CREATE TABLE IF NOT EXISTS {self._table} (token TEXT PRIMARY KEY, day INTEGER NOT NULL)"
                )
            self._made = True
