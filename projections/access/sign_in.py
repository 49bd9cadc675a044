"""Signing in with a token: which principal a secret belongs to now, and that principal's roles.

Access is a history of settings, so `sign_in` reads it as every question does: `token.secret_sha256`, `token.principal`,
`access.disabled` and `access.roles`, with everything that is known, at the present moment. Its answer is a `Session`,
which holds until one of these settings changes by its own period (an expiry, a grant that begins or ends), and only
while no event about a principal, a token or the catalog is recorded. So a request costs a look into memory.

News of other processes are looked for before the first request after `FRESH_S`; those of this process at once. A server
that cannot read its ledger for that long signs nobody in: a revocation that it cannot see must hold, too.

Proved by tests/access/test_sign_in.py and tests/api/access/test_two_servers.py.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, Literal, NamedTuple

from ledger.codec import Leaf, parse_leaf
from ledger.events import SettingChanged
from ledger.receipts import Receipt
from ledger.recorders.contract import Entry
from ledger.roles import DISABLED, ROLES, TOKEN_PRINCIPAL, TOKEN_SECRET, parse_roles
from ledger.subjects import kind_of
from projections.access.rights import Caller
from projections.access.secret_index import SecretIndex
from projections.query.as_of_view import AsOfView
from projections.query.query import Query

FRESH_S: Final = 0.5
"""How old the newest look at the ledger may be. A revocation on another server holds within a second."""
SESSIONS_MAX: Final = 131_072
"""Some 60 MB; beyond it the oldest are forgotten, and their tokens are read again."""
DAY: Final = 86_400_000_000
_PAGE: Final = 1000
_TOKENS_AT_ONCE: Final = 5000
_SKIPPED_MAX: Final = 50_000
"""Events. After more of them it is cheaper to read the tokens anew than what was recorded since."""
_ACCESS_KINDS: Final = ("principal:", "token:", "catalog:")


Refusal = Literal["unknown", "expired", "disabled"]
"""`expired`: of a token that is known, and not valid now."""


class Session(NamedTuple):
    """The caller behind a secret over [start, until) (µs), as far as is known. `caller` None: it is not valid, for
    the reason `refusal`."""

    caller: Caller | None
    start: int
    until: int
    refusal: Refusal | None = None


Used = Callable[[str, int], None]
"""Is called with a token and a day (since 1970), at the token's first use on that day on this server."""


