"""`serve`: the HTTP door, on this machine only until authentication comes."""

from __future__ import annotations

from pathlib import Path

import click

from scripts.cli.options import EXAMPLES, database


@click.command(context_settings=EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address; any other is refused.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0: any free one.")
@click.option(
    "--audits-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where logs sent to POST /v1/audits and what came of them are kept. Left out: FILE.audits beside the ledger's "
    "file; of PostgreSQL, in the user's folder for state.",
)
@click.option(
    "--audits-keep",
    type=click.FloatRange(min=0, min_open=True, max=876_000),
    default=168.0,
    show_default=True,
    metavar="HOURS",
    help="How long what came of an audit is kept.",
)
@click.option(
    "--audits-max-bytes",
    type=click.IntRange(min=1),
    default=4 * 1024**3,
    show_default=True,
    metavar="N",
    help="Of one log.",
)
@click.option(
    "--audits-max",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many audits are kept at once; then no log is taken until one is deleted or expires.",
)
@database
def serve(
    db: str,
    host: str,
    port: int,
    *,
    audits_folder: Path | None,
    audits_keep: float,
    audits_max_bytes: int,
    audits_max: int,
) -> None:
    """Answer over HTTP.

    Begins the ledger where there is none. Says where it listens, and what it can do at /openapi.json; ends what it
    is answering when it is told to stop.

    \b
      inforce serve
      inforce serve --audits-folder /var/lib/inforce/audits --audits-keep 24
      inforce serve --port 0 --db postgresql://inforce@localhost/inforce
    """
    from api.audits.service import AuditSettings
    from api.server import serve as serve_until_stopped

    # click.echo, because it flushes: whoever started this in the background waits for the line.
    audits = AuditSettings(audits_folder, audits_keep, audits_max_bytes, audits_max)
    serve_until_stopped(db, host, port, audits=audits, announce=click.echo)
