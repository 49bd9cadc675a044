"""`audit --engine spark`: lets a Spark cluster read the log, decide on it and write the verdicts.

A result is a folder, and no folder is overwritten: a cluster cannot replace two folders at once. Proved by
tests/audit/spark/test_command.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any, Final

from ledger.opening import open_ledger
from projections.audit.index.open import open_index
from projections.audit.index.pin import pin_of
from projections.audit.spark.inputs import check_names
from projections.audit.spark.session import check_is_new, session
from projections.audit.summary import Summary, pin_json
from projections.audit.verdict_files import format_of
from projections.query.clock_notices import notices_of_ledger
from scripts.audit.outputs import exit_code, warn_of_rejects
from scripts.audit.request import AuditRequest
from scripts.audit.show_summary import show_summary
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format
from scripts.cli.output import encode
from scripts.cli.questions import say_before_first_record

PIN_FILE: Final = "_inforce.json"
"""In every folder of a result, written last: pin, log and layout. A folder without it is incomplete."""
_say_waiting: Final = partial(
    exits.print_message,
    "the cluster has given no executor yet: it may be busy, or have none as large as spark.executor.memory and "
    "spark.executor.cores ask for; still waiting",
)
_POLL_S: Final = 0.5


def audit_on_spark(db: str, request: AuditRequest, options: Mapping[str, Any], format_: Format) -> int:
    """Raises `BadInput`, and `LedgerUnavailable` also if the cluster does not answer."""
    out = request.out
    bare = (out or "").rstrip("/")
    rejects = request.rejects or (None if out is None else f"{bare}.rejects.jsonl")
    # Refuse what this machine can see to be wrong before asking for a cluster.
    check_names(request.names, request.layout.mapping)
    for name in (out, rejects):
        if name is not None:
            check_is_new(name, exists=os.path.exists(name))
    with (
        open_ledger(db) as ledger,
        session(options["master"], options["spark_conf"], _say_waiting) as cluster,
    ):
        # A session has found pyspark, which this imports.
        from projections.audit.spark.run import Plan, SparkAudit, write

        for name in (out, rejects):
            if name is not None:
                cluster.begin(name)
        pin = pin_of(ledger)
        summary = Summary(
            pin, request.known_at, clock_notices=notices_of_ledger(ledger, pin), happened=request.layout.forms.happened
        )
        index = open_index(ledger, request.known_at, pin=pin)
        plan = Plan(scratch=None if out is None else f"{bare}.slices")
        if options["spark_index_max"] is not None:
            plan = plan._replace(index_bytes_max=options["spark_index_max"])
        with _task_progress(cluster.spark), SparkAudit(cluster, index, request.names, request.layout, plan) as decided:
            first_reject = decided.count(summary, request.max_rejects)
            folders = []
            if out is not None:
                write(decided.verdicts(), out, format_of(bare).replace("ndjson", "json"))
                folders.append(out)
            if rejects is not None and (summary.rejects or request.rejects is not None):
                write(decided.rejects(), rejects, "json")
                folders.append(rejects)
            summary.log, warnings = decided.finish()
        provenance = (
            encode(pin_json(summary) | {"observed": summary.observed, "reading": request.layout.json()}) + b"\n"
        )
        for folder in folders:
            cluster.hadoop.write(f"{folder.rstrip('/')}/{PIN_FILE}", provenance)
        for folder in folders:
            cluster.keep(folder)
        say_before_first_record(ledger, summary.reasons["before_first_record"], summary.rows)
    for warning in warnings:
        exits.print_note(warning)
    where = f"all are in {rejects}" if rejects is not None else "--rejects FOLDER keeps all"
    if warn_of_rejects(summary.rejects, summary.rows, first_reject, where):
        return exits.BAD_INPUT
    show_summary(format_, summary, rejects, [])
    return exit_code(summary)


@contextmanager
def _task_progress(spark: Any) -> Iterator[None]:
    """Shows how many of the known tasks are done."""
    tracker, ended = spark.sparkContext.statusTracker(), Event()
    with progress("auditing on Spark", None) as report:

        def watch() -> None:
            while not ended.wait(_POLL_S):
                try:
                    stages = [tracker.getStageInfo(number) for number in tracker.getActiveStageIds()]
                except Exception:  # the session has ended; the thread that waits for the result raises the reason
                    return
                active = [stage for stage in stages if stage is not None]
                done, total = (sum(getattr(one, name) for one in active) for name in ("numCompletedTasks", "numTasks"))
                report(done, f"{done:,} of {total:,} tasks")

        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
