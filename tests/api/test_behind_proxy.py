"""Two servers on one database behind the proxy of scripts/deploy/, over TLS: writes, reads, the feed, an end."""

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from ledger.opening import open_ledger
from tests.api.access.world import make_token
from tests.api.client import GENESIS, changed
from tests.support.waiting import GIVE_UP_S, until

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="this machine has no nginx")

NAME = "inforce.example.com"
BEFORE = GENESIS + 3
"""The events of a new ledger, and those of the operator's token."""
DEPLOY = Path(__file__).parents[2] / "scripts" / "deploy"
SERVE = f"""
import sys
from api.network import NetworkSettings
from api.server import ServerSettings, serve

network = NetworkSettings(public_url="https://{NAME}", trusted_proxies=("127.0.0.1",), signs_in=True)
serve(sys.argv[1], port=0, settings=ServerSettings(network=network))
"""


@contextmanager
def serving(url: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen([sys.executable, "-c", SERVE, url], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().rsplit(":", 1)[1])
    finally:
        process.kill()
        process.communicate()


def proxy_configuration(folder: Path, port: int, servers: list[int]) -> str:
    """That of the deployment, with these servers and this port, and as a single process of any user."""
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    upstream = "upstream inforce { " + " ".join(f"server 127.0.0.1:{one};" for one in servers) + " }"
    for pattern, replacement in (
        (r"  resolver .*\n", f"  {upstream}\n"),
        (r"      set \$servers .*\n", ""),
        (r"http://\$servers:8000", "http://inforce"),
        (r"listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
    ):
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"  {kind}_temp_path {folder}/bodies;\n" for kind in kinds)
    text = text.replace("http {\n", f"http {{\n{temporary}", 1)
    return f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n{text}"


class Deployment(NamedTuple):
    processes: list[subprocess.Popen[str]]
    ports: list[int]
    proxy_port: int
    trust: ssl.SSLContext
    secret: str

    def headers(self, host: str = NAME) -> dict[str, str]:
        return {"Host": host, "Authorization": f"Bearer {self.secret}"}

    def ask(self, method: str, path: str, body: object = None, host: str = NAME) -> tuple[int, dict[str, str], bytes]:
        with self.connected(host) as connection:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, self.headers(host) | {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    @contextmanager
    def connected(self, host: str = NAME) -> Iterator[http.client.HTTPConnection]:
        with socket.create_connection(("127.0.0.1", self.proxy_port), timeout=GIVE_UP_S) as bare:
            connection = http.client.HTTPConnection(host)
            connection.sock = self.trust.wrap_socket(bare, server_hostname=NAME)
            try:
                yield connection
            finally:
                connection.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def deployment(postgres_url: str, tmp_path: Path) -> Iterator[Deployment]:
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (tmp_path / "tls" / "key.pem").write_bytes(issued.private_key_pem.bytes())
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open_ledger(postgres_url, create=True) as ledger:
        secret = make_token(ledger, "operator", ("operator",))[1]
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(postgres_url)) for _ in range(2)]
        configuration = proxy_configuration(tmp_path, port, [one for _, one in servers])
        (tmp_path / "nginx.conf").write_text(configuration, encoding="utf-8")
        command = ["nginx", "-p", str(tmp_path), "-c", "nginx.conf", "-e", str(tmp_path / "error.log")]
        proxy = stack.enter_context(subprocess.Popen(command))
        stack.callback(proxy.kill)
        until(lambda: listens(port))
        yield Deployment([process for process, _ in servers], [one for _, one in servers], port, trust, secret)


def test_two_servers_answer_as_one_and_one_goes_on_alone(deployment: Deployment) -> None:
    for number in range(1, 7):
        status, headers, body = deployment.ask("POST", "/v1/events", changed("org:acme", "training.opt_in", True))
        assert (status, json.loads(body)["position"]) == (201, BEFORE + number)
        assert headers["strict-transport-security"] == "max-age=31536000"
        # Whichever server is next sees it.
        status, _, body = deployment.ask("GET", "/v1/subjects/org:acme/state")
        assert (status, json.loads(body)["position"]) == (200, BEFORE + number)
    # The proxy shared the requests out.
    counts = []
    for port in deployment.ports:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GIVE_UP_S)
        connection.request("GET", "/metrics", headers={"Host": "localhost"})
        text = connection.getresponse().read().decode()
        connection.close()
        counts.append(sum(map(float, re.findall(r"^inforce_http_requests_total\{.*\} (.*)$", text, re.M))))
    assert min(counts) >= 2
    assert sum(counts) == 12
    assert deployment.ask("GET", "/metrics")[0] == 404
    assert deployment.ask("GET", "/v1/catalog", host="other.example.com")[0] == 421
    deployment.processes[0].kill()
    deployment.processes[0].wait(GIVE_UP_S)
    for _ in range(4):
        assert deployment.ask("GET", "/v1/subjects/org:acme/state")[0] == 200


def test_the_feed_flows_through_the_proxy_without_a_wait(deployment: Deployment) -> None:
    with deployment.connected() as connection:
        connection.request("GET", f"/v1/events/stream?after={BEFORE}", headers=deployment.headers())
        stream = connection.getresponse()
        assert stream.headers["content-type"].startswith("text/event-stream")
        began = time.monotonic()
        assert deployment.ask("POST", "/v1/events", changed("org:acme", "training.opt_in", True))[0] == 201
        while not stream.readline().startswith(b"id:"):
            assert time.monotonic() - began < GIVE_UP_S
