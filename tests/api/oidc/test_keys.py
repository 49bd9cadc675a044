"""Of what a provider publishes, only strong public keys for signatures verify, each what it is made for."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from api.oidc.faults import ProviderFault
from api.oidc.keys import KEYS_MAX, PublishedKeys
from tests.support.jwt_signing import b64, jwk_of, new_key

RSA, SHORT, P384, ED = new_key(), new_key("RSA", 1024), new_key("P-384"), new_key("Ed25519")
P256 = ec.generate_private_key(ec.SECP256R1())
P256_PRIVATE = b64(P256.private_numbers().private_value.to_bytes(32, "big"))
ALL = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")


def algorithms_of(*keys: Any, kid: str | None = "k") -> set[str]:
    try:
        published = PublishedKeys({"keys": list(keys)}, ALL)
    except ProviderFault:
        return set()
    return {algorithm for algorithm in ALL if published.of(kid, algorithm)}


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (jwk_of(RSA, kid="k"), {"RS256", "PS256"}),
        (jwk_of(RSA, kid="k", use="sig", key_ops=["verify"]), {"RS256", "PS256"}),
        (jwk_of(RSA, kid="k", alg="RS256"), {"RS256"}),
        (jwk_of(RSA, kid="k", x5c=["MIIB"], x5t="abc", unknown={"a": 1}), {"RS256", "PS256"}),
        (jwk_of(P256, kid="k"), {"ES256"}),
        (jwk_of(P384, kid="k"), {"ES384"}),
        (jwk_of(ED, kid="k"), {"EdDSA", "Ed25519"}),
    ],
)
def test_a_key_verifies_what_its_type_curve_and_alg_allow(key: Any, algorithms: set[str]) -> None:
    assert algorithms_of(key) == algorithms


@pytest.mark.parametrize(
    "key",
    [
        jwk_of(RSA, kid="k", use="enc"),
        jwk_of(RSA, kid="k", use=["sig"]),
        jwk_of(RSA, kid="k", key_ops=["encrypt"]),
        jwk_of(RSA, kid="k", alg="RSA-OAEP"),
        jwk_of(RSA, kid="k", alg="HS256"),
        jwk_of(RSA, kid="k", alg=["RS256"]),
        jwk_of(RSA, kid="k", d=b64(b"private")),
        jwk_of(P256, kid="k", d=P256_PRIVATE),
        jwk_of(RSA, kid=7),
        jwk_of(RSA, kid="k") | {"kty": "EC"},
        jwk_of(RSA, kid="k") | {"kty": "rsa"},
        jwk_of(RSA, kid="k") | {"kty": ["RSA"]},
        jwk_of(RSA, kid="k") | {"n": 7},
        jwk_of(RSA, kid="k") | {"n": "not base64!"},
        jwk_of(RSA, kid="k") | {"n": "A" * 100_000},
        jwk_of(RSA, kid="k") | {"e": b64(b"\xff" * 256)},
        jwk_of(RSA, kid="k") | {"e": b64((2**32 + 1).to_bytes(5, "big"))},
        jwk_of(SHORT, kid="k"),
        jwk_of(P256, kid="k") | {"x": b64(b"\x01" * 32)},
        jwk_of(P256, kid="k") | {"crv": "P-384"},
        jwk_of(P256, kid="k") | {"crv": "secp256k1"},
        jwk_of(ED, kid="k") | {"crv": "X25519"},
        {"kty": "oct", "k": b64(b"secret"), "kid": "k"},
        {"kty": "oct", "k": b64(b"secret"), "kid": "k", "alg": "RS256"},
        {"kid": "k"},
        {},
        None,
        "key",
        [],
    ],
)
def test_a_key_for_something_else_or_a_weak_one_is_left_out(key: Any) -> None:
    assert algorithms_of(key) == set()
    # And the others are still read.
    assert algorithms_of(key, jwk_of(P384, kid="k")) == {"ES384"}


def test_a_token_without_a_key_id_means_the_only_key_for_its_algorithm() -> None:
    assert algorithms_of(jwk_of(RSA, kid="k"), jwk_of(P256, kid="l"), kid=None) == {"RS256", "PS256", "ES256"}
    assert algorithms_of(jwk_of(RSA), jwk_of(new_key(), kid="l"), jwk_of(P256), kid=None) == {"ES256"}


def test_the_first_key_of_a_name_counts() -> None:
    published = PublishedKeys({"keys": [jwk_of(RSA, kid="k"), jwk_of(new_key(), kid="k")]}, ALL)
    only = PublishedKeys({"keys": [jwk_of(RSA, kid="k")]}, ALL)
    assert published.thumbprints > only.thumbprints or published.thumbprints == only.thumbprints
    first, expected = published.of("k", "RS256"), only.of("k", "RS256")
    assert first is not None
    assert expected is not None
    assert first.thumbprint == expected.thumbprint


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({}, "must be a list"),
        ({"keys": {"k": 1}}, "must be a list"),
        ({"keys": []}, "hold none for the algorithms"),
        ({"keys": [{}] * (KEYS_MAX + 1)}, f"publishes {KEYS_MAX + 1} keys"),
        ({"keys": [jwk_of(P384)]}, "hold none for the algorithms RS256"),
    ],
)
def test_a_key_set_without_a_usable_key_is_a_fault(document: Any, fault: str) -> None:
    with pytest.raises(ProviderFault, match=fault):
        PublishedKeys(document, ("RS256",))
