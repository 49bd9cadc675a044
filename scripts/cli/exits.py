"""How a verb ends: exit codes, and the one line on standard error. Imports nothing heavy: every start reads this."""

from __future__ import annotations

import sys
from typing import Final

OK: Final = 0
AGAINST: Final = 1
"""A violation, a denial, a failed verification or a difference was found."""
BAD_INPUT: Final = 2
UNAVAILABLE: Final = 3
OUR_FAULT: Final = 70
INTERRUPTED: Final = 130
READER_GONE: Final = 141
TERMINATED: Final = 143


def say(message: str) -> None:
    """One line on standard error."""
    one_line = " ".join(message.split())
    # The terminal of whoever reads it obeys control characters; a file's name may hold them.
    print("inforce:", "".join(c if c.isprintable() else "\ufffd" for c in one_line), file=sys.stderr)


def warn_if_slow() -> None:
    """Says on standard error what to install where an audit will be slow. For commands that decide whole logs."""
    from projections.audit.numba_support import AVAILABLE, MISSING

    if not AVAILABLE:
        say(MISSING)
