"""Tokens of a provider at the gate: roles of the ledger and of groups, the actor of events, refusals, rate limits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.oidc import tokens
from api.oidc.issuer import OidcIssuer
from api.rate_limits.limit import RateLimit
from api.sign_in import SignInSettings
from ledger.append.submissions import parse_submissions
from ledger.opening import open_ledger
from ledger.store import Ledger
from tests.api.access.world import change, make_token
from tests.api.client import changed, problem
from tests.support.ledgers import OPERATOR
from tests.support.oidc_provider import OidcProvider

GROUPS = {"ops": ("operator",), "acme": ("member@org:acme",)}


class SignInServer(NamedTuple):
    """A server that accepts tokens of the provider. `secret`: a token of inforce for an operator."""

    client: TestClient
    ledger: Ledger
    provider: OidcProvider
    secret: str

    def jwt(self, sub: str = "u1", *groups: str, **claims: Any) -> str:
        now = int(time.time())
        right = {"iss": self.provider.issuer, "sub": sub, "aud": "inforce", "iat": now, "exp": now + 600}
        return self.provider.sign({**right, "groups": list(groups), **claims}).decode()

    def send(self, token: str | None, method: str, path: str, **more: Any) -> httpx2.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.client.request(method, path, headers=headers, **more)

    def state(self, token: str | None, subject: str = "org:acme") -> httpx2.Response:
        return self.send(token, "GET", f"/v1/subjects/{subject}/state")

    def grant(self, subject: str, setting: str, value: Any) -> None:
        answer = self.send(self.secret, "POST", "/v1/events", json=changed(subject, setting, value))
        assert answer.status_code == 201, answer.text

    def sign_ins(self, outcome: str) -> int:
        text = self.client.get("/metrics").text
        line = next(
            line for line in text.splitlines() if line.startswith(f'inforce_sign_ins_total{{outcome="{outcome}"}}')
        )
        return int(float(line.rsplit(" ", 1)[1]))


@contextmanager
def signing_server(url: str, provider: OidcProvider, **limits: RateLimit) -> Iterator[SignInServer]:
    with open_ledger(url, create=True) as ledger:
        ledger.submit(parse_submissions({"events": [change("org:acme", "training.opt_in", True)]}), actor=OPERATOR)
        _, secret = make_token(ledger, "operator", ("operator",))
    issuer = OidcIssuer(
        alias="corp", issuer=provider.issuer, audiences=("inforce",), groups_claim="groups", group_roles=GROUPS
    )
    app = create_app(url, sign_in_settings=SignInSettings((issuer,), **limits))
    with TestClient(app) as client:
        yield SignInServer(client, app.state.service.ledger, provider, secret)


@pytest.fixture
def server(database_url: str, provider: OidcProvider) -> Iterator[SignInServer]:
    with signing_server(database_url, provider) as one:
        yield one


def test_the_roles_of_a_provider_s_principal_are_those_of_the_ledger(server: SignInServer) -> None:
    one = server
    token = one.jwt("ana|1")
    # Known, and without a role.
    assert "principal:corp/ana~7C1 has no role" in problem(one.state(token), "forbidden")["detail"]
    one.grant("principal:corp/ana~7C1", "access.roles", ["auditor"])
    assert one.state(token).status_code == 200
    one.grant("principal:corp/ana~7C1", "access.roles", [])
    assert one.state(token).status_code == 403
    one.grant("principal:corp/ana~7C1", "access.roles", ["member@org:acme"])
    assert one.state(token).status_code == 200
    assert problem(one.state(token, "org:other"), "not_found")
    # Another sub of the provider has nothing of it.
    assert one.state(one.jwt("ana")).status_code == 403
    assert one.sign_ins("oidc") == 6


def test_groups_give_roles_beside_those_of_the_ledger(server: SignInServer) -> None:
    one = server
    assert one.state(one.jwt("u1", "acme")).status_code == 200
    assert problem(one.state(one.jwt("u1", "acme"), "org:other"), "not_found")
    assert one.send(one.jwt("u1", "acme"), "GET", "/v1/audits").status_code == 403
    assert one.send(one.jwt("u1", "acme", "ops"), "GET", "/v1/audits").status_code == 200
    assert one.send(one.jwt("u1", "operator", "Ops"), "GET", "/v1/audits").status_code == 403
    one.grant("principal:corp/u1", "access.roles", ["auditor", "member@org:acme"])
    assert one.send(one.jwt("u1", "acme"), "GET", "/v1/audits").status_code == 200


def test_a_disabled_principal_signs_in_neither_by_the_ledger_nor_by_a_group(server: SignInServer) -> None:
    one = server
    token = one.jwt("u1", "ops")
    assert one.state(token).status_code == 200
    one.grant("principal:corp/u1", "access.disabled", True)
    for refused in (one.state(token), one.state(one.jwt("u1", "ops"))):
        assert problem(refused, "not_signed_in")["detail"] == "the principal of the token is disabled"
    assert one.sign_ins("disabled") == 2
    one.grant("principal:corp/u1", "access.disabled", False)
    assert one.state(token).status_code == 200


def test_the_actor_of_an_event_is_the_provider_s_principal(server: SignInServer) -> None:
    one = server
    token = one.jwt("ana@example.com", "ops")
    answer = one.send(token, "POST", "/v1/events", json=changed("org:acme", "training.opt_in", False))
    assert answer.status_code == 201, answer.text
    event = one.send(token, "GET", f"/v1/events/{answer.json()['receipts'][0]['event_id']}").json()
    assert event["data"]["actor"] == "principal:corp/ana@example.com"


def test_a_refused_token_gets_401_and_says_why(server: SignInServer) -> None:
    one = server
    for token, words, outcome in (
        (one.jwt(exp=1_000_000_000), "the token has expired: its exp is 2001-09-09T01:46:40.000000Z", "expired"),
        (one.jwt(aud="another"), "the token's aud names none of the audiences of this server", "invalid"),
        (one.jwt()[:-5], "the token's signature is not that of its issuer", "invalid"),
        ("not.a", "the token is cut off or no JSON Web Token", "invalid"),
    ):
        before = one.sign_ins(outcome)
        refused = one.state(token)
        assert words in problem(refused, "not_signed_in")["detail"]
        assert refused.headers["www-authenticate"] == 'Bearer realm="inforce", error="invalid_token"'
        assert one.sign_ins(outcome) == before + 1
        assert token not in refused.text
    # A token of inforce is no matter for the provider.
    assert problem(one.state("ift_" + "A" * 43), "not_signed_in")["detail"].startswith("the token is unknown")
    assert one.state(one.secret).status_code == 200


def test_without_providers_a_jwt_is_an_unknown_token(tmp_path: Any, provider: OidcProvider) -> None:
    with signing_server(f"sqlite:///{tmp_path}/ledger.db", provider) as one:
        token = one.jwt("u1", "ops")
    with TestClient(create_app(f"sqlite:///{tmp_path}/ledger.db")) as client:
        refused = client.get("/v1/subjects/org:acme/state", headers={"Authorization": f"Bearer {token}"})
        assert problem(refused, "not_signed_in")["detail"].startswith("the token is unknown")


def test_a_provider_that_is_down_is_no_fault_of_the_caller(tmp_path: Any, provider: OidcProvider) -> None:
    provider.stop()
    with signing_server(f"sqlite:///{tmp_path}/ledger.db", provider, failures=RateLimit(1, 3600)) as one:
        token = one.jwt("u1", "ops")
        for _ in range(3):
            refused = one.state(token)
            assert "the keys of the provider corp cannot be read" in problem(refused, "sign_in_unavailable")["detail"]
            assert refused.headers["retry-after"] == "5"
        assert one.sign_ins("keys_unavailable") == 3
        assert one.state(one.secret).status_code == 200


def test_each_principal_has_its_requests_and_every_answer_says_what_is_left(
    tmp_path: Any, provider: OidcProvider
) -> None:
    with signing_server(f"sqlite:///{tmp_path}/ledger.db", provider, requests=RateLimit(3, 3600)) as one:
        ana, ben = one.jwt("ana", "ops"), one.jwt("ben", "ops")
        answers = [one.state(ana), one.state(ana, "org:"), one.state(ana, "org:nobody"), one.state(ana)]
        assert [answer.status_code for answer in answers] == [200, 422, 404, 429]
        for left, answer in zip((2, 1, 0, 0), answers, strict=True):
            assert answer.headers["ratelimit-policy"] == '"principal";q=3;w=3600'
            assert answer.headers["ratelimit"].startswith(f'"principal";r={left};t=')
        refused = problem(answers[-1], "rate_limited")
        seconds = int(answers[-1].headers["retry-after"])
        assert 0 < seconds <= 3600
        assert answers[-1].headers["ratelimit"] == f'"principal";r=0;t={seconds}'
        assert f"principal:corp/ana has sent as many requests as it may; retry after {seconds} s" == refused["detail"]
        # Another token of the same principal changes nothing; another principal has its own.
        assert one.state(one.jwt("ana", "ops")).status_code == 429
        assert one.state(ben).status_code == 200
        assert one.state(one.secret).status_code == 200
        # Nothing is recorded beyond the limit, and open routes have none.
        body = changed("org:acme", "training.opt_in", False)
        head = one.ledger.head()
        assert one.send(ana, "POST", "/v1/events", json=body).status_code == 429
        assert one.ledger.head() == head
        for path in ("/healthz", "/readyz", "/metrics", "/problems"):
            answer = one.send(ana, "GET", path)
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers


def test_a_refusal_for_lack_of_a_right_counts_too(tmp_path: Any, provider: OidcProvider) -> None:
    with signing_server(f"sqlite:///{tmp_path}/ledger.db", provider, requests=RateLimit(2, 3600)) as one:
        token = one.jwt("ana")
        answers = [one.state(token) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [403, 403, 429]
        assert answers[0].headers["ratelimit"].startswith('"principal";r=1;t=')


class Signatures:
    """Counts the signatures that are checked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = tokens._check_signature

        def check(*arguments: Any) -> None:
            self.count += 1
            real(*arguments)

        monkeypatch.setattr(tokens, "_check_signature", check)


