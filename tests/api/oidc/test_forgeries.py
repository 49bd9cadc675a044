"""Forged, expired, misdirected and broken tokens, against a provider in a process of its own: none signs anybody in.

Each case is one change to a token that is accepted, so that nothing but the change is the reason.
"""

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from api.oidc.sign_in import OidcSignIn
from api.oidc.tokens import TOKEN_BYTES_MAX
from tests.api.oidc.conftest import NOW, Clocks, claims_of, issuer_of, outcome, run, signing_in
from tests.support.jwt_signing import b64, jwk_of, new_key, sign, sign_parts
from tests.support.oidc_provider import OidcProvider, running_provider

OURS = "principal:corp/u1"
MINE = new_key()
"""A key of somebody else."""


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with running_provider() as provider:
        yield provider


def outcome_of(provider: OidcProvider, token: bytes | str, **changes: Any) -> str:
    """Of the token, after one that is right was accepted and another time before the next one is."""

    async def main() -> str:
        async with signing_in(issuer_of(provider, **changes)) as sign_in:
            assert await outcome(sign_in, provider.sign(claims_of(provider))) == OURS
            result = await outcome(sign_in, token.encode() if isinstance(token, str) else token)
            if result == OURS:
                return result
            # Refused once more, and nothing of it was kept.
            assert await outcome(sign_in, token.encode() if isinstance(token, str) else token) == result
            assert await outcome(sign_in, provider.sign(claims_of(provider, jti="2"))) == OURS
            return result

    return run(main)


def test_a_token_of_the_provider_signs_in(provider: OidcProvider) -> None:
    assert outcome_of(provider, provider.sign(claims_of(provider))) == OURS


@pytest.mark.parametrize("aud", ["inforce", ["inforce"], ["other", "inforce"], "api://inforce", ["api://inforce", "x"]])
def test_one_of_the_audiences_suffices(provider: OidcProvider, aud: Any) -> None:
    token = provider.sign(claims_of(provider, aud=aud))
    assert outcome_of(provider, token, audiences=["inforce", "api://inforce"]) == OURS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"aud": "other"}, "audience"),
        ({"aud": ["other"]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ""}, "audience"),
        ({"aud": "inforc"}, "audience"),
        ({"aud": "xinforcex"}, "audience"),
        ({"aud": ["inforce", 7]}, "audience"),
        ({"aud": {"inforce": 1}}, "audience"),
        ({"aud": None}, "claims"),
        ({"iss": "http://127.0.0.1:1"}, "issuer"),
        ({"iss": ["a"]}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"exp": None}, "claims"),
        ({"exp": str(NOW + 300)}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": [NOW]}, "claims"),
        ({"exp": 10**20}, "claims"),
        ({"exp": 10**400}, "claims"),
        ({"exp": NOW - 61}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": -(10**30)}, "expired"),
        ({"exp": -1.5e300}, "expired"),
        ({"nbf": NOW + 61}, "not_yet_valid"),
        ({"nbf": 10**400}, "not_yet_valid"),
        ({"nbf": "soon"}, "claims"),
        ({"iat": NOW + 61}, "not_yet_valid"),
        ({"iat": "now"}, "claims"),
        ({"jti": 7}, "claims"),
        ({"sub": None}, "claims"),
        ({"sub": ""}, "subject"),
        ({"sub": 7}, "subject"),
        ({"sub": "u" * 300}, "subject"),
        ({"nonce": "n"}, "type"),
        ({"at_hash": "h"}, "type"),
        ({"c_hash": "h"}, "type"),
        ({"cnf": {"jkt": "t"}}, "type"),
    ],
)
def test_a_claim_that_is_wrong_or_missing_is_refused(provider: OidcProvider, change: Any, reason: str) -> None:
    assert outcome_of(provider, provider.sign(claims_of(provider, **change))) == reason


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"])
def test_access_tokens_have_one_of_these_types(provider: OidcProvider, typ: str | None) -> None:
    assert outcome_of(provider, provider.sign(claims_of(provider), typ=typ)) == OURS


@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "secevent+jwt", "id_token", "", "JWT\n", "application/"])
def test_a_token_of_another_type_is_refused(provider: OidcProvider, typ: str) -> None:
    assert outcome_of(provider, provider.sign(claims_of(provider), typ=typ)) == "type"


