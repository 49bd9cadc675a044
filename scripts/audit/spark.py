"""`audit --engine spark`: the same question to a cluster, which reads the log and writes the verdicts itself."""

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
from scripts.cli import exits
from scripts.cli.files import progress
from scripts.cli.options import Format
from scripts.cli.output import encode

PIN_FILE: Final = "_inforce.json"
"""In a folder of verdicts or rejects: what they rest on, written last. A folder without it is not a whole result."""
_ALONE: Final = {"findings": "--findings", "report": "--report", "changes": "--what-if", "explain": "--explain"}
_OWN: Final = {"master": "--master", "spark_conf": "--spark-conf", "spark_index_max": "--spark-index-max"}
_EVERY_S: Final = 0.5


class AskedSpark(NamedTuple):
    """As `inforce audit` is asked. `index_max`: bytes of an index above which executors have slices of it."""

    logs: tuple[str, ...]
    layout: Layout
    known_at: KnownAt
    master: str
    configuration: Mapping[str, str]
    out: str | None
    rejects: str | None
    max_rejects: int | None
    index_max: int | None


def must_suit(options: Mapping[str, Any]) -> None:
    """Raises `click.UsageError` where an option is of the other engine."""
    if options["engine"] != "spark":
        for name, option in _OWN.items():
            if options[name] not in (None, ()):
                raise click.UsageError(f"{option} is of --engine spark, which was not asked for")
        return
    for name, option in _ALONE.items():
        if options[name] not in (None, 0):
            raise click.UsageError(f"{option} is answered on one machine; leave out --engine spark")
    if options["master"] is None:
        raise click.UsageError("--engine spark needs --master, as in spark://host:7077 or local[*]")
    if "-" in (options["out"], options["rejects"]):
        raise click.UsageError("a cluster writes folders of files; name one")
    folders = [f"{os.path.normpath(name)}/" for name in (options["out"], options["rejects"]) if name is not None]
    if len(folders) > 1 and (folders[0].startswith(folders[1]) or folders[1].startswith(folders[0])):
        raise click.UsageError("--out and --rejects must be different folders, and neither in the other")


def audit_on_spark(db: str, asked: AskedSpark, format_: Format) -> int:
    """Raises `BadInput`, and `LedgerUnavailable` also where the cluster cannot be had."""
    from projections.audit.index.open import open_index
    from projections.audit.index.pin import pin_of
    from projections.audit.spark.inputs import check_names
    from projections.audit.spark.run import SparkAudit, write
    from projections.audit.spark.session import must_be_new, session
    from scripts.audit.show_summary import show_summary

    rejects = asked.rejects or (None if asked.out is None else f"{asked.out.rstrip('/')}.rejects.jsonl")
    # What this machine can see is said before a cluster is asked for.
    check_names(asked.logs, asked.layout.mapping)
    for name in (asked.out, rejects):
        if name is not None:
            must_be_new(name, os.path.exists(name))
    with open_ledger(db) as ledger, session(asked.master, asked.configuration, _waiting) as cluster:
        for name in (asked.out, rejects):
            if name is not None:
                cluster.begin(name)
        pin = pin_of(ledger)
        summary = Summary(pin, asked.known_at)
        index = open_index(ledger, asked.known_at, pin=pin)
        with _telling(cluster.spark), SparkAudit(cluster, index, asked.logs, asked.layout, _plan(asked)) as decided:
            first = decided.count(summary, asked.max_rejects)
            written = [] if asked.out is None else [asked.out]
            if asked.out is not None:
                write(decided.verdicts(), asked.out, form_of(asked.out))
            if rejects is not None and (summary.rejects or asked.rejects is not None):
                write(decided.rejects(), rejects, "json")
                written.append(rejects)
            summary.log, warnings = decided.finish()
        rests_on = encode(pin_json(summary) | {"reading": asked.layout.json()}) + b"\n"
        for name in written:
            cluster.hadoop.write(f"{name.rstrip('/')}/{PIN_FILE}", rests_on)
        for name in written:
            cluster.done(name)
    for warning in warnings:
        exits.say(warning)
    if first is not None:
        none_read = summary.rejects == summary.rows
        exits.say(
            f"{summary.rejects} of {summary.rows} lines rejected, the first: {first.source} line {first.line}: "
            f"{first.fault}; "
            + (f"all are in {rejects}" if rejects is not None else "--rejects names a folder for all")
            + ("; --map names the columns to read" if none_read else "")
        )
        if none_read:
            return exits.BAD_INPUT
    show_summary(format_, summary, rejects, [])
    return exits.AGAINST if summary.against else exits.OK


def _waiting() -> None:
    exits.say(
        "the cluster has given no executor yet: it may be busy, or have none as large as spark.executor.memory and "
        "spark.executor.cores ask for; waiting on"
    )


def _plan(asked: AskedSpark) -> Any:
    from projections.audit.spark.run import Plan

    plan = Plan() if asked.index_max is None else Plan(index_bytes_max=asked.index_max)
    return plan if asked.out is None else plan._replace(scratch=f"{asked.out.rstrip('/')}.slices")


@contextmanager
def _telling(spark: Any) -> Iterator[None]:
    """How many tasks are done of those that are known of, while somebody watches."""
    tracker, ended = spark.sparkContext.statusTracker(), Event()
    with progress("auditing on Spark", None) as tell:

        def watch() -> None:
            while not ended.wait(_EVERY_S):
                try:
                    stages = [tracker.getStageInfo(number) for number in tracker.getActiveStageIds()]
                except Exception:  # the session ends, which whoever waits for its result is told
                    return
                found = [stage for stage in stages if stage is not None]
                done, of = (sum(getattr(one, name) for one in found) for name in ("numCompletedTasks", "numTasks"))
                tell(done, f"{done:,} of {of:,} tasks")

        watching = Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()


def form_of(folder: str) -> str:
    plain = folder.rstrip("/")
    if plain.endswith(".parquet"):
        return "parquet"
    return "csv" if plain.endswith(".csv") else "json"
