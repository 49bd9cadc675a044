"""Notes, verifier keys and signing keys are those of c2sp.org/signed-note."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.transparency.note import (
    COSIGNATURE,
    BadKey,
    BadNote,
    NoteSignature,
    SignedNote,
    SigningKey,
    VerifierKey,
    is_key_name,
    key_id,
    sign_note,
)

# The pair of keys in the documentation of golang.org/x/mod/sumdb/note, and a note that it signed.
GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_another_implementation_is_verified_and_signed_alike() -> None:
    note = SignedNote.parse(GO_NOTE.encode())
    assert note.verified_by([VerifierKey.parse(GO_PUBLIC)]) == [VerifierKey.parse(GO_PUBLIC)]
    key = SigningKey.parse(GO_PRIVATE)
    assert str(key.verifier) == GO_PUBLIC
    assert key.secret_text() == GO_PRIVATE
    assert bytes(sign_note(note.text, [key])) == GO_NOTE.encode()
    assert GO_PRIVATE[-20:] not in repr(key)


KEY, OTHER = (SigningKey("log.example/eu", bytes([number]) * 32) for number in (1, 2))
TEXT = "log.example/eu\n7\nfirst\n\nsecond ü\n"


@given(st.data())
@settings(max_examples=80)
def test_an_altered_note_is_refused(data: st.DataObject) -> None:
    content = bytearray(bytes(sign_note(TEXT, [KEY])))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BadNote):
        SignedNote.parse(bytes(content)).verified_by([KEY.verifier])


def test_signatures_of_unknown_keys_are_passed_over() -> None:
    note = sign_note(TEXT, [OTHER, KEY])
    assert note.verified_by([KEY.verifier]) == [KEY.verifier]
    assert note.verified_by([KEY.verifier, OTHER.verifier]) == [OTHER.verifier, KEY.verifier]
    with pytest.raises(BadNote, match="no signature of a known key"):
        sign_note(TEXT, [OTHER]).verified_by([KEY.verifier])


def test_a_wrong_signature_of_a_known_key_refuses_the_note() -> None:
    good = KEY.sign(TEXT)
    bad = NoteSignature(good.name, good.key_id + bytes(64))
    with pytest.raises(BadNote, match=r"the signature of log\.example/eu\+.* is wrong"):
        SignedNote(TEXT, (good, bad)).verified_by([KEY.verifier])


def test_a_cosignature_is_read_with_its_time() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    public = private.public_key().public_bytes_raw()
    witness = VerifierKey("witness.example/w1", COSIGNATURE, public)
    message = b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    stamped = (1679315147).to_bytes(8, "big") + private.sign(message)
    note = SignedNote(TEXT, (KEY.sign(TEXT), NoteSignature(witness.name, witness.id_ + stamped)))
    read = SignedNote.parse(bytes(note))
    assert read.verified_by([witness, KEY.verifier]) == [KEY.verifier, witness]
    assert read.cosigned_at(witness) == 1679315147
    assert read.cosigned_at(KEY.verifier) is None
    assert VerifierKey.parse(str(witness)) == witness
    later = (1679315148).to_bytes(8, "big") + stamped[8:]
    with pytest.raises(BadNote, match="is wrong"):
        SignedNote(TEXT, (NoteSignature(witness.name, witness.id_ + later),)).verified_by([witness])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "no signature under an empty line"),
        (b"text\n", "no signature under an empty line"),
        (b"text\n\n", "no signature under an empty line"),
        (GO_NOTE.encode()[:-1], "last line does not end"),
        (GO_NOTE.encode().replace("—".encode(), b"-"), "is no signature"),
        (GO_NOTE.replace("PeterNeumann ", "Peter+Neumann ").encode(), "is no signature"),
        (GO_NOTE.replace("JnAM=", "JnAM").encode(), "is not base64"),
        (GO_NOTE.replace("JnAM=", "JnAN=").encode(), "is not base64"),
        (b"text\n\n\xe2\x80\x94 name AAAA\n", "too short"),
        (b"te\txt\n\n\xe2\x80\x94 name AAAAAAAA\n", "control character"),
        (b"\xff\n\n\xe2\x80\x94 name AAAAAAAA\n", "not UTF-8"),
        (b"text\n\n" + b"\xe2\x80\x94 name AAAAAAAA\n" * 101, "more than 100 signatures"),
        (b"x" * (1 << 20) + GO_NOTE.encode(), "more than 1048576 bytes"),
    ],
)
def test_what_is_no_note_is_refused(content: bytes, fault: str) -> None:
    with pytest.raises(BadNote, match=fault):
        SignedNote.parse(content)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "name\\+hash\\+base64"),
        ("name+c74f20a3", "name\\+hash\\+base64"),
        (GO_PUBLIC.replace("PeterNeumann", "Peter Neumann"), "name\\+hash\\+base64"),
        (GO_PUBLIC.replace("c74f20a3", "c74f20a4"), "is not that of its name and key"),
        (GO_PUBLIC.replace("PeterNeumann", "PeterNeumanN"), "is not that of its name and key"),
        (GO_PUBLIC[:-1], "not base64"),
        (GO_PUBLIC[:-4], "has 30 bytes"),
        ("name+00000000+" + "AhpcQQcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "type is 2"),
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str, fault: str) -> None:
    with pytest.raises(BadKey, match=fault):
        VerifierKey.parse(text)


def test_what_is_no_signing_key_is_refused() -> None:
    for text in (GO_PUBLIC, GO_PRIVATE.replace("c74f20a3", "c74f20a4"), GO_PRIVATE[:-4], "PRIVATE+KEY+x"):
        with pytest.raises(BadKey) as error:
            SigningKey.parse(text)
        assert GO_PRIVATE[-30:-4] not in str(error.value)
    with pytest.raises(BadKey, match="no space and no \\+"):
        SigningKey("a name", bytes(32))


def test_names_and_ids() -> None:
    assert is_key_name("log.example/eu")
    assert not any(is_key_name(name) for name in ("", "a b", "a+b", "a\u00a0b", "a\nb"))
    assert key_id("PeterNeumann", 1, VerifierKey.parse(GO_PUBLIC).key).hex() == "c74f20a3"
