"""`serve`: starts the HTTP server, on this machine only. `api/server.py` does the work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from scripts.cli import exits
from scripts.cli.settings import chosen, settings

if TYPE_CHECKING:
    from api.http.logs import LogLevel


@click.command
@settings(
    *("database", "must_exist", "host", "port", "auth"),
    *("tls_cert", "tls_key", "public_url", "allowed_hosts", "trusted_proxies", "forwarded_header"),
    *("log_format", "log_level", "access_log", "tracing"),
    *("audits_folder", "audits_keep", "audits_max_bytes", "audits_max"),
    *("clock_behind_max", "clock_ahead_warn", "projector_lag_max", "disk_free_min"),
    "signing_key_file",
    *("oidc", "rate_limit", "sign_in_failures_max"),
)
def serve(**values: Any) -> None:
    """Serve the ledger over HTTP.

    Creates the ledger if there is none, which its log says, and prints where it listens. /openapi.json describes every
    call. On SIGINT or SIGTERM it finishes the requests it has begun, then exits.

    Each request signs in with a token (inforce token create). On a ledger without a token it prints one for the
    operator that lasts an hour. With --no-auth nobody signs in, and everybody on this machine may do everything.

    \b
      inforce serve
      inforce serve --no-auth
      inforce serve --audits-folder /var/lib/inforce/audits --audits-keep 24
      inforce serve --signing-key-file /etc/inforce/log.key
      inforce serve --port 0 --db postgresql://inforce@localhost/inforce
      inforce serve --config /etc/inforce.toml --log-format json --access-log
    """
    from api.audits.service import AuditSettings
    from api.http.logs import LogSettings
    from api.readiness import ReadyBounds
    from api.server import ServerSettings
    from api.server import serve as serve_until_stopped
    from api.service import ClockBounds
    from ledger.transparency.keys import configured_keys
    from scripts.cli.server_keys import network_settings, sign_in_settings

    keys = chosen(values)
    # --quiet and --verbose stand on the command line, so they go before a level from anywhere else.
    level: LogLevel = "error" if exits.is_quiet() else "debug" if exits.is_verbose() else keys.log_level
    server_settings = ServerSettings(
        audits=AuditSettings(keys.audits_folder, keys.audits_keep, keys.audits_max_bytes, keys.audits_max),
        clock_bounds=ClockBounds(keys.clock_behind_max, keys.clock_ahead_warn),
        ready_bounds=ReadyBounds(keys.projector_lag_max, keys.disk_free_min),
        signing_keys=configured_keys(keys.signing_key_file, os.environ),
        logs=LogSettings(keys.log_format, level, keys.access_log),
        network=network_settings(keys),
        sign_in=sign_in_settings(keys),
        tracing=keys.tracing,
    )
    # click.echo flushes: a script that starts the server in the background waits for this line.
    serve_until_stopped(
        keys.database,
        port=keys.port,
        settings=server_settings,
        must_exist=keys.must_exist,
        announce=click.echo,
    )
