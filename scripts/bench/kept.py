"""A large ledger for a suite: made now, or found where an earlier run kept it; and its first projection."""

from __future__ import annotations

from pathlib import Path

from ledger.errors import BadInput
from ledger.opening import open_ledger
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import WORKERS_EVENTS_MIN, rebuild
from projections.timelines.rebuild.workers import Workers, usual_processes
from projections.timelines.store import open_timelines
from scripts.bench.making import made, make
from scripts.bench.population import ROUNDS, Population, subjects_for
from scripts.bench.suites import Setting
from scripts.cli.files import progress


def large_ledger(setting: Setting, events: int, rounds: int = ROUNDS) -> tuple[str, Population]:
    """(its URL, who is in it): about `events` events, `rounds` for each subject. Raises `BadInput`."""
    subjects = subjects_for(events, rounds)
    if setting.keep is None:
        url = setting.databases.url()
        return url, _make(url, subjects, rounds)
    if setting.databases.kind != "sqlite":
        raise BadInput("--keep keeps SQLite files; leave it out with --db")
    path = setting.keep / f"inforce-bench-{subjects}-{rounds}.db"
    if path.exists():
        url = f"sqlite:///{path.absolute()}"
        return url, made(url, rounds)
    # Under its own name once it is whole, so that one that was cut off is not taken for it.
    unfinished = path.with_suffix(".unfinished")
    _remove(unfinished)
    try:
        population = _make(f"sqlite:///{unfinished.absolute()}", subjects, rounds)
        unfinished.rename(path)
    finally:
        _remove(unfinished)
    return f"sqlite:///{path.absolute()}", population


def project(url: str) -> None:
    """Brings the stored timelines up to the ledger: a large one's first ones in the way that takes a third as long."""
    with open_ledger(url) as ledger:
        store = open_timelines(ledger)
        projector, head = Projector(ledger, store), ledger.head().position
        with progress(f"projecting {head:,} events", head) as tell:
            if head >= WORKERS_EVENTS_MIN and store.tracked() == 0:
                rebuild(projector, workers=Workers(url, usual_processes()), progress=lambda done, _: tell(done, ""))
            else:
                projector.catch_up()


def _make(url: str, subjects: int, rounds: int) -> Population:
    events = rounds * subjects
    with progress(f"making a ledger of {events:,} events", events) as tell:
        return make(url, subjects, lambda made_so_far: tell(made_so_far, f"{made_so_far:,}"), rounds)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