def test_the_type_can_be_made_strict(provider: OidcProvider) -> None:
    async def main() -> list[str]:
        async with signing_in(issuer_of(provider, token_types=["at+jwt"])) as sign_in:
            tokens = [provider.sign(claims_of(provider), typ=typ) for typ in ("at+jwt", "JWT", None)]
            return [await outcome(sign_in, token) for token in tokens]

    assert run(main) == [OURS, "type", "type"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, "algorithm"),
        ({"alg": "None"}, "algorithm"),
        ({"alg": "HS256"}, "algorithm"),
        ({"alg": "RS384"}, "algorithm"),
        ({"alg": "ES256K"}, "algorithm"),
        ({"alg": ""}, "algorithm"),
        ({"alg": ["RS256"]}, "malformed"),
        ({"alg": 7}, "malformed"),
        ({"alg": None}, "malformed"),
        ({"typ": 7}, "malformed"),
        ({"typ": {}}, "malformed"),
        # Allowed, but not with this key.
        ({"alg": "ES256"}, "key"),
        ({"kid": "another"}, "key"),
        ({"kid": ""}, "key"),
        ({"kid": "key-1\x00"}, "key"),
        ({"kid": "../../dev/null"}, "key"),
        ({"kid": 7}, "malformed"),
        ({"kid": ["key-1"]}, "malformed"),
        ({"kid": "k" * 257}, "malformed"),
        ({"crit": ["exp"], "exp": 1}, "malformed"),
        ({"crit": []}, "malformed"),
        ({"b64": True}, "malformed"),
        ({"b64": False, "crit": ["b64"]}, "malformed"),
        ({"zip": "DEF", "pad": "x" * 4096}, "malformed"),
    ],
)
def test_a_header_that_is_wrong_is_refused(provider: OidcProvider, header: Any, reason: str) -> None:
    header = {"typ": "JWT", "alg": "RS256", "kid": "key-1"} | header
    header = {name: value for name, value in header.items() if value is not None}
    assert outcome_of(provider, sign(header, claims_of(provider), MINE)) == reason


def test_a_header_may_hold_what_is_not_understood(provider: OidcProvider) -> None:
    assert outcome_of(provider, provider.sign(claims_of(provider), ver="1.0", x5t="abc", cty="json")) == OURS


def published_key(provider: OidcProvider) -> rsa.RSAPublicKey:
    jwk = provider.document()["keys"][-1]
    n, e = (int.from_bytes(_from_b64(jwk[name]), "big") for name in ("n", "e"))
    return rsa.RSAPublicNumbers(e, n).public_key()


def _from_b64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512", "RS256", "none"])
def test_the_public_key_is_no_secret_to_sign_with(provider: OidcProvider, alg: str) -> None:
    key = published_key(provider)
    secrets = [
        *(key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo) for encoding in (Encoding.PEM, Encoding.DER)),
        key.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        json.dumps(provider.document()["keys"][-1]).encode(),
        b"",
    ]
    header = {"typ": "JWT", "alg": alg, "kid": "key-1"}
    for secret in secrets:
        result = outcome_of(provider, sign(header, claims_of(provider), secret))
        assert result == ("signature" if alg == "RS256" else "algorithm")


def test_an_unsigned_token_is_refused_whatever_its_header_says(provider: OidcProvider) -> None:
    for alg, reason in (("none", "algorithm"), ("RS256", "signature"), ("nOnE", "algorithm")):
        token = sign({"typ": "JWT", "alg": alg, "kid": "key-1"}, claims_of(provider), None)
        assert outcome_of(provider, token) == reason


def test_a_key_that_a_token_brings_with_it_is_never_followed(provider: OidcProvider) -> None:
    jwk = jwk_of(MINE, kid="key-1")
    before = provider.hits()
    for member in (
        {"jwk": jwk},
        {"jku": provider.issuer + "/mine"},
        {"x5u": provider.issuer + "/mine"},
        {"x5c": [b64(b"certificate")]},
    ):
        header = {"typ": "JWT", "alg": "RS256", "kid": "key-1", **member}
        assert outcome_of(provider, sign(header, claims_of(provider), MINE)) == "signature"
        # Beside the provider's own signature they do no harm, and are not followed either.
        assert outcome_of(provider, provider.sign(claims_of(provider), **member)) == OURS
    assert set(provider.hits()) == set(before) | {"/.well-known/openid-configuration", "/keys"}


def test_a_key_for_another_use_or_type_verifies_nothing(provider: OidcProvider) -> None:
    curve = new_key("P-256")
    good = provider.document()
    try:
        others = [
            jwk_of(MINE, kid="enc", use="enc"),
            jwk_of(MINE, kid="other alg", alg="PS256"),
            jwk_of(MINE, kid="type") | {"kty": "EC"},
            jwk_of(curve, kid="curve"),
            {"kty": "oct", "kid": "oct", "k": b64(b"secret"), "alg": "HS256"},
        ]
        provider.publish({"keys": [*good["keys"], *others]})
        for kid in ("enc", "other alg", "type", "curve", "oct"):
            header = {"typ": "JWT", "alg": "RS256", "kid": kid}
            assert outcome_of(provider, sign(header, claims_of(provider), MINE)) == "key"
        header = {"typ": "JWT", "alg": "HS256", "kid": "oct"}
        assert outcome_of(provider, sign(header, claims_of(provider), b"secret")) == "algorithm"
    finally:
        provider.publish(good)


def test_members_that_are_there_twice_are_refused(provider: OidcProvider) -> None:
    claims = json.dumps(claims_of(provider)).encode()
    twice = claims[:-1] + b', "sub": "root"}'
    assert outcome_of(provider, sign({"alg": "RS256", "kid": "key-1"}, twice, MINE)) == "malformed"
    header = b64(b'{"alg": "none", "alg": "RS256", "kid": "key-1"}')
    assert outcome_of(provider, sign_parts(header, b64(claims), "RS256", MINE)) == "malformed"


