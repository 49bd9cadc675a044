"""The PostgreSQL server of a ledger: its URL, its connections and notifications, and its errors in one line."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, LiteralString

import psycopg
from eventsourcing.postgres import PostgresDatastore
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

from ledger.errors import BadInput, LedgerCorrupt, LedgerUnavailable
from ledger.recorders.common import not_stored_as_written, sleep_until_wakeup
from ledger.recorders.contract import EVENTS_TABLE, Head
from ledger.recorders.postgres_session import connect, prepare_session

SCHEMA: Final = "inforce"
EVENTS: Final = f"{SCHEMA}.{EVENTS_TABLE}"
HEAD: Final = f"SELECT position, recorded_at FROM {EVENTS} ORDER BY position DESC LIMIT 1"
PRECONDITIONS: Final = (
    f"(SELECT 0, NULL, NULL, NULL::bytea, position, recorded_at FROM {EVENTS} ORDER BY position DESC LIMIT 1)"
    " UNION ALL SELECT 1, subject, NULL, NULL, coalesce((SELECT max(originator_version) FROM"
    f" {EVENTS} WHERE originator_id = subject), 0), NULL FROM unnest(%b::text[]) AS subject"
    " UNION ALL SELECT 2, caller, key, body_sha256, first_position, event_count"
    f" FROM unnest(%b::text[], %b::text[]) AS used(caller, key) JOIN {SCHEMA}.submissions USING (caller, key)"
)
VERSIONS: Final = (
    f"SELECT subject, coalesce((SELECT max(originator_version) FROM {EVENTS} WHERE originator_id = subject), 0)"
    " FROM unnest(%s::text[]) AS subject"
)

CHANNEL: Final = "inforce"
"""Every append notifies this channel, with its last position."""

NOT_STORED: Final = "INF01"
"""The SQLSTATE of an append that did not find again what it wrote. Its message is (kind of row, written, stored)."""

_KEEPALIVE_DEFAULTS: Final = {
    # A server that vanishes silently is noticed after about 25 seconds, not after hours: one append waits for it, and
    # all later ones wait behind.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class PostgresLedgerDatastore(PostgresDatastore):
    """The library's pool, for every libpq connection string: `url` may name sockets, TLS files and the like."""

    def __init__(self, url: str, *, connections_max: int = 10, connect_timeout: float = 5.0) -> None:
        try:
            parameters: dict[str, Any] = {k: v for k, v in conninfo_to_dict(url).items() if v is not None}
        except psycopg.ProgrammingError:
            # psycopg's message may repeat the URL, and with it a password.
            raise BadInput(
                "not a PostgreSQL URL; write postgresql://user@host/name, see libpq's connection strings"
            ) from None
        if "@" in str(parameters.get("host", "")):
            # libpq takes the text after a password's own @ for the host, and errors show the host.
            raise BadInput("the PostgreSQL URL has a second @; write %40 for an @ that belongs to the password")
        parameters.setdefault("connect_timeout", int(connect_timeout))
        # Also if the database, the role or the URL says otherwise, because a reason may be in any language.
        parameters = {**_KEEPALIVE_DEFAULTS, **parameters, "client_encoding": "utf8"}
        self.connections_max = connections_max
        self.parameters: Mapping[str, Any] = dict(parameters)
        _probe(parameters)
        super().__init__(
            dbname=str(parameters.get("dbname", "")),
            host=str(parameters.get("host", "")),
            port=str(parameters.get("port", "")),
            user=str(parameters.get("user", "")),
            password=str(parameters.get("password", "")),
            connect_timeout=connect_timeout,
            idle_in_transaction_session_timeout=60,
            pool_size=1,
            max_overflow=connections_max - 1,
            schema=SCHEMA,
            originator_id_type="text",
        )
        assert isinstance(self.pool.kwargs, dict)
        row_factory = self.pool.kwargs["row_factory"]
        self.pool.kwargs.clear()
        self.pool.kwargs.update(parameters, row_factory=row_factory)

    def after_connect_func(self) -> Callable[[psycopg.Connection[Any]], None]:
        after_connect = super().after_connect_func()

        def prepare(connection: psycopg.Connection[Any]) -> None:
            after_connect(connection)
            prepare_session(connection)

        return prepare


class NotConnected(psycopg.OperationalError):
    """No connection could be opened, so nothing was sent to the server."""


