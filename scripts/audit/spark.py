"""`audit --engine spark`: lets a Spark cluster read the log, decide on it and write the verdicts.

A result is a folder, and no folder is overwritten: a cluster cannot replace two folders at once. Proved by
tests/audit/spark/test_command.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, Final, NamedTuple

import click

from ledger.opening import open_ledger
from projections.audit.reading.layout import Layout
from projections.audit.summary import Summary, pin_json
from projections.temporal.coordinates import KnownAt
from scripts.audit.outputs import rejects_message
from scripts.audit.request import option_name
from scripts.audit.show_summary import show_summary
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format
from scripts.cli.output import encode

PIN_FILE: Final = "_inforce.json"
"""In every folder of a result, written last: pin, log and layout. A folder without it is incomplete."""
_LOCAL_ONLY: Final = ("findings", "report", "changes", "explain")
_SPARK_ONLY: Final = ("master", "spark_conf", "spark_index_max")
_POLL_S: Final = 0.5


class SparkRequest(NamedTuple):
    """`index_bytes_max`: above this, an executor gets slices of the policy index instead of all of it."""

    logs: tuple[str, ...]
    layout: Layout
    known_at: KnownAt
    master: str
    configuration: Mapping[str, str]
    out: str | None
    rejects: str | None
    max_rejects: int | None
    index_bytes_max: int | None


def check_engine_options(options: Mapping[str, Any]) -> None:
    """Raises `click.UsageError` for an option that the chosen engine does not have."""
    if options["engine"] != "spark":
        for name in _SPARK_ONLY:
            if options[name] not in (None, {}):
                raise click.UsageError(f"{option_name(name)} needs --engine spark")
        return
    for name in _LOCAL_ONLY:
        if options[name] not in (None, 0):
            raise click.UsageError(f"{option_name(name)} works on one machine only; leave out --engine spark")
    if options["master"] is None:
        raise click.UsageError("--engine spark needs --master, as in spark://host:7077 or local[*]")
    if "-" in (options["out"], options["rejects"]):
        raise click.UsageError("a cluster writes folders of files, not standard output; name a folder")
    folders = [f"{os.path.normpath(name)}/" for name in (options["out"], options["rejects"]) if name is not None]
    if len(folders) > 1 and (folders[0].startswith(folders[1]) or folders[1].startswith(folders[0])):
        raise click.UsageError("--out and --rejects must be different folders, and neither inside the other")


def audit_on_spark(db: str, request: SparkRequest, format_: Format) -> int:
    """Raises `BadInput`, and `LedgerUnavailable` also if the cluster does not answer."""
    from projections.audit.index.open import open_index
    from projections.audit.index.pin import pin_of
    from projections.audit.spark.inputs import check_names
    from projections.audit.spark.run import SparkAudit, write
    from projections.audit.spark.session import check_is_new, session

    out = request.out
    rejects = request.rejects or (None if out is None else f"{out.rstrip('/')}.rejects.jsonl")
    # Refuse what this machine can see to be wrong before asking for a cluster.
    check_names(request.logs, request.layout.mapping)
    for name in (out, rejects):
        if name is not None:
            check_is_new(name, exists=os.path.exists(name))
    with open_ledger(db) as ledger, session(request.master, request.configuration, _say_waiting) as cluster:
        for name in (out, rejects):
            if name is not None:
                cluster.begin(name)
        pin = pin_of(ledger)
        summary = Summary(pin, request.known_at)
        index = open_index(ledger, request.known_at, pin=pin)
        plan = _plan(request)
        with _task_progress(cluster.spark), SparkAudit(cluster, index, request.logs, request.layout, plan) as decided:
            first_reject = decided.count(summary, request.max_rejects)
            folders = []
            if out is not None:
                write(decided.verdicts(), out, folder_format(out))
                folders.append(out)
            if rejects is not None and (summary.rejects or request.rejects is not None):
                write(decided.rejects(), rejects, "json")
                folders.append(rejects)
            summary.log, warnings = decided.finish()
        provenance = encode(pin_json(summary) | {"reading": request.layout.json()}) + b"\n"
        for folder in folders:
            cluster.hadoop.write(f"{folder.rstrip('/')}/{PIN_FILE}", provenance)
        for folder in folders:
            cluster.keep(folder)
    for warning in warnings:
        exits.print_message(warning)
    if summary.rejects:
        where = f"all are in {rejects}" if rejects is not None else "--rejects FOLDER keeps all"
        exits.print_message(rejects_message(summary.rejects, summary.rows, first_reject, where))
        if summary.rejects == summary.rows:
            return exits.BAD_INPUT
    show_summary(format_, summary, rejects, [])
    return exits.PROBLEM_FOUND if summary.against else exits.OK


def _say_waiting() -> None:
    exits.print_message(
        "the cluster has given no executor yet: it may be busy, or have none as large as spark.executor.memory and "
        "spark.executor.cores ask for; still waiting"
    )


def _plan(request: SparkRequest) -> Any:
    from projections.audit.spark.run import Plan

    plan = Plan() if request.index_bytes_max is None else Plan(index_bytes_max=request.index_bytes_max)
    return plan if request.out is None else plan._replace(scratch=f"{request.out.rstrip('/')}.slices")


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


def folder_format(folder: str) -> str:
    name = folder.rstrip("/")
    if name.endswith(".parquet"):
        return "parquet"
    return "csv" if name.endswith(".csv") else "json"