@pytest.mark.parametrize(
    "claims",
    [
        b"",
        b"[]",
        b'"text"',
        b"7",
        b"null",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"iss": NaN}',
        b'{"iss": "\\ud800"}',
        b"[" * 10_000,
        b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
        b'{"a": [' + b"1," * 2_000 + b"1]}",
        b'{"exp": ' + b"9" * 5_000 + b"}",
    ],
)
def test_claims_that_are_no_small_json_object_are_refused(provider: OidcProvider, claims: bytes) -> None:
    header = {"typ": "JWT", "alg": "RS256", "kid": "key-1"}
    assert outcome_of(provider, sign(header, claims, MINE)) == "malformed"
    assert outcome_of(provider, sign_parts(b64(claims), b64(b"{}"), "RS256", MINE)) == "malformed"


def test_a_token_beyond_the_largest_size_is_refused_unread(provider: OidcProvider) -> None:
    fits = _padded(provider, TOKEN_BYTES_MAX)
    assert outcome_of(provider, fits) == OURS
    assert outcome_of(provider, fits + b"A") == "too_large"
    assert outcome_of(provider, b"A" * 60_000) == "too_large"


def _padded(provider: OidcProvider, size: int) -> bytes:
    """A right token of almost this size, then one character more until it has it."""
    filler = (size - len(provider.sign(claims_of(provider, filler="")))) * 3 // 4
    for length in range(filler - 8, filler + 8):
        token = provider.sign(claims_of(provider, filler="x" * length))
        if size - 2 < len(token) <= size:
            return token
    raise AssertionError


@pytest.fixture(scope="module")
def warm(provider: OidcProvider) -> Iterator[Any]:
    """(verify, token): sign-in that has the keys, on one event loop, and a token that it accepts."""
    with asyncio.Runner() as runner:
        context = signing_in(issuer_of(provider))
        sign_in: OidcSignIn = runner.run(context.__aenter__())
        token = provider.sign(claims_of(provider, jti="never used"))
        other = provider.sign(claims_of(provider))
        assert runner.run(outcome(sign_in, other)) == OURS
        yield lambda text: runner.run(outcome(sign_in, text)), token
        runner.run(context.__aexit__(None, None, None))


def test_a_token_cut_anywhere_is_refused(warm: Any) -> None:
    verify, token = warm
    for end in range(len(token)):
        assert verify(token[:end]) in ("malformed", "signature")
        assert verify(token[end + 1 :]) != OURS


@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_token_with_one_byte_changed_is_refused(warm: Any, place: int, byte: int) -> None:
    verify, token = warm
    place %= len(token)
    changed = token[:place] + bytes([byte]) + token[place + 1 :]
    if changed != token:
        assert verify(changed) != OURS


@given(st.binary(max_size=300) | st.text("abcdefAZ09-_.=", max_size=300).map(str.encode))
def test_no_bytes_at_all_break_it(warm: Any, text: bytes) -> None:
    verify, _token = warm
    assert verify(text) in ("malformed", "issuer", "algorithm", "key")


def test_the_end_of_a_base64_part_has_one_spelling(warm: Any) -> None:
    # 256 bytes end in a character of which four bits count.
    verify, token = warm
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelled = alphabet.index(token[-1:])
    for same_bytes in range(spelled + 1, spelled + 16):
        assert verify(token[:-1] + alphabet[same_bytes : same_bytes + 1]) == "signature"
    for added in (b"=", b"==", b"\n", b" ", b".", b"\x00"):
        assert verify(token + added) == "malformed"
    assert verify(b"Bearer " + token) == "malformed"
    assert verify(token) == OURS


SKEWS = (0, 1, 60)


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("fraction", [0, 0.25])
def test_times_hold_to_the_microsecond(provider: OidcProvider, skew: int, fraction: float) -> None:
    at = NOW + fraction
    edge = int(at * 1_000_000)

    async def main() -> None:
        cases: list[tuple[dict[str, Any], int, tuple[str, ...]]] = [
            # exp: good before exp + skew.
            ({"exp": at}, edge + skew * 1_000_000, (OURS, "expired", "expired")),
            # nbf and iat: good from nbf - skew on.
            ({"nbf": at, "iat": None}, edge - skew * 1_000_000, ("not_yet_valid", OURS, OURS)),
            ({"iat": at}, edge - skew * 1_000_000, ("not_yet_valid", OURS, OURS)),
        ]
        for change, moment, expected in cases:
            token = provider.sign(claims_of(provider, **({"iat": NOW - 100} | change)))
            for offset, result in zip((-1, 0, 1), expected, strict=True):
                clocks = Clocks()
                clocks.wall.now_us = moment + offset
                async with signing_in(issuer_of(provider, clock_skew_s=skew), clocks=clocks) as sign_in:
                    assert await outcome(sign_in, token) == result, (change, offset)

    run(main)