class StatementConnection:
    """A dedicated connection for single statements, one round trip each: prepared, and committed with their answer.

    It connects when it is first used, and again after the server has closed it, for example by a restart.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._closed = False

    def read(self, statement: LiteralString, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that writes nothing; it may be sent twice. Raises psycopg's errors."""
        with self._lock:
            was_open = self._connection is not None
            try:
                return self._execute(statement, parameters)
            except psycopg.OperationalError:
                if not was_open or self._connection is not None:
                    raise
                return self._execute(statement, parameters)

    def write(self, statement: LiteralString, arguments: Callable[[], Sequence[object]]) -> tuple[Any, ...] | None:
        """The only row, if there is one, of a statement that writes; it is sent at most once. `arguments` is called
        right before it is sent.

        Raises psycopg's errors, and `NotConnected` if the statement was not sent."""
        with self._lock:
            if self._connection is not None and _closed_by_server(self._connection):
                self._drop()
            self._open()
            rows = self._execute(statement, arguments())
            return rows[0] if rows else None

    def _execute(self, statement: LiteralString, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        connection = self._open()
        try:
            return connection.execute(statement, parameters, prepare=True).fetchall()
        except BaseException:
            # Also if this thread was interrupted: a half-read answer must not reach the next statement.
            if connection.broken or connection.info.transaction_status != TransactionStatus.IDLE:
                self._drop()
            raise

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._closed:
            raise NotConnected("it was closed")
        if self._connection is None:
            try:
                self._connection = connect(self._parameters)
            except psycopg.OperationalError as error:
                raise NotConnected(str(error)) from error
        return self._connection

    def reconnect(self) -> None:
        """Makes the next statement use a new session."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._drop()


class PostgresWatch:
    """See `Watch`: a dedicated connection LISTENs to the channel that every append NOTIFYs. `parameters`: libpq's."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._notified = False
        try:
            # Without prepared statements, because a pooler may send each statement to another backend.
            self._connection = connect(
                {"application_name": "inforce follow", **parameters}, row_factory=tuple_row, prepare_threshold=None
            )
        except psycopg.Error as error:
            raise _unheard(error) from error
        # A notification can also arrive with an answer, for a commit that happened while the head was being read.
        self._connection.add_notify_handler(self._on_notify)
        try:
            self._connection.execute(f"LISTEN {CHANNEL}")
        except psycopg.Error as error:
            self.close()
            raise _unheard(error) from error

    def _on_notify(self, _: psycopg.Notify) -> None:
        # Only a reason to read the head: anybody can send a payload, and it may be outdated.
        self._notified = True

    def head(self) -> Head:
        self._notified = False
        try:
            row = self._connection.execute(HEAD).fetchone()
        except psycopg.Error as error:
            raise _unheard(error) from error
        return Head(0, None) if row is None else Head(*row)

    def wait(self, timeout_s: float, wakeup: socket.socket) -> None:
        pgconn = self._connection.pgconn
        try:
            # libpq may hold a notification that came at the end of an answer; then the socket has nothing to read.
            if not self._notified and pgconn.notifies() is None:
                sleep_until_wakeup(timeout_s, wakeup, self._connection.fileno())
                pgconn.consume_input()
            while pgconn.notifies():
                pass
        except psycopg.Error as error:
            raise _unheard(error) from error

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()


def _unheard(error: psycopg.Error) -> LedgerUnavailable:
    return LedgerUnavailable(f"PostgreSQL sends no notifications: {first_line(error)}")


def _closed_by_server(connection: psycopg.Connection[Any]) -> bool:
    """Whether the idle connection has data to read: that is how a server announces that it closes it."""
    if connection.closed:
        return True
    # Not select(2), which ends at 1,024 file descriptors.
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _probe(parameters: Mapping[str, Any]) -> None:
    """Connects once, so that a missing server is reported at once and in its own words, not by the pool's timeout."""
    try:
        psycopg.connect(**parameters).close()
    except psycopg.Error as error:
        raise LedgerUnavailable(f"PostgreSQL cannot be reached: {first_line(error)}; see --db") from None


def unavailable(
    error: BaseException, cause: BaseException | None, *, commit: bool
) -> LedgerUnavailable | LedgerCorrupt:
    """`error` as ours. `commit`: it interrupted a write, so the caller must learn whether it may be recorded."""
    if isinstance(cause, psycopg.Error) and cause.sqlstate == NOT_STORED:
        what, written, stored = first_line(cause).split(",")
        return not_stored_as_written(what, int(written), int(stored))
    if isinstance(cause, psycopg.errors.UndefinedFunction):
        # A role that may only add rows can open a ledger of an older format but cannot migrate it.
        return LedgerUnavailable(
            "this ledger is of an older format, and nothing was written; open it once as the role that owns the schema "
            f"{SCHEMA}, which migrates it"
        )
    # An error with a code is the server's confirmation that nothing was written. Without a code the answer was lost,
    # and so it was if a pooler in between reports class 08.
    answer_lost = (
        commit
        and isinstance(cause, psycopg.OperationalError)
        and (cause.sqlstate is None or cause.sqlstate.startswith("08"))
        and not isinstance(cause, PoolTimeout | NotConnected)
    )
    advice = (
        "it may or may not be recorded, so send it again with the same Idempotency-Key"
        if answer_lost
        else "nothing was written, try again"
        if commit
        else "try again"
    )
    return LedgerUnavailable(f"PostgreSQL did not carry it out: {first_line(cause or error)}; {advice}")


def is_read_only(error: BaseException | None) -> bool:
    """Whether the error came from a role or a server that may read but not write."""
    while error is not None:
        if isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.ReadOnlySqlTransaction):
            return True
        error = error.__cause__
    return False


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(":") if str(error).strip() else type(error).__name__
