"""A proof that stands alone (c2sp.org/tlog-proof@v1): an index, an inclusion proof and a checkpoint, as one text. Pure.

Proved by tests/transparency/test_tlog_proof.py.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final, NamedTuple

from ledger.transparency.checkpoint import SignedCheckpoint, parse_hash, parse_number
from ledger.transparency.merkle import leaf_hash, verify_inclusion
from ledger.transparency.note import BadNote, VerifierKey

HEADER: Final = "c2sp.org/tlog-proof@v1"
HASHES_MAX: Final = 64
"""No tree is higher."""


class TlogProof(NamedTuple):
    """`checkpoint`: the signed note. `extra`: what belongs to the proof and is not authenticated."""

    leaf_index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def __bytes__(self) -> bytes:
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines += [f"index {self.leaf_index}", *(base64.b64encode(one).decode() for one in self.hashes), "", ""]
        return "\n".join(lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, content: bytes) -> TlogProof:
        """Raises `BadNote`."""
        head, blank, checkpoint = content.partition(b"\n\n")
        try:
            lines = head.decode().split("\n")
        except UnicodeDecodeError:
            raise BadNote("the proof is not UTF-8") from None
        if not blank or lines.pop(0) != HEADER:
            raise BadNote(f"a proof begins with the line {HEADER}, and has a checkpoint behind an empty line")
        extra = None
        if lines and lines[0].startswith("extra "):
            try:
                extra = base64.b64decode(lines.pop(0).removeprefix("extra "), validate=True)
            except (binascii.Error, ValueError):
                raise BadNote("the extra data of the proof is not base64") from None
        if not lines or not lines[0].startswith("index "):
            raise BadNote("the proof has no line with an index")
        index = parse_number(lines.pop(0).removeprefix("index "), "index")
        if len(lines) > HASHES_MAX:
            raise BadNote(f"the proof has more than {HASHES_MAX} hashes")
        return cls(index, tuple(parse_hash(line) for line in lines), checkpoint, extra)

    def verify(self, leaf: bytes, origin: str, keys: Iterable[VerifierKey]) -> SignedCheckpoint:
        """The checkpoint that the leaf is under. Raises `ProofError` unless one of the log's `keys` has signed it, and
        the leaf, by its bytes, is at the index."""
        signed = SignedCheckpoint.verified(self.checkpoint, origin, keys)
        verify_inclusion(leaf_hash(leaf), self.leaf_index, self.hashes, signed.head)
        return signed
