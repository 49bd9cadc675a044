"""Drafts: decided events that the ledger has not numbered yet.

Only the append lock fixes an event's position and its recorded_at, and with it an effective_from that was left open.
A draft leaves these out, so that deciding is a pure function and happens before the lock is taken.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

AT_RECORDING: Final = "recorded"
"""As an `effective_from`: the moment of recording."""

KEY_LENGTH_MAX: Final = 255
"""Characters of an idempotency key, over HTTP, on the command line and in Python. PostgreSQL's index entries must hold
a key together with its caller (`subjects.ACTOR_LENGTH_MAX`)."""


DIGEST_BYTES: Final = 32
ID_TAIL_LENGTH: Final = 23
"""Characters of the random part of an event id (see `codec.id_tail`)."""
SEAL_BYTES: Final = 16
"""Behind the digest of an idempotency key: see `Idempotency.sealed`."""


class PersonalData(NamedTuple):
    """Data that can identify a person, stored beside the event and bound to it by a commitment."""

    salt: bytes
    content: str
    """A JSON object, e.g. {"reason":"…"}."""

    @property
    def commitment(self) -> str:
        """SHA-256 in hex over the 32 bytes of salt followed by the content in UTF-8."""
        return hashlib.sha256(self.salt + self.content.encode()).hexdigest()

    @property
    def reason(self) -> str:
        return str(msgspec.json.decode(self.content)["reason"])


def personal_data(salt: bytes, reason: str) -> PersonalData:
    return PersonalData(salt, msgspec.json.encode({"reason": reason}).decode())


class Draft(NamedTuple):
    """`body` holds the event's own members in the order of its leaf; instants in it are µs, or `AT_RECORDING`."""

    topic: str
    subject: str
    version: int
    body: Mapping[str, Any]
    actor: str
    id_tail: str
    """The random part of the event id; the rest is the position (see `codec`)."""
    personal: PersonalData | None = None
    commitment: str | None = None
    imported: bool = False

    @property
    def originator_id(self) -> str:
        """The subject, as the eventsourcing library calls it."""
        return self.subject

    @property
    def originator_version(self) -> int:
        """The version, as the eventsourcing library calls it."""
        return self.version


class Idempotency(NamedTuple):
    """A caller's key for one submission, and the digest of the body that came with it."""

    caller: str
    key: str
    body_sha256: bytes

    def keyed(self, secret: bytes) -> Idempotency:
        """As it is stored: HMAC-SHA256 over the digest, with a secret of the ledger. The digest of a short body with a
        reason in it would give the reason away to anybody who can guess it."""
        return self._replace(body_sha256=hmac.digest(secret, self.body_sha256, "sha256"))

    def sealed(self, secret: bytes, events: int, id_tail: str) -> Idempotency:
        """As it is stored: the keyed digest, and behind it a seal over everything that its row says, so that a row
        that was altered is noticed. `id_tail`: the random part of the first event's id, which binds the row to it."""
        message = b"%b%b%d\0%b\0%b" % (
            self.body_sha256,
            id_tail.encode(),
            events,
            self.caller.encode(),
            self.key.encode(),
        )
        return self._replace(body_sha256=self.body_sha256 + hmac.digest(secret, message, "sha256")[:SEAL_BYTES])

    def is_sealed(self, secret: bytes, events: int, id_tail: str) -> bool:
        """Whether the row, as it is stored, is what was recorded. A row that a process of an older inforce wrote has no
        seal, and passes."""
        digest = self._replace(body_sha256=self.body_sha256[:DIGEST_BYTES])
        return self in (digest, digest.sealed(secret, events, id_tail))


class AppendPlan(NamedTuple):
    """The drafts of one submission, and the conditions under which the recorder may append them."""

    drafts: tuple[Draft, ...]
    versions: Mapping[str, int]
    """Subject → version of every stream that the decision used. If one has moved, decide again."""
    recorded_at_max: int | None
    """The last instant (µs) at which the plan may be recorded; later, decide again. None: at any time."""
