"""Checkpoints (c2sp.org/tlog-checkpoint): the head of a log's tree, as a note that the log signs. Pure.

The lines are the origin, the size and the root; then extension lines, which the log chooses. The ledger has one for
each further structure that is a function of the log (see `integrator.ExtensionLines`).
Proved by tests/transparency/test_checkpoint.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from ledger.transparency.merkle import HASH_BYTES, TreeHead
from ledger.transparency.note import BadNote, SignedNote, VerifierKey

SIZE_MAX: Final = 2**63 - 1
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class Checkpoint(NamedTuple):
    """`extensions`: the extension lines, without line feeds."""

    origin: str
    head: TreeHead
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text of its note."""
        root = base64.b64encode(self.head.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, str(self.head.size), root, *self.extensions))

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """From the text of a note. Raises `BadNote`."""
        lines = text.split("\n")
        if lines.pop() or len(lines) < 3 or not all(lines):
            raise BadNote("a checkpoint has three lines or more, and none is empty")
        origin, size, root, *extensions = lines
        return cls(origin, TreeHead(parse_number(size, "size"), parse_hash(root)), tuple(extensions))


class SignedCheckpoint(NamedTuple):
    checkpoint: Checkpoint
    note: SignedNote

    @property
    def head(self) -> TreeHead:
        return self.checkpoint.head

    @classmethod
    def parse(cls, content: bytes) -> SignedCheckpoint:
        """The checkpoint in a signed note, whoever signed it. Raises `BadNote`."""
        note = SignedNote.parse(content)
        return cls(Checkpoint.parse(note.text), note)

    @classmethod
    def verified(cls, content: bytes, origin: str, keys: Iterable[VerifierKey]) -> SignedCheckpoint:
        """The checkpoint of the log `origin`, which one of its `keys` has signed. Raises `BadNote`."""
        signed = cls.parse(content)
        if signed.checkpoint.origin != origin:
            raise BadNote(f"the checkpoint is of the log {signed.checkpoint.origin}, not of {origin}")
        signed.note.verified_by(keys)
        return signed


def parse_number(text: str, name: str) -> int:
    """Raises `BadNote` unless `text` is a decimal number without leading zeros."""
    if _DECIMAL.fullmatch(text) is None or int(text) > SIZE_MAX:
        raise BadNote(f"the {name} is no decimal number")
    return int(text)


def parse_hash(text: str) -> bytes:
    """Raises `BadNote` unless `text` is the base64 of a hash."""
    try:
        hash_ = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadNote("a hash is not base64") from None
    if len(hash_) != HASH_BYTES or base64.b64encode(hash_).decode() != text:
        raise BadNote(f"a hash does not have {HASH_BYTES} bytes")
    return hash_
