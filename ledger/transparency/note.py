"""Signed notes (c2sp.org/signed-note): a text, and lines with signatures under it. Pure.

A key is known by its name and by the first four bytes of a hash over name, type and key. Two types are read: Ed25519
(1), with which a log signs, and the cosignature of a witness (4, c2sp.org/tlog-cosignature), which also says when it
saw the checkpoint. Signatures by other keys are passed over; one by a known key must be right.
Proved by tests/transparency/test_note.py.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.transparency.merkle import ProofError

ED25519: Final = 1
COSIGNATURE: Final = 4
NOTE_BYTES_MAX: Final = 1 << 20
SIGNATURES_MAX: Final = 100
"""Of one note; the specification asks for at least 16."""

_ID_BYTES: Final = 4
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_TIME_BYTES: Final = 8
_DASH: Final = "\N{EM DASH} "
_PRIVATE: Final = "PRIVATE+KEY+"


class BadNote(ProofError):
    """These bytes are no signed note, or it cannot be believed."""


class BadKey(ValueError):
    """This text is no key. The message holds nothing of it."""


class VerifierKey(NamedTuple):
    """A public key; `type_` is that of its signatures."""

    name: str
    type_: int
    key: bytes

    @property
    def id_(self) -> bytes:
        return key_id(self.name, self.type_, self.key)

    def __str__(self) -> str:
        """`name+hash+base64(type ‖ key)`."""
        return f"{self.name}+{self.id_.hex()}+{_base64(bytes([self.type_]) + self.key)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Raises `BadKey`."""
        name, type_, key = _parse_key(text.strip())
        if type_ not in (ED25519, COSIGNATURE):
            raise BadKey(f"the key's type is {type_}, and only {ED25519} and {COSIGNATURE} are known")
        verifier = cls(name, type_, key)
        if verifier.id_.hex() != text.strip().split("+")[1]:
            raise BadKey("the hash in the verifier key is not that of its name and key; copy the whole key again")
        return verifier


