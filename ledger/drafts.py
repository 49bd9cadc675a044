"""A decided event that the ledger has not numbered yet.

Whatever only the append lock can know (position, recorded_at, and with it an effective_from that was left open) is
missing here, so that deciding can be pure and done before the lock is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

RECORDED: Final = "recorded"
"""As an `effective_from`: the moment of recording."""


class PersonalData(NamedTuple):
    """What a person could be recognised by, kept beside the event and bound to it by a commitment."""

    salt: bytes
    content: str
    """A JSON object, e.g. {"reason":"…"}."""

    @property
    def commitment(self) -> str:
        """SHA-256 in hex over the 32 bytes of salt followed by the content in UTF-8."""
        return hashlib.sha256(self.salt + self.content.encode()).hexdigest()

    @property
    def reason(self) -> str:
        """The reason that the content states."""
        return str(msgspec.json.decode(self.content)["reason"])


def personal_data(salt: bytes, reason: str) -> PersonalData:
    return PersonalData(salt, msgspec.json.encode({"reason": reason}).decode())


class Draft(NamedTuple):
    """`body` holds the event's own members in the order of WIRE.md; instants in it are µs, or `RECORDED`."""

    topic: str
    subject: str
    version: int
    body: Mapping[str, Any]
    actor: str
    id_tail: str
    """The part of the event id that is random; the rest is the position (see `codec`)."""
    personal: PersonalData | None = None
    commitment: str | None = None
    imported: bool = False

    @property
    def originator_id(self) -> str:
        return self.subject

    @property
    def originator_version(self) -> int:
        return self.version


class Idempotency(NamedTuple):
    """A caller's key for one submission, and the digest of the body that it was sent with."""

    caller: str
    key: str
    body_sha256: bytes


class Decided(NamedTuple):
    """What a submission comes to, with everything the recorder must find true before it may record it."""

    drafts: tuple[Draft, ...]
    versions: Mapping[str, int]
    """Subject → version of every stream that was relied on: if one has moved, decide again."""
    recorded_at_max: int | None
    """The last instant (µs) at which this may be recorded as decided; later, decide again. None: any time."""
