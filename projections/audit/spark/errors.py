"""Errors of Spark in one line each. Proved by tests/audit/spark."""

from __future__ import annotations

from typing import Any, Final

from ledger.errors import BadInput, LedgerUnavailable

REFUSAL: Final = "inforce refuses: "
"""Begins the message of `UnusableLog`, so that the driver finds it in a long stack trace."""


class SparkUnavailable(LedgerUnavailable):
    """The cluster is not available, or failed."""


class UnusableLog(Exception):
    """A task's log cannot be read. The message is REFUSAL and the reason, in one line."""


def spark_error(error: Exception) -> Exception:
    """The error to raise for one of Spark's: `BadInput` if a task refused its log, else `SparkUnavailable`."""
    from py4j.protocol import Py4JJavaError

    refusal = next((line.partition(REFUSAL)[2] for line in str(error).splitlines() if REFUSAL in line), None)
    if refusal is not None:
        return BadInput(refusal.strip())
    message = java_message(error) if isinstance(error, Py4JJavaError) else _first_line(str(error))
    return SparkUnavailable(f"Spark failed: {message or type(error).__name__}")


def java_message(error: Any) -> str:
    """The first line of a `Py4JJavaError`'s Java exception."""
    return _first_line(error.java_exception.toString())


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:500]
