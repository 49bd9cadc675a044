"""Exit codes, messages on standard error, and the version. Every start imports this module, so it imports nothing
heavy. Proved by tests/cli/test_main.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

OK: Final = 0
PROBLEM_FOUND: Final = 1
"""A violation, a denial, a failed verification or a difference was found."""
BAD_INPUT: Final = 2
UNAVAILABLE: Final = 3
NOT_ALL_READ: Final = 4
"""No problem was found, but some rows of a log could not be read."""
INTERNAL_ERROR: Final = 70
INTERRUPTED: Final = 130
OUTPUT_CLOSED: Final = 141
"""The reader of standard output closed it."""
TERMINATED: Final = 143


def print_message(message: str) -> None:
    """Prints one line on standard error."""
    one_line = " ".join(message.split())
    # A file's name may hold control characters, which a terminal would obey.
    print("inforce:", "".join(c if c.isprintable() else "\ufffd" for c in one_line), file=sys.stderr)


def print_log_warnings() -> Callable[[], None]:
    """Prints what the ledger logs, from warnings on, as messages. Returns the function that ends this."""
    import logging

    class Messages(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print_message(record.getMessage())

    handler = Messages(logging.WARNING)
    log = logging.getLogger("inforce")
    log.addHandler(handler)
    return lambda: log.removeHandler(handler)


def warn_if_slow() -> None:
    """Tells the user which package is missing if an audit will be slow without it."""
    from projections.audit.numba_support import AVAILABLE, MISSING

    if not AVAILABLE:
        print_message(MISSING)


def installed_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("inforce")
    except PackageNotFoundError:
        return None
