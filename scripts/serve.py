"""`serve`: starts the HTTP server, on this machine only until authentication exists. `api/server.py` does the work."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from scripts.cli import exits
from scripts.cli.options import clock_ahead_warn, clock_behind_max, database, must_exist
from scripts.cli.settings import setting


@click.command
@setting("audits_max")
@setting("audits_max_bytes")
@setting("audits_keep")
@setting("audits_folder")
@setting("port")
@setting("host")
@must_exist
@clock_behind_max
@clock_ahead_warn
@database
def serve(
    db: str,
    host: str,
    port: int,
    *,
    must_exist: bool,
    audits_folder: Path | None,
    audits_keep: float,
    audits_max_bytes: int,
    audits_max: int,
    **clock: float,
) -> None:
    """Serve the ledger over HTTP.

    Creates the ledger if there is none, which its log says, and prints where it listens. /openapi.json describes every
    call. On SIGINT or SIGTERM it finishes the requests it has begun, then exits.

    \b
      inforce serve
      inforce serve --audits-folder /var/lib/inforce/audits --audits-keep 24
      inforce serve --port 0 --db postgresql://inforce@localhost/inforce
    """
    from api.audits.service import AuditSettings
    from api.server import serve as serve_until_stopped
    from api.service import ClockBounds

    if exits.is_quiet() or exits.is_verbose():
        logging.getLogger("inforce").setLevel(logging.ERROR if exits.is_quiet() else logging.DEBUG)
    # click.echo flushes: a script that starts the server in the background waits for this line.
    audits = AuditSettings(audits_folder, audits_keep, audits_max_bytes, audits_max)
    bounds = ClockBounds(clock["clock_behind_max"], clock["clock_ahead_warn"])
    serve_until_stopped(db, host, port, audits=audits, must_exist=must_exist, clock_bounds=bounds, announce=click.echo)