class SigningKey:
    """A private key of type Ed25519."""

    def __init__(self, name: str, seed: bytes) -> None:
        """`seed`: 32 random bytes. Raises `BadKey` if the name may not stand in a signature line."""
        if not is_key_name(name):
            raise BadKey("a key's name holds no space and no +")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._seed = seed
        self.verifier = VerifierKey(name, ED25519, self._key.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """From `PRIVATE+KEY+name+hash+base64(1 ‖ seed)`. Raises `BadKey`."""
        text = text.strip()
        if not text.startswith(_PRIVATE):
            raise BadKey(f"a signing key begins with {_PRIVATE}")
        name, type_, seed = _parse_key(text.removeprefix(_PRIVATE))
        if type_ != ED25519:
            raise BadKey(f"the signing key's type is {type_}, and only {ED25519} signs checkpoints")
        key = cls(name, seed)
        if key.verifier.id_.hex() != text.removeprefix(_PRIVATE).split("+")[1]:
            raise BadKey("the hash in the signing key is not that of its name and key; copy the whole key again")
        return key

    def secret_text(self) -> str:
        """The text that `parse` reads."""
        verifier = self.verifier
        return f"{_PRIVATE}{verifier.name}+{verifier.id_.hex()}+{_base64(bytes([ED25519]) + self._seed)}"

    def sign(self, text: str) -> NoteSignature:
        """The signature of a note's text, which ends in a line feed."""
        return NoteSignature(self.verifier.name, self.verifier.id_ + self._key.sign(text.encode()))

    def __repr__(self) -> str:
        return f"<signing key of {self.verifier}>"


class NoteSignature(NamedTuple):
    """`content`: the key's id and the signature."""

    name: str
    content: bytes

    @property
    def key_id(self) -> bytes:
        return self.content[:_ID_BYTES]

    def line(self) -> str:
        return f"{_DASH}{self.name} {_base64(self.content)}\n"

    def is_by(self, key: VerifierKey) -> bool:
        return self.name == key.name and self.key_id == key.id_


class SignedNote(NamedTuple):
    """`text` ends in a line feed."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __bytes__(self) -> bytes:
        return (self.text + "\n" + "".join(signature.line() for signature in self.signatures)).encode()

    @classmethod
    def parse(cls, content: bytes) -> SignedNote:
        """Raises `BadNote`."""
        if len(content) > NOTE_BYTES_MAX:
            raise BadNote(f"the note has more than {NOTE_BYTES_MAX} bytes")
        try:
            whole = content.decode()
        except UnicodeDecodeError:
            raise BadNote("the note is not UTF-8") from None
        if any(character < " " and character != "\n" for character in whole):
            raise BadNote("the note holds a control character")
        text, blank, lines = whole.rpartition("\n\n")
        if not blank or not lines.endswith("\n"):
            raise BadNote("the note has no signature under an empty line, or its last line does not end")
        signatures = tuple(_parse_signature(line) for line in lines[:-1].split("\n"))
        if len(signatures) > SIGNATURES_MAX:
            raise BadNote(f"the note has more than {SIGNATURES_MAX} signatures")
        return cls(text + "\n", signatures)

    def verified_by(self, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
        """The keys whose signatures the note has. Raises `BadNote` if there is none, or if one is wrong."""
        by_place = {(key.name, key.id_): key for key in keys}
        verified: list[VerifierKey] = []
        for signature in self.signatures:
            key = by_place.get((signature.name, signature.key_id))
            if key is None:
                continue
            if not _is_right(key, self.text, signature.content[_ID_BYTES:]):
                raise BadNote(f"the signature of {key} is wrong")
            if key not in verified:
                verified.append(key)
        if not verified:
            raise BadNote("the note has no signature of a known key")
        return verified

    def cosigned_at(self, key: VerifierKey) -> int | None:
        """The time of the witness's signature, in seconds since 1970; None: it has not signed. Verifies nothing."""
        for signature in self.signatures:
            content = signature.content[_ID_BYTES:]
            if signature.is_by(key) and key.type_ == COSIGNATURE and len(content) == _TIME_BYTES + _SIGNATURE_BYTES:
                return int.from_bytes(content[:_TIME_BYTES], "big")
        return None


def sign_note(text: str, keys: Sequence[SigningKey]) -> SignedNote:
    """`text` ends in a line feed."""
    return SignedNote(text, tuple(key.sign(text) for key in keys))


def key_id(name: str, type_: int, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([type_]) + key).digest()[:_ID_BYTES]


def is_key_name(text: str) -> bool:
    return bool(text) and "+" not in text and not any(one.isspace() or one < " " for one in text)


def _is_right(key: VerifierKey, text: str, signature: bytes) -> bool:
    message = text.encode()
    if key.type_ == COSIGNATURE:
        at, signature = int.from_bytes(signature[:_TIME_BYTES], "big"), signature[_TIME_BYTES:]
        message = b"cosignature/v1\ntime %d\n%b" % (at, message)
    if len(signature) != _SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _parse_signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not is_key_name(name):
        raise BadNote("a line under the note's text is no signature")
    try:
        content = _decode(encoded)
    except ValueError:
        raise BadNote("a signature is not base64") from None
    if len(content) <= _ID_BYTES:
        raise BadNote("a signature is too short")
    return NoteSignature(name, content)


def _parse_key(text: str) -> tuple[str, int, bytes]:
    # Base64 may hold a +, a name may not.
    name, _, rest = text.partition("+")
    hash_, plus, encoded = rest.partition("+")
    if not plus or not is_key_name(name) or len(hash_) != 2 * _ID_BYTES:
        raise BadKey("a key is written name+hash+base64")
    try:
        content = _decode(encoded)
    except ValueError:
        raise BadKey("the last part of the key is not base64") from None
    if len(content) != 1 + _KEY_BYTES:
        raise BadKey(f"the key has {len(content)} bytes, and an Ed25519 key has {1 + _KEY_BYTES} with its type")
    return name, content[0], content[1:]


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(text: str) -> bytes:
    """Raises `ValueError` unless `text` is the one way to write its bytes."""
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if _base64(content) != text:
        raise ValueError("not the usual base64")
    return content
