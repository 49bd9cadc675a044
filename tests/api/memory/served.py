"""A real server whose memory is watched: at rest, and the most that it held since."""

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.api.server_process import running, talk

MIB = 1 << 20
SURPLUS = 128 * MIB
_ESTABLISHED = "01"


class Served(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    def status(self, name: str) -> int:
        """A size from the process's status, in bytes: VmRSS (now) or VmHWM (the most)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(name)

    @contextmanager
    def bounded_memory(self, record: Any) -> Iterator[None]:
        """Fails if the server held more than twice its memory at rest and 128 MB within the block."""
        rest = self.status("VmRSS")
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # The most begins anew.
        yield
        most = self.status("VmHWM")
        record("figure", f"server memory: {rest // MIB} MiB at rest, at most {most // MIB} MiB")
        assert most <= 2 * rest + SURPLUS, f"{rest // MIB} MiB at rest, then {most // MIB} MiB"

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, _, text = talk(self.port, method, path, None if body is None else json.dumps(body))
        return status, json.loads(text)

    def submit(self, *bodies: Any) -> None:
        for body in bodies:
            status, answer = self.ask("POST", "/v1/events", body)
            assert status == 201, answer

    def unended(self) -> int:
        """How many connections the server, or its kernel, has not ended. Their clients need not read to see it."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(int(words[1].rpartition(":")[2], 16) == self.port and words[3] == _ESTABLISHED for words in lines)

    @contextmanager
    def connections(self, count: int, sent: bytes = b"", receive_buffer: int = 4096) -> Iterator[list[socket.socket]]:
        """Open connections that sent these bytes and read nothing."""
        with ExitStack() as stack:
            sockets = []
            for _ in range(count):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                client.settimeout(10)
                client.connect(("127.0.0.1", self.port))
                if sent:
                    client.sendall(sent)
                sockets.append(client)
            yield sockets


@contextmanager
def served(place: Path | str, before: str = "") -> Iterator[Served]:
    """`place`: a folder for a new ledger on SQLite, or the URL of any."""
    url = place if isinstance(place, str) else f"sqlite:///{place}/ledger.db"
    with running(url, before=before) as (process, port):
        server = Served(process, port)
        assert server.ask("GET", "/v1/catalog")[0] == 200
        assert server.ask("POST", "/v1/checks", {"org_id": "acme"})[0] == 200
        yield server


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """The bytes of a request with a JSON body, or with only its beginning if a header names another length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def large_set(count: int = 256, bytes_: int = 61_440) -> Sequence[str]:
    """Members of a set whose JSON has this size."""
    length = (bytes_ - 1) // count - 3
    return [f"{number:04}".ljust(length, "x") for number in range(count)]
