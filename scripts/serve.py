"""`serve`: the HTTP door, on this machine only until authentication comes."""

from __future__ import annotations

import click

from scripts.options import EXAMPLES, database


@click.command(context_settings=EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address; any other is refused.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0: any free one.")
@database
def serve(db: str, host: str, port: int) -> None:
    """Answer over HTTP.

    Begins the ledger where there is none. Says where it listens, and what it can do at /openapi.json; ends what it
    is answering when it is told to stop.

    \b
      inforce serve
      inforce serve --port 0 --db postgresql://inforce@localhost/inforce
    """
    from api.server import serve as serve_until_stopped

    # click.echo, because it flushes: whoever started this in the background waits for the line.
    serve_until_stopped(db, host, port, announce=click.echo)
