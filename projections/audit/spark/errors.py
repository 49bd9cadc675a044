"""What went wrong with Spark, in one line. Proved by tests/audit/spark."""

from __future__ import annotations

from typing import Any

from ledger.errors import BadInput, LedgerUnavailable


class SparkUnavailable(LedgerUnavailable):
    """The cluster cannot be had, or gave up."""


def spark_error(error: Exception) -> Exception:
    """In one line. What inforce's own tasks refused is said in their words."""
    from py4j.protocol import Py4JJavaError

    from projections.audit.spark.tasks import REFUSAL

    refused = next((line.partition(REFUSAL)[2] for line in str(error).splitlines() if REFUSAL in line), None)
    if refused is not None:
        return BadInput(refused.strip())
    said = java_message(error) if isinstance(error, Py4JJavaError) else _first_line(str(error))
    return SparkUnavailable(f"Spark gave up: {said or type(error).__name__}")


def java_message(error: Any) -> str:
    """By a `Py4JJavaError`."""
    return _first_line(error.java_exception.toString())


def _first_line(said: str) -> str:
    return next((line.strip() for line in said.splitlines() if line.strip()), "")[:500]
