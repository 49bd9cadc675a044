"""Sleeping until a file becomes readable or another thread wakes the sleeper through a socket.

Uses poll(2), because select(2) ends at 1,024 file descriptors.
"""

from __future__ import annotations

import select
import socket
from typing import Final

_WAKEUP_BYTES_MAX: Final = 4096


def sleep_until_wakeup(timeout_s: float, wakeup: socket.socket, *files: int) -> bool:
    """Returns when `wakeup` or one of `files` is readable, or after about `timeout_s`.

    True if `wakeup` was readable; it is then empty again.
    """
    poll = select.poll()
    for file in (wakeup.fileno(), *files):
        poll.register(file, select.POLLIN)
    readable = [file for file, _ in poll.poll(timeout_s * 1000)]
    if wakeup.fileno() not in readable:
        return False
    wakeup.recv(_WAKEUP_BYTES_MAX)
    return True
