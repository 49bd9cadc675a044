"""JSON Web Tokens and keys made by hand (RFC 7515, RFC 7517, RFC 7518), with no code of the JOSE library under test."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Json = Mapping[str, Any]

CURVES: Mapping[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def new_key(kind: str = "RSA", bits: int = 2048) -> PrivateKey:
    """`kind`: RSA, Ed25519, or the name of a curve in a JWK."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, bits)
    return ed25519.Ed25519PrivateKey.generate() if kind == "Ed25519" else ec.generate_private_key(CURVES[kind])


def jwk_of(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """The public key as a JSON Web Key, with further members such as kid."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        rsa_numbers = public.public_numbers()
        n, e = (b64(one.to_bytes((one.bit_length() + 7) // 8, "big")) for one in (rsa_numbers.n, rsa_numbers.e))
        return {"kty": "RSA", "n": n, "e": e, **members}
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw()), **members}
    numbers, size = public.public_numbers(), (public.key_size + 7) // 8
    curve = next(name for name, one in CURVES.items() if one.name == public.curve.name)
    x, y = (b64(one.to_bytes(size, "big")) for one in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": curve, "x": x, "y": y, **members}


def sign(header: Json, claims: Json | bytes, key: PrivateKey | bytes | None) -> str:
    """The compact serialization. `key`: bytes for HMAC, None for no signature. `claims` as bytes: exactly these."""
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return sign_parts(b64(json.dumps(header).encode()), b64(text), str(header.get("alg")), key)


def sign_parts(header: str, claims: str, alg: str, key: PrivateKey | bytes | None) -> str:
    signed = f"{header}.{claims}"
    return f"{signed}.{b64(_signature(signed.encode(), alg, key))}"


def _signature(signed: bytes, alg: str, key: PrivateKey | bytes | None) -> bytes:
    if key is None:
        return b""
    if isinstance(key, bytes):
        return hmac.new(
            key, signed, {"384": hashlib.sha384, "512": hashlib.sha512}.get(alg[2:], hashlib.sha256)
        ).digest()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    digest: hashes.HashAlgorithm = {"384": hashes.SHA384(), "512": hashes.SHA512()}.get(alg[2:], hashes.SHA256())
    if isinstance(key, rsa.RSAPrivateKey):
        salted = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
        return key.sign(signed, salted if alg.startswith("PS") else padding.PKCS1v15(), digest)
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")
