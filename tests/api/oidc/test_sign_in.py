"""Several providers side by side, and the tokens that were verified before."""

from typing import Any

import pytest

from api.oidc import tokens
from api.oidc.sign_in import OidcSignIn
from ledger.errors import BadInput
from ledger.roles import Role
from tests.api.oidc.conftest import NOW, Clocks, claims_of, issuer_of, outcome, run, signing_in
from tests.support.oidc_provider import OidcProvider, running_provider


class Counted:
    """Counts the signatures that are checked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.signatures = 0
        real = tokens._check_signature

        def check(*arguments: Any) -> None:
            self.signatures += 1
            real(*arguments)

        monkeypatch.setattr(tokens, "_check_signature", check)


def test_a_token_is_verified_once_and_then_known_until_it_expires(
    provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)

    async def main() -> None:
        clocks = Clocks()
        roles = {"ops": ["operator"]}
        async with signing_in(issuer_of(provider, group_roles=roles, clock_skew_s=5), clocks=clocks) as sign_in:
            token = provider.sign(claims_of(provider, groups=["ops"]))
            assert sign_in.remembered(token) is None
            verified = await sign_in.verify(token)
            assert (verified.principal, verified.alias) == ("principal:corp/u1", "corp")
            assert verified.roles == (Role("operator"),)
            assert verified.expires_us == (NOW + 305) * 1_000_000
            for _ in range(3):
                assert await sign_in.verify(token) is verified
                assert sign_in.remembered(token) is verified
            assert counted.signatures == 1
            clocks.wall.now_us = verified.expires_us - 1
            assert sign_in.remembered(token) is verified
            clocks.wall.now_us += 1
            assert sign_in.remembered(token) is None
            assert await outcome(sign_in, token) == "expired"
            # Another token is another one, down to the last character.
            assert sign_in.remembered(token[:-1]) is None

    run(main)


def test_a_refused_token_is_not_kept(provider: OidcProvider) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            token = provider.sign(claims_of(provider, nbf=NOW + 100))
            assert await outcome(sign_in, token) == "not_yet_valid"
            assert sign_in.remembered(token) is None
            clocks.pass_(40)
            assert await outcome(sign_in, token) == "principal:corp/u1"

    run(main)


def test_the_number_of_known_tokens_is_bounded(provider: OidcProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)

    async def main() -> None:
        async with signing_in(issuer_of(provider), verified_max=3) as sign_in:
            made = [provider.sign(claims_of(provider, sub=f"u{number}")) for number in range(5)]
            for token in made:
                await sign_in.verify(token)
            assert [sign_in.remembered(token) is not None for token in made] == [False, False, True, True, True]
            # A forgotten one is verified again.
            assert await outcome(sign_in, made[0]) == "principal:corp/u0"
            assert counted.signatures == 6

    run(main)


def test_each_provider_vouches_for_its_own_tokens_only(provider: OidcProvider) -> None:
    with running_provider() as second:

        async def main() -> None:
            async with signing_in(
                issuer_of(provider), issuer_of(second, alias="partner", audiences=["elsewhere"], algorithms=["RS256"])
            ) as sign_in:
                assert await outcome(sign_in, provider.sign(claims_of(provider))) == "principal:corp/u1"
                theirs = claims_of(second, aud="elsewhere")
                assert await outcome(sign_in, second.sign(theirs)) == "principal:partner/u1"
                # The same key id, another provider: signed by one in the name of the other.
                assert await outcome(sign_in, second.sign(claims_of(provider))) == "signature"
                assert await outcome(sign_in, provider.sign(theirs)) == "signature"
                # The audience of one is none of the other's.
                assert await outcome(sign_in, second.sign(claims_of(second))) == "audience"
                assert await outcome(sign_in, provider.sign(claims_of(provider, aud="elsewhere"))) == "audience"

        run(main)


def test_one_provider_that_is_down_stops_no_other(provider: OidcProvider) -> None:
    with running_provider() as second:

        async def main() -> None:
            async with signing_in(issuer_of(provider), issuer_of(second, alias="partner")) as sign_in:
                second.stop()
                assert await outcome(sign_in, second.sign(claims_of(second))) == "unavailable"
                assert await outcome(sign_in, provider.sign(claims_of(provider))) == "principal:corp/u1"
                assert [(one.alias, one.keys, one.fault is None) for one in await sign_in.fetch_keys()] == [
                    ("corp", 1, True),
                    ("partner", 0, False),
                ]

        run(main)


def test_without_providers_no_token_signs_in(provider: OidcProvider) -> None:
    async def main() -> None:
        async with signing_in() as sign_in:
            assert await outcome(sign_in, provider.sign(claims_of(provider))) == "issuer"

    run(main)


def test_issuers_that_cannot_be_told_apart_are_refused(provider: OidcProvider) -> None:
    with pytest.raises(BadInput, match="two OIDC issuers have the alias corp"):
        OidcSignIn([issuer_of(provider), issuer_of(provider, issuer="https://b.example.com")])