def test_an_address_with_too_many_failures_costs_no_more_signatures_and_shuts_out_no_known_token(
    tmp_path: Any, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with signing_server(f"sqlite:///{tmp_path}/ledger.db", provider, failures=RateLimit(3, 3600)) as one:
        signatures = Signatures(monkeypatch)
        known, fresh = one.jwt("ana", "ops"), one.jwt("ben", "ops")
        assert one.state(known).status_code == 200
        # No token at all is no attempt.
        for _ in range(5):
            assert one.state(None).status_code == 401
        wrong = [one.jwt(aud="another", jti=str(number)) for number in range(4)]
        assert [one.state(token).status_code for token in wrong[:2]] == [401, 401]
        assert one.state("ift_" + "A" * 43).status_code == 401
        assert signatures.count == 3
        refused = one.state(wrong[3])
        assert problem(refused, "rate_limited")["detail"].startswith("too many tokens that were refused")
        assert refused.headers["ratelimit-policy"] == '"sign-in-failures";q=3;w=3600'
        assert refused.headers["ratelimit"].startswith('"sign-in-failures";r=0;t=')
        assert int(refused.headers["retry-after"]) > 0
        assert one.state("ift_" + "B" * 43).status_code == 429
        assert one.state(fresh).status_code == 429
        assert signatures.count == 3
        assert one.sign_ins("rate_limited") == 3
        # Those that hold are served.
        assert one.state(known).status_code == 200
        assert one.state(one.secret).status_code == 200


def test_a_server_without_sign_in_limits_nobody(tmp_path: Any, provider: OidcProvider) -> None:
    settings = SignInSettings(requests=RateLimit(1, 3600), failures=RateLimit(1, 3600))
    app = create_app(f"sqlite:///{tmp_path}/ledger.db", sign_in=False, sign_in_settings=settings)
    with TestClient(app) as client:
        for _ in range(3):
            answer = client.get("/v1/catalog", headers={"Authorization": "Bearer nonsense"})
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers
