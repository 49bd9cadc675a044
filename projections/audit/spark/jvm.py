"""Spark's own process: started for one session, and gone with it. Proved by tests/audit/spark."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO, Final

from projections.audit.spark.errors import SparkUnavailable

_END_S: Final = 30.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)


def start(conf: Any, told: BinaryIO) -> Any:
    """What it writes goes into `told`. Who interrupts this once waits until it can be ended: one that is left while it
    starts would stay for ever."""
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    came: list[int] = []

    def later(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            _raise(before[number], number, frame)

    in_main = threading.current_thread() is threading.main_thread()
    before: dict[int, Any] = {number: signal.signal(number, later) for number in _ENDING} if in_main else {}
    try:
        gateway = launch_gateway(conf, {"stdout": told, "stderr": told})  # type: ignore[no-untyped-call] # untyped there
    except PySparkRuntimeError:
        told.seek(0)
        lines = [line.strip() for line in told.read().decode(errors="replace").splitlines() if line.strip()]
        why = next((line for line in lines if not line.startswith("WARNING")), "it does not say why")
        raise SparkUnavailable(f"Spark's own process did not start: {why[:500]}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        end(gateway)
        _raise(before[came[0]], came[0], None)
    return gateway


def _raise(handler: Any, number: int, frame: Any) -> None:
    """As the signal would have."""
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        sys.exit(128 + number)


def end(gateway: Any) -> None:
    """The JVM goes with its session: a process that asks again asks another one."""
    from pyspark import SparkContext

    gateway.shutdown()
    proc = getattr(gateway, "proc", None)
    if proc is not None:
        with suppress(OSError):
            proc.stdin.close()
        try:
            proc.wait(_END_S)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()
    SparkContext._gateway = SparkContext._jvm = None