class AccessIndex:
    """Safe to use from many threads."""

    def __init__(self, query: Query, used: Used | None = None) -> None:
        self._query = query
        self._ledger = query.ledger
        self._used = used
        self._lock = threading.Lock()
        """Of the fields, for a moment. `_reading`: of the one who reads the ledger, for as long as that takes."""
        self._reading = threading.Lock()
        self._secrets = SecretIndex()
        self._sessions: dict[bytes | str, Session] = {}
        """By the SHA-256 of a secret, and by the principal that an OpenID Connect provider vouches for."""
        self._position = -1
        """Everything up to here is in the index; -1: nothing was read yet."""
        self._recorded_at = 0
        self._changed_at = 0
        """The position of the newest event about access."""
        self._looked_at = float("-inf")
        self._ledger.on_recorded.append(self._on_recorded)

    def close(self) -> None:
        self._ledger.on_recorded.remove(self._on_recorded)

    def session_nowait(self, secret: str) -> Session | None:
        """The session of a secret, from memory. None: call `sign_in`, which may wait."""
        if not self._is_fresh():
            return None
        digest = hashlib.sha256(secret.encode()).digest()
        session = self._sessions.get(digest)
        if session is not None:
            return self._if_valid(session)
        # A dict's look-up, like a bisection, takes a time that depends on the hash, not on the secret: nobody can
        # choose a secret so that its SHA-256 comes near another one.
        return None if self._secrets.find(digest) else _UNKNOWN

    def principal_nowait(self, principal: str) -> Session | None:
        """The session of a principal that a provider vouches for, from memory. None: call `sign_in_principal`."""
        session = self._sessions.get(principal) if self._is_fresh() else None
        return None if session is None else self._if_valid(session)

    def sign_in(self, secret: str) -> Session:
        """The session of a secret. Raises `LedgerUnavailable`."""
        digest = hashlib.sha256(secret.encode()).digest()
        self.refresh()
        positions = self._secrets.find(digest)
        if not positions:
            return _UNKNOWN
        session, position = self._read(digest, positions)
        self._remember(digest, session, position)
        return session

    def sign_in_principal(self, principal: str) -> Session:
        """The session of a principal that a provider vouches for, with its roles on the ledger. Raises
        `LedgerUnavailable`."""
        self.refresh()
        context = self._query.context()
        view = AsOfView(context, context.now, None)
        caller = _caller(view, principal)
        session = Session(caller, view.start, view.until, None if caller else "disabled")
        self._remember(principal, session, context.position)
        return session

    def _is_fresh(self) -> bool:
        return monotonic() - self._looked_at <= FRESH_S and self._ledger.follower.position <= self._position

    def _if_valid(self, session: Session) -> Session | None:
        return session if session.start <= self.now() < session.until else None

    def _remember(self, key: bytes | str, session: Session, position: int) -> None:
        """Keeps the session, if nothing about access was recorded after the `position` that it rests on."""
        with self._lock:
            if position >= self._changed_at:
                while len(self._sessions) >= SESSIONS_MAX:
                    del self._sessions[next(iter(self._sessions))]
                self._sessions[key] = session

    def now(self) -> int:
        """The present in µs, never before the last event that is known here."""
        return max(self._ledger.clock.now(), self._recorded_at)

    def refresh(self) -> None:
        """Reads what was recorded since the last look, by whomever. Raises `LedgerUnavailable`."""
        with self._reading:
            if monotonic() - self._looked_at <= FRESH_S and self._ledger.follower.position <= self._position:
                return
            began = monotonic()
            head, recorded_at = self._ledger.head()
            if self._position < 0 or not 0 <= head - self._position <= _SKIPPED_MAX:
                # At the start, after an import, and where the ledger went back.
                self._read_tokens(head)
            while self._position < head:
                entries = self._ledger.page(self._position, _PAGE, head)
                self._learn(entries)
            with self._lock:
                self._recorded_at = max(self._recorded_at, recorded_at or 0)
            self._looked_at = began

    def _read_tokens(self, head: int) -> None:
        """Reads the hashes of all tokens anew, up to `head`."""
        secrets, ledger = SecretIndex(), self._ledger
        after: str | None = None
        while rows := self._query.subjects("token", None, after, _TOKENS_AT_ONCE)[1]:
            subjects = [row.subject for row in rows]
            for line in ledger.recorder.leaves_of(subjects, head).splitlines():
                _add(secrets, parse_leaf(line))
            after = subjects[-1]
        with self._lock:
            self._secrets, self._position = secrets, head
            self._changed_at, self._sessions = head, {}

    def _learn(self, entries: Sequence[Entry]) -> None:
        about_access = [entry for entry in entries if entry.subject.startswith(_ACCESS_KINDS)]
        for entry in about_access:
            _add(self._secrets, parse_leaf(entry.leaf))
        with self._lock:
            if about_access:
                self._changed_at, self._sessions = about_access[-1].position, {}
            # `_on_recorded` may have gone on meanwhile.
            self._position = max(self._position, entries[-1].position)

    def _on_recorded(self, receipts: Sequence[Receipt]) -> None:
        """This process recorded events. Events about other subjects than access need no look at the ledger."""
        first, last = receipts[0], receipts[-1]
        if any(receipt.subject.startswith(_ACCESS_KINDS) for receipt in receipts):
            return
        with self._lock:
            if first.position == self._position + 1:
                self._position = last.position
                self._recorded_at = max(self._recorded_at, last.recorded_at)

    def _read(self, digest: bytes, positions: Sequence[int]) -> tuple[Session, int]:
        """(the session now, the ledger's position that it rests on)."""
        context = self._query.context()
        view = AsOfView(context, context.now, None)
        callers: dict[str, Caller] = {}
        refusal: Refusal | None = "expired"
        for position in positions:
            entry = self._ledger.recorder.entry(position)
            if entry is None or not self._holds(view, entry.subject, digest):
                continue
            caller = _caller_of_token(view, entry.subject)
            if caller is None:
                refusal = "disabled"
            else:
                callers[caller.actor] = caller
                self._note_use(entry.subject, context.now // DAY)
        # A secret of two principals is nobody's.
        caller = next(iter(callers.values())) if len(callers) == 1 else None
        # Until the end of the day, so that the first use of the next one is noted.
        until = min(view.until, (context.now // DAY + 1) * DAY)
        return Session(caller, view.start, until, None if caller else refusal), context.position

    @staticmethod
    def _holds(view: AsOfView, token: str, digest: bytes) -> bool:
        stored = view.setting(token, TOKEN_SECRET).value
        return isinstance(stored, str) and hmac.compare_digest(stored.encode(), digest.hex().encode())

    def _note_use(self, token: str, day: int) -> None:
        if self._used is not None:
            self._used(token, day)


_UNKNOWN: Final = Session(None, 0, 0, "unknown")


def _add(secrets: SecretIndex, leaf: Leaf) -> None:
    if leaf.data.setting == TOKEN_SECRET and leaf.topic == SettingChanged.TOPIC:
        value = leaf.data.value
        try:
            secrets.add(bytes.fromhex(value) if isinstance(value, str) else b"", leaf.data.position)
        except ValueError:
            # An older ledger may hold another text there: no secret has it as its hash.
            return


def _caller_of_token(view: AsOfView, token: str) -> Caller | None:
    """The principal of a token and its roles; None: it may do nothing."""
    principal = view.setting(token, TOKEN_PRINCIPAL).value
    if not isinstance(principal, str) or kind_of(principal) != "principal":
        return None
    return _caller(view, principal)


def _caller(view: AsOfView, principal: str) -> Caller | None:
    """The principal and its roles; None: it may do nothing."""
    # Unknown is never permission.
    if view.setting(principal, DISABLED).value is not False:
        return None
    roles = view.setting(principal, ROLES).value
    return Caller(principal, parse_roles(roles) if isinstance(roles, list | tuple) else ())
