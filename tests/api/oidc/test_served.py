"""`inforce serve` with a provider and rate limits: from the configuration to the wire, and no token in the log."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.api.server_process import new_ledger, talk
from tests.support.oidc_provider import OidcProvider

REPOSITORY = Path(__file__).resolve().parents[3]


def test_a_server_signs_in_by_its_configuration_and_logs_nothing_of_a_token(
    tmp_path: Path, provider: OidcProvider
) -> None:
    file = tmp_path / "inforce.toml"
    file.write_text(
        f"""
        rate_limit = "4/hour"
        sign_in_failures_max = "2/hour"
        [[oidc]]
        alias = "corp"
        issuer = "{provider.issuer}"
        audiences = ["inforce"]
        group_roles = {{ ops = ["operator"] }}
        """
    )
    now = int(time.time())
    right = {"iss": provider.issuer, "sub": "secret-sub", "aud": "inforce", "exp": now + 600, "groups": ["ops"]}
    token, wrong = provider.sign(right).decode(), provider.sign({**right, "aud": "secret-aud"}).decode()
    command = ["serve", "--port", "0", "--db", new_ledger(tmp_path), "--config", str(file), "--log-level", "debug"]
    with subprocess.Popen(
        [sys.executable, "-m", "scripts.main", *command, "--access-log"],
        cwd=REPOSITORY,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rstrip().rpartition(":")[2])

            def ask(authorization: str) -> tuple[int, dict[str, str], bytes]:
                return talk(port, "GET", "/v1/catalog", Authorization=authorization)

            for left in (3, 2):
                status, headers, _ = ask(f"Bearer {token}")
                assert (status, headers["ratelimit"].split(";t=")[0]) == (200, f'"principal";r={left}')
            assert [ask(f"Bearer {wrong}")[0] for _ in range(3)] == [401, 401, 429]
            assert [ask(f"bearer  {token}")[0] for _ in range(3)] == [200, 200, 429]
            body = json.loads(ask(f"Bearer {token}")[2])
            assert body["code"] == "rate_limited"
        finally:
            process.send_signal(signal.SIGTERM)
        out, log = process.communicate()
    assert process.returncode == 0, log
    for secret in (token, wrong, *token.split("."), "secret-sub", "secret-aud"):
        assert secret not in out + log
    assert "GET /v1/catalog" in log


def test_without_providers_and_limits_their_libraries_are_not_imported() -> None:
    code = "import sys; from api.sign_in import *; make_means(SIGN_IN_SETTINGS); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not {"joserfc", "httpx2", "limits"} & set(modules.stdout.split())
