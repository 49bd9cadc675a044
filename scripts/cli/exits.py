"""Exit codes, messages on standard error, and the version. Every start imports this module, so it imports nothing
heavy. Proved by tests/cli/test_main.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import click

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


def print_note(message: str) -> None:
    """Prints one line on standard error that explains a result; nothing with --quiet."""
    if not is_quiet():
        print_message(message)


def print_detail(message: Callable[[], str]) -> None:
    """Prints one line on standard error with --verbose only; `message` is called only then."""
    if is_verbose():
        print_message(message())


def is_quiet() -> bool:
    return _chosen("quiet")


def is_verbose() -> bool:
    return _chosen("verbose")


def _chosen(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(f"inforce.{name}"))


def choose(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """The callback of --quiet and --verbose. Raises `click.UsageError` if both are given."""
    if value:
        context.meta[f"inforce.{parameter.name}"] = True
        if is_quiet() and is_verbose():
            raise click.UsageError("--quiet and --verbose contradict each other; leave one out", context)
    return value


def print_log_messages() -> Callable[[], None]:
    """Prints what inforce logs, from warnings on, as messages: all of it with --verbose, only errors with --quiet.
    Returns the function that ends this."""
    import logging

    class Messages(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lowest = logging.DEBUG if is_verbose() else logging.ERROR if is_quiet() else logging.WARNING
            if record.levelno >= lowest:
                print_message(record.getMessage())

    handler = Messages()
    log = logging.getLogger("inforce")
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.DEBUG)

    def end() -> None:
        log.setLevel(level)
        log.removeHandler(handler)

    return end


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
