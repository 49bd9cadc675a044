"""Sleeping until something can be read, or somebody wakes the sleeper. Not select(2), which ends at 1,024 files."""

from __future__ import annotations

import select
import socket
from typing import Final

_WAKING_BYTES_MAX: Final = 4096


def pause(timeout_s: float, woken: socket.socket, *also: int) -> bool:
    """Returns when `woken` or one of the files `also` can be read, or after about `timeout_s`: whether it was `woken`,
    which is emptied."""
    poll = select.poll()
    for file in (woken.fileno(), *also):
        poll.register(file, select.POLLIN)
    ready = [file for file, _ in poll.poll(timeout_s * 1000)]
    if woken.fileno() not in ready:
        return False
    woken.recv(_WAKING_BYTES_MAX)
    return True
