"""The keys of a provider: rotated, withdrawn, down, slow, lying. A flood of unknown keys makes no flood of fetches."""

import asyncio
import logging
from typing import Any

import pytest

from api.oidc.documents import DOCUMENT_BYTES_MAX
from api.oidc.provider import COOL_DOWN_S, FRESH_S, RETRY_S, STALE_S, WAITERS_MAX
from tests.api.oidc.conftest import Clocks, claims_of, issuer_of, outcome, run, signing_in
from tests.support.jwt_signing import new_key, sign
from tests.support.oidc_provider import DISCOVERY, JWKS, OidcProvider
from tests.support.waiting import GIVE_UP_S

OURS = "principal:corp/u1"
MINE = new_key()


def forged(provider: OidcProvider, kid: str) -> bytes:
    return sign({"typ": "JWT", "alg": "RS256", "kid": kid}, claims_of(provider), MINE).encode()


async def settled() -> None:
    """Waits for refreshes in the background."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("oidc-keys")))


def test_a_rotated_key_is_found_at_the_first_token_that_it_signs(provider: OidcProvider) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            assert await outcome(sign_in, provider.sign(claims_of(provider))) == OURS
            provider.rotate(keep=1)
            clocks.pass_(COOL_DOWN_S)
            assert await outcome(sign_in, provider.sign(claims_of(provider, jti="2"))) == OURS
            # Both keys verify now, without a further fetch.
            assert await outcome(sign_in, provider.sign(claims_of(provider, jti="3"), kid="key-1")) == OURS
            assert provider.hits() == {DISCOVERY: 2, JWKS: 2}

    run(main)


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519"])
def test_a_provider_may_change_the_type_of_its_key(provider: OidcProvider, kind: str) -> None:
    async def main() -> None:
        async with signing_in(issuer_of(provider, algorithms=["RS256", "ES256", "EdDSA"])) as sign_in:
            provider.rotate(kind)
            assert await outcome(sign_in, provider.sign(claims_of(provider))) == OURS

    run(main)


def test_a_withdrawn_key_verifies_nothing_from_the_next_refresh_on(provider: OidcProvider) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            token = provider.sign(claims_of(provider, exp=2_000_000_000))
            assert await outcome(sign_in, token) == OURS
            provider.rotate(keep=0)
            clocks.pass_(FRESH_S - 0.001)
            assert sign_in.remembered(token) is not None
            await settled()
            assert provider.hits()[JWKS] == 1
            clocks.pass_(0.001)
            # It renews in the background, so this use still has the old keys.
            assert sign_in.remembered(token) is not None
            await settled()
            assert sign_in.remembered(token) is None
            assert await outcome(sign_in, token) == "key"

    run(main)


def test_a_flood_of_unknown_keys_makes_one_fetch_in_each_cool_down(provider: OidcProvider) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            assert await outcome(sign_in, provider.sign(claims_of(provider))) == OURS
            for fetches in (1, 2, 3):
                flood = [outcome(sign_in, forged(provider, f"invented-{number}")) for number in range(50)]
                assert set(await asyncio.gather(*flood)) == {"key"}
                assert provider.hits()[JWKS] == fetches
                clocks.pass_(COOL_DOWN_S - 0.001)
                assert await outcome(sign_in, forged(provider, "another")) == "key"
                assert provider.hits()[JWKS] == fetches
                clocks.pass_(0.001)

    run(main)


def test_those_who_wait_for_keys_share_one_fetch_and_only_some_may_wait(provider: OidcProvider) -> None:
    async def main() -> None:
        provider.behave("silent")
        async with signing_in(issuer_of(provider)) as sign_in:
            token = provider.sign(claims_of(provider))
            waiting = [asyncio.create_task(outcome(sign_in, token)) for _ in range(WAITERS_MAX)]
            await asyncio.sleep(0)
            # One more is turned away at once, although the provider never answers.
            assert await outcome(sign_in, token) == "unavailable"
            # One that hangs up makes room, and ends nothing for the others.
            waiting[0].cancel()
            await asyncio.sleep(0)
            waiting.append(asyncio.create_task(outcome(sign_in, token)))
            await asyncio.sleep(0)
            assert not waiting[1].done()
            assert not waiting[-1].done()
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        assert provider.hits() in ({}, {DISCOVERY: 1})

    run(main)


def test_while_the_provider_is_down_its_last_keys_serve_for_a_bounded_time(provider: OidcProvider) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            forever = 2_000_000_000
            known = provider.sign(claims_of(provider, exp=forever))
            assert await outcome(sign_in, known) == OURS
            provider.stop()
            clocks.pass_(FRESH_S)
            await outcome(sign_in, known)
            await settled()
            (status,) = sign_in.status()
            assert (status.keys, status.age_s) == (1, FRESH_S)
            assert status.fault == f"{DISCOVERY} cannot be read: ConnectError"
            clocks.pass_(STALE_S - FRESH_S - 0.001)
            # Both a token that was verified before and a new one.
            assert await outcome(sign_in, known) == OURS
            assert await outcome(sign_in, provider.sign(claims_of(provider, jti="2", exp=forever))) == OURS
            # An unknown key may be a new one, which cannot be known now.
            assert await outcome(sign_in, forged(provider, "unknown")) == "unavailable"
            await settled()
            clocks.pass_(0.001)
            assert sign_in.remembered(known) is None
            assert await outcome(sign_in, known) == "unavailable"
            provider.start()
            # Not at once: it asks again only after a pause.
            assert await outcome(sign_in, known) == "unavailable"
            clocks.pass_(RETRY_S)
            assert await outcome(sign_in, known) == OURS
            assert sign_in.status()[0].fault is None

    run(main)


def test_a_provider_that_is_down_at_the_start_is_asked_again_after_a_pause(provider: OidcProvider) -> None:
    async def main() -> None:
        clocks = Clocks()
        token = provider.sign(claims_of(provider))
        provider.stop()
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            (status,) = await sign_in.fetch_keys()
            assert status == ("corp", 0, None, f"{DISCOVERY} cannot be read: ConnectError")
            flood = [outcome(sign_in, token) for _ in range(50)]
            assert set(await asyncio.gather(*flood)) == {"unavailable"}
            provider.start()
            clocks.pass_(RETRY_S - 0.001)
            assert await outcome(sign_in, token) == "unavailable"
            assert provider.hits() == {}
            clocks.pass_(0.001)
            assert await outcome(sign_in, token) == OURS

    run(main)


SLOW = ("silent", "dripping head", "dripping body")
LYING = {
    "wrong issuer": "its discovery document names another issuer; the configured one must be its exact text",
    "bad jwks_uri": "the jwks_uri of its discovery document cannot be used: keys come over https; http is for",
    "redirecting": f"{DISCOVERY} redirects, and no redirect is followed; configure the URL that it leads to",
    "failing": f"{DISCOVERY} is answered with 500 instead of 200",
    "compressing": f"{DISCOVERY} is answered compressed, although identity was asked for",
    "huge": f"{JWKS} has more than {DOCUMENT_BYTES_MAX} bytes",
    "not json": f"{JWKS} is not JSON: Expecting value",
}


@pytest.mark.parametrize("manner", SLOW)
def test_a_slow_provider_is_given_up(provider: OidcProvider, manner: str) -> None:
    assert fault_of(provider, manner, seconds_max=0.5) == "it did not answer within 0.5 s"


@pytest.mark.parametrize("manner", LYING)
def test_a_lying_provider_is_not_believed(provider: OidcProvider, manner: str) -> None:
    assert (fault_of(provider, manner) or "").startswith(LYING[manner])
    assert "/elsewhere" not in provider.hits()


def fault_of(provider: OidcProvider, manner: str, seconds_max: float = GIVE_UP_S) -> str | None:
    """The fault at a start with this provider. Then it is honest again, and signs in."""

    async def main() -> str | None:
        clocks = Clocks()
        token = provider.sign(claims_of(provider))
        async with signing_in(issuer_of(provider), clocks=clocks, seconds_max=seconds_max) as sign_in:
            provider.behave(manner)
            assert await outcome(sign_in, token) == "unavailable"
            fault: str | None = sign_in.status()[0].fault
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            provider.behave("honest")
            assert await outcome(sign_in, token) == OURS
            # And the other way round: what it serves now does not take away the keys that it had.
            provider.behave(manner)
            clocks.pass_(FRESH_S)
            assert await outcome(sign_in, provider.sign(claims_of(provider, exp=2_000_000_000))) == OURS
        return fault

    return run(main)


@pytest.mark.parametrize("document", [[], {"keys": []}, {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, {"keys": "x"}])
def test_a_key_set_without_keys_does_not_replace_one(provider: OidcProvider, document: Any) -> None:
    async def main() -> None:
        clocks = Clocks()
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            token = provider.sign(claims_of(provider, exp=2_000_000_000))
            assert await outcome(sign_in, token) == OURS
            provider.publish(document)
            clocks.pass_(FRESH_S)
            assert await outcome(sign_in, token) == OURS
            await settled()
            assert await outcome(sign_in, token) == OURS
            assert sign_in.status()[0].fault is not None

    run(main)


def test_a_configured_url_of_the_keys_needs_no_discovery(provider: OidcProvider) -> None:
    async def main() -> None:
        issuer = issuer_of(provider, issuer="https://login.example.com", jwks_url=provider.issuer + JWKS)
        async with signing_in(issuer) as sign_in:
            assert await outcome(sign_in, provider.sign(claims_of(provider, iss=issuer.issuer))) == OURS
        assert provider.hits() == {JWKS: 1}

    run(main)


def test_a_provider_elsewhere_cannot_lead_to_this_machine(provider: OidcProvider, monkeypatch: Any) -> None:
    from api.oidc import documents

    async def discovered(_self: Any, _url: str) -> dict[str, Any]:
        return {"issuer": "https://login.example.com", "jwks_uri": "https://127.0.0.1/keys"}

    monkeypatch.setattr(documents.DocumentFetcher, "_fetch", discovered)

    async def main() -> None:
        async with signing_in(issuer_of(provider, issuer="https://login.example.com")) as sign_in:
            (status,) = await sign_in.fetch_keys()
            assert status.fault == "the jwks_uri of its discovery document leads to this machine"

    run(main)


def test_the_log_names_the_fault_once_and_the_end_of_it(
    provider: OidcProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "inforce.api")

    async def main() -> None:
        clocks = Clocks()
        token = provider.sign(claims_of(provider, sub="secret-sub"))
        provider.behave("failing")
        async with signing_in(issuer_of(provider), clocks=clocks) as sign_in:
            for _ in range(3):
                assert await outcome(sign_in, token) == "unavailable"
                clocks.pass_(RETRY_S)
            provider.behave("honest")
            assert await outcome(sign_in, token) == "principal:corp/secret-sub"

    run(main)
    assert [record.getMessage() for record in caplog.records if record.name == "inforce.api"] == [
        f"OIDC provider corp: {DISCOVERY} is answered with 500 instead of 200",
        "OIDC provider corp: its keys can be read again",
    ]
    assert "secret-sub" not in caplog.text
