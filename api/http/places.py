"""Where an error came from, for the log: without its message, which could hold somebody's data."""

from __future__ import annotations

import traceback


def error_location(error: BaseException) -> str:
    """The error's type and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return f"{type(error).__name__} at " + " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
