"""Where the server listens: wrong combinations are refused, TLS by file, host names, headers of security."""

import http.client
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from starlette.testclient import TestClient

from api.app import create_app
from api.http.forwarded import TrustedProxies
from api.network import NetworkSettings, plan, public_host
from api.server import ServerSettings, serve
from ledger.errors import BadInput
from tests.support.command import run
from tests.support.waiting import GIVE_UP_S

NAME = "inforce.example.com"
ANY = ".".join("0000")
AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate with its chain, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    issued = AUTHORITY.issue_cert(NAME, "localhost", "127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    key.chmod(0o600)
    return cert, key


def remote(**more: object) -> NetworkSettings:
    return NetworkSettings(**{"host": ANY, "signs_in": True, "public_url": f"https://{NAME}", **more})  # type: ignore[arg-type]  # each case gives its own


def test_loopback_has_many_names() -> None:
    for host, address in (("localhost", "127.0.0.1"), ("127.8.9.10", "127.8.9.10"), ("::1", "::1")):
        listening = plan(NetworkSettings(host, signs_in=False))
        assert (listening.address, listening.is_loopback, listening.is_https) == (address, True, False)
        assert listening.hosts >= {"localhost", "127.0.0.1", "[::1]"}
    assert plan(NetworkSettings("::1", signs_in=False)).url(8000) == "http://[::1]:8000"


@pytest.mark.parametrize("host", [ANY, "::", "192.168.1.10", "10.0.0.1", "::ffff:127.0.0.1"])
def test_without_sign_in_the_server_is_for_this_machine_only(host: str, files: tuple[Path, Path]) -> None:
    with pytest.raises(BadInput, match="without authentication the server listens on this machine only"):
        plan(NetworkSettings(host, *files, public_url=f"https://{NAME}", trusted_proxies=("10.0.0.1",), signs_in=False))


@pytest.mark.parametrize(
    "settings",
    [{"public_url": f"https://{NAME}"}, {"allowed_hosts": (NAME,)}, {"trusted_proxies": ("127.0.0.1",)}],
)
def test_without_sign_in_no_other_name_and_no_proxy_is_served(settings: dict[str, object]) -> None:
    option = f"--{next(iter(settings)).replace('_', '-')}"
    with pytest.raises(BadInput, match=f"for this machine only; leave {option} out"):
        plan(NetworkSettings(**settings, signs_in=False))  # type: ignore[arg-type]  # each case gives its own


def test_on_a_network_callers_use_tls_of_the_server_or_of_a_trusted_proxy(files: tuple[Path, Path]) -> None:
    with pytest.raises(BadInput, match="so it needs TLS"):
        plan(remote())
    with pytest.raises(BadInput, match="so --public-url must say"):
        plan(remote(public_url=None, tls_cert=files[0], tls_key=files[1]))
    with pytest.raises(BadInput, match="callers reach this server by TLS; write https://"):
        plan(remote(public_url=f"http://{NAME}", trusted_proxies=("10.0.0.1",)))
    own = plan(remote(tls_cert=files[0], tls_key=files[1]))
    assert (own.url(443), own.is_https, own.is_loopback) == (f"https://{ANY}:443", True, False)
    behind = plan(remote(trusted_proxies=("10.0.0.1",), allowed_hosts=("Inforce-1",)))
    assert (behind.url(80), behind.is_https) == (f"http://{ANY}:80", True)
    assert behind.hosts == {"localhost", "127.0.0.1", "[::1]", NAME, "inforce-1"}
    # A wildcard is no name; an address is.
    assert "10.1.2.3" in plan(remote(host="10.1.2.3", trusted_proxies=("10.0.0.1",))).hosts
    assert plan(NetworkSettings(public_url=f"http://{NAME}:8000", signs_in=True)).is_https is False


@pytest.mark.parametrize("host", ["example.com", "", "127.0.0.1.evil.example", "999.1.1.1"])
def test_a_host_that_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(BadInput, match="IP address of this machine or localhost"):
        plan(NetworkSettings(host, signs_in=True))


@pytest.mark.parametrize(
    "url",
    [
        "inforce.example.com",
        "ftp://a",
        "https://",
        "https://a/b",
        "https://a?b",
        "https://u@a",
        "https://a:b",
        "https://a#b",
    ],
)
def test_a_public_url_is_scheme_host_and_port(url: str) -> None:
    with pytest.raises(BadInput, match="is not of the form"):
        public_host(url)


def test_public_urls_give_their_host_name() -> None:
    assert public_host(f"https://{NAME}/") == public_host(f"https://{NAME}:8443") == NAME
    assert public_host("https://[2001:db8::1]:443") == "[2001:db8::1]"


@pytest.mark.parametrize("name", ["", "a:80", "a/b", "u@a", "a?b", "a b/"])
def test_an_allowed_host_is_a_bare_name(name: str) -> None:
    with pytest.raises(BadInput, match="--allowed-hosts takes names or addresses without a port"):
        plan(remote(trusted_proxies=("10.0.0.1",), allowed_hosts=(name,)))


@pytest.mark.parametrize("text", ["proxy", "10.0.0.1/8", "10.0.0.0/33"])
def test_a_trusted_proxy_is_an_address_or_a_network(text: str) -> None:
    with pytest.raises(BadInput, match="--trusted-proxies takes addresses and networks"):
        plan(remote(trusted_proxies=(text,)))


def test_wrong_files_of_tls_are_refused_before_anything_is_opened(files: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = files
    other = tmp_path / "other.pem"
    other.write_bytes(AUTHORITY.issue_cert("other.example").private_key_pem.bytes())
    locked = tmp_path / "locked.pem"
    encrypt = ["openssl", "rsa", "-aes256", "-passout", "pass:hunter2", "-in", str(key), "-out", str(locked)]
    if shutil.which("openssl"):
        encrypt[1] = "pkey"
        subprocess.run(encrypt, check=True, capture_output=True)
    else:
        locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    nothing = tmp_path / "nothing.pem"
    nothing.write_bytes(b"")
    for pair, fault in (
        ((cert, None), "belong together"),
        ((None, key), "belong together"),
        ((cert, tmp_path / "missing.pem"), "missing.pem cannot be read: No such file"),
        ((tmp_path, key), "cannot be read: Is a directory"),
        ((cert, other), "is not that of the certificate in"),
        ((cert, nothing), "holds no private key in PEM"),
        ((cert, cert), "holds no private key in PEM"),
        ((cert, locked), "or one with a password, which is not supported"),
        ((nothing, key), "holds no certificate in PEM"),
        ((key, key), "holds no certificate in PEM"),
    ):
        settings = ServerSettings(network=NetworkSettings("127.0.0.1", *pair))
        with pytest.raises(BadInput, match=fault) as refused:
            serve(f"sqlite:///{tmp_path}/ledger.db", port=0, settings=settings)
        assert "\n" not in refused.value.detail
        assert not (tmp_path / "ledger.db").exists()


def test_a_key_that_others_may_read_is_warned_about(
    files: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = files
    plan(NetworkSettings("127.0.0.1", cert, key))
    assert caplog.messages == []
    open_key = tmp_path / "key.pem"
    open_key.write_bytes(key.read_bytes())
    open_key.chmod(0o640)
    plan(NetworkSettings("127.0.0.1", cert, open_key))
    assert "may be read by others than its owner (mode 0640); run chmod 600" in caplog.text


@contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.main", "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("inforce listens on https://127.0.0.1:"), line
        yield process, int(line.rsplit(":", 1)[1])
    finally:
        process.kill()
        process.communicate()


def test_the_server_speaks_tls_1_3_with_the_certificate(files: tuple[Path, Path], tmp_path: Path) -> None:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    options = (
        "--no-auth",
        "--tls-cert",
        str(files[0]),
        "--tls-key",
        str(files[1]),
        "--db",
        f"sqlite:///{tmp_path}/l.db",
    )
    with served(*options, "--log-level", "error") as (process, port):
        assert process.stdout is not None
        assert process.stdout.readline().startswith("WARNING: without sign-in")
        connection = http.client.HTTPSConnection("localhost", port, timeout=GIVE_UP_S, context=context)
        connection.request("GET", "/v1/catalog")
        answer = connection.getresponse()
        assert (answer.status, bool(json.loads(answer.read())["settings"])) == (200, True)
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert connection.sock.version() == "TLSv1.3"
        connection.close()
        old = ssl.create_default_context()
        AUTHORITY.configure_trust(old)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(("localhost", port), timeout=GIVE_UP_S) as bare,
            pytest.raises(ssl.SSLError),
        ):
            old.wrap_socket(bare, server_hostname="localhost")
        with socket.create_connection(("localhost", port), timeout=GIVE_UP_S) as bare:
            bare.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP" not in bare.recv(65_536)
        process.terminate()
        assert process.communicate(timeout=GIVE_UP_S) == ("", "")


def test_a_wrong_certificate_is_one_line_and_exit_code_2(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run("serve", "--port", "0", "--tls-cert", str(files[1]), "--tls-key", str(files[1]))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert os.listdir(tmp_path) == []


def test_every_answer_has_the_headers_of_security_and_none_of_cors(tmp_path: Path) -> None:
    local = plan(NetworkSettings(signs_in=False))
    with TestClient(
        create_app(f"sqlite:///{tmp_path}/l.db", listening=local, sign_in=False), base_url="http://localhost"
    ) as client:
        origin = {"Origin": "https://evil.example"}
        preflight = origin | {"Access-Control-Request-Method": "POST"}
        for answer in (
            client.get("/healthz", headers=origin),
            client.get("/metrics", headers=origin),
            client.head("/v1/catalog", headers=origin),
            client.get("/nothing", headers=origin),
            client.put("/healthz", headers=origin),
            client.post("/v1/checks", json={"org_id": "acme"}, headers=origin),
            client.post("/v1/checks", content=b"{", headers=origin | {"Content-Type": "application/json"}),
            client.options("/v1/checks", headers=preflight),
            client.get("/healthz", headers=origin | {"Host": "evil.example"}),
        ):
            headers = answer.headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "strict-transport-security" not in headers
            assert not [name for name in headers if name.startswith("access-control-")]


def test_behind_a_proxy_with_tls_the_public_name_is_served_and_health_by_any_name(tmp_path: Path) -> None:
    listening = plan(remote(trusted_proxies=("10.0.0.1",)))
    with TestClient(create_app(f"sqlite:///{tmp_path}/l.db", listening=listening, sign_in=False)) as client:
        for host, path, status in (
            (NAME, "/v1/catalog", 200),
            (f"{NAME.upper()}:443", "/v1/catalog", 200),
            ("10.1.2.3:8000", "/healthz", 200),
            ("10.1.2.3:8000", "/readyz", 200),
            ("10.1.2.3:8000", "/v1/catalog", 421),
            ("evil.example", "/metrics", 421),
        ):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == status, (host, path)
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert isinstance(client.app.state.proxies, TrustedProxies)  # type: ignore[attr-defined]  # the application's own


def test_a_page_keeps_a_policy_of_its_own(tmp_path: Path) -> None:
    app = create_app(f"sqlite:///{tmp_path}/l.db", sign_in=False)
    own = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

    @app.get("/page")
    def page() -> object:
        from starlette.responses import HTMLResponse

        return HTMLResponse("<p>", headers={"Content-Security-Policy": own, "Referrer-Policy": "unsafe-url"})

    with TestClient(app) as client:
        headers = client.get("/page").headers
    assert headers.get_list("content-security-policy") == [own]
    assert headers.get_list("referrer-policy") == ["no-referrer"]


def test_nothing_is_logged_for_good_settings(files: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "inforce")
    plan(remote(tls_cert=files[0], tls_key=files[1], trusted_proxies=("10.0.0.0/8", "::1")))
    assert caplog.records == []
