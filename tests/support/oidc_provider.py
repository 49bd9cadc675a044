"""An OpenID Connect provider in a process of its own: discovery and keys over loopback, honest or not.

`python -m tests.support.oidc_provider` prints its address, then answers each line of its standard input, a JSON list
`[command, arguments…]`, with a line of JSON. Its keys never leave it: it signs what it is asked to sign.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.jwt_signing import PrivateKey, jwk_of, new_key, sign

REPOSITORY = Path(__file__).resolve().parents[2]
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/keys"
ALGORITHMS = {"RSA": "RS256", "P-256": "ES256", "Ed25519": "EdDSA"}


class OidcProvider:
    """The provider as tests see it. `issuer`: its URL."""

    def __init__(self, process: subprocess.Popen[str], issuer: str) -> None:
        self._process = process
        self.issuer = issuer

    def _ask(self, command: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def sign(self, claims: dict[str, Any], kid: str | None = "newest", **header: Any) -> bytes:
        """A token with these claims. `kid`: of the key to sign with. A header member that is None is left out."""
        return str(self._ask("sign", claims, kid, header)).encode()

    def rotate(self, kind: str = "RSA", keep: int = 0, **members: Any) -> str:
        """Begins a new key, and publishes it with the `keep` newest before it. Returns its kid."""
        return str(self._ask("rotate", kind, keep, members))

    def publish(self, document: Any) -> None:
        """Serves this as the key set, until the next `rotate`."""
        self._ask("publish", document)

    def document(self) -> dict[str, Any]:
        """The key set that it serves."""
        document: dict[str, Any] = self._ask("document")
        return document

    def behave(self, manner: str) -> None:
        """`honest`, or one of the manners of `_Handler`."""
        self._ask("behave", manner)

    def stop(self) -> None:
        """Refuses connections, until `start`."""
        self._ask("stop")

    def start(self) -> None:
        self._ask("start")

    def hits(self) -> dict[str, int]:
        """Path → requests so far."""
        hits: dict[str, int] = self._ask("hits")
        return hits


@contextmanager
def running_provider() -> Iterator[OidcProvider]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.oidc_provider"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield OidcProvider(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


class _Provider:
    """The provider in its own process."""

    def __init__(self) -> None:
        self.manner = "honest"
        self.hits: dict[str, int] = {}
        self.keys: dict[str, tuple[str, PrivateKey]] = {}
        self.published: Any = None
        self._begun = 0
        self.server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()
        self.rotate("RSA", 0, {})

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), _Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()

    def rotate(self, kind: str, keep: int, members: dict[str, Any]) -> str:
        self._begun += 1
        kid = f"key-{self._begun}"
        self.keys[kid] = kind, new_key(kind)
        published = list(self.keys)[-1 - keep :]
        self.published = {
            "keys": [
                jwk_of(self.keys[one][1], kid=one, use="sig", **(members if one == kid else {})) for one in published
            ]
        }
        return kid

    def publish(self, document: Any) -> None:
        self.published = document

    def document(self) -> Any:
        return self.published

    def behave(self, manner: str) -> None:
        self.manner = manner

    def sign(self, claims: dict[str, Any], kid: str | None, header: dict[str, Any]) -> str:
        signer = list(self.keys)[-1] if kid in (None, "newest") else str(kid)
        kind, key = self.keys[signer]
        full = {"typ": "JWT", "alg": ALGORITHMS[kind], "kid": None if kid is None else signer, **header}
        return sign({name: value for name, value in full.items() if value is not None}, claims, key)

    def answer(self, path: str) -> bytes:
        if path == DISCOVERY:
            issuer = "http://127.0.0.1:1" if self.manner == "wrong issuer" else self.issuer
            uri = {"bad jwks_uri": "http://192.0.2.1/keys"}.get(self.manner, self.issuer + JWKS)
            return json.dumps({"issuer": issuer, "jwks_uri": uri}).encode()
        return b"<html>" if self.manner == "not json" else json.dumps(self.published).encode()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        provider = PROVIDER[0]
        provider.hits[self.path] = provider.hits.get(self.path, 0) + 1
        # The client hangs up, as it should on some of these.
        with suppress(OSError):
            self._answer(provider)

    def _answer(self, provider: _Provider) -> None:
        match provider.manner:
            case "silent":
                time.sleep(3600)
            case "dripping head":
                self._drip(b"HTTP/1.1 200 OK\r\nX-Filler: ")
            case "dripping body":
                self._drip(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
            case "redirecting":
                self._head(302, Location=f"http://127.0.0.1:{provider.port}/elsewhere")
            case "failing":
                self._head(500)
            case "compressing":
                self._head(200, Content_Encoding="gzip")
            case "huge" if self.path == JWKS:
                self._head(200)
                while True:
                    self.wfile.write(b" " * 65_536)
            case _:
                body = provider.answer(self.path)
                self._head(200, Content_Length=str(len(body)), Content_Type="application/json")
                self.wfile.write(body)

    def _head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _drip(self, begin: bytes) -> None:
        self.wfile.write(begin)
        while True:
            self.wfile.write(b"1")
            time.sleep(0.02)


PROVIDER: list[_Provider] = []


def main() -> None:
    provider = _Provider()
    PROVIDER.append(provider)
    print(provider.issuer, flush=True)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        value = provider.hits if command == "hits" else getattr(provider, command)(*arguments)
        print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
