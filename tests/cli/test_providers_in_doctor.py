"""doctor asks the configured OpenID Connect providers for their keys."""

import json
from collections.abc import Iterator

import pytest

from tests.cli.test_examination import examine
from tests.support.command import Inforce
from tests.support.oidc_provider import OidcProvider, running_provider


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with running_provider() as provider:
        yield provider


def test_a_provider_that_publishes_keys_is_well_and_another_one_is_to_be_mended(
    inforce: Inforce, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inforce("submit", "org:acme", "training.opt_in", "true").code == 0
    assert "oidc" not in examine(inforce)[1]
    table = {"alias": "corp", "issuer": provider.issuer, "audiences": ["inforce"]}
    monkeypatch.setenv("INFORCE_OIDC", json.dumps([table]))
    finding = examine(inforce)[1]["oidc"]
    assert (finding["status"], finding["advice"]) == ("ok", None)
    assert finding["detail"] == "provider corp: it publishes a key for the algorithms of its table"
    provider.behave("wrong issuer")
    code, checks = examine(inforce)
    assert (code, checks["oidc"]["status"]) == (1, "failed")
    assert str(checks["oidc"]["detail"]).startswith("provider corp: its discovery document names another issuer")
    assert "See that this machine reaches it" in str(checks["oidc"]["advice"])
    provider.stop()
    assert str(examine(inforce)[1]["oidc"]["detail"]).endswith("cannot be read: ConnectError")
