"""Waits that end with what they wait for.

No test rests on the speed of a machine: a wait gives up after minutes, so that a test that would hang fails instead.
A test that something happens at once makes the alternative take longer than `GIVE_UP_S`, and does not measure.
"""

import time
from collections.abc import Callable
from typing import Any, Final

GIVE_UP_S: Final = 300.0


def until(condition: Callable[[], Any], pause_s: float = 0.005) -> Any:
    """The condition's result, once it holds."""
    deadline = time.monotonic() + GIVE_UP_S
    while not (result := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(pause_s)
    return result
