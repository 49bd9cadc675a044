"""Random bytes, drawn from the system in large blocks because every request and every event needs a few.

They name things and salt commitments, so nobody may predict them and no two callers may get the same ones. The buffer
is a list of whole pieces: `list.pop` is atomic, so no two threads get the same piece. A forked child starts with an
empty buffer. Proved by tests/test_entropy.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

EntropySource = Callable[[int], bytes]
"""Answers that many random bytes: `random_bytes`, or a seeded generator where a run must be repeatable."""

PIECE: Final = 32
_PIECES: Final = 128

_buffer: Final[list[bytes]] = []


def random_bytes(count: int) -> bytes:
    """`count` random bytes. Up to `PIECE` bytes usually come from the buffer, without a system call."""
    if count > PIECE:
        return os.urandom(count)
    try:
        piece = _buffer.pop()
    except IndexError:
        block = os.urandom(PIECE * _PIECES)
        piece, *rest = (block[start : start + PIECE] for start in range(0, len(block), PIECE))
        _buffer.extend(rest)
    return piece[:count]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_buffer.clear)
