"""Random bytes, of which every request and every event needs a few: asked of the system many at a time.

They name things and salt commitments; nobody may foresee them, and nobody gets the same ones. The stock is one of whole
pieces: taking one is a single step of a list, so no two threads get the same, and a process that is forked off begins
without one. Proved by tests/test_entropy.py.
"""

from __future__ import annotations

import os
from typing import Final

PIECE: Final = 32
_PIECES: Final = 128

_stock: Final[list[bytes]] = []


def fresh(count: int) -> bytes:
    """`count` random bytes; up to `PIECE` of them at hardly any price."""
    if count > PIECE:
        return os.urandom(count)
    try:
        piece = _stock.pop()
    except IndexError:
        drawn = os.urandom(PIECE * _PIECES)
        piece, *rest = (drawn[start : start + PIECE] for start in range(0, len(drawn), PIECE))
        _stock.extend(rest)
    return piece[:count]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stock.clear)
