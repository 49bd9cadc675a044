"""Spark's own process, which is started for one session and ends with it. Proved by tests/audit/spark."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO, Final

from projections.audit.spark.errors import SparkUnavailable

_STOP_TIMEOUT_S: Final = 30.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def start(conf: Any, output: BinaryIO) -> Any:
    """Starts the process; its standard streams go to `output`. A first signal waits until the process can be stopped,
    because a process that is left while it starts stays forever; a second one interrupts at once."""
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    received: list[int] = []

    def postpone(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) > 1:
            _handle(handlers[number], number, frame)

    in_main = threading.current_thread() is threading.main_thread()
    handlers: dict[int, Any] = {number: signal.signal(number, postpone) for number in _SIGNALS} if in_main else {}
    try:
        streams = {"stdout": output, "stderr": output}
        gateway = launch_gateway(conf, streams)  # type: ignore[no-untyped-call] # untyped there
    except PySparkRuntimeError:
        output.seek(0)
        lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
        reason = next((line for line in lines if not line.startswith("WARNING")), "it gives no reason")
        raise SparkUnavailable(f"Spark's own process did not start: {reason[:500]}") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        stop(gateway)
        _handle(handlers[received[0]], received[0], None)
    return gateway


def _handle(handler: Any, number: int, frame: Any) -> None:
    """Does what the signal would have done."""
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        sys.exit(128 + number)


def stop(gateway: Any) -> None:
    """Stops the JVM, and forgets it, so that a further session of this Python process starts its own."""
    from pyspark import SparkContext

    gateway.shutdown()
    proc = getattr(gateway, "proc", None)
    if proc is not None:
        with suppress(OSError):
            proc.stdin.close()
        try:
            proc.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()
    SparkContext._gateway = SparkContext._jvm = None
