"""A provider's published keys (RFC 7517), and the key for a token. Pure.

A key that is published for something else, has a weak size or holds its private part is left out, as RFC 7517 section 5
asks for keys that are not understood. Proved by tests/api/oidc/test_keys.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from api.oidc.faults import ProviderFault

SigningKey = RSAKey | ECKey | OKPKey

KEYS_MAX: Final = 100
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192
"""A signature with a longer key, or with a large exponent, takes milliseconds to verify."""
RSA_EXPONENT_MAX: Final = 2**32
MODULUS_LENGTH_MIN: Final = 342
"""2048 bits as base64url: joserfc would warn of a shorter key on standard error."""
MEMBER_LENGTH_MAX: Final = 2048
_TYPES: Final = ("RSA", "EC", "OKP")


class PublishedKey(NamedTuple):
    """`thumbprint`: as RFC 7638 defines it; two keys with the same one are the same key."""

    key: SigningKey
    thumbprint: str


class PublishedKeys:
    """The keys of one provider that may verify. `thumbprints`: of all of them."""

    def __init__(self, document: Mapping[str, Any], algorithms: tuple[str, ...]) -> None:
        """Raises `ProviderFault` if there is no key for one of the algorithms."""
        self._keys: dict[tuple[str | None, str], PublishedKey] = {}
        unnamed: dict[str, list[PublishedKey]] = {}
        for key in _signing_keys(document):
            published = PublishedKey(key, key.thumbprint())
            for algorithm in algorithms:
                if not _fits(key, algorithm):
                    continue
                if key.kid is not None:
                    # The first key of a name counts: a name that stands for two keys is the provider's mistake.
                    self._keys.setdefault((key.kid, algorithm), published)
                unnamed.setdefault(algorithm, []).append(published)
        for algorithm, keys in unnamed.items():
            if len(keys) == 1:
                self._keys[None, algorithm] = keys[0]
        if not self._keys:
            raise ProviderFault(f"its keys hold none for the algorithms {', '.join(algorithms)}")
        self.thumbprints = frozenset(key.thumbprint for key in self._keys.values())

    def of(self, kid: str | None, algorithm: str) -> PublishedKey | None:
        """The key that a token's header names; without a name the only one for the algorithm, if there is only one."""
        return self._keys.get((kid, algorithm))


def _signing_keys(document: Mapping[str, Any]) -> Iterator[SigningKey]:
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ProviderFault("its keys are no JSON Web Key Set: the member keys must be a list")
    if len(entries) > KEYS_MAX:
        raise ProviderFault(f"it publishes {len(entries)} keys, and at most {KEYS_MAX} are read")
    for entry in entries:
        if not _may_verify(entry):
            continue
        try:
            key = JWKRegistry.import_key(entry)
            key.check_key_op("verify")
        # joserfc warns of weak keys, which is an error where warnings are.
        except (JoseError, ValueError, TypeError, AttributeError, KeyError, SecurityWarning):
            continue
        if isinstance(key, SigningKey) and _is_strong(key):
            yield key


def _may_verify(entry: Any) -> bool:
    """Whether the entry may be a public key of a sane size. With a private part everybody could sign."""
    if not isinstance(entry, dict) or entry.get("kty") not in _TYPES:
        return False
    numbers = [entry[name] for name in ("n", "e", "x", "y") if name in entry]
    if "d" in entry or not all(isinstance(one, str) and len(one) <= MEMBER_LENGTH_MAX for one in numbers):
        return False
    return entry["kty"] != "RSA" or len(entry.get("n", "")) >= MODULUS_LENGTH_MIN


def _is_strong(key: SigningKey) -> bool:
    raw = key.public_key
    if not isinstance(raw, RSAPublicKey):
        return True
    return RSA_BITS_MIN <= raw.key_size <= RSA_BITS_MAX and raw.public_numbers().e < RSA_EXPONENT_MAX


def _fits(key: SigningKey, algorithm: str) -> bool:
    """Whether type, curve, `use` and `alg` of the key allow the algorithm."""
    if algorithm == "EdDSA" and isinstance(key, OKPKey) and key.curve_name != "Ed25519":
        return False
    try:
        JWSRegistry.algorithms[algorithm].check_key(key)
    except JoseError:
        return False
    return True
